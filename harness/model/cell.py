"""What one VM boot decides: a cell, and the identity of the kernel it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Series(StrEnum):
    """The kernel.org release category that a kernel of the matrix stands for."""

    LONGTERM = "longterm"
    STABLE = "stable"
    MAINLINE = "mainline"
    NEXT = "linux-next"


@dataclass(frozen=True, slots=True)
class DebianKernel:
    """A kernel from a Debian archive.

    ``version`` narrows to an upstream series (``6.12``), ``release`` names one ``uname -r`` exactly, or ``latest``.
    """

    suite: str
    version: str | None = None
    release: str = "latest"
    flavour: str = "amd64"


@dataclass(frozen=True, slots=True)
class TreeKernel:
    """A kernel from a local build tree (an object directory with ``vmlinux`` or ``arch/x86/boot/bzImage``)."""

    path: str


@dataclass(frozen=True, slots=True)
class KernelSpec:
    """One entry of the ``kernels`` axis: what is asked for, before it is resolved to an exact release."""

    name: str
    series: Series
    source: DebianKernel | TreeKernel
    cmdline: str = ""
    """Arguments appended to the guest kernel's command line."""


@dataclass(frozen=True, slots=True)
class KernelIdentity:
    """What a :class:`KernelSpec` was resolved to; every field is recorded with the result."""

    release: str
    """Exactly what ``uname -r`` must print."""
    version: str
    """Package version, or ``git describe`` of a tree."""
    source: str
    """Human-readable origin: ``debian trixie`` or ``tree /home/me/linux``."""
    digest: str
    """SHA-256 over the digests of all parts (packages, or files of a tree): the cache key of what is made of it."""
    parts: tuple[tuple[str, str], ...] = ()
    """(name, sha256) of each package or file."""
    has_headers: bool = False
    """Whether a stack can build modules for it."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds allowed for each part of a cell under hardware acceleration; emulation multiplies them."""

    image: float = 1800.0
    build: float = 1800.0
    boot: float = 120.0
    activate: float = 120.0
    test: float = 120.0
    cell: float = 3600.0


@dataclass(frozen=True, slots=True)
class Cell:
    """One (guest, kernel, stack, device) of the matrix with everything needed to execute it."""

    guest: str
    kernel: KernelSpec
    stack: str
    device: str = "none"
    tests: tuple[str, ...] = ()
    boots: int = 1
    timeouts: Timeouts = field(default_factory=Timeouts)

    @property
    def id(self) -> str:
        """Stable between runs: it names the axes' entries, never an exact release."""
        return f"{self.guest}/{self.kernel.name}/{self.stack}/{self.device}"

    @property
    def slug(self) -> str:
        """The id as a file name."""
        return self.id.replace("/", "__").replace(":", "-")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A combination of the axes that is not a cell, and why; it is shown, never dropped silently."""

    cell_id: str
    reason: str
