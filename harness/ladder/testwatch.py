"""The watch around every compute test: what kernel and driver came to while it ran, however well it went itself.

After each test one look at the machine is held against the one before: the kernel's log, its taint, the references of
the stack's modules, processes that hang in the kernel, the space on the disk. What passes by itself is given a few
seconds to pass. A GPU's driver is asked for its devices as well, as a driver that was left with a lock held answers
nobody ever after.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from harness.devices.hostlog import addresses_in
from harness.images.recipe import StackRecipe
from harness.ladder.leaks import loaded_modules
from harness.ladder.loading import kernel_name
from harness.ladder.watching import BAD_BITS, Details
from harness.machines.guest import Blocked, Change, Guest
from harness.machines.kmsg import complaints, of_drivers
from harness.model.kmsg import KernelMessage
from harness.model.outcome import DECIDING, Outcome
from harness.model.records import TestResult
from harness.model.shell import Completed
from harness.model.taint import BIT, added, describe
from harness.suites.run import list_devices

LIVE_SECONDS = 5.0
"""Within which a driver lists its devices, on hardware; or three times what it took at first, where that is longer."""
_SETTLES = 8.0
"""Seconds, on hardware, within which a reference is given back and a process comes out of the kernel; a runner that
nobody waits for has ended by then."""
_POLL = 1.0
_LINES = 200
_STATE = re.compile(r"^State:\s+(\S)", re.MULTILINE)
_SWITCHES = re.compile(r"^(?:non)?voluntary_ctxt_switches:\s+(\d+)", re.MULTILINE)
_WHERE = re.compile(r"^@where ([A-Za-z_]\w*)$", re.MULTILINE)
_PROCESSES = (
    'for pid; do echo "@pid $pid"; cd "/proc/$pid" 2>/dev/null || continue; cat status; echo "@where $(cat wchan)"; '
    "cat stack; done"
)
_PROCESS = re.compile(r"^@pid (\d+)\n", re.MULTILINE)
_OURS = "gtrun"

Query = Callable[[str, float], Completed]
"""Asks the driver behind a backend for its devices, in a process of its own, within some seconds."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one test left behind."""

    complaint: str = ""
    """The worst of it, in the kernel's own words; empty when nothing speaks against the kernel or the driver."""
    full_disk: str = ""
    log: bytes = b""
    """The kernel's messages meanwhile, and where a process hangs."""
    details: Details = field(default_factory=dict)

    def judge(self, result: TestResult) -> TestResult:
        """Hold a test's result against it: a complaint outweighs whatever the test itself found."""
        result = replace(result, details={**result.details, **self.details})
        if self.complaint:
            return instead(result, Outcome.FAIL, self.complaint)
        if self.full_disk and result.outcome in DECIDING:
            return instead(result, Outcome.MISS, self.full_disk)
        return result


