"""Asks the kernel of a guest which of its tasks are blocked: a break on the serial line, then a letter.

That is Magic SysRq (Documentation/admin-guide/sysrq.rst), which works without user space as soon as something holds the
console open. The answer, the stack of every task in an uninterruptible sleep, lands on the console and is kept there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from harness.machines.console import Console

ALLOW = "sysrq_always_enabled"
"""Argument of the kernel without which a distribution's default or a sysctl of the guest may forbid the question."""

_HEADER = re.compile(r"sysrq: (?:SysRq : )?Show Blocked State")
_TASK = re.compile(r"task:(\S{1,64})\s+state:([A-Z])\b.*?\bpid:\s*(\d+)")
_OLD_TASK = re.compile(r"\] (\S{1,64})\s+(D)\s+\d+\s+(\d+)\s+\d+ 0x")
"""Before Linux 5.8: name, state, free stack, pid, parent, flags (kernel/sched/core.c, sched_show_task)."""
_FRAME = re.compile(r"(?<!\? )\b([A-Za-z_][\w.]*)\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[(\w+)\])?")
_WAITING = re.compile(
    r"_*(?:schedule|io_schedule|bit_wait|preempt_schedule|switch_to|mutex_lock|rwsem_down|down_(?:read|write|timeout|killable|common)|down$"
    r"|wait_for_com)"
)
"""What every sleeper is in; who called it says what it sleeps for. A frame with a question mark is a guess."""
_GAPS = (0.3, 1.0, 2.0)
"""Seconds between the break and the letter; the kernel waits for the letter for 5. While both lie in the UART's queue,
the letter reads as a second break, so a slow guest needs a longer gap."""
_SETTLED = 2.0


@dataclass(frozen=True, slots=True)
class BlockedTask:
    """A task in an uninterruptible sleep."""

    name: str
    pid: int
    frames: tuple[str, ...]
    """Functions from the innermost, each with ``[module]`` where one is named."""

    @property
    def waits_for_disk(self) -> bool:
        """Whether it waits for a block device: what submits and waits goes to sleep in ``io_schedule``."""
        return any(frame.startswith("io_schedule") for frame in self.frames)

    def __str__(self) -> str:
        where = next(
            (frame.replace(".cold", "") for frame in self.frames if not _WAITING.match(frame)), "an unknown place"
        )
        return f"task {self.name} (pid {self.pid}) blocked in {where}"


_POLLS = re.compile(r"msleep|usleep_range|fsleep")


def parse_blocked(text: str) -> tuple[BlockedTask, ...] | None:
    """Read the kernel's answer, without tasks that sleep for a given time; None when the text holds none."""
    *_, answer = _HEADER.split(text)
    if answer == text:
        return None
    found: list[tuple[str, int, list[str]]] = []
    for line in answer.splitlines():
        if task := _TASK.search(line) or _OLD_TASK.search(line):
            found.append((task[1], int(task[3]), []))
        elif found and (frame := _FRAME.search(line)) and not line.lstrip().startswith("RIP:"):
            found[-1][2].append(f"{frame[1]} [{frame[2]}]" if frame[2] else frame[1])
    return tuple(
        BlockedTask(name, pid, tuple(frames))
        for name, pid, frames in found
        if not any(_POLLS.match(frame) for frame in frames)
    )


class SysRq:
    """The way to ask, for one console."""

    def __init__(
        self,
        console: Console,
        send_break: Callable[[], object],
        send: Callable[[bytes], None],
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._console = console
        self._break = send_break
        self._send = send
        self._sleep = sleep

    def blocked(self, patience: float) -> tuple[BlockedTask, ...] | None:
        """The blocked tasks as the kernel tells them; None when it does not answer within ``patience`` seconds."""
        before = self._console.received
        each = patience / len(_GAPS)
        for gap in _GAPS:
            self._break()
            self._sleep(gap)
            self._send(b"w")
            waited = 0.0
            while waited < each:
                if self._answer(before) is not None:
                    return self._whole_answer(before, patience)
                self._sleep(0.1)
                waited += 0.1
        return None

    def _answer(self, before: int) -> tuple[BlockedTask, ...] | None:
        return parse_blocked(self._console.since(before).decode("utf-8", "replace"))

    def _whole_answer(self, before: int, patience: float) -> tuple[BlockedTask, ...] | None:
        """The stacks come line by line, and nothing marks the last one."""
        size, quiet, waited = 0, 0.0, 0.0
        while quiet < _SETTLED and waited < patience + _SETTLED:
            now = self._console.received
            size, quiet = (now, quiet + 0.1) if now == size else (now, 0.0)
            self._sleep(0.1)
            waited += 0.1
        return self._answer(before)
