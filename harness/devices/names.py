"""Names of PCI devices, from the list of PCI ids that distributions install; without it there are only numbers.

Format, from the head of that list: a vendor's line begins with four hexadecimal digits, a device's of it with a tab;
what begins with two tabs is a board, and classes (``C 03``) come last.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import final

from harness.devices import sysfs

LISTS = ("usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids", "usr/share/pci.ids")
"""Below the root: Debian and Ubuntu; Fedora and Arch; others."""
_LARGEST = 16 << 20
_LINE = re.compile(r"(\t?)([0-9a-f]{4}) +(.*)")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@final
class PciNames:
    """The list of one host."""

    __slots__ = ("_devices", "_vendors", "known")

    def __init__(self, text: str) -> None:
        self._vendors: dict[int, str] = {}
        self._devices: dict[tuple[int, int], str] = {}
        vendor: int | None = None
        for line in text.splitlines():
            match = _LINE.fullmatch(line)
            if match is None:
                vendor = vendor if line.startswith(("\t", "#")) or not line else None
            elif match[1] and vendor is not None:
                self._devices[vendor, int(match[2], 16)] = _printable(match[3])
            elif not match[1]:
                vendor = int(match[2], 16)
                self._vendors[vendor] = _printable(match[3])
        self.known = bool(self._vendors)
        """Whether this host has a list at all."""

    @classmethod
    def of(cls, root: Path = Path("/")) -> PciNames:
        """Read the first list that is there; none is an empty one."""
        found = (sysfs.data(root / path, _LARGEST) for path in LISTS)
        return cls(next((data.decode("utf-8", "replace") for data in found if data), ""))

    def vendor_name(self, vendor: int) -> str:
        """``NVIDIA Corporation``; empty when unknown."""
        return self._vendors.get(vendor, "")

    def device_name(self, vendor: int, device: int) -> str:
        """``AD102 [GeForce RTX 4090]``; empty when unknown."""
        return self._devices.get((vendor, device), "")


def chip_and_model(name: str) -> tuple[str, str]:
    """Split ``AD102 [GeForce RTX 4090]``; a name without brackets is taken for both."""
    match = re.fullmatch(r"([^\[]*?) *\[(.*)\]", name)
    return (match[1], match[2]) if match else (name, name)


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub("?", text.strip())[:200]