@dataclass(slots=True)
class TestWatch:
    """The watch over one machine, from its first test to its last."""

    __test__ = False  # not a pytest class

    guest: Guest
    scale: float = 1.0
    """Factor on all times."""
    modules: frozenset[str] = frozenset()
    """Whose references are counted: those of the stack."""
    query: Query | None = None
    """None where no GPU's driver is behind the stack."""
    shared: bool = False
    """Others work on this machine, too: what they hold and where they hang is no test's fault."""
    among: frozenset[str] | None = None
    """Functions (``0000:01:00.0``) one of which a message must name, where it names any; None for a machine's own."""
    _blocked: frozenset[Blocked] = frozenset()
    _references: dict[str, int] = field(default_factory=dict)
    _listed: dict[str, float] = field(default_factory=dict)
    _full_since: str = ""

    def begin(self) -> str:
        """Take the first look; return what the kernel complained of since anybody looked last.

        Raises:
            GuestLost: the machine is gone, or cannot say.
        """
        change = self.guest.change()
        self._note()
        self._full("already before the tests")
        return _words(self._sort(change.messages, ())[0], change)

    def listed(self, backend: str, seconds: float) -> None:
        """Note that the driver behind ``backend`` lists its devices, and how long that takes it."""
        self._listed.setdefault(backend, seconds)

    def after(self, name: str, backend: str, expects: Sequence[str]) -> Seen:
        """Look at what the test ``name`` left behind; ``expects`` are messages that it provokes on purpose.

        Raises:
            GuestLost: the machine is gone, or cannot say.
        """
        details: Details = {}
        silent = self._ask(backend, details)
        change = self.guest.change()
        found, expected = self._sort(change.messages, expects)
        complaint = _words(found, change, forgiven=bool(expected))
        stuck, where = self._stuck()
        held = self._held()
        full = self._full(f"since {name} ran")
        complaint = complaint or stuck or held or silent
        log = [message.line() for message in change.messages[-_LINES:]]
        noted: Details = {
            "kernel.messages": len(change.messages),
            "kernel.complaints": len(found),
            "kernel.expected": len(expected),
            "kernel.taint_added": describe(added(change.taint_before, change.taint_after)),
            "kernel.stuck": stuck,
            "kernel.references": held,
            "kernel.disk": full,
        }
        details |= {key: value for key, value in noted.items() if value and value != "none"}
        details["kernel"] = complaint or _unknown(change) or "clean"
        self._note()
        return Seen(complaint, full, "\n".join([*log, *where]).encode(), details)

    def _sort(
        self, messages: tuple[KernelMessage, ...], expects: Sequence[str]
    ) -> tuple[list[tuple[str, KernelMessage]], list[KernelMessage]]:
        """(what speaks against the kernel or a driver, what was expected), in the order of the log."""
        wanted = [re.compile(pattern) for pattern in expects]
        found = {message.sequence: ("the kernel", message) for message in complaints(messages)}
        for who, message in of_drivers(messages):
            if self._concerns(message):
                found.setdefault(message.sequence, (who, message))
        expected = [message for message in messages if any(one.search(message.text) for one in wanted)]
        known = {message.sequence for message in expected}
        return [found[sequence] for sequence in sorted(found) if sequence not in known], expected

    def _note(self) -> None:
        self._blocked = frozenset(self.guest.last.blocked)
        self._references = self._count(self.guest.last.modules)

    def _count(self, modules: bytes) -> dict[str, int]:
        """References of the watched modules, and of those that use them, that no other module holds."""
        loaded = loaded_modules(modules.decode("utf-8", "replace"))
        wanted = set(self.modules)
        while more := {user for name in wanted if name in loaded for user in loaded[name].users} - wanted:
            wanted |= more
        return {name: module.unexplained for name, module in loaded.items() if name in wanted}

    def _held(self) -> str:
        """Which module has more references than before the test, some seconds after its end."""
        if self.shared:
            return ""
        deadline = time.monotonic() + _SETTLES * self.scale
        now = self._count(self.guest.last.modules)
        while grown := [name for name, count in now.items() if count > self._references.get(name, 0)]:
            if time.monotonic() > deadline:
                name = grown[0]
                return f"{name} is left with {now[name]} references, {self._references.get(name, 0)} before the test"
            time.sleep(_POLL)
            now = self._count(self.guest.must(["cat", "/proc/modules"], timeout=60 * self.scale).encode())
        return ""

    def _stuck(self) -> tuple[str, list[str]]:
        """Who hangs in the kernel since the test, for seconds and without being scheduled; and where it hangs."""
        suspects = {one.pid: one for one in self.guest.last.blocked if one not in self._blocked}
        if self.shared:
            suspects = {pid: one for pid, one in suspects.items() if one.name.startswith(_OURS)}
        deadline = time.monotonic() + _SETTLES * self.scale
        switches: dict[int, list[str]] = {}
        while suspects:
            states = self._states(suspects)
            for pid in [*suspects]:
                state = _STATE.search(states.get(pid, ""))
                now = _SWITCHES.findall(states.get(pid, ""))
                # Who went on and was caught waiting again has been scheduled in between.
                if state is None or state[1] != "D" or switches.setdefault(pid, now) != now:
                    del suspects[pid]
            if suspects and time.monotonic() > deadline:
                pid, one = next(iter(suspects.items()))
                where = _WHERE.search(states[pid])
                at = f", in {where[1]}" if where else ""
                others = f", and {len(suspects) - 1} more" if len(suspects) > 1 else ""
                words = f"a process hangs in the kernel: {one.name[:40]!r} (pid {pid}{at}){others}"
                return words, [f"--- {words} ---", *states[pid].splitlines()[-_LINES:]]
            if suspects:
                time.sleep(_POLL)
        return "", []

    def _states(self, pids: Iterable[int]) -> dict[int, str]:
        """What the kernel says of each process that is still there: ``status``, where it waits, its stack."""
        done = self.guest.run(["sh", "-c", _PROCESSES, "sh", *map(str, pids)], timeout=60 * self.scale)
        self.guest.check(done)
        parts = _PROCESS.split(done.stdout.decode("utf-8", "replace"))
        return {int(pid): rest for pid, rest in zip(parts[1::2], parts[2::2], strict=True)}

    def _ask(self, backend: str, details: Details) -> str:
        """Whether the driver still lists its devices, in time."""
        if self.query is None:
            return ""
        usual = self._listed.get(backend)
        limit = max(LIVE_SECONDS * self.scale, 3 * (usual or 0.0))
        done = self.query(backend, limit)
        self.guest.check(done)
        details["kernel.answered"] = round(done.seconds, 3)
        if done.timed_out or done.exit_status == 124:
            return f"the driver did not list its devices within {limit:.0f} s after the test"
        if usual is not None and not done.ok:
            return "the driver does not list its devices any more after the test"
        return ""

    def _full(self, since: str) -> str:
        """Whether the disk is full, and since when."""
        full = self.guest.last.full_disk
        if full and self.shared:
            full = "this machine's root file system has no space left"
        if not full:
            self._full_since = ""
        elif not self._full_since:
            self._full_since = since
        return f"{full}, {self._full_since}" if full else ""

    def _concerns(self, message: KernelMessage) -> bool:
        named = addresses_in(message.text)
        return self.among is None or not named or any(_same(one, ours) for one in named for ours in self.among)


