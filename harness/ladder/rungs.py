"""What the rungs of the ladder do in a booted guest: modules in and out, steps of the stack, compute tests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product

from harness.images.recipe import StackRecipe, Step
from harness.ladder.loading import Modules
from harness.ladder.testwatch import TestWatch, instead
from harness.ladder.watching import Turn, in_turn, last_words
from harness.machines.guest import Guest, GuestLost
from harness.model.outcome import DECIDING, Outcome, summarise
from harness.model.records import TestResult
from harness.model.stage import Stage
from harness.suites.manifest import TestSpec
from harness.suites.run import GUEST_DIR, LEFT_OUT, NO_API, run_test


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


def load(modules: Modules, activate: float, scale: float) -> Rung:
    """Load the stack's modules one by one, then run its ``activate`` and ``verify`` steps of this rung.

    ``activate`` bounds each step, in seconds. A driver that found no device ends the rung as passed: there is nothing
    to activate or to verify then.
    """
    guest, stack = modules.guest, modules.stack
    results, lost = modules.load()
    bad = any(result.outcome in DECIDING for result in results)
    if not lost and not bad and not modules.refused:
        steps = [*stack.activate, *(step for step in stack.verify if step.stage is Stage.LOAD)]
        more, lost = run_steps(guest, steps, Stage.LOAD, activate, scale)
        results += more
    rung = from_tests(results, "the stack has no kernel module")
    rung.facts |= modules.facts
    if modules.refused:
        rung.facts["load.refused"] = modules.refused
    present = [module.name for module in modules.loaded]
    if present and not lost:
        rung.files["modinfo.txt"] = guest.run(["modinfo", *present], timeout=modules.timeout).stdout
        rung.files["modules.txt"] = guest.last.modules
    return rung


def no_device(modules: Modules) -> str:
    """Why nothing can be computed in this cell, when there is no device to compute on; empty when there is."""
    if modules.device != "none":
        return ""
    if modules.refused:
        return f"no device: {modules.refused}"
    return "no device: the stack computes on a GPU, and none is attached" if modules.stack.kind == "gpu" else ""


def unload(modules: Modules) -> Rung:
    """Remove the modules in reverse order, load and remove them again; what stays, complains or leaks is a finding."""
    return from_tests(modules.unload(), no_device(modules) or "nothing was loaded that could be removed")


def run_steps(
    guest: Guest, steps: Sequence[Step], stage: Stage, limit: float, scale: float
) -> tuple[list[TestResult], bool]:
    """Run a recipe's steps until one fails; return the results and whether the guest was lost."""
    results: list[TestResult] = []
    for step in steps:
        name = " ".join(step.run)[:80]
        allowed = min(step.timeout * scale, limit)
        turn: Turn = (name, partial(_step, guest, step, stage, name, allowed))
        found, lost = in_turn(stage, [turn])
        results += found
        if lost or found[-1].outcome is not Outcome.PASS:
            return results, lost
    return results, False


def _step(guest: Guest, step: Step, stage: Stage, name: str, limit: float) -> TestResult:
    done = guest.run(step.run, timeout=limit)
    guest.check(done)
    if done.timed_out:
        outcome, reason = Outcome.FAIL, f"did not finish within {limit:.0f} s"
    elif not done.ok:
        outcome, reason = Outcome.FAIL, f"returned {done.exit_status}: {last_words(done)}"
    elif step.match and not re.search(step.match, done.stdout.decode("utf-8", "replace")):
        outcome, reason = Outcome.FAIL, f"its output does not match {step.match!r}"
    else:
        outcome, reason = Outcome.PASS, ""
    return TestResult(name, stage, outcome, reason, done.seconds)


def compute(
    watch: TestWatch,
    stack: StackRecipe,
    tests: Sequence[TestSpec],
    stage: Stage,
    timeout: float,
    scale: float,
    tests_dir: str = GUEST_DIR,
    device: str = "",
) -> Rung:
    """Run the compute tests of one rung on every backend of the stack, each in a process of its own and under watch."""
    wanted = [test for test in tests if test.stage is stage]
    nothing = f"no test of the matrix stands on the {stage} rung"
    if not stack.backends:
        # A program of the user's own may need no compute API: a test of the kernel's graphics interface does not.
        wanted = [test for test in wanted if test.runs_on(NO_API)]
        nothing = stack.no_compute or "the stack offers no compute API without a device"
    if not wanted:
        return Rung(Outcome.SKIP, nothing)
    results: list[TestResult] = []
    files: dict[str, bytes] = {}
    before = watch.begin()
    if before:
        results.append(TestResult("before the tests", stage, Outcome.FAIL, before))
    # Tier by tier, whatever the backend: what may take the driver down comes after all that wants it whole.
    for test, backend in sorted(product(wanted, stack.backends or (NO_API,)), key=lambda pair: pair[0].tier):
        limit = min(timeout, test.timeout * scale)
        found, raw = run_test(watch.guest, test, backend=backend, timeout=limit, gpu_tests_dir=tests_dir, device=device)
        if test.runs_on(backend):
            found = [_as_promised(result, stack, backend) for result in found]
            found, log, lost = _watched(watch, test, backend, found)
            raw += b"\n--- the kernel meanwhile ---\n" + log + b"\n" if log else b""
            if lost:
                results += found
                files[f"{backend}-{test.name}.txt"] = raw
                break
        results += found
        files[f"{backend}-{test.name}.txt"] = raw
    rung = from_tests(results, nothing)
    rung.files = files
    return rung


def _watched(
    watch: TestWatch, test: TestSpec, backend: str, found: list[TestResult]
) -> tuple[list[TestResult], bytes, bool]:
    """(results as the watch judges them, what the kernel said, whether the guest was lost)."""
    try:
        if any(result.outcome is Outcome.MISS for result in found):
            watch.guest.check()
        if test.stage is Stage.ENUMERATE and all(result.outcome is Outcome.PASS for result in found):
            watch.listed(backend, max(result.seconds for result in found))
        seen = watch.after(test.name, backend, test.expects)
    except GuestLost as error:
        return [instead(result, error.outcome, error.reason) for result in found], b"", True
    return [seen.judge(result) for result in found], seen.log, False


def _as_promised(result: TestResult, stack: StackRecipe, backend: str) -> TestResult:
    """Hold a result against what the stack's recipe promises: its compute API, and what computes.

    A program of the user's own that does not say what it computed on (kind ``none``) promises nothing.
    """
    if result.stage is Stage.ENUMERATE and result.outcome is Outcome.SKIP and LEFT_OUT not in result.details:
        reason = f"the stack promises {backend}, which the guest does not offer: {result.reason}"
        return replace(result, outcome=Outcome.FAIL, reason=reason)
    if result.outcome is Outcome.PASS and result.kind not in (stack.kind, "none"):
        reason = f"the test computed on {result.kind}, the stack promises {stack.kind}"
        return replace(result, outcome=Outcome.FAIL, reason=reason)
    return result
