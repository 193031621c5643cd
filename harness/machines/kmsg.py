"""The guest kernel's log, read by sequence number so that nothing is seen twice and no gap goes unnoticed."""

from __future__ import annotations

import re

from harness.model.kmsg import KernelMessage

_COMPLAINT = re.compile(
    r"^WARNING: |BUG: |Oops: |kernel BUG at|general protection fault[,:]|UBSAN: |KASAN: |Watchdog detected hard LOCKUP"
    r"|^rcu: INFO: \S+ (?:self-)?detected (?:expedited )?stall"
    r"|^INFO: task .{1,64}? blocked (?:in I/O wait )?for more than"
)
"""Sources: kernel/panic.c, watchdog.c, hung_task.c and rcu/tree_stall.h, lib/bug.c, lib/ubsan.c, mm/."""
_DRIVERS = tuple(
    (driver, re.compile(pattern))
    for driver, pattern in (
        ("nvidia", r"NVRM: Xid \(|NVRM: .*nvAssert\w*: |fallen off the bus|NVRM: .*RmInitAdapter failed"),
        ("nvidia", r"NVRM: .*GPU is probably locked|nvidia-uvm: .*(?i:fatal error)|nvidia-modeset: ERROR"),
        ("nouveau", r"nouveau .*(?:errored - disabling channel|: fault \d\d \[|SCHED_ERROR|channel \d+ killed| TRAP)"),
        ("amdgpu", r"(?:\bamdgpu |\[amdgpu\]).*(?:ring \S+ timeout|GPU reset|GPU recovery|ring reset|reset via MES)"),
        (
            "amdgpu",
            r"\bamdgpu.*MES(?:\(\d+\))? (?:failed|might be in unrecoverable|ring buffer is full)|queue from MES",
        ),
        ("amdgpu", r"\[(?:gfx|mm)hub\d*\].*page fault|amdgpu.*(?:VM fault|GPU fault detected)"),
        ("amdgpu", r"qcm fence wait loop timeout|unrecoverable state due to an unsuccessful queues? preemption"),
        ("amdgpu", r"\bamdgpu.*(?:queue preemption time ?out|Failed to evict .*queue|uncorrectable hardware errors)"),
        ("radeon", r"radeon .*(?:ring \d+ stalled for more than|GPU lockup|GPU softreset)"),
        (
            "i915",
            r"GPU HANG: |i915.*(?:Resetting \S+ for |reset request (?:failed|timed out)|context reset due to GPU)",
        ),
        ("i915", r"Fence expiration time out i915|i915.*(?:declared wedged|GPU recovery timed out)"),
        ("xe", r"\bxe .*(?:Engine reset: engine_class|Timedout job: |Kernel-submitted job timed out|\bas wedged)"),
        ("xe", r"\bxe .*(?:Fault response: Unsuccessful|memory CAT error|coredump has been created|trying reset from)"),
        ("xe", r"\bxe .*(?:TLB invalidation .*timeout|reset failed)"),
        ("a driver", r"\[drm\] device wedged"),
        ("the bus", r"\bAER: (?!enabled)|PCIe Bus Error|\bDPC: containment|Surprise Down|device recovery failed"),
        ("the machine", r"\[Hardware Error\]: "),
    )
)
"""What drivers, the bus and the machine say when a device went wrong, by who says it; wordings of kernels 5.10 to 7."""


def since(messages: tuple[KernelMessage, ...], sequence: int) -> tuple[KernelMessage, ...]:
    """The messages after ``sequence``."""
    return tuple(message for message in messages if message.sequence > sequence)


def complaints(messages: tuple[KernelMessage, ...]) -> tuple[KernelMessage, ...]:
    """Messages by which the kernel says that something in it is wrong (not what a driver says of its device)."""
    return tuple(message for message in messages if message.facility == 0 and _COMPLAINT.search(message.text))


def of_drivers(messages: tuple[KernelMessage, ...]) -> tuple[tuple[str, KernelMessage], ...]:
    """(who, message) for those by which a driver, the bus or the machine says that a device at work went wrong.

    While a module is loaded without its device, such words are to be expected: this is for times when a device works.
    """
    found = []
    for message in messages:
        if message.facility == 0:
            who = next((who for who, pattern in _DRIVERS if pattern.search(message.text)), "")
            found += [(who, message)] if who else []
    return tuple(found)