def _same(named: str, function: str) -> bool:
    """Whether a line's name for a device is that of a function; a name without function is the whole slot's."""
    return named == function or function.rpartition(".")[0] == named


def _words(found: Sequence[tuple[str, KernelMessage]], change: Change, *, forgiven: bool = False) -> str:
    if found:
        who, message = found[0]
        return f"{who} complained: {message.text[:200]}"
    bad = BAD_BITS & added(change.taint_before, change.taint_after)
    if forgiven:  # the warning that was expected has left its mark
        bad &= ~BIT["W"]
    return f"the kernel became tainted: {describe(bad)}" if bad else ""


def _unknown(change: Change) -> str:
    if change.unread:
        return f"not collected: {change.unread}"
    return "not all collected: some of its log was overwritten" if change.lost else ""


def instead(result: TestResult, outcome: Outcome, reason: str) -> TestResult:
    """The result with another outcome, and what the test itself had said behind the reason for it."""
    said = f"{result.outcome}: {result.reason}" if result.reason else str(result.outcome)
    was = "" if result.outcome is Outcome.PASS else f" (the test said {said})"
    return replace(result, outcome=outcome, reason=f"{reason}{was}")


def watch_over(guest: Guest, stack: StackRecipe, scale: float, tests_dir: str) -> TestWatch:
    """The watch over a machine that is the cell's alone."""
    modules = frozenset(map(kernel_name, stack.modules))
    return TestWatch(guest, scale, modules, query_of(guest, tests_dir) if stack.kind == "gpu" else None)


def query_of(guest: Guest, tests_dir: str) -> Query:
    """How a driver on this machine is asked for its devices."""
    return lambda backend, seconds: list_devices(guest, backend=backend, timeout=seconds, gpu_tests_dir=tests_dir)
