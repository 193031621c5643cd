"""A stored run as pandas DataFrames, for analysis, reports and exports.

Columns and dtypes are always those listed, also when there is no row. Text is ``string``; what may be missing is
``<NA>`` (text, ``Int64``), NaN (``float64``) or NaT (times are ``datetime64[ns, UTC]``). ``outcome`` is categorical,
ordered from the most to the least telling. All frames can be joined over ``run_id``, ``cell_id`` and ``number``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harness.model.cell import Cell
from harness.model.judgement import judge
from harness.model.outcome import PRIORITY, summarise
from harness.model.records import Attempt
from harness.model.stage import LADDER
from harness.store.run import PlanState, StoredRun

if TYPE_CHECKING:
    import pandas as pd

_OUTCOME = "outcome"
_STAGE = "stage"
_TIME = "time"

CELLS: Mapping[str, str] = {
    "run_id": "string",
    "cell_id": "string",
    "guest": "string",  # <NA> for what is left out, as the next four are
    "kernel": "string",
    "series": "string",
    "stack": "string",
    "device": "string",
    "state": "string",  # planned, running, done or left_out; "done" when every boot is
    "boots": "Int64",  # planned, re-runs included
    "attempts": "Int64",
    "outcome": _OUTCOME,  # of all attempts together; <NA> when there is none
    "rung": _STAGE,  # of the latest attempt with that outcome
    "reason": "string",  # likewise, or why it is left out
    "uname_release": "string",  # of the latest attempt that saw one
}
"""Columns of :func:`cells_frame`: one row per cell and per combination that is left out."""

ATTEMPTS: Mapping[str, str] = {
    "run_id": "string",
    "cell_id": "string",
    "number": "Int64",
    "outcome": _OUTCOME,
    "rung": _STAGE,
    "reason": "string",
    "started": _TIME,
    "finished": _TIME,
    "seconds": "float64",
    "uname_release": "string",
    "issue": "string",  # the best match of a known issue
    "issue_grade": "string",
}
"""Columns of :func:`attempts_frame`: one row per attempt."""

STAGES: Mapping[str, str] = {
    "run_id": "string",
    "cell_id": "string",
    "number": "Int64",
    "stage": _STAGE,
    "outcome": _OUTCOME,
    "seconds": "float64",
    "reason": "string",
    "evidence": "Int64",  # number of files
}
"""Columns of :func:`stages_frame`: one row per rung of each attempt."""

TESTS: Mapping[str, str] = {
    "run_id": "string",
    "cell_id": "string",
    "number": "Int64",
    "test": "string",
    "stage": _STAGE,
    "outcome": _OUTCOME,
    "kind": "string",
    "seconds": "float64",
    "reason": "string",
}
"""Columns of :func:`tests_frame`: one row per test of each attempt."""

MEASUREMENTS: Mapping[str, str] = {
    "run_id": "string",
    "cell_id": "string",
    "number": "Int64",
    "test": "string",
    "stage": _STAGE,
    "outcome": _OUTCOME,  # of the test
    "kind": "string",
    "metric": "string",
    "unit": "string",
    "better": "string",
    "n": "Int64",
    "minimum": "float64",
    "p50": "float64",
    "p95": "float64",
    "maximum": "float64",
    "samples": "object",  # tuple of float
    "roofline": "float64",
    "roofline_source": "string",
    "of_roofline": "float64",  # p50 / roofline
}
"""Columns of :func:`measurements_frame`: one row per metric of each test of each attempt."""

PREDICTIONS: Mapping[str, str] = {
    "run_id": "string",
    "cell_id": "string",
    "number": "Int64",
    "stage": _STAGE,
    "outcome": _OUTCOME,  # as predicted
    "judgement": "string",
    "reason": "string",
    "source": "string",
}
"""Columns of :func:`predictions_frame`: one row per prediction of each attempt."""

ISSUES: Mapping[str, str] = {
    "run_id": "string",
    "cell_id": "string",
    "number": "Int64",
    "stage": _STAGE,
    "issue": "string",
    "grade": "string",
    "title": "string",
    "cause": "string",
    "fixed_in": "string",
    "fault": "string",
    "confidence": "string",
    "excerpt": "string",
}
"""Columns of :func:`issues_frame`: one row per known issue that may explain an attempt's failure."""


def cells_frame(run: StoredRun) -> pd.DataFrame:
    """Return one row per cell, then one per combination left out: :data:`CELLS`."""
    attempts: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in run.attempts:
        attempts[attempt.cell_id].append(attempt)
    boots = Counter(entry.cell_id for entry in run.plan)
    states: dict[str, set[PlanState]] = defaultdict(set)
    for entry in run.plan:
        states[entry.cell_id].add(entry.state)
    rows = [
        {"run_id": run.info.id, "cell_id": cell.id, "boots": boots[cell.id], "state": _state(states[cell.id])}
        | _axes(cell)
        | _summary(attempts[cell.id])
        for cell in run.cells
    ]
    rows += [
        {"run_id": run.info.id, "cell_id": entry.cell_id, "state": PlanState.LEFT_OUT.value, "reason": entry.reason}
        | {"boots": 0, "attempts": 0}
        for entry in run.left_out
    ]
    return _frame(rows, CELLS)


def attempts_frame(run: StoredRun) -> pd.DataFrame:
    """Return one row per attempt: :data:`ATTEMPTS`."""
    frame = _frame(
        (
            _key(attempt)
            | {
                "outcome": attempt.outcome.value,
                "rung": attempt.rung.value,
                "reason": attempt.reason,
                "started": attempt.started,
                "finished": attempt.finished,
                "uname_release": attempt.facts.get("uname_release"),
                "issue": attempt.issues[0].issue if attempt.issues else None,
                "issue_grade": attempt.issues[0].grade.value if attempt.issues else None,
            }
            for attempt in run.attempts
        ),
        ATTEMPTS,
    )
    frame["seconds"] = (frame["finished"] - frame["started"]).dt.total_seconds()
    return frame


