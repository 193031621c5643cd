"""The guest kernel's log, read by sequence number so that nothing is seen twice and no gap goes unnoticed."""

from __future__ import annotations

import re

from harness.model.kmsg import KernelMessage

_COMPLAINT = re.compile(r"^WARNING: |BUG: |Oops: |kernel BUG at|general protection fault[,:]|UBSAN: |KASAN: ")


def since(messages: tuple[KernelMessage, ...], sequence: int) -> tuple[KernelMessage, ...]:
    """The messages after ``sequence``."""
    return tuple(message for message in messages if message.sequence > sequence)


def complaints(messages: tuple[KernelMessage, ...]) -> tuple[KernelMessage, ...]:
    """Messages by which the kernel says that something in it is wrong (not what a driver says of its device)."""
    return tuple(message for message in messages if _COMPLAINT.search(message.text))
