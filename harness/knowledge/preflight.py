"""Says before a cell runs what its rungs are expected to come to, and why. Nothing in here decides an outcome."""

from __future__ import annotations

from collections.abc import Iterator

from harness.kernels.config import unmet
from harness.knowledge.conditions import Subject, holds, names
from harness.knowledge.headers import breaks
from harness.knowledge.issues import KnownIssue, KnownIssues
from harness.knowledge.rules import Rules
from harness.knowledge.versions import compare_drivers
from harness.model.outcome import Outcome
from harness.model.prediction import Prediction
from harness.model.stage import LADDER, Stage

_FINAL = (Outcome.SKIP, Outcome.MISS)


def predict(subject: Subject, issues: KnownIssues, rules: Rules) -> tuple[Prediction, ...]:
    """Every prediction for a cell, in the order of the ladder.

    What is not known is not guessed: without the kernel's configuration, its conditions predict nothing. Where a rung
    is expected not to apply, or not to be reached, no failure is predicted from there on.
    """
    found = [
        *_requirements(subject),
        *_no_headers(subject),
        *_rules(subject, rules),
        *_floors(subject, rules),
        *_issues(subject, issues),
        *_debug(subject, rules),
    ]
    found.sort(key=lambda one: LADDER.index(one.stage))
    ends = next((LADDER.index(one.stage) for one in found if one.outcome in _FINAL and _ends_all(one)), len(LADDER))
    return tuple(one for one in found if one.outcome in _FINAL or LADDER.index(one.stage) < ends)


def _ends_all(prediction: Prediction) -> bool:
    """A module that is not built ends the ladder; a throughput rung that is skipped does not."""
    return prediction.stage in (Stage.IMAGE, Stage.BUILD, Stage.BOOT, Stage.LOAD)


def _requirements(subject: Subject) -> Iterator[Prediction]:
    stage = Stage.BUILD if subject.recipe.build else Stage.LOAD
    if subject.config is not None:
        for problem in unmet(subject.config, subject.recipe.requires):
            yield Prediction(stage, Outcome.SKIP, f"the stack requires: {problem}", "requires")


def _no_headers(subject: Subject) -> Iterator[Prediction]:
    if subject.recipe.build and subject.identity is not None and not subject.identity.has_headers:
        reason = f"{subject.identity.source} has no headers of {subject.identity.release}"
        yield Prediction(Stage.BUILD, Outcome.MISS, reason, "headers")


def _rules(subject: Subject, rules: Rules) -> Iterator[Prediction]:
    for rule in rules.rules:
        if rule.speaks_of(subject):
            yield Prediction(rule.rung, rule.outcome, rule.reason, f"rule {rule.id}")


def _floors(subject: Subject, rules: Rules) -> Iterator[Prediction]:
    if not subject.driver:
        return
    floor = subject.recipe.floors.get("driver", "")
    if floor and compare_drivers(subject.driver, floor) < 0:
        yield Prediction(Stage.COMPUTE, Outcome.SKIP, f"driver {subject.driver} is older than {floor}", "floors")
    toolkit = subject.recipe.floors.get("cuda", "")
    release = rules.cuda.get(toolkit)
    if release is None:
        return
    if compare_drivers(subject.driver, release.floor) < 0:
        reason = f"cuda_floor: CUDA {toolkit} needs driver {release.floor}, this is {subject.driver}"
        yield Prediction(Stage.COMPUTE, Outcome.SKIP, reason, f"cuda {toolkit}")
    elif compare_drivers(subject.driver, release.shipped) < 0 and subject.device != "none":
        reason = (
            f"CUDA {toolkit} came with driver {release.shipped}; {subject.driver} serves it by minor version "
            "compatibility, which does not compile newer PTX"
        )
        yield Prediction(Stage.COMPUTE, Outcome.PASS, reason, f"cuda {toolkit}")


def _issues(subject: Subject, issues: KnownIssues) -> Iterator[Prediction]:
    for issue in issues:
        if issue.sometimes or issue.infrastructure or not names(subject.stack, issue.stack):
            continue
        if issue.modules and subject.modules not in issue.modules:
            continue
        if issue.needs_device and (subject.device == "none" or not issue.on_device(subject.device)):
            continue
        if issue.rung is Stage.BUILD and subject.recipe.build is None:
            continue
        seen = breaks(issue.interface, subject.headers) if issue.interface and subject.headers else None
        if seen is not None:
            # The headers themselves know of backports, which no range of versions does.
            if seen and issue.driver and holds(subject.driver, issue.driver, "driver"):
                yield _of_issue(issue, f"headers {issue.id}", "the headers show it")
        elif issue.in_range(subject.stack, subject.driver, subject.kernel, subject.config, subject.modules):
            yield _of_issue(issue, f"known issue {issue.id}", f"confidence {issue.confidence}")


def _of_issue(issue: KnownIssue, source: str, why: str) -> Prediction:
    return Prediction(issue.rung, Outcome.FAIL, f"{issue.title} ({why})", source)


def _debug(subject: Subject, rules: Rules) -> Iterator[Prediction]:
    reason = rules.debugging(subject.config)
    if reason:
        yield Prediction(Stage.THROUGHPUT, Outcome.SKIP, reason, "debug kernel")
