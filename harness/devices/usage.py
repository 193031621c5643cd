"""What the host itself does with its devices: disks, network interfaces, USB devices and screens, by PCI function.

Everything is found by its place: what lies below a function in ``/sys/devices`` is reached through it, however many
hubs, adapters and partitions are between. Sources: sysfs-block, sysfs-class-net, sysfs-bus-usb and sysfs-class-drm in
Documentation/ABI of the kernel; proc_pid_mountinfo(5); ``/proc/swaps`` in proc(5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import final

from harness.devices import sysfs
from harness.model.device import PciFunction

_LONG = 4 << 20
"""Bytes that are read of a table of the whole host (mounts, routes)."""
_IFF_UP = 0x1
_HUB = "09"
_NO_DISK = re.compile(r"(sr|loop|ram|zram|fd)\d+")
_ROUTE_DEPTH = 8


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk below a function."""

    name: str
    uses: tuple[str, ...]
    """``/``, ``swap``, ``dm-0``: what is known to use it; none known is not the same as none."""


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface below a function."""

    name: str
    up: bool
    default_route: bool
    """Whether what is meant for the rest of the world leaves through it."""


@dataclass(frozen=True, slots=True)
class Screen:
    """What a function shows."""

    boot: bool = False
    """Firmware chose it for its own messages."""
    framebuffers: tuple[str, ...] = ()
    connected: tuple[str, ...] = ()
    """Connectors with a screen: ``DP-1``."""

    @property
    def used(self) -> bool:
        """Whether somebody may be looking at it."""
        return self.boot or bool(self.framebuffers) or bool(self.connected)


@final
class HostUse:
    """The host below ``root`` as it was when this was made; nothing is read later."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._blocks = {
            path.name: real for path in sysfs.children(root / "sys/class/block") if (real := sysfs.real(path))
        }
        self._users = _disk_users(root, self._blocks)
        self._interfaces = {
            path.name: real for path in sysfs.children(root / "sys/class/net") if (real := sysfs.real(path))
        }
        self._routes = _default_routes(root)
        self._usb = [real for path in sysfs.children(root / "sys/bus/usb/devices") if (real := sysfs.real(path))]
        self._mediated = [real for path in sysfs.children(root / "sys/bus/mdev/devices") if (real := sysfs.real(path))]
        self._drm = [real for path in sysfs.children(root / "sys/class/drm") if (real := sysfs.real(path))]
        self._framebuffers = {
            path.name: real for path in sysfs.children(root / "sys/class/graphics") if (real := sysfs.real(path))
        }

    def disks(self, function: PciFunction) -> tuple[Disk, ...]:
        """Disks that are reached through a function; drives for removable media that hold none are left out."""
        home = self._home(function)
        if home is None:
            return ()
        found = []
        for name, place in self._blocks.items():
            if _NO_DISK.fullmatch(name) or (place / "partition").exists() or sysfs.text(place / "size") == "0":
                continue
            if place.is_relative_to(home) or _has_path_through(place, home):
                parts = [part for part, other in self._blocks.items() if other == place or other.parent == place]
                uses = [use for part in sorted(parts) for use in self._uses(part)]
                found.append(Disk(name, tuple(dict.fromkeys(uses))))
        return tuple(found)

    def interfaces(self, function: PciFunction) -> tuple[Interface, ...]:
        """Network interfaces that are reached through a function."""
        home = self._home(function)
        found = []
        for name, place in self._interfaces.items():
            if home is not None and place.is_relative_to(home):
                up = bool((sysfs.number(place / "flags") or 0) & _IFF_UP)
                found.append(Interface(name, up, bool({name, *self._above(name)} & self._routes)))
        return tuple(found)

    def usb(self, function: PciFunction) -> tuple[str, ...]:
        """USB devices that are plugged in below a function, without hubs, by what they say they are."""
        home = self._home(function)
        found = []
        for place in self._usb:
            if home is not None and place.is_relative_to(home) and ":" not in place.name:
                code = sysfs.text(place / "bDeviceClass")
                if code and code != _HUB:
                    found.append(" ".join(sysfs.text(place / "product").split())[:60] or place.name)
        return tuple(found)

    def mediated(self, function: PciFunction) -> tuple[str, ...]:
        """UUIDs of the mediated devices (vGPUs) that were made on a function."""
        home = self._home(function)
        return tuple(place.name for place in self._mediated if home is not None and place.is_relative_to(home))

    def screen(self, function: PciFunction) -> Screen:
        """What a function shows now."""
        home = self._home(function)
        if home is None:
            return Screen()
        framebuffers = [name for name, place in self._framebuffers.items() if place.is_relative_to(home)]
        if function.boot_vga:  # a framebuffer that firmware left belongs to no PCI device before Linux 6.9
            framebuffers += [name for name, place in self._framebuffers.items() if "platform" in place.parts]
        connected = [
            place.name.partition("-")[2]
            for place in self._drm
            if place.is_relative_to(home) and sysfs.text(place / "status") == "connected"
        ]
        numbered = [name for name in framebuffers if re.fullmatch(r"fb\d+", name)]
        return Screen(function.boot_vga, tuple(sorted(set(numbered))), tuple(sorted(connected)))

    def _home(self, function: PciFunction) -> Path | None:
        return sysfs.real(self._root / "sys/bus/pci/devices" / function.address)

    def _uses(self, name: str, depth: int = 0) -> list[str]:
        """Uses of a block device, and of those that are made of it: encrypted, logical and RAID volumes."""
        uses = list(self._users.get(name, ()))
        for holder in sysfs.names(self._blocks[name] / "holders") if name in self._blocks else ():
            inner = self._uses(holder, depth + 1) if depth < _ROUTE_DEPTH else []
            uses += inner or [holder]
        return uses

    def _above(self, name: str, depth: int = 0) -> set[str]:
        """Bridges, bonds and VLANs that an interface is part of."""
        place = self._interfaces.get(name)
        if place is None or depth >= _ROUTE_DEPTH:
            return set()
        above = {entry.removeprefix("upper_") for entry in sysfs.names(place) if entry.startswith("upper_")}
        return above.union(*(self._above(other, depth + 1) for other in above))


