"""What a cell of the matrix shows: every attempt of a cell drawn together into one view. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Literal

from harness.model.cell import Cell, LeftOut, Series
from harness.model.outcome import Outcome, summarise
from harness.model.records import Attempt, Kind, Metric
from harness.model.stage import LADDER, Stage
from harness.report.data import ReportInput
from harness.report.foresight import best_issue, expected_words
from harness.report.wilson import lower_bound

EvidenceState = Literal["collected", "partly", "not collected", "none due"]
Readable = Callable[[str], bool]
"""Whether the evidence with this SHA-256 was there to be read."""


class State(StrEnum):
    """What a position of the matrix can say: the six outcomes, and the kinds of nothing, kept apart."""

    FAIL = "fail"
    ERROR = "error"
    MISS = "miss"
    PASS = "pass"
    DONE = "done"
    SKIP = "skip"
    BLOCKED = "blocked"
    NOT_RUN = "not-run"
    LEFT_OUT = "left-out"


_OF_OUTCOME = {
    Outcome.FAIL: State.FAIL,
    Outcome.ERROR: State.ERROR,
    Outcome.MISS: State.MISS,
    Outcome.PASS: State.PASS,
    Outcome.DONE: State.DONE,
    Outcome.SKIP: State.SKIP,
}
# The weakest computer wins: one test that ran on the CPU is enough to keep a cell from the GPU's colour.
_WEAKEST: tuple[Kind, ...] = ("fake", "cpu-runtime", "gpu")
_COMPUTING = (Stage.COMPUTE, Stage.THROUGHPUT)


@dataclass(frozen=True, slots=True)
class Headline:
    """The one measured number that stands in a matrix cell."""

    test: str
    metric: str
    value: float
    """Median over the attempts of each attempt's median, in ``unit``."""
    unit: str
    low: float | None
    high: float | None
    attempts: int
    roofline: float | None


@dataclass(frozen=True, slots=True)
class CellView:
    """One position of the matrix that has something to say."""

    id: str
    guest: str
    kernel: str
    series: str
    stack: str
    device: str
    state: State
    kind: Kind = "none"
    rung: Stage | None = None
    reason: str = ""
    tests_passed: int = 0
    tests_total: int = 0
    headline: Headline | None = None
    boots_passed: int = 0
    boots_tried: int = 0
    """Attempts that passed or failed; MISS, ERROR and SKIP say nothing about the product and are not trials."""
    boots_planned: int = 0
    boots_without_verdict: int = 0
    bound: float | None = None
    """Lower end of the 95 % Wilson interval of the pass rate."""
    releases: tuple[str, ...] = ()
    """What ``uname -r`` printed inside the guest, each once."""
    resolved: str = ""
    """The release that the kernel was resolved to, where a record of it exists."""
    evidence: EvidenceState = "none due"
    issue: str = ""
    """Id of the known issue that explains the cell best."""
    issue_grade: str = ""
    expected: str = ""
    """What was predicted, and whether it happened."""
    trouble: tuple[str, ...] = ()
    """What is wrong with its device or lab box since."""

    @property
    def tagged(self) -> bool:
        """Whether what computed is named beside the outcome; "NO GPU" beside a failure would accuse the wrong thing."""
        return self.kind != "none" or self.state in (State.PASS, State.DONE)

    @property
    def gpu_pass(self) -> bool:
        """Only this may have the full pass colour."""
        return self.state is State.PASS and self.kind == "gpu"


def views(data: ReportInput, readable: Readable) -> tuple[CellView, ...]:
    """Return every cell of a run: the planned ones in their order, then unplanned ones, then those left out."""
    by_cell: dict[str, list[Attempt]] = {}
    for attempt in data.attempts:
        by_cell.setdefault(attempt.cell_id, []).append(attempt)
    planned = {cell.id: cell for cell in data.cells}
    series = {cell.kernel.name: str(cell.kernel.series) for cell in data.cells}
    made = [_view(cell, by_cell.get(cell.id, ()), readable) for cell in planned.values()]
    for cell_id in by_cell:
        if cell_id not in planned:
            made.append(_unplanned(cell_id, by_cell[cell_id], series, readable))
    known = {view.id for view in made}
    for left in data.left_out:
        if left.cell_id not in known:
            known.add(left.cell_id)
            made.append(_left_out(left, series))
    return tuple(made)


def axes_of(cell_id: str) -> tuple[str, str, str, str]:
    """Split a cell's id into (guest, kernel, stack, device); what is not there is empty."""
    guest, kernel, stack, device = [*cell_id.split("/", 3), "", "", ""][:4]
    return guest, kernel, stack, device


def _left_out(left: LeftOut, series: dict[str, str]) -> CellView:
    guest, kernel, stack, device = axes_of(left.cell_id)
    return CellView(
        left.cell_id, guest, kernel, series.get(kernel, ""), stack, device, State.LEFT_OUT, reason=left.reason
    )


def _unplanned(cell_id: str, attempts: Sequence[Attempt], series: dict[str, str], readable: Readable) -> CellView:
    guest, kernel, stack, device = axes_of(cell_id)
    empty = CellView(cell_id, guest, kernel, series.get(kernel, ""), stack, device, State.NOT_RUN)
    return _with_attempts(empty, attempts, 0, (), readable)


def _view(cell: Cell, attempts: Sequence[Attempt], readable: Readable) -> CellView:
    empty = CellView(
        cell.id,
        cell.place,
        cell.kernel.name,
        str(cell.kernel.series),
        cell.stack,
        cell.device,
        State.NOT_RUN,
        reason="planned, not run yet",
        tests_total=len(cell.tests),
        boots_planned=cell.boots,
    )
    return _with_attempts(empty, attempts, cell.boots, cell.tests, readable) if attempts else empty