def stages_frame(run: StoredRun) -> pd.DataFrame:
    """Return one row per rung of each attempt, in the order of the ladder: :data:`STAGES`."""
    return _frame(
        (
            _key(attempt)
            | {
                "stage": stage.stage.value,
                "outcome": stage.outcome.value,
                "seconds": stage.seconds,
                "reason": stage.reason,
                "evidence": len(stage.evidence),
            }
            for attempt in run.attempts
            for stage in attempt.stages
        ),
        STAGES,
    )


def tests_frame(run: StoredRun) -> pd.DataFrame:
    """Return one row per test of each attempt: :data:`TESTS`."""
    return _frame((row for attempt in run.attempts for row in _tests(attempt)), TESTS)


def measurements_frame(run: StoredRun) -> pd.DataFrame:
    """Return one row per metric of each test of each attempt: :data:`MEASUREMENTS`."""
    rows = (
        row
        | {
            "metric": metric.name,
            "unit": metric.unit,
            "better": metric.better,
            "n": metric.n,
            "minimum": metric.minimum,
            "p50": metric.value,
            "p95": metric.p95,
            "maximum": metric.maximum,
            "samples": metric.samples,
            "roofline": metric.roofline,
            "roofline_source": metric.roofline_source,
        }
        for attempt in run.attempts
        for test, row in zip(attempt.tests, _tests(attempt), strict=True)
        for metric in test.metrics
    )
    frame = _frame(rows, MEASUREMENTS)
    frame["of_roofline"] = frame["p50"] / frame["roofline"]
    return frame


def predictions_frame(run: StoredRun) -> pd.DataFrame:
    """Return one row per prediction, with what became of it: :data:`PREDICTIONS`."""
    return _frame(
        (
            _key(attempt)
            | {
                "stage": prediction.stage.value,
                "outcome": prediction.outcome.value,
                "judgement": judge(prediction, attempt.stages).value,
                "reason": prediction.reason,
                "source": prediction.source,
            }
            for attempt in run.attempts
            for prediction in attempt.predictions
        ),
        PREDICTIONS,
    )


def issues_frame(run: StoredRun) -> pd.DataFrame:
    """Return one row per known issue of an attempt, the best first: :data:`ISSUES`."""
    names = [name for name in ISSUES if name not in ("run_id", "cell_id", "number")]
    return _frame(
        (
            _key(attempt) | {name: str(getattr(match, name)) for name in names}
            for attempt in run.attempts
            for match in attempt.issues
        ),
        ISSUES,
    )


def _key(attempt: Attempt) -> dict[str, Any]:
    return {"run_id": attempt.run_id, "cell_id": attempt.cell_id, "number": attempt.number}


def _tests(attempt: Attempt) -> Iterator[dict[str, Any]]:
    for test in attempt.tests:
        yield _key(attempt) | {
            "test": test.name,
            "stage": test.stage.value,
            "outcome": test.outcome.value,
            "kind": test.kind,
            "seconds": test.seconds,
            "reason": test.reason,
        }


def _axes(cell: Cell) -> dict[str, Any]:
    return {
        "guest": cell.place,
        "kernel": cell.kernel.name,
        "series": cell.kernel.series.value,
        "stack": cell.stack,
        "device": cell.device,
    }


def _state(states: set[PlanState]) -> str:
    """A cell runs while any boot does, and is done when no boot is left."""
    order = (PlanState.RUNNING, PlanState.PLANNED, PlanState.DONE)
    return next((state for state in order if state in states), PlanState.PLANNED).value


def _summary(attempts: list[Attempt]) -> dict[str, Any]:
    if not attempts:
        return {"attempts": 0, "outcome": None, "rung": None, "reason": "", "uname_release": None}
    outcome = summarise(attempt.outcome for attempt in attempts)
    telling = next(attempt for attempt in reversed(attempts) if attempt.outcome is outcome)
    releases = [release for attempt in attempts if (release := attempt.facts.get("uname_release"))]
    return {
        "attempts": len(attempts),
        "outcome": outcome.value,
        "rung": telling.rung.value,
        "reason": telling.reason,
        "uname_release": releases[-1] if releases else None,
    }


def _frame(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> pd.DataFrame:
    import pandas as pd  # costs about a second of import, which only analysis and reports should pay

    categories: dict[str, pd.CategoricalDtype[Any]] = {
        _OUTCOME: pd.CategoricalDtype([outcome.value for outcome in PRIORITY], ordered=True),
        _STAGE: pd.CategoricalDtype([stage.value for stage in LADDER], ordered=True),
    }
    listed = list(rows)
    frame = pd.DataFrame(index=pd.RangeIndex(len(listed)))
    dtype: Any  # pandas' stubs want each name as a literal
    for column, dtype in columns.items():
        values = pd.Series([row.get(column) for row in listed], index=frame.index, dtype="object")
        if dtype == _TIME:
            # What a clock wrote is text here; what is no time becomes NaT.
            times = pd.to_datetime(values, utc=True, format="ISO8601", errors="coerce")
            frame[column] = times.astype("datetime64[ns, UTC]")
        elif dtype in categories:
            frame[column] = pd.Series(pd.Categorical(values, dtype=categories[dtype]), index=frame.index)
        else:
            frame[column] = values.astype(dtype)
    return frame
