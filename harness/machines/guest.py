"""A booted guest as the ladder sees it: commands that end in an outcome even when the guest dies under them."""

from __future__ import annotations

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


LOOK = (
    "sh",
    "-c",
    "cat /proc/sys/kernel/tainted; echo @modules; cat /proc/modules; echo @log;"
    " exec dd if=/dev/kmsg iflag=nonblock bs=8192 status=none",
)
"""The log comes last: reading it ends with status 1 when no more is there (EAGAIN)."""


@dataclass(frozen=True, slots=True)
class Look:
    """A guest's kernel at one moment."""

    taint: int
    modules: bytes
    """``/proc/modules``."""
    messages: tuple[KernelMessage, ...]
    """Everything that the log still holds."""

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


class Guest:
    """Implements :class:`harness.model.shell.Shell` over the SSH connection of a machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._seen = -1
        self._taint = 0
        self.last = Look(0, b"", ())
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
            state = "did not answer in time" if done.timed_out else f"returned {done.exit_status}: {said}"
            raise GuestLost(Outcome.MISS, f"{argv[0]} in the guest {state}")
        return done.stdout.decode("utf-8", "replace")

    def check(self, last: Completed | None = None) -> None:
        """Raise when the guest has died, or when its connection broke and cannot be had again.

        Raises:
            GuestLost: FAIL for a panic, MISS for a dead SSH server, a stopped VM or a full disk.
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
                raise GuestLost(Outcome.MISS, machine.gone)
        dead = machine.death()
        if dead is not None:
            raise GuestLost(*dead)
        oops = machine.console.worst(Trouble.OOPS, Trouble.SOFT_LOCKUP, Trouble.HARD_LOCKUP)
        if oops is not None and last is not None and not last.ok:
            raise GuestLost(Outcome.FAIL, f"{oops.trouble}: {oops.text}")

    def full_disk(self) -> str | None:
        """Say so when the guest's root has no space left: what failed then failed for that reason."""
        done = self.run(["df", "--output=avail,size", "--block-size=1", "/"], timeout=30)
        fields = done.stdout.split()
        if not done.ok or len(fields) < 4 or not fields[2].isdigit() or not fields[3].isdigit():
            return None
        available, size = int(fields[2]), int(fields[3])
        if available > 1 << 20:
            return None
        return f"the guest's disk is full ({size >> 20} MiB overlay in memory)"

    def look(self) -> Look:
        """Read taint, modules and log in one go: each command costs a guest under emulation a good part of a second.

        Raises:
            GuestLost: the guest is gone, or cannot say.
        """
        done = self.run(LOOK, timeout=60, limit=16 << 20)
        taint, _, rest = done.stdout.partition(b"@modules\n")
        modules, _, log = rest.partition(b"@log\n")
        if done.lost or done.timed_out or not taint.strip().isdigit():
            self.check(done)
            raise GuestLost(Outcome.MISS, "the guest could not read its kernel's log")
        self.last = Look(int(taint), modules, parse_kmsg(log))
        return self.last

    def change(self) -> Change:
        """Look, and say what is new since the last call; the first one counts from a clean boot."""
        before, look = self._taint, self.look()
        messages = since(look.messages, self._seen)
        if messages:
            if self._seen >= 0 and messages[0].sequence > self._seen + 1:
                self.log_lost = True
            self._seen = messages[-1].sequence
        self._taint = look.taint
        return Change(messages, before, look.taint, look.module_names)
