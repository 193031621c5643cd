"""A booted guest as the ladder sees it: commands that end in an outcome even when the guest dies under them."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from harness.machines.console import Console, Trouble
from harness.machines.kmsg import since
from harness.machines.vm import GuestFailure
from harness.model.kmsg import KernelMessage, parse_kmsg
from harness.model.outcome import Outcome
from harness.model.shell import Completed, Shell

_DEATH_GRACE = 5.0
_RECONNECT = 20.0


class GuestLost(GuestFailure):
    """A guest that was up is gone, or cannot be used any more."""


class Connection(Shell, Protocol):
    """A shell that may break."""

    @property
    def alive(self) -> bool:
        """Whether it still stands, as far as this side knows."""
        ...


class Machine(Protocol):
    """What a guest runs on: a VM, or a lab box."""

    @property
    def shell(self) -> Connection | None:
        """The connection to it, if there is one."""
        ...

    @property
    def console(self) -> Console:
        """What its kernel says; empty where that cannot be seen."""
        ...

    @property
    def gone(self) -> str:
        """What is known when it does not answer any more and nothing shows why."""
        ...

    def reconnect(self, timeout: float) -> Connection | None:
        """Try to reach it again; None when it cannot be reached."""
        ...

    def death(self) -> tuple[Outcome, str] | None:
        """Why it is gone or about to go; None while nothing speaks against it."""
        ...

    def unanswered(self, seen: str) -> tuple[Outcome, str]:
        """Whose fault it is that a machine does not do what ``seen`` tells; MISS where nothing shows it."""
        ...


LOOK = (
    "sh",
    "-c",
    "cat /proc/sys/kernel/tainted; echo @modules; cat /proc/modules;"
    " echo @disk; stat -f -c '%a %b %S' /; echo @blocked; grep -hs ') D ' /proc/[0-9]*/stat;"
    " echo @log; (: </dev/kmsg) 2>&1 || exit 0; exec dd if=/dev/kmsg iflag=nonblock bs=8192 status=none",
)
"""The log comes last: reading it ends with status 1 when no more is there (EAGAIN), with 0 when it may not be read."""
_BLOCKED = re.compile(r"^(\d+) \((.*)\) D (?:\S+ ){18}(\d+) ")
"""A line of ``/proc/PID/stat``; its name may hold anything, and the start time is its 22nd field (``proc(5)``)."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """A process that waits in the kernel and cannot be interrupted (state D), at one moment."""

    pid: int
    name: str
    born: int
    """When it began, in ticks since boot: another process may get its number."""


@dataclass(frozen=True, slots=True)
class Look:
    """A guest's kernel at one moment."""

    taint: int
    modules: bytes
    """``/proc/modules``."""
    messages: tuple[KernelMessage, ...]
    """Everything that the log still holds."""
    unread: str = ""
    """Why the log could not be read: then ``messages`` says nothing."""
    blocked: tuple[Blocked, ...] = ()
    space: tuple[int, int] | None = None
    """Bytes of ``/`` that are free, and all of them."""

    @property
    def full_disk(self) -> str:
        """Says so when the root has no space left: what failed then failed for that reason."""
        if self.space is None or self.space[0] > 1 << 20:
            return ""
        return f"the guest's disk is full ({self.space[1] >> 20} MiB overlay in memory)"

    @property
    def module_names(self) -> frozenset[str]:
        """Loaded modules, with underscores."""
        return frozenset(line.split(b" ", 1)[0].decode("utf-8", "replace") for line in self.modules.splitlines())

    @property
    def log(self) -> bytes:
        """The messages as dmesg prints them."""
        return "".join(f"{message.line()}\n" for message in self.messages).encode()


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to a guest's kernel between two looks."""

    messages: tuple[KernelMessage, ...]
    taint_before: int
    taint_after: int
    modules: frozenset[str]
    unread: str = ""
    """Why the log could not be read."""
    lost: bool = False
    """Some of it was overwritten before it could be read."""


