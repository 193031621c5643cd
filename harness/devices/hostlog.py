"""What the host's kernel says about PCI devices while one of them is lent, and about which of them.

An IOMMU fault, an error on the bus or a reset that does not end is the host's to see, not the guest's, and decides
whether a bad result speaks against a driver or against the machine. So the log is read from the moment a device is lent
to the moment it is back, and a log that could not be read is told apart from a clean one.

Sources: the messages of drivers/pci/pci.c and pcie/aer.c, drivers/iommu/intel/dmar.c, drivers/iommu/amd/iommu.c,
drivers/vfio/pci of the kernel.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness.model.kmsg import parse_record

MOST = 200
"""Complaints that are kept; a storm of corrected errors can have millions."""
_KINDS = (
    ("reset", re.compile(r"not ready \d+ms after|failed to reset|reset (?:failed|timed out)|recovery failed", re.I)),
    ("power", re.compile(r"stuck in D3|unable to change power state|can't change power state|refused to change", re.I)),
    ("iommu", re.compile(r"^DMAR: .*(?:fault|error)|\bAMD-Vi: .*(?:Event logged|PAGE_FAULT|error|timed out)", re.I)),
    ("aer", re.compile(r"\bAER: |PCIe Bus Error|aer_status|\bDPC: ")),
    ("xid", re.compile(r"NVRM: Xid|fallen off the bus")),
    ("link", re.compile(r"Link Down|Card not present|Surprise Down", re.I)),
    ("vfio", re.compile(r"\bvfio[-_]|^vfio\b|blocked until device is released")),
)
_HARMLESS = re.compile(
    r"enabling device|hiding ecap|: reset(?:ting| done)$|vgaarb|VFIO - User|Unsupported reset method"
)
"""What is said of a function of vfio when all is well; the last is an answer to us, not a complaint."""
_LONG = re.compile(r"\b([0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f])(?:\.([0-7])(?![0-9a-f])|(?![0-9a-f:.]))", re.I)
_SHORT = re.compile(r"(?<![0-9a-f:.])([0-9a-f]{2}:[01][0-9a-f]\.[0-7])(?![0-9a-f])", re.I)
"""In the lines of both IOMMUs, which leave domain 0 out."""
_RECORD = 8192
"""Bytes: one read of /dev/kmsg returns one record, which is never longer."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """A line by which the host's kernel says that something is wrong with a PCI device."""

    kind: str
    """``aer``, ``iommu``, ``link``, ``power``, ``reset``, ``vfio``, ``xid``."""
    addresses: tuple[str, ...]
    """The functions that it names; a name without function, as Xid's, is taken for all of the slot."""
    seconds: float
    """Since boot."""
    text: str


@dataclass(frozen=True, slots=True)
class HostComplaints:
    """What was seen while a unit was lent."""

    unit: tuple[Complaint, ...] = ()
    """About its functions, or the bridges above them."""
    others: tuple[Complaint, ...] = ()
    """About other devices, or about none by name."""
    not_collected: str = ""
    """Why the log could not be read: then the rest says nothing."""
    lost: int = 0
    """Lines that the kernel overwrote before they were read, and complaints beyond the first :data:`MOST`."""

    def describe(self) -> str:
        """One line; ``none`` only when the log was read and was clean."""
        if self.not_collected:
            return f"not collected: {self.not_collected}"
        parts = [f"{len(self.unit)} about the device: {self.unit[0].text}"] if self.unit else []
        parts += [f"{len(self.others)} about others: {self.others[0].text}"] if self.others else []
        parts += [f"{self.lost} lines lost"] if self.lost else []
        return "; ".join(parts) or "none"


def complaint(text: str, seconds: float = 0.0) -> Complaint | None:
    """Judge one line of the log; None when it is no complaint about a PCI device."""
    kind = next((kind for kind, pattern in _KINDS if pattern.search(text)), None)
    if kind is None or (kind == "vfio" and _HARMLESS.search(text)):
        return None
    return Complaint(kind, addresses_in(text), seconds, text)


