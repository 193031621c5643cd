"""NVLink fabrics: which GPUs of a host are on one, and whether anybody could set it up for a guest.

The NVSwitches of a board stay with the host, whatever GPU of it is lent. In a guest CUDA does not start before its
Fabric Manager has activated a partition with the GPUs. Source: NVIDIA's Fabric Manager User Guide ("Shared NVSwitch
Virtualization Model", ``FABRIC_MODE=1``).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness.devices import sysfs
from harness.model.device import PassthroughUnit, PciFunction

_NVIDIA = 0x10DE
_SWITCH, _GPU = 0x0680, 0x0302
"""Classes of NVSwitches, and of the GPUs that are soldered beside them."""
MANAGER = "nv-fabricmanager"
_SEEN = MANAGER[:15]
"""The kernel keeps so many letters of a process's name."""


def switches_beside(unit: PassthroughUnit, functions: Iterable[PciFunction]) -> tuple[str, ...]:
    """Addresses of the NVSwitches of the fabric that a unit's GPUs are on; none where they are on none."""
    if not any((gpu.vendor, gpu.class_code >> 8) == (_NVIDIA, _GPU) for gpu in unit.gpus):
        return ()
    return tuple(one.address for one in functions if (one.vendor, one.class_code >> 8) == (_NVIDIA, _SWITCH))


def describe(switches: tuple[str, ...]) -> str:
    """``4 NVSwitches, 0000:05:00.0, …``."""
    return f"{len(switches)} NVSwitches, {switches[0]}, …"


def manager_runs(root: Path) -> bool:
    """Whether a Fabric Manager runs on the host below ``root``."""
    processes = (path for path in sysfs.children(root / "proc") if path.name.isdecimal())
    return any(sysfs.text(process / "comm") == _SEEN for process in processes)


def no_nvlink(switches: tuple[str, ...], managed: bool) -> str:
    """Why GPUs beside these switches cannot reach each other over NVLink in a guest; empty when they may."""
    if not switches:
        return "it is on no NVLink fabric, as no NVSwitch of this host belongs to it"
    if not managed:
        return (
            f"its NVLink fabric ({describe(switches)}) stays with the host, where no Fabric Manager runs that could "
            "set it up for a guest (start nvidia-fabricmanager with FABRIC_MODE=1 and activate a partition)"
        )
    return ""
