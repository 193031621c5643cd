"""What the rungs of the ladder do in a booted guest: modules in and out, steps of the stack, compute tests."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from harness.images.recipe import Module, StackRecipe, Step
from harness.machines.guest import Change, Guest, GuestLost
from harness.machines.kmsg import complaints
from harness.model.outcome import DECIDING, Outcome, summarise
from harness.model.records import TestResult
from harness.model.stage import Stage
from harness.model.taint import BAD, TAINT_BITS, added, describe, letters
from harness.suites.manifest import TestSpec
from harness.suites.run import run_test


@dataclass(slots=True)
class Rung:
    """What one rung found, before it becomes a record."""

    outcome: Outcome
    reason: str = ""
    tests: list[TestResult] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    """Evidence by file name."""
    facts: dict[str, str] = field(default_factory=dict)


def from_tests(tests: list[TestResult], nothing: str) -> Rung:
    """Reduce results to a rung: the outcome of highest priority and the first reason for it."""
    if not tests:
        return Rung(Outcome.SKIP, nothing)
    outcome = summarise(test.outcome for test in tests)
    reason = next((f"{test.name}: {test.reason}" for test in tests if test.outcome is outcome and test.reason), "")
    return Rung(outcome, reason if outcome in DECIDING or outcome is Outcome.SKIP else "", tests)


def load(guest: Guest, stack: StackRecipe, timeout: float, activate: float, scale: float) -> Rung:
    """Load the stack's modules one by one, then run its ``activate`` and ``verify`` steps of this rung.

    ``timeout`` bounds each module and ``activate`` each step, in seconds.
    """
    turns: list[Turn] = [
        (f"load {module.name}", lambda module=module: _load_module(guest, module, timeout))  # type: ignore[misc]
        for module in stack.modules
    ]
    results, lost = _in_turn(Stage.LOAD, turns)
    if not lost:
        steps = [*stack.activate, *(step for step in stack.verify if step.stage is Stage.LOAD)]
        more, lost = run_steps(guest, steps, Stage.LOAD, activate, scale)
        results += more
    rung = from_tests(results, "the stack has no kernel module")
    loaded = {result.name for result in results if result.outcome is Outcome.PASS}
    present = [module.name for module in stack.modules if f"load {module.name}" in loaded]
    if present and not lost:
        rung.files["modinfo.txt"] = guest.run(["modinfo", *present], timeout=timeout).stdout
        rung.files["modules.txt"] = guest.last.modules
    return rung


def unload(guest: Guest, stack: StackRecipe, loaded: Iterable[str], timeout: float) -> Rung:
    """Remove the modules in reverse order; one that stays, or that makes the kernel complain, is a finding."""
    names = [module for module in stack.modules if module.name in set(loaded)]
    turns: list[Turn] = [
        (f"unload {module.name}", lambda module=module: _unload_module(guest, module, timeout))  # type: ignore[misc]
        for module in reversed(names)
    ]
    results, _ = _in_turn(Stage.UNLOAD, turns)
    return from_tests(results, "nothing was loaded that could be removed")


def run_steps(
    guest: Guest, steps: Sequence[Step], stage: Stage, limit: float, scale: float
) -> tuple[list[TestResult], bool]:
    """Run a recipe's steps until one fails; return the results and whether the guest was lost."""
    results: list[TestResult] = []
    for step in steps:
        name = " ".join(step.run)[:80]
        allowed = min(step.timeout * scale, limit)
        turn: Turn = (name, lambda step=step, name=name, allowed=allowed: _step(guest, step, stage, name, allowed))  # type: ignore[misc]
        found, lost = _in_turn(stage, [turn])
        results += found
        if lost or found[-1].outcome is not Outcome.PASS:
            return results, lost
    return results, False


Turn = tuple[str, Callable[[], TestResult]]


def _in_turn(stage: Stage, turns: Iterable[Turn]) -> tuple[list[TestResult], bool]:
    """Do one thing after the other; when the guest is lost in one, that is its result and the last one."""
    results: list[TestResult] = []
    for name, act in turns:
        try:
            results.append(act())
        except GuestLost as error:
            results.append(TestResult(name, stage, error.outcome, error.reason))
            return results, True
    return results, False


def _step(guest: Guest, step: Step, stage: Stage, name: str, limit: float) -> TestResult:
    done = guest.run(step.run, timeout=limit)
    guest.check(done)
    if done.timed_out:
        outcome, reason = Outcome.FAIL, f"did not finish within {limit:.0f} s"
    elif not done.ok:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no error output"]
        outcome, reason = Outcome.FAIL, f"returned {done.exit_status}: {said[0][:200]}"
    elif step.match and not re.search(step.match, done.stdout.decode("utf-8", "replace")):
        outcome, reason = Outcome.FAIL, f"its output does not match {step.match!r}"
    else:
        outcome, reason = Outcome.PASS, ""
    return TestResult(name, stage, outcome, reason, done.seconds)


