"""The PCI functions of a host, as the kernel publishes them below ``/sys/bus/pci/devices``.

Sources: sysfs-bus-pci and sysfs-bus-vfio in Documentation/ABI/testing of the kernel, include/linux/ioport.h for the
flags of a window, drivers/pci/pci-sysfs.c for the text of each file. Reading changes nothing. (Of a GPU that sleeps in
D3cold the kernel wakes the link when its speed is asked for, as ``lspci`` does.)
"""

from __future__ import annotations

import re
from pathlib import Path

from harness.devices import sysfs
from harness.errors import InfraError
from harness.model.device import Bar, Link, MdevType, PciFunction

DEVICES = "sys/bus/pci/devices"
"""Below the root: one link for each function."""
_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-1][0-9a-f]\.[0-7]")
"""Domain (more than four digits behind a VMD controller), bus, slot, function."""
_MEMORY, _PREFETCHABLE, _WIDE = 0x200, 0x2000, 0x100000
"""IORESOURCE_MEM, IORESOURCE_PREFETCH, IORESOURCE_MEM_64."""
_BARS = 6
"""Windows of a function; the lines after them are the expansion ROM and what SR-IOV and bridges hand on."""
_WIDEST = 32
"""Lanes; a device that is gone reports more."""
_UNKNOWN_CLASS = 0


def is_address(word: str) -> bool:
    """Whether a word is a full PCI address: ``0000:01:00.0``."""
    return _ADDRESS.fullmatch(word) is not None


def read_functions(root: Path = Path("/")) -> tuple[PciFunction, ...]:
    """Return every function of the host below ``root``, by address; one that vanishes meanwhile is left out."""
    found = []
    for path in sysfs.children(root / DEVICES):
        if is_address(path.name) and path.exists():
            found.append(_read(path))
    return tuple(found)


def read_function(root: Path, address: str) -> PciFunction:
    """Return one function.

    Raises:
        InfraError: there is no such function now.
    """
    path = root / DEVICES / address
    if not is_address(address) or not path.exists():
        raise InfraError(f"there is no PCI device {address} on this host")
    return _read(path)


def _read(path: Path) -> PciFunction:
    return PciFunction(
        address=path.name,
        vendor=sysfs.number(path / "vendor", 0xFFFF) or 0,
        device=sysfs.number(path / "device", 0xFFFF) or 0,
        class_code=sysfs.number(path / "class", 0xFFFFFF) or _UNKNOWN_CLASS,
        subsystem=(
            sysfs.number(path / "subsystem_vendor", 0xFFFF) or 0,
            sysfs.number(path / "subsystem_device", 0xFFFF) or 0,
        ),
        revision=sysfs.number(path / "revision", 0xFF) or 0,
        driver=sysfs.link_name(path / "driver"),
        override=_override(path),
        group=_group(path),
        reset_methods=tuple(sysfs.text(path / "reset_method").split()),
        bars=_bars(path),
        resizable=any(re.fullmatch(r"resource\d_resize", name) for name in sysfs.names(path)),
        link=_link(path),
        numa_node=sysfs.number(path / "numa_node", 0xFFFF),  # -1, when firmware does not say, is None as well
        boot_vga=sysfs.number(path / "boot_vga") == 1,
        power_state=sysfs.text(path / "power_state")[:16],
        bridges=_bridges(path),
        total_vfs=sysfs.number(path / "sriov_totalvfs", 0xFFFF) or 0,
        vfs=_virtual_functions(path),
        physical=_address_of(path / "physfn"),
        mdev_types=_mdev_types(path),
        driver_version=sysfs.text(path / "driver" / "module" / "version")[:64],
    )


def _override(path: Path) -> str:
    # Older kernels (6.1) show it under the device's lock, which a driver that hangs while it lets go keeps for ever:
    # who reads then hangs with it. The link to the driver goes first, so a function without one is not asked.
    if not (path / "driver").is_symlink():
        return ""
    found = sysfs.text(path / "driver_override")
    return "" if found == "(null)" else found


def _group(path: Path) -> int | None:
    name = sysfs.link_name(path / "iommu_group")
    return int(name) if name.isdecimal() and name.isascii() and len(name) < 10 else None


def _bars(path: Path) -> tuple[Bar, ...]:
    """``resource`` has a line ``start end flags`` for each window; one with 64 bits uses up the next line, too."""
    found = []
    for index, line in enumerate(sysfs.text(path / "resource").splitlines()[:_BARS]):
        try:
            start, end, flags = (int(word, 16) for word in line.split())
        except ValueError:
            continue
        if flags & _MEMORY and end > start:
            found.append(Bar(index, end - start + 1, bool(flags & _WIDE), bool(flags & _PREFETCHABLE)))
    return tuple(found)


def _link(path: Path) -> Link | None:
    """None for what is not on PCI Express."""
    if not (path / "current_link_speed").exists():
        return None
    return Link(
        _speed(path / "current_link_speed"),
        sysfs.number(path / "current_link_width", _WIDEST) or 0,
        _speed(path / "max_link_speed"),
        sysfs.number(path / "max_link_width", _WIDEST) or 0,
    )


def _speed(path: Path) -> float:
    """GT/s of ``16.0 GT/s PCIe``; zero for ``Unknown``."""
    match = re.match(r"(\d{1,3}(?:\.\d)?) GT/s", sysfs.text(path))
    return float(match[1]) if match else 0.0


def _bridges(path: Path) -> tuple[str, ...]:
    """The real path of a function runs through its bridges: ``…/pci0000:00/0000:00:01.0/0000:01:00.0``."""
    resolved = sysfs.real(path)
    return tuple(part for part in resolved.parts[:-1] if is_address(part)) if resolved else ()


def _address_of(link: Path) -> str:
    name = sysfs.link_name(link)
    return name if is_address(name) else ""


def _virtual_functions(path: Path) -> tuple[str, ...]:
    numbers = [int(name[6:]) for name in sysfs.names(path) if re.fullmatch(r"virtfn\d{1,5}", name)]
    found = (_address_of(path / f"virtfn{number}") for number in sorted(numbers))
    return tuple(address for address in found if address)


def _mdev_types(path: Path) -> tuple[MdevType, ...]:
    found = []
    for kind in sysfs.children(path / "mdev_supported_types"):
        available = sysfs.number(kind / "available_instances", 0xFFFF) or 0
        found.append(MdevType(kind.name, sysfs.text(kind / "name"), available))
    return tuple(found)
