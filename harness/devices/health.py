"""Whether a function of a device answers, and is still what it was.

A device that fell off its bus reads as all ones (PCI Express Base Specification, 2.3.2: completion with error), so its
vendor number is ffff and its header type 7f. One that lost a part of its link, or a window, works and is another
device than the one that was measured before.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.devices import sysfs
from harness.devices.pci import DEVICES, read_function
from harness.errors import InfraError
from harness.model.device import Link, PciFunction

_HEADER = 64
"""Bytes of the standard header; the configuration space has them whatever the device can do."""
_HEADER_TYPE = 14
_LAYOUT = 0x7F
"""Without the bit that says that there are more functions."""


@dataclass(frozen=True, slots=True)
class Health:
    """What a look at a function showed."""

    sick: tuple[str, ...]
    """Why it must not be lent; empty when it is well."""
    notes: tuple[str, ...] = ()
    """What changed and may be harmless."""


def probe(root: Path, address: str, recorded: PciFunction | None = None) -> Health:
    """Look at a function; with what was ``recorded`` of it before, also for what it lost since.

    A link that is slower than recorded is a note and no sickness: GPUs lower its speed when idle, and raise it again
    under load. Lanes do not come and go like that.
    """
    path = root / DEVICES / address
    header = sysfs.data(path / "config", _HEADER)
    if not path.exists():
        return Health((f"{address} is gone from the bus",))
    if header is None or len(header) < _HEADER:
        return Health((f"{address}: its configuration space cannot be read",))
    # A virtual function has no numbers of its own there (SR-IOV specification, 3.4.1.1 and 3.4.1.2).
    if header[:4] == b"\xff" * 4 and not (path / "physfn").exists():
        return Health((f"{address} does not answer: its configuration space reads as ffffffff",))
    if header[_HEADER_TYPE] & _LAYOUT == _LAYOUT:
        return Health((f"{address} does not answer: its header type reads as 7f",))
    try:
        now = read_function(root, address)
    except InfraError as error:
        return Health((str(error),))
    sick, notes = [], []
    # "unknown" is what every function shows that no driver has (pci_device_remove in drivers/pci/pci-driver.c).
    if now.power_state == "error":
        sick.append(f"{address}: its power state is unknown to the kernel")
    if recorded is not None:
        sick += _lost(recorded, now)
        if recorded.link and now.link and 0 < now.link.speed < recorded.link.speed:
            notes.append(f"{address}: its link runs at {link_words(now.link)}; before: {link_words(recorded.link)}")
    return Health(tuple(sick), tuple(notes))


def _lost(before: PciFunction, now: PciFunction) -> list[str]:
    lost = []
    if now.ids != before.ids:
        lost.append(f"{now.address} was {before.ids} and is {now.ids}")
    bars = {bar.index: bar.size for bar in now.bars}
    for bar in before.bars:
        if bar.index not in bars:
            lost.append(f"{now.address} lost its window {bar.index} of {bar.size} bytes")
        elif bars[bar.index] != bar.size:
            lost.append(f"{now.address}: its window {bar.index} had {bar.size} bytes and has {bars[bar.index]}")
    if before.link and before.link.width and before.link.speed:
        if now.link is None or not now.link.width or not now.link.speed:
            lost.append(f"{now.address}: its link is down; before: {link_words(before.link)}")
        elif now.link.width < before.link.width:
            lost.append(f"{now.address}: its link has x{now.link.width}; before: x{before.link.width}")
    return lost


def link_words(link: Link) -> str:
    """``16 GT/s x16``."""
    return f"{link.speed:g} GT/s x{link.width}" if link.speed else f"unknown speed x{link.width}"