def compute(
    guest: Guest, stack: StackRecipe, tests: Sequence[TestSpec], stage: Stage, timeout: float, scale: float
) -> Rung:
    """Run the compute tests of one rung on every backend of the stack, each in a process of its own."""
    if not stack.backends:
        return Rung(Outcome.SKIP, "the stack offers no compute API without a device")
    results: list[TestResult] = []
    files: dict[str, bytes] = {}
    for backend in stack.backends:
        for test in (test for test in tests if test.stage is stage):
            limit = min(timeout, test.timeout * scale)
            found, raw = run_test(guest, test, backend=backend, timeout=limit)
            if backend in test.backends:
                found = [_as_promised(result, stack, backend) for result in found]
            files[f"{backend}-{test.name}.txt"] = raw
            try:
                if any(result.outcome in DECIDING for result in found):
                    if any(result.outcome is Outcome.MISS for result in found):
                        guest.check()
                    full = guest.full_disk()
                    if full:
                        found = [_with(result, Outcome.MISS, full) for result in found]
            except GuestLost as error:
                found = [_with(result, error.outcome, error.reason) for result in found]
                results += found
                rung = from_tests(results, "")
                rung.files = files
                return rung
            results += found
    rung = from_tests(results, f"no test of the matrix stands on the {stage} rung")
    rung.files = files
    return rung


@dataclass(slots=True)
class Watch:
    """What the kernel said while something ran."""

    complaint: str = ""


@contextmanager
def kernel_watched(guest: Guest) -> Iterator[Watch]:
    """Note whether the kernel complained or became tainted during the block, however well the block itself went."""
    watch = Watch()
    yield watch
    if guest.machine.death() is None:
        outcome, reason = _judge_change(True, False, 0.0, b"", guest.change())
        if outcome is Outcome.FAIL:
            watch.complaint = reason


def _as_promised(result: TestResult, stack: StackRecipe, backend: str) -> TestResult:
    """Hold a result against what the stack's recipe promises: its compute API, and what computes."""
    if result.stage is Stage.ENUMERATE and result.outcome is Outcome.SKIP:
        reason = f"the stack promises {backend}, which the guest does not offer: {result.reason}"
        return replace(result, outcome=Outcome.FAIL, reason=reason)
    if result.outcome is Outcome.PASS and result.kind != stack.kind:
        reason = f"the test computed on {result.kind}, the stack promises {stack.kind}"
        return replace(result, outcome=Outcome.FAIL, reason=reason)
    return result


def _with(result: TestResult, outcome: Outcome, reason: str) -> TestResult:
    if result.outcome not in DECIDING:
        return result
    was = f" (the test said {result.outcome}: {result.reason})" if result.reason else ""
    return replace(result, outcome=outcome, reason=f"{reason}{was}")


def _load_module(guest: Guest, module: Module, timeout: float) -> TestResult:
    name = f"load {module.name}"
    where = guest.run(["modinfo", "-F", "filename", module.name], timeout=timeout)
    guest.check(where if where.lost else None)
    if where.exit_status not in (0, 1):  # it returns 1 for a module that it does not find
        raise GuestLost(Outcome.MISS, f"modinfo in the guest ended with status {where.exit_status}")
    if not where.ok:
        outcome = Outcome.FAIL if module.required else Outcome.SKIP
        return TestResult(name, Stage.LOAD, outcome, f"this kernel has no module {module.name}")
    if b"(builtin)" in where.stdout:
        return TestResult(name, Stage.LOAD, Outcome.PASS, details={"builtin": True})
    return _watched(
        guest,
        name,
        Stage.LOAD,
        ["modprobe", "--", module.name, *module.parameters],
        timeout,
        lambda loaded: _key(module.name) in loaded,
        "modprobe succeeded but the module is not there",
    )


def _unload_module(guest: Guest, module: Module, timeout: float) -> TestResult:
    return _watched(
        guest,
        f"unload {module.name}",
        Stage.UNLOAD,
        ["modprobe", "--remove", "--", module.name],
        timeout,
        lambda loaded: _key(module.name) not in loaded,
        "modprobe succeeded but the module is still there",
    )


def _watched(
    guest: Guest,
    name: str,
    stage: Stage,
    argv: list[str],
    timeout: float,
    achieved: Callable[[frozenset[str]], bool],
    otherwise: str,
) -> TestResult:
    """Run a command that changes the kernel, and hold taint, log and modules against those before it."""
    started = time.monotonic()
    done = guest.run(argv, timeout=timeout)
    guest.check(done)
    change = guest.change()
    details: dict[str, str | int | float | bool] = {
        "taint_before": letters(change.taint_before),
        "taint_after": letters(change.taint_after),
        "new_messages": len(change.messages),
    }
    worst = [message for message in change.messages if message.level <= 3]
    if worst:
        details["first_error"] = worst[0].text[:200]
    outcome, reason = _judge_change(done.ok, done.timed_out, timeout, done.stderr, change)
    if outcome is Outcome.PASS and not achieved(change.modules):
        outcome, reason = Outcome.FAIL, otherwise
    return TestResult(name, stage, outcome, reason, time.monotonic() - started, details=details)


def _judge_change(ok: bool, timed_out: bool, timeout: float, stderr: bytes, change: Change) -> tuple[Outcome, str]:
    complained = complaints(change.messages)
    new = added(change.taint_before, change.taint_after)
    bad = sum(1 << bit for bit, (letter, _) in enumerate(TAINT_BITS) if letter in BAD) & new
    if complained:
        return Outcome.FAIL, f"the kernel complained: {complained[0].text[:200]}"
    if bad:
        return Outcome.FAIL, f"the kernel became tainted: {describe(bad)}"
    if timed_out:
        return Outcome.FAIL, f"did not finish within {timeout:.0f} s"
    if not ok:
        said = stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no error output"]
        return Outcome.FAIL, said[0][:200]
    return Outcome.PASS, ""


def _key(module: str) -> str:
    return module.replace("-", "_")
