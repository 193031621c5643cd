"""Acts on a guest's kernel one after the other, and holds log, taint and modules after each against those before."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from harness.machines.guest import Change, Guest, GuestLost
from harness.machines.kmsg import complaints
from harness.model.outcome import Outcome
from harness.model.records import TestResult
from harness.model.shell import Completed
from harness.model.stage import Stage
from harness.model.taint import BAD, BIT, added, describe, letters

Turn = tuple[str, Callable[[], TestResult]]
Details = dict[str, str | int | float | bool]

BAD_BITS = sum(BIT[letter] for letter in BAD)
"""Taints that mean that the kernel itself complained."""


def in_turn(stage: Stage, turns: Iterable[Turn]) -> tuple[list[TestResult], bool]:
    """Do one thing after the other; when the guest is lost in one, that is its result and the last one."""
    results: list[TestResult] = []
    for name, act in turns:
        try:
            results.append(act())
        except GuestLost as error:
            results.append(TestResult(name, stage, error.outcome, error.reason))
            return results, True
    return results, False


@dataclass(frozen=True, slots=True)
class Acted:
    """A command that changes the kernel, and what the kernel made of it."""

    done: Completed
    change: Change
    outcome: Outcome
    """FAIL for a kernel that complained or was tainted, and for a command that failed or did not end."""
    reason: str
    seconds: float

    def details(self) -> Details:
        """Taint in letters and words, the number of new messages, and the first one that is an error."""
        details: Details = {
            "taint_before": letters(self.change.taint_before),
            "taint_after": letters(self.change.taint_after),
            "new_messages": len(self.change.messages),
        }
        new = added(self.change.taint_before, self.change.taint_after)
        if new:
            details["taint_added"] = describe(new)
        worst = [message for message in self.change.messages if message.level <= 3]
        if worst:
            details["first_error"] = worst[0].text[:200]
        return details


def act(guest: Guest, argv: Sequence[str], timeout: float) -> Acted:
    """Run a command that changes the kernel, then look at the kernel.

    Raises:
        GuestLost: the guest died of it, or does not answer any more.
    """
    started = time.monotonic()
    done = guest.run(argv, timeout=timeout)
    guest.check(done)
    change = guest.change()
    outcome, reason = _judge(done, timeout, change)
    return Acted(done, change, outcome, reason, time.monotonic() - started)


def complaint(change: Change) -> str:
    """What speaks against the kernel in a change of it: a complaint in its log, or a taint that means one.

    That a module is proprietary, out of tree or unsigned taints the kernel, too; that is a fact and no complaint.
    """
    complained = complaints(change.messages)
    if complained:
        return f"the kernel complained: {complained[0].text[:200]}"
    bad = BAD_BITS & added(change.taint_before, change.taint_after)
    return f"the kernel became tainted: {describe(bad)}" if bad else ""


def last_words(done: Completed) -> str:
    """The last line of a command's error output."""
    return (done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no error output"])[0][:200]


def _judge(done: Completed, timeout: float, change: Change) -> tuple[Outcome, str]:
    complained = complaint(change)
    if complained:
        return Outcome.FAIL, complained
    if done.timed_out:
        return Outcome.FAIL, f"did not finish within {timeout:.0f} s"
    return (Outcome.PASS, "") if done.ok else (Outcome.FAIL, last_words(done))