class Guest:
    """Implements :class:`harness.model.shell.Shell` over the SSH connection of a machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._seen = -1
        self._taint = 0
        self.last = Look(0, b"", ())
        self._gap = False
        self.log_lost = False
        """Records of the kernel's log were overwritten before they could be read."""

    def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"", limit: int = 4 << 20) -> Completed:
        """Run a command; a broken connection is ``lost``, and :meth:`check` then says why."""
        shell = self.machine.shell
        if shell is None:
            return Completed(None, b"", b"", 0.0, lost=True)
        return shell.run(argv, timeout=timeout, stdin=stdin, limit=limit)

    def must(self, argv: Sequence[str], *, timeout: float) -> str:
        """Run a command of the harness' own that works in any healthy guest, and return its output.

        Raises:
            GuestLost: the guest is gone, does not answer, or cannot run it.
        """
        done = self.run(argv, timeout=timeout)
        if not done.ok:
            self.check(done)
            said = done.stderr.decode(errors="replace").strip()[-200:] or "no error output"
            if done.timed_out:
                raise GuestLost(*self.machine.unanswered(f"{argv[0]} in the guest did not answer in time"))
            raise GuestLost(Outcome.MISS, f"{argv[0]} in the guest returned {done.exit_status}: {said}")
        return done.stdout.decode("utf-8", "replace")

    def check(self, last: Completed | None = None) -> None:
        """Raise when the guest has died, or when its connection broke and cannot be had again.

        Raises:
            GuestLost: FAIL for a panic or a kernel that hangs, MISS for a dead SSH server, a stopped VM or a full disk.
        """
        machine = self.machine
        shell = machine.shell
        if (last is not None and last.lost) or shell is None or not shell.alive:
            # The connection often breaks a moment before the reason for it arrives on the console.
            deadline = time.monotonic() + _DEATH_GRACE
            while time.monotonic() < deadline and machine.death() is None:
                if machine.reconnect(0.5) is not None:
                    break
            if machine.death() is None and (machine.shell is None or not machine.shell.alive):
                machine.reconnect(_RECONNECT)
            if machine.death() is None and (machine.shell is None or not machine.shell.alive):
                raise GuestLost(*machine.unanswered(machine.gone))
        dead = machine.death()
        if dead is not None:
            raise GuestLost(*dead)
        oops = machine.console.worst(Trouble.OOPS, Trouble.SOFT_LOCKUP, Trouble.HARD_LOCKUP)
        if oops is not None and last is not None and not last.ok:
            raise GuestLost(Outcome.FAIL, f"{oops.trouble}: {oops.text}")

    def look(self) -> Look:
        """Read it all in one go: each command costs a guest under emulation a good part of a second.

        Raises:
            GuestLost: the guest is gone, or cannot say.
        """
        done = self.run(LOOK, timeout=60, limit=16 << 20)
        head, _, log = done.stdout.partition(b"@log\n")
        taint, _, rest = head.partition(b"@modules\n")
        modules, _, rest = rest.partition(b"@disk\n")
        disk, _, stats = rest.partition(b"@blocked\n")
        if done.lost or done.timed_out or not taint.strip().isdigit():
            self.check(done)
            if done.timed_out:
                raise GuestLost(*self.machine.unanswered("the guest did not read its kernel's log in time"))
            raise GuestLost(Outcome.MISS, "the guest could not read its kernel's log")
        unread = ""
        if done.exit_status != 1:  # a log that is read to its end ends in that error
            said = (done.stderr + b"\n" + log).decode("utf-8", "replace").strip().splitlines()
            unread = said[-1][:200] if said else "/dev/kmsg cannot be read"
        self._gap = done.truncated or b"pipe" in done.stderr
        self.last = Look(int(taint), modules, parse_kmsg(log), unread, _blocked(stats), _space(disk))
        return self.last

    def change(self) -> Change:
        """Look, and say what is new since the last call; the first one counts from a clean boot."""
        before, look = self._taint, self.look()
        messages = since(look.messages, self._seen)
        lost = self._gap
        if messages:
            lost |= self._seen >= 0 and messages[0].sequence > self._seen + 1
            self._seen = messages[-1].sequence
        self.log_lost |= lost
        self._taint = look.taint
        return Change(messages, before, look.taint, look.module_names, look.unread, lost)


def _blocked(stats: bytes) -> tuple[Blocked, ...]:
    found = (_BLOCKED.match(line) for line in stats.decode("utf-8", "replace").splitlines())
    return tuple(Blocked(int(one[1]), one[2], int(one[3])) for one in found if one)


def _space(disk: bytes) -> tuple[int, int] | None:
    """What ``stat -f`` says: free and all blocks, and the size of one."""
    fields = disk.split()
    if len(fields) != 3 or not all(field.isdigit() for field in fields):
        return None
    free, every, size = map(int, fields)
    return free * size, every * size
