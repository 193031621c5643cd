"""What becomes of a guest whose console is silent: it is looked at, and then its kernel is asked.

Processors that all idle say only that everything waits. A kernel that hangs does, and so does a guest whose host is too
slow to answer its disk, or whose init sleeps. So the kernel is asked what its tasks wait for: one that does not answer
hangs; one with the same task blocked in two answers hangs there, unless a task waits for the VM's own disk, which is
this host's to answer; everything else is given until the deadline.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.machines.console import Console
from harness.machines.sysrq import BlockedTask, SysRq
from harness.machines.watch import CpuSample, Stall, StallDetector
from harness.model.outcome import Outcome

_INTERVAL = 0.5
_OPEN_CONSOLE = ("initramfs", "guest init", "SSH server")
"""The phases in which something holds the console open, without which the serial port takes no byte."""


class Silence:
    """Watches one boot."""

    def __init__(
        self, console: Console, look: Callable[[], tuple[CpuSample, ...]], sysrq: SysRq | None, limit: float
    ) -> None:
        """``sysrq`` is None where the kernel is built without it; ``limit`` is how many silent seconds are normal."""
        self._console = console
        self._look = look
        self._sysrq = sysrq
        self._limit = limit
        self._stall = StallDetector()
        self._next = 0.0
        self._blocked: tuple[BlockedTask, ...] = ()
        self.said = ""
        """What the kernel's last answer means, for a guest that does not get there in time."""

    def broken(self) -> None:
        """Something showed life."""
        self._stall.reset()

    def seen(self, now: float) -> Stall:
        """Look again, when it is time to, and say what the looks so far show."""
        if now - self._console.last_byte < self._limit:
            self._stall.reset()
            return Stall.NONE
        if now < self._next:
            return Stall.NONE
        self._next = now + _INTERVAL
        return self._stall.add(self._look())

    def judge(self, stall: Stall, now: float) -> tuple[Outcome, str] | None:
        """Whether ``stall`` is a hang, and whose; None while it may be none."""
        phase = self._console.phase
        if stall is Stall.SPINNING:
            return self._hang(phase, f"a CPU spins with interrupts off at {self._stall.where}")
        seen = f"every CPU is idle and the console silent for {now - self._console.last_byte:.0f} s"
        if phase not in _OPEN_CONSOLE:
            return self._hang(phase, seen)
        if self._sysrq is None:
            self.said = f"{seen}, and this kernel, built without SysRq on a serial line, cannot be asked why"
            return None
        blocked = self._sysrq.blocked(self._limit)
        if blocked is None:
            return self._hang(phase, f"{seen}, and the kernel does not answer SysRq")
        stuck, self.said = compare(self._blocked, blocked)
        self._blocked = blocked
        if stuck:
            return self._hang(phase, f"every CPU is idle, and {self.said}")
        self._stall.reset()
        return None

    def _hang(self, phase: str, what: str) -> tuple[Outcome, str]:
        seen = self._console.worst()
        detail = f"; before it: {seen.text}" if seen else ""
        return Outcome.FAIL, f"hang in phase {phase}: {what}{detail}"


def compare(before: tuple[BlockedTask, ...], now: tuple[BlockedTask, ...]) -> tuple[bool, str]:
    """Whether two answers, some time apart, show a hang in the kernel, and what they show."""
    # What a task holds that waits for the disk, others wait for.
    disk = next((str(task) for task in now if task.waits_for_disk), "")
    if disk:
        return False, f"the kernel answers SysRq: {disk}, waiting for the VM's disk"
    again = [str(task) for task in now if task in before]
    if not again:
        return False, "the kernel answers SysRq and has no task blocked twice: what is silent waits by itself"
    more = f" and {len(again) - 3} more" if len(again) > 3 else ""
    return True, f"asked twice the kernel tells of {'; '.join(again[:3])}{more}"
