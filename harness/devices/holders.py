"""Who uses a device: the processes that have a node of it open.

To take a driver from a device in use can hang for ever (nvidia) or bring the host down, so this is asked first. Which
nodes belong to a device is read from sysfs; who holds them, from ``/proc/*/fd``. A process whose descriptors may not be
read makes the answer *incomplete*, which is not the same as *nobody*. So does a name space of processes: in a container
the host's are not to be seen. What a process has mapped and closed again goes unnoticed.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.devices import sysfs
from harness.model.device import PassthroughUnit, PciFunction

_CLASSES = {"drm": "dri", "accel": "accel", "sound": "snd", "graphics": "", "vfio-dev": "vfio/devices"}
"""Class of a device in sysfs → folder of its nodes in ``/dev``."""
_FIRST_NAMESPACE = "pid:[4026531836]"
"""The name space of processes that the kernel booted with: PROC_PID_INIT_INO in its include/linux/proc_ns.h."""
_NVIDIA_MAJOR = 195
"""Documentation/admin-guide/devices.txt of the kernel."""
_NVIDIA_SHARED = "/dev/nvidiactl"
_MOST_DESCRIPTORS = 65536


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has nodes of the device open."""

    pid: int
    command: str
    """Name of its program, printable and at most 64 characters."""
    nodes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.command} (pid {self.pid}) {', '.join(self.nodes)}"


@dataclass(frozen=True, slots=True)
class Holders:
    """The answer."""

    found: tuple[Holder, ...]
    unseen: str = ""
    """Why some may be missing; empty when all processes were looked at."""


@dataclass(frozen=True, slots=True)
class _Nodes:
    paths: frozenset[str]
    numbers: frozenset[tuple[int, int]]
    """Major and minor: a container may give a node another name."""


def holders(unit: PassthroughUnit, root: Path = Path("/")) -> Holders:
    """Look who holds a unit now."""
    return holders_of([unit], root)[unit.address]


def holders_of(units: Iterable[PassthroughUnit], root: Path = Path("/")) -> dict[str, Holders]:
    """Look once for several units; by address of the unit."""
    nodes = {unit.address: _nodes(unit, root) for unit in units}
    found: dict[str, list[Holder]] = {address: [] for address in nodes}
    hidden = 0
    for process in sysfs.children(root / "proc"):
        if not process.name.isdecimal():
            continue
        held = _descriptors(process)
        if held is None:
            hidden += process.is_dir()  # else it ended meanwhile
            continue
        for address, wanted in nodes.items():
            mine = sorted({path for path, number in held if path in wanted.paths or number in wanted.numbers})
            if mine:
                command = sysfs.text(process / "comm")[:64] or "?"
                found[address].append(Holder(int(process.name), command, tuple(mine)))
    unseen = _unseen(root, hidden)
    return {address: Holders(tuple(some), unseen) for address, some in found.items()}


def _unseen(root: Path, hidden: int) -> str:
    space = sysfs.link_name(root / "proc/self/ns/pid")
    if space and space != _FIRST_NAMESPACE:
        return "this process is in a container and does not see the host's processes"
    if hidden:
        return f"{hidden} processes of other users may not be looked at; run as root"
    return "" if (root / "proc/self").exists() else "there is no /proc"


def _nodes(unit: PassthroughUnit, root: Path) -> _Nodes:
    paths: set[str] = set()
    numbers: set[tuple[int, int]] = set()
    homes = [home for one in unit.functions if (home := sysfs.real(root / "sys/bus/pci/devices" / one.address))]
    for kind, folder in _CLASSES.items():
        for member in sysfs.children(root / "sys/class" / kind):
            place = sysfs.real(member)
            number = _number(member / "dev")
            if place is not None and number is not None and any(place.is_relative_to(home) for home in homes):
                paths.add(str(Path("/dev", folder, member.name)))
                numbers.add(number)
    if unit.group is not None:
        paths.add(f"/dev/vfio/{unit.group}")
        number = _number(root / f"sys/class/vfio/{unit.group}/dev")
        numbers |= {number} if number else set()
    for function in unit.functions:
        _add_nodes_outside_sysfs(function, root, paths, numbers)
    return _Nodes(frozenset(paths), frozenset(numbers))


def _add_nodes_outside_sysfs(function: PciFunction, root: Path, paths: set[str], numbers: set[tuple[int, int]]) -> None:
    if function.driver == "nvidia":
        said = sysfs.text(root / f"proc/driver/nvidia/gpus/{function.address}/information")
        match = re.search(r"^Device Minor:\s+(\d{1,3})$", said, re.MULTILINE)
        if match:
            paths.add(f"/dev/nvidia{match[1]}")
            numbers.add((_NVIDIA_MAJOR, int(match[1])))
        else:  # which of them it is cannot be told, so each client of the driver counts
            paths.add(_NVIDIA_SHARED)
            numbers.add((_NVIDIA_MAJOR, 255))
    if function.driver == "amdgpu":
        # One node for all: a process that opens it is known to every GPU that the driver has (kfd_process.c).
        paths.add("/dev/kfd")
        number = _number(root / "sys/class/kfd/kfd/dev")
        numbers |= {number} if number else set()


def _number(path: Path) -> tuple[int, int] | None:
    match = re.fullmatch(r"(\d{1,4}):(\d{1,8})", sysfs.text(path))
    return (int(match[1]), int(match[2])) if match else None


def _descriptors(process: Path) -> set[tuple[str, tuple[int, int] | None]] | None:
    """What a process has open, as (path, number of the device); None when that may not be read."""
    held: set[tuple[str, tuple[int, int] | None]] = set()
    try:
        with os.scandir(process / "fd") as entries:
            for count, entry in enumerate(entries):
                if count >= _MOST_DESCRIPTORS:
                    break
                link = _link(Path(entry.path))
                if link.startswith("/"):
                    held.add((link, _device(entry) if link.startswith("/dev/") else None))
    except OSError:
        return None
    return held


def _link(path: Path) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115  Path.readlink would give up the text for a path
    except OSError:
        return ""


def _device(entry: os.DirEntry[str]) -> tuple[int, int] | None:
    try:
        status = entry.stat()
    except OSError:
        return None
    return (os.major(status.st_rdev), os.minor(status.st_rdev)) if stat.S_ISCHR(status.st_mode) else None
