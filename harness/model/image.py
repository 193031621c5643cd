"""What a cell boots from, as files on the host."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.model.cell import KernelIdentity

if TYPE_CHECKING:  # names of files, which nothing in here opens
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layer:
    """A read-only EROFS file that is attached as a disk."""

    serial: str
    path: Path


@dataclass(frozen=True, slots=True)
class BootKernel:
    """A kernel ready to be booted."""

    identity: KernelIdentity
    vmlinuz: Path
    vmlinux: Path | None
    """The same kernel without its decompressor, for QEMU's PVH entry; None where it has none."""
    initramfs: Path
    config: Path
    modules: Path


@dataclass(frozen=True, slots=True)
class Image:
    """All that a cell boots from."""

    kernel: BootKernel
    layers: tuple[Layer, ...]
    """Topmost first."""
    made: tuple[str, ...] = ()
    """The parts that were not in the cache when this process first wanted them."""

    def with_modules(self, layer: Layer) -> Image:
        """The same image with a stack's own modules above the kernel's."""
        below = next(index for index, one in enumerate(self.layers) if one.serial == "kernel")
        return replace(self, layers=(*self.layers[:below], layer, *self.layers[below:]))
