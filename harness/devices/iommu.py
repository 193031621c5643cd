"""Whether this host can keep a lent device's memory accesses and interrupts inside its VM, and what to change if not.

An IOMMU that is off cannot be worked around, and interrupt remapping is not optional either: a device could forge
interrupts of others. ``vfio_iommu_type1.allow_unsafe_interrupts`` would hide that and is never set here. Sources:
driver-api/vfio.rst and admin-guide/kernel-parameters.txt of the kernel; arch/x86/kernel/apic and drivers/iommu for the
names of interrupt chips (``IR-PCI-MSI``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from harness.devices import sysfs
from harness.devices.inventory import real_groups

_INTEL, _AMD = "GenuineIntel", ("AuthenticAMD", "HygonGenuine")
_MODULE = re.compile(r"/vfio-pci\.ko(\.[a-z0-9]+)?(:|$)", re.MULTILINE)
_LONG = 8 << 20


@dataclass(frozen=True, slots=True)
class Iommu:
    """What the host's IOMMU does."""

    groups: int
    """How many groups of devices it keeps apart; none when it is off."""
    remapping: bool | None
    """Whether interrupts are remapped; None when it cannot be told, or the question is none of this architecture."""
    unsafe: bool
    """Whether somebody has told vfio to do without remapping."""
    fix: str
    """How to turn on what is off; empty when nothing is."""

    @property
    def on(self) -> bool:
        """Whether devices are kept apart at all."""
        return self.groups > 0


@dataclass(frozen=True, slots=True)
class VfioModule:
    """The driver that holds a device while it is lent."""

    there: bool
    found: str
    fix: str = ""


def read_iommu(root: Path = Path("/")) -> Iommu:
    """Look at the IOMMU of the host below ``root``."""
    groups = real_groups(root)
    remapping = _remapping(root) if groups else None
    unsafe = sysfs.text(root / "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts") in ("Y", "1")
    fix = ""
    if not groups:
        fix = _how_to_turn_on(root)
    elif remapping is False:
        fix = _how_to_remap(root)
    return Iommu(groups, remapping, unsafe, fix)


def read_vfio(root: Path = Path("/")) -> VfioModule:
    """Whether vfio-pci is loaded, built in, or there to be loaded."""
    if (root / "sys/module/vfio_pci").is_dir() or (root / "sys/bus/pci/drivers/vfio-pci").is_dir():
        return VfioModule(True, "loaded")
    release = sysfs.text(root / "proc/sys/kernel/osrelease")
    if not re.fullmatch(r"[\w.+~-]{1,100}", release):
        return VfioModule(False, "not loaded, and the release of the running kernel is not known")
    modules = root / "lib/modules" / release
    if not modules.is_dir():
        found = f"not loaded, and the modules of the running kernel {release} are not installed"
        return VfioModule(False, found, "reboot into the kernel that is installed")
    for name, how in (("modules.dep", "installed, loaded when needed"), ("modules.builtin", "built into the kernel")):
        if _MODULE.search((sysfs.data(modules / name, _LONG) or b"").decode("ascii", "replace")):
            return VfioModule(True, how)
    return VfioModule(False, f"kernel {release} has no vfio-pci", "boot a kernel with CONFIG_VFIO_PCI=m")


def _remapping(root: Path) -> bool | None:
    if _vendor(root) not in (_INTEL, *_AMD):
        return None
    chips = [sysfs.text(path / "chip_name") for path in sysfs.children(root / "sys/kernel/irq")]
    known = [chip for chip in chips if re.match(r"(IR-|AMD-IR)?(IO-APIC|PCI-MSI|HPET)", chip)]
    return any(chip.startswith(("IR-", "AMD-IR")) for chip in known) if known else None


def _vendor(root: Path) -> str:
    match = re.search(r"^vendor_id\s*:\s*(\S{1,40})", sysfs.text(root / "proc/cpuinfo"), re.MULTILINE)
    return match[1] if match else ""


def _is_guest(root: Path) -> bool:
    return re.search(r"^flags\s*:.* hypervisor( |$)", sysfs.text(root / "proc/cpuinfo"), re.MULTILINE) is not None


def _how_to_turn_on(root: Path) -> str:
    words = sysfs.text(root / "proc/cmdline").split()
    against = next((word for word in words if word in ("iommu=off", "intel_iommu=off", "amd_iommu=off")), "")
    vendor = _vendor(root)
    if against:
        add = " and add intel_iommu=on iommu=pt" if vendor == _INTEL else ""
        return f"remove {against} from the kernel command line{add}, then reboot"
    if _is_guest(root):
        if vendor in _AMD:
            return "this host is a VM: give it an IOMMU (QEMU: -device amd-iommu,intremap=on)"
        device = "give it an IOMMU (QEMU: -device intel-iommu,intremap=on)"
        return f"this host is a VM: {device} and the kernel argument intel_iommu=on"
    tables = root / "sys/firmware/acpi/tables"
    if vendor == _INTEL:
        if (tables / "DMAR").exists() and "intel_iommu=on" not in words:
            return "add intel_iommu=on iommu=pt to the kernel command line, then reboot"
        also = "" if "intel_iommu=on" in words else "; add intel_iommu=on iommu=pt to the kernel command line"
        return f"turn on VT-d (Intel Virtualization Technology for Directed I/O) in the firmware's setup{also}"
    if vendor in _AMD:
        if (tables / "IVRS").exists():
            return "add iommu=pt to the kernel command line and boot a kernel with CONFIG_AMD_IOMMU=y"
        return "turn on the IOMMU (AMD-Vi) in the firmware's setup; Linux then uses it without a kernel argument"
    return "turn on the IOMMU (SMMU) in the firmware's setup"


def _how_to_remap(root: Path) -> str:
    words = sysfs.text(root / "proc/cmdline").split()
    against = next((word for word in words if word in ("intremap=off", "nointremap")), "")
    if against:
        return f"remove {against} from the kernel command line, then reboot"
    if _is_guest(root):
        return "this host is a VM: give its IOMMU intremap=on"
    return (
        "turn on interrupt remapping (often called x2APIC) in the firmware's setup or update the firmware; "
        "where the chipset's is broken, as in early X58 and 5520, the kernel keeps it off: use another host"
    )
