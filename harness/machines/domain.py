"""The libvirt domain of a cell, as data and as XML.

The XML is validated by libvirt's own schema when it is created (``VIR_DOMAIN_START_VALIDATE``), so a typo here fails
at once. Devices have fixed addresses on the root bus: without them libvirt adds a PCIe root port for each, and probing
those is the guest's time.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from harness.machines.passthrough import Passthrough
from harness.machines.sysrq import ALLOW

Accelerator = Literal["kvm", "qemu"]
"""``qemu`` is libvirt's word for plain emulation (TCG)."""

EMULATED_CPU = "Westmere"
"""The processor that is emulated: x86-64-v2, without AVX. "All that the emulator can do" is a processor that was never
built, an AMD of 2007 with AVX2: run-time compilers mistake it, and QEMU before 10 faults in its gathers."""
EMULATED_FEATURES = ("smep", "smap", "umip", "fsgsbase", "rdrand", "rdseed")
"""What it has beyond that: a kernel of today guards itself by these, and they need no wider registers."""


WINDOW = "name=opt/ovmf/X-PciMmio64Mb,string="
"""How OVMF is told the MiB of addresses above 4 GiB to set aside."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A read-only raw file seen by the guest as a virtio disk with this serial number."""

    serial: str
    path: Path
    target: str
    slot: int
    first: bool = False
    """Whether firmware starts from it."""


@dataclass(frozen=True, slots=True)
class Domain:
    """Everything that decides the XML."""

    name: str
    cell_id: str
    run_id: str
    accelerator: Accelerator
    emulator: str
    kernel: Path
    initramfs: Path
    cmdline: str
    disks: tuple[Disk, ...]
    ssh_port: int
    """Port on 127.0.0.1 that leads to the guest's port 22."""
    memory: int = 1 << 30
    """Bytes."""
    vcpus: int = 1
    loader: Path | None = None
    """UEFI firmware; without it a BIOS starts the kernel."""
    secure: bool = False
    """Whether the firmware has Secure Boot on and starts from the first disk; otherwise the kernel is handed to it."""
    passthrough: Passthrough = field(default_factory=Passthrough)
    variables: Path | None = None
    """The firmware's variables, writable, of this boot alone."""
    privileged: bool = True
    """Whether libvirt runs as root and would change the owner of the files that it opens."""
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def mac(self) -> str:
        """A locally administered address that follows from the uuid."""
        tail = uuid.UUID(self.uuid).bytes[-3:]
        return "52:54:00:" + ":".join(f"{byte:02x}" for byte in tail)

    @property
    def qemu_arguments(self) -> tuple[str, ...]:
        """Words for QEMU that libvirt has no element for.

        ``restrict=on`` shuts the guest in: only the forwarded SSH port exists, neither the host nor the network can
        be reached from inside. passt, libvirt's other way without privileges, has no such switch.
        """
        forward = f"hostfwd=tcp:127.0.0.1:{self.ssh_port}-:22"
        window = self.passthrough.window
        return (
            *(("-fw_cfg", f"{WINDOW}{window}") if window and self.loader else ()),
            "-netdev",
            f"user,id=kdmatrix0,ipv6=off,restrict=on,{forward}",
            "-device",
            f"virtio-net-pci,netdev=kdmatrix0,mac={self.mac},romfile=,bus=pcie.0,addr=0x2",
        )

    def xml(self) -> str:
        """The domain in libvirt's XML."""
        return _template().render(d=self, cpu=EMULATED_CPU, features=EMULATED_FEATURES)


def disks_for(layers: tuple[tuple[str, Path], ...]) -> tuple[Disk, ...]:
    """Give each (serial, path) a target name and a slot on the root bus."""
    return tuple(
        Disk(serial, path, f"vd{chr(ord('a') + index)}", 4 + index) for index, (serial, path) in enumerate(layers)
    )


def firmware_disk(partition: Path, after: tuple[Disk, ...]) -> Disk:
    """The disk that firmware starts from, behind the layers."""
    return Disk("esp", partition, f"vd{chr(ord('a') + len(after))}", 4 + len(after), first=True)


def kernel_cmdline(accelerator: Accelerator, *extra: str) -> str:
    """The kernel's arguments: console on the serial port, and a panic that ends the VM at once.

    ``panic=-1`` reboots without waiting, which ``on_reboot`` turns into the end of the domain. A silent kernel is
    asked by SysRq what it waits for. Under emulation the timer check of the I/O APIC is meaningless and costs time.
    """
    words = ["console=ttyS0,115200", "panic=-1", "8250.nr_uarts=1", ALLOW]
    if accelerator == "qemu":
        words.append("no_timer_check")
    return " ".join([*words, *(word for word in extra if word)])


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("harness.machines", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("domain.xml.j2")