def addresses_in(text: str) -> tuple[str, ...]:
    """The PCI addresses that a line names, in full and in order."""
    found = []
    for match in _LONG.finditer(text):
        found.append((match.start(), f"{match[1]}.{match[2]}" if match[2] else match[1]))
    found += [(match.start(), f"0000:{match[1]}") for match in _SHORT.finditer(text)]
    return tuple(dict.fromkeys(address.lower() for _, address in sorted(found)))


def attribute(
    found: Iterable[Complaint], functions: Iterable[str], bridges: Iterable[str] = ()
) -> tuple[tuple[Complaint, ...], tuple[Complaint, ...]]:
    """Part complaints into those about a unit and the others.

    A line that names a bridge above the unit is about the unit, unless it names another device as well: a port reports
    for everything below it.
    """
    whole = {address.lower() for address in functions}
    ours = whole | {address.rpartition(".")[0] for address in whole}
    above = {address.lower() for address in bridges}
    mine: list[Complaint] = []
    others: list[Complaint] = []
    for one in found:
        named = set(one.addresses)
        (mine if named & ours or (named and named <= above) else others).append(one)
    return tuple(mine), tuple(others)


@dataclass(slots=True)
class _Reader:
    """Reads the log in a thread of its own: the kernel keeps few lines, and a storm overwrites them in seconds."""

    handle: int
    found: list[Complaint] = field(default_factory=list)
    lost: int = 0
    trouble: str = ""
    _last: int | None = None
    _rest: bytes = b""

    def follow(self, stop: threading.Event) -> None:
        """Read until told to stop, then what is there already."""
        try:
            ending = False
            while (data := self._read()) is not None:
                if data:
                    self._take(data)
                elif ending:
                    return
                else:
                    # Not poll(2) on the log: five looks a second keep up with it, and work for any kind of file.
                    ending = stop.wait(0.2)
        except Exception as error:  # whatever it is: a reader that ended early has seen nothing, not nothing bad
            self.trouble = f"the reader failed: {error!r}"

    def _read(self) -> bytes | None:
        """What is there now; empty when nothing is, None when nothing ever will be."""
        while True:
            try:
                return os.read(self.handle, _RECORD)
            except BlockingIOError:
                return b""
            except OSError as error:
                if error.errno == errno.EPIPE:  # overwritten; the next read goes on with what is left
                    continue
                self.trouble = error.strerror or "read error"
                return None

    def _take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            record = parse_record(line)
            if record is None:
                continue
            if self._last is not None and record.sequence > self._last + 1:
                self.lost += record.sequence - self._last - 1
            self._last = record.sequence
            printable = "".join(char if char.isprintable() else "?" for char in record.text)
            judged = complaint(printable[:1000], record.seconds)
            if judged and len(self.found) < MOST:
                self.found.append(judged)
            elif judged:
                self.lost += 1


@dataclass(slots=True)
class Watched:
    """Filled when the block has ended."""

    complaints: HostComplaints = HostComplaints(not_collected="the device is still lent")


@contextlib.contextmanager
def watched(root: Path, functions: Iterable[str], bridges: Iterable[str] = ()) -> Iterator[Watched]:
    """Read the host's log during the block; afterwards :attr:`Watched.complaints` says what was in it.

    Never raises: where the log may not be read (not root, ``dmesg_restrict``), that is what it says.
    """
    result = Watched()
    try:
        handle = os.open(root / "dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        result.complaints = HostComplaints(not_collected=f"/dev/kmsg: {error.strerror}")
        yield result
        return
    with contextlib.suppress(OSError):  # a pipe, in a recorded machine, has no end to go to
        os.lseek(handle, 0, os.SEEK_END)
    reader, stop = _Reader(handle), threading.Event()
    thread = threading.Thread(target=reader.follow, args=(stop,), name="host log", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:  # no more threads: nothing that may keep a device from being lent and taken back
        reader.trouble = str(error)
    try:
        yield result
    finally:
        stop.set()
        if thread.ident:
            thread.join()
        os.close(handle)
        ours, others = attribute(reader.found, functions, bridges)
        trouble = f"/dev/kmsg: {reader.trouble}" if reader.trouble else ""
        result.complaints = HostComplaints(ours, others, trouble, reader.lost)
