"""The guest kernel's log, read by sequence number so that nothing is seen twice and no gap goes unnoticed.

Source of the format: ``Documentation/ABI/testing/dev-kmsg``: ``priority,sequence,microseconds,flags[,...];text``,
continuation lines begin with a blank.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_COMPLAINT = re.compile(r"^WARNING: |BUG: |Oops: |kernel BUG at|general protection fault[,:]|UBSAN: |KASAN: ")


@dataclass(frozen=True, slots=True)
class KernelMessage:
    """One record of the kernel's log."""

    sequence: int
    level: int
    """0 emergency … 7 debug."""
    seconds: float
    """Since boot."""
    text: str

    def line(self) -> str:
        """The record as dmesg prints it, with its level in front."""
        return f"<{self.level}>[{self.seconds:12.6f}] {self.text}"


def parse_kmsg(data: bytes) -> tuple[KernelMessage, ...]:
    """Parse what was read from ``/dev/kmsg``; records that are not in the format are skipped."""
    messages = []
    for raw in data.decode("utf-8", "replace").split("\n"):
        if not raw or raw.startswith(" "):
            continue
        head, semicolon, text = raw.partition(";")
        fields = head.split(",")
        if not semicolon or len(fields) < 3:
            continue
        try:
            priority, sequence, microseconds = (int(field) for field in fields[:3])
        except ValueError:
            continue
        messages.append(KernelMessage(sequence, priority & 7, microseconds / 1e6, text))
    return tuple(messages)


def since(messages: tuple[KernelMessage, ...], sequence: int) -> tuple[KernelMessage, ...]:
    """The messages after ``sequence``."""
    return tuple(message for message in messages if message.sequence > sequence)


def complaints(messages: tuple[KernelMessage, ...]) -> tuple[KernelMessage, ...]:
    """Messages by which the kernel says that something in it is wrong (not what a driver says of its device)."""
    return tuple(message for message in messages if _COMPLAINT.search(message.text))
