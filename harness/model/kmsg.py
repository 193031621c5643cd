"""Records of a kernel's log as ``/dev/kmsg`` gives them, the guest's and the host's alike.

Source of the format: ``Documentation/ABI/testing/dev-kmsg``: ``priority,sequence,microseconds,flags[,...];text``,
continuation lines begin with a blank.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KernelMessage:
    """One record of the kernel's log."""

    sequence: int
    level: int
    """0 emergency … 7 debug."""
    seconds: float
    """Since boot."""
    text: str
    facility: int = 0
    """Who wrote it (``syslog(3)``): 0 is the kernel, which lets no program write in its name."""

    def line(self) -> str:
        """The record as dmesg prints it, with its level in front."""
        return f"<{self.level}>[{self.seconds:12.6f}] {self.text}"


def parse_record(line: bytes) -> KernelMessage | None:
    """Parse one line; None for a continuation line and for what is not in the format."""
    if line.startswith(b" "):
        return None
    head, semicolon, text = line.decode("utf-8", "replace").partition(";")
    fields = head.split(",")
    if not semicolon or len(fields) < 3:
        return None
    try:
        priority, sequence, microseconds = (int(field) for field in fields[:3])
        seconds = microseconds / 1e6
    except (ValueError, OverflowError):  # a guest may write any number of digits
        return None
    return KernelMessage(sequence, priority & 7, seconds, text, priority >> 3)


def parse_kmsg(data: bytes) -> tuple[KernelMessage, ...]:
    """Parse what was read from ``/dev/kmsg``; lines that are no records are skipped."""
    return tuple(message for line in data.split(b"\n") if (message := parse_record(line)) is not None)
