"""What this host has that a VM could be lent: its GPUs, each with everything that must go along.

A GPU is found by its class, of whatever vendor. What is in one IOMMU group can reach each other's memory unseen by the
IOMMU, so the kernel hands out whole groups only (driver-api/vfio.rst). Bridges stay with the host.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness.devices import sysfs
from harness.devices.pci import read_functions
from harness.model.device import PassthroughUnit, PciFunction

GROUPS = "sys/kernel/iommu_groups"
"""Below the root."""
_FAKE = "vfio-noiommu"
"""Name of a group that the kernel makes up where there is no IOMMU (drivers/vfio/group.c)."""
_SLOT = slice(None, -2)
"""Of an address: all but the function."""


def units(root: Path = Path("/")) -> tuple[PassthroughUnit, ...]:
    """Every unit of the host that has a GPU, by the GPU's address."""
    return units_of(read_functions(root))


def units_of(functions: Iterable[PciFunction]) -> tuple[PassthroughUnit, ...]:
    """Make units of functions that were read at one time."""
    members: dict[int | str, list[PciFunction]] = {}
    for function in functions:
        if not function.is_bridge:
            key = function.address[_SLOT] if function.group is None else function.group
            members.setdefault(key, []).append(function)
    found = [
        PassthroughUnit(tuple(sorted(group, key=lambda one: one.address)))
        for group in members.values()
        if any(function.is_gpu for function in group)
    ]
    return tuple(sorted(found, key=lambda unit: unit.address))


def same_slot(one: PciFunction, other: PciFunction) -> bool:
    """Whether both are functions of one device."""
    return one.address[_SLOT] == other.address[_SLOT]


def real_groups(root: Path) -> int:
    """How many IOMMU groups the host has; groups that stand for no IOMMU do not count."""
    groups = sysfs.children(root / GROUPS)
    return sum(sysfs.text(group / "name") != _FAKE for group in groups)


def is_real_group(root: Path, group: int | None) -> bool:
    """Whether a group is one that an IOMMU keeps apart from the others."""
    return group is not None and sysfs.text(root / GROUPS / str(group) / "name") != _FAKE
