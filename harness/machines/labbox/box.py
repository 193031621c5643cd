"""A lab box as a machine: connected, booted once into a kernel, watched, brought back to its default kernel."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from harness.errors import InfraError
from harness.hostcmd import run
from harness.machines.console import Console, Trouble, judge_panic
from harness.machines.labbox.console import BoxConsole
from harness.machines.labbox.identity import Identity
from harness.machines.labbox.oneshot import Chosen
from harness.machines.labbox.remote import Remote
from harness.machines.ssh import SshShell
from harness.machines.vm import BootFailure
from harness.model.outcome import Outcome

_CONNECT = 10.0
_PAUSE = 1.0
_POWER = 180.0
"""Seconds that the user's command may take to cycle the power."""
_GRACE_AFTER_PANIC = 2.0

_STATE = "cat /proc/sys/kernel/random/boot_id; uname -r; id -u; cat /proc/cmdline"


class Interrupted(InfraError):
    """The run is to end."""


class NoAnswer(InfraError):
    """The box does not answer over SSH."""


@dataclass(frozen=True, slots=True)
class Running:
    """Which boot of a box is running."""

    boot_id: str
    release: str
    cmdline: str


class LabBoxMachine:
    """Implements :class:`harness.machines.guest.Machine` for a box."""

    gone = "the box stopped answering over SSH"

    def __init__(self, identity: Identity, stopping: Callable[[], bool]) -> None:
        self.box = identity.box
        self.shell: Remote | None = None
        self.console = Console()
        """What the tested kernel said on the serial console, where there is one."""
        self.serial = BoxConsole("")
        self.running: Running | None = None
        self._identity = identity
        self._stopping = stopping
        self._restarted = ""
        self._guarded = False
        self._closed = threading.Event()
        self._guard = threading.Thread(target=self._watch, daemon=True, name=f"guard of {self.box.name}")
        self._guard.start()

    def connect(self, timeout: float) -> Remote:
        """Connect anew.

        Raises:
            HostKeyRefused: it is not the box.
            NoAnswer: nobody answers, or nobody lets us in.
        """
        self.disconnect()
        box = self.box
        try:
            shell = SshShell.open(
                (box.host, box.port),
                box.user,
                self._identity.client_key,
                self._identity.check,
                timeout=timeout,
                host_key_types=self._identity.kinds,
            )
        except InfraError as error:
            raise NoAnswer(f"{box}: {error}") from error
        remote = self.shell = Remote(box, shell)
        return remote

    def disconnect(self) -> None:
        """Close the connection, if there is one."""
        if self.shell is not None:
            self.shell.close()
        self.shell = None

    def close(self) -> None:
        """End everything that belongs to this object; the box is left as it is."""
        self._closed.set()
        self._guard.join()
        self.disconnect()

    def arrive(self, patience: float, *, after: str = "", watch: bool = False) -> Running:
        """Wait until the box answers, in another boot than ``after``, and return what runs.

        Raises:
            NoAnswer: it did not within ``patience`` seconds.
            BootFailure: with ``watch``, the console shows that the tested kernel will not come up.
            HostKeyRefused, Interrupted: there is no use in waiting.
        """
        started = time.monotonic()
        last = "nothing was tried"
        while True:
            if self._stopping():
                raise Interrupted(f"{self.box}: interrupted while it was waited for")
            if watch:
                self._raise_if_dead()
            left = started + patience - time.monotonic()
            if left <= 0:
                raise NoAnswer(f"{self.box} did not answer within {patience:.0f} s ({last})")
            try:
                remote = self.connect(min(_CONNECT, max(1.0, left)))
                running = look(remote)
            except NoAnswer as error:
                last = str(error).removeprefix(f"{self.box}: ")
            except InfraError as error:  # it let us in while it goes down or comes up
                last = str(error).removeprefix(f"{self.box}: ")
            else:
                if running.boot_id != after:
                    self.running = running
                    return running
                last = f"{running.release}, which was to be left, still runs"
            self.disconnect()
            self._closed.wait(_PAUSE)

    def leave(self, fire: tuple[str, ...]) -> None:
        """Have the running kernel end. Its last words may get lost with the connection, so nothing is made of them."""
        assert self.shell is not None, "a box is left over the connection to it"
        self.shell.run(["sync"], timeout=120)
        done = self.shell.run(fire, timeout=60)
        self.disconnect()
        if done.exit_status not in (0, None):
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no error output"]
            raise InfraError(f"{self.box}: {' '.join(fire)} returned {done.exit_status}: {said[0][:200]}")

    def boot(self, chosen: Chosen) -> Running:
        """Leave the running kernel for the chosen one, and wait until the box answers.

        Raises:
            NoAnswer, BootFailure, HostKeyRefused, Interrupted, InfraError: see :meth:`arrive`.
        """
        assert self.running is not None
        before = self.running.boot_id
        self.leave(chosen.fire)
        return self.arrive(self.box.patience, after=before, watch=True)

    def cycle_power(self) -> None:
        """Run the user's command.

        Raises:
            InfraError: there is none, or it failed.
        """
        argv = self.box.power
        if not argv:
            raise InfraError(f"{self.box}: the matrix names no power: command, so it has to be reset by hand")
        done = run(argv, timeout=_POWER)
        if done.returncode != 0:
            lines = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()[-1:]
            said = lines[0][:200] if lines else "no output"
            raise InfraError(f"{self.box}: the power command {argv[0]} returned {done.returncode}: {said}")

    def reconnect(self, timeout: float) -> Remote | None:
        """Try to reach the same boot again; None when it cannot be reached, or when it is over."""
        deadline = time.monotonic() + timeout
        expected = self.running.boot_id if self.running is not None else ""
        while not self._stopping() and self.death() is None and time.monotonic() < deadline:
            try:
                remote = self.connect(3.0)
                now = look(remote)
            except InfraError:
                self.disconnect()
                self._closed.wait(0.2)
                continue
            if now.boot_id == expected:
                return remote
            self._restarted = now.release
            self.disconnect()
        return None

    def death(self) -> tuple[Outcome, str] | None:
        """Why the boot is over, as far as it is seen from here; None while nothing speaks against it."""
        panic = self.console.worst(Trouble.PANIC)
        if panic is not None:
            return judge_panic(panic.text, self.console.phase, self.console.worst(Trouble.OOPS) is not None)
        if self._restarted:
            return Outcome.MISS, f"the box restarted by itself, into {self._restarted}; nothing shows why"
        return None

    def unanswered(self, seen: str) -> tuple[Outcome, str]:
        """There is no other way to ask its kernel."""
        return Outcome.MISS, seen

    def listen(self, serial: BoxConsole) -> None:
        """Judge the next boot by this console."""
        self.serial, self.console, self._restarted = serial, serial.judged, ""

    def _raise_if_dead(self) -> None:
        if self.console.panicked.is_set():
            self._closed.wait(_GRACE_AFTER_PANIC)  # let the trace arrive
        dead = self.death()
        if dead is not None:
            raise BootFailure(*dead)

    def _watch(self) -> None:
        """Break the connection when the run is to end: whatever command is waited for then comes back."""
        while not self._closed.wait(0.3):
            if self._stopping() and not self._guarded:
                self._guarded = True
                shell = self.shell
                if shell is not None:
                    shell.close()


def look(remote: Remote) -> Running:
    """Which boot of which kernel runs.

    Raises:
        InfraError: the box cannot say, or our commands do not run as root there.
    """
    boot_id, release, user, cmdline = remote.script(_STATE, timeout=60).split("\n")[:4]
    if user != "0":
        raise InfraError(f"{remote.box}: commands run as user {user} there, not as root")
    return Running(boot_id, release, cmdline)