def _with_attempts(
    empty: CellView, attempts: Sequence[Attempt], boots: int, tests: tuple[str, ...], readable: Readable
) -> CellView:
    outcome = summarise(attempt.outcome for attempt in attempts)
    deciding = telling(attempts)
    passed = sum(attempt.outcome is Outcome.PASS for attempt in attempts)
    tried = passed + sum(attempt.outcome is Outcome.FAIL for attempt in attempts)
    state = _OF_OUTCOME[outcome]
    if state is State.SKIP and deciding.reason.lower().startswith("blocked"):
        state = State.BLOCKED
    good, total = count_tests(deciding, tests)
    issue = best_issue(attempts)
    return CellView(
        empty.id,
        empty.guest,
        empty.kernel,
        empty.series,
        empty.stack,
        empty.device,
        state,
        kind=kind_of(attempts),
        rung=deciding.rung,
        reason=deciding.reason,
        tests_passed=good,
        tests_total=total,
        headline=headline(attempts),
        boots_passed=passed,
        boots_tried=tried,
        boots_planned=boots,
        boots_without_verdict=len(attempts) - tried,
        bound=lower_bound(passed, tried),
        releases=_each_once(attempt.facts.get("uname_release", "") for attempt in attempts),
        resolved=next((a.facts["kernel.release"] for a in attempts if a.facts.get("kernel.release")), ""),
        evidence=_evidence_state(attempts, readable),
        issue=issue.issue if issue else "",
        issue_grade=str(issue.grade) if issue else "",
        expected=expected_words(attempts),
        trouble=_each_once(text for attempt in attempts for text in attempt.trouble),
    )


def telling(attempts: Sequence[Attempt]) -> Attempt:
    """Return the attempt that speaks for a cell: of those with the summary outcome, the one stopped earliest."""
    outcome = summarise(attempt.outcome for attempt in attempts)
    fitting = [attempt for attempt in attempts if attempt.outcome is outcome]
    return min(fitting, key=lambda attempt: (LADDER.index(attempt.rung), attempt.number))


def kind_of(attempts: Iterable[Attempt]) -> Kind:
    """Return what computed: the weakest of all tests that ran, ``none`` if nothing did."""
    kinds = {test.kind for a in attempts for test in a.tests if test.outcome is not Outcome.SKIP}
    return next((kind for kind in _WEAKEST if kind in kinds), "none")


def count_tests(attempt: Attempt, planned: tuple[str, ...]) -> tuple[int, int]:
    """Return (passed, all) tests, modules loaded and unloaded among them.

    A planned compute test that left no result counts as not passed, unless no compute rung applies to the stack at all
    (skipped, but not because an earlier rung stopped the ladder).
    """
    computing = [stage for stage in attempt.stages if stage.stage in _COMPUTING]
    inapplicable = computing and all(
        stage.outcome is Outcome.SKIP and not stage.reason.lower().startswith("blocked") for stage in computing
    )
    results: dict[str, list[Outcome]] = {name: [] for name in (() if inapplicable else planned)}
    for test in attempt.tests:
        if test.name in results or test.outcome is not Outcome.SKIP:
            results.setdefault(test.name, []).append(test.outcome)
    fine = (Outcome.PASS, Outcome.DONE)
    good = sum(bool(seen) and all(outcome in fine for outcome in seen) for seen in results.values())
    return good, len(results)


def headline(attempts: Iterable[Attempt]) -> Headline | None:
    """Return the triad bandwidth of a cell, or the first metric of its throughput rung where there is no triad."""
    found = [
        (test.name, metric)
        for attempt in attempts
        for test in attempt.tests
        if test.stage is Stage.THROUGHPUT and test.outcome in (Outcome.PASS, Outcome.DONE)
        for metric in test.metrics
    ]
    if not found:
        return None
    triads = [pair for pair in found if "triad" in f"{pair[0]} {pair[1].name}".lower()]
    test, first = (triads or found)[0]
    same = [metric for name, metric in found if (name, metric.name, metric.unit) == (test, first.name, first.unit)]
    return Headline(
        test=test,
        metric=first.name,
        value=median(metric.value for metric in same),
        unit=first.unit,
        low=min((low for metric in same if (low := lowest(metric)) is not None), default=None),
        high=max((high for metric in same if (high := highest(metric)) is not None), default=None),
        attempts=len(same),
        roofline=first.roofline,
    )


def lowest(metric: Metric) -> float | None:
    """Return the least sample of a metric, None where it was not kept."""
    return min(metric.samples) if metric.samples else metric.minimum


def highest(metric: Metric) -> float | None:
    """Return the greatest sample of a metric (or its 95th percentile), None where it was not kept."""
    if metric.samples:
        return max(metric.samples)
    return metric.maximum if metric.maximum is not None else metric.p95


def _evidence_state(attempts: Sequence[Attempt], readable: Readable) -> EvidenceState:
    found = [[readable(item.sha256) for stage in a.stages for item in stage.evidence] for a in attempts]
    if all(files and all(files) for files in found):
        return "collected"
    return "partly" if any(any(files) for files in found) else "not collected"


def _each_once(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value for value in values if value))


SERIES_ORDER: tuple[str, ...] = (*map(str, Series), "")
"""Rows of the matrix stand in this order; kernels of unknown series come last."""