def _disk_users(root: Path, blocks: dict[str, Path]) -> dict[str, list[str]]:
    """Name of a block device → mount points, ``swap``, ``btrfs``."""
    numbers = {sysfs.text(place / "dev"): name for name, place in blocks.items()}
    mapped = {sysfs.text(place / "dm/name"): name for name, place in blocks.items() if name.startswith("dm-")}
    users: dict[str, list[str]] = {}
    mounts = (sysfs.data(root / "proc/self/mountinfo", _LONG) or b"").decode("utf-8", "replace")
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields, source = before.split(), after.split()
        if len(fields) < 5 or len(source) < 2:
            continue
        # Btrfs has a number of its own and names one of its disks.
        named = Path(source[1]).name
        name = numbers.get(fields[2]) or mapped.get(named, named)
        if name in blocks:
            users.setdefault(name, []).append(_unescaped(fields[4]))
    for line in (sysfs.data(root / "proc/swaps", _LONG) or b"").decode("utf-8", "replace").splitlines()[1:]:
        users.setdefault(Path(line.split()[0]).name if line.split() else "", []).append("swap")
    for file_system in sysfs.children(root / "sys/fs/btrfs"):
        for name in sysfs.names(file_system / "devices"):
            users.setdefault(name, []).append("a Btrfs file system")
    return users


def _unescaped(text: str) -> str:
    """A mount point as it is, in printable characters; mountinfo writes blanks as ``\\040``."""
    plain = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
    return "".join(letter if letter.isprintable() else "?" for letter in plain)[:200]


def _has_path_through(place: Path, home: Path) -> bool:
    """Whether an NVMe disk with several paths can be reached through a controller below ``home``."""
    if place.parent.parent.name != "nvme-subsystem":
        return False
    controllers = (sysfs.real(path) for path in sysfs.children(place.parent) if re.fullmatch(r"nvme\d+", path.name))
    return any(controller is not None and controller.is_relative_to(home) for controller in controllers)


def _default_routes(root: Path) -> set[str]:
    """Interfaces of the default routes; format of both tables: net/ipv4/fib_trie.c and net/ipv6/route.c."""
    found = set()
    for line in sysfs.text(root / "proc/net/route", _LONG).splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7 and fields[1] == fields[7] == "00000000":
            found.add(fields[0])
    for line in sysfs.text(root / "proc/net/ipv6_route", _LONG).splitlines():
        fields = line.split()
        if len(fields) > 9 and fields[0] == "0" * 32 and fields[1] == "00" and fields[9] != "lo":
            found.add(fields[9])
    return found
