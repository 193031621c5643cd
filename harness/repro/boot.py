"""What a script boots."""

from __future__ import annotations

from dataclasses import dataclass

from harness.images.recipe import Recipes
from harness.machines.domain import Accelerator, Domain, disks_for, kernel_cmdline
from harness.machines.hypervisor import emulator
from harness.model.cell import Cell
from harness.model.image import Image


@dataclass(frozen=True, slots=True)
class Boot:
    """A machine, and the kernel that it must turn out to run."""

    domain: Domain
    """Its ``initramfs`` is the cached one, to which the script appends the seed that it makes itself."""
    release: str
    """What ``uname -r`` must print."""


def boot_of(cell: Cell, image: Image, recipes: Recipes, *, accelerator: Accelerator, memory: int, vcpus: int) -> Boot:
    """Return what a cell boots from an image now; ``memory`` is in bytes.

    Raises:
        InfraError: this host has no QEMU.
    """
    stack, kernel = recipes.stack(cell.guest, cell.stack), image.kernel
    blacklist = f"modprobe.blacklist={','.join(stack.blacklist)}" if stack.blacklist else ""
    extra = " ".join(word for word in (blacklist, stack.cmdline, cell.kernel.cmdline) if word)
    domain = Domain(
        name="kdmatrix-repro",
        cell_id=cell.id,
        run_id="",
        accelerator=accelerator,
        emulator=emulator(),
        kernel=kernel.vmlinux if accelerator == "qemu" and kernel.vmlinux else kernel.vmlinuz,
        initramfs=kernel.initramfs,
        cmdline=kernel_cmdline(accelerator, extra),
        disks=disks_for(tuple((layer.serial, layer.path) for layer in image.layers)),
        ssh_port=22022,
        memory=memory,
        vcpus=vcpus,
    )
    return Boot(domain, kernel.identity.release)
