"""An attempt as rows of its tables, and back again, exactly."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter

from harness.model.cell import Cell
from harness.model.outcome import Outcome
from harness.model.prediction import Grade, IssueMatch, Prediction
from harness.model.records import Attempt, Evidence, Metric, StageResult, TestResult
from harness.model.stage import Stage
from harness.store.schema import (
    ATTEMPT,
    EVIDENCE,
    ISSUE_MATCH,
    MEASUREMENT,
    PREDICTION,
    STAGE_RESULT,
    TEST_RESULT,
)

CELL = TypeAdapter(Cell)
"""JSON in and out of a cell. The two kernel sources share no field name, so the round trip is exact."""


def dump_cell(cell: Cell) -> str:
    """Return the JSON of a cell; unlike pydantic's own encoder, with infinite time limits kept infinite."""
    return json.dumps(CELL.dump_python(cell, mode="json"), sort_keys=True)


def insert_attempt(connection: sa.Connection, attempt: Attempt) -> None:
    """Insert the attempt with everything below it; the caller holds the transaction."""
    result = connection.execute(
        ATTEMPT.insert().values(
            run_id=attempt.run_id,
            cell_id=attempt.cell_id,
            number=attempt.number,
            outcome=attempt.outcome.value,
            rung=attempt.rung.value,
            reason=attempt.reason,
            started=attempt.started,
            finished=attempt.finished,
            facts=attempt.facts,
        )
    )
    assert result.inserted_primary_key is not None
    key = {"attempt_id": result.inserted_primary_key[0]}
    stages, files, tests, metrics = [], [], [], []
    for position, stage in enumerate(attempt.stages):
        stages.append(key | {"position": position} | _stage_row(stage))
        place = key | {"stage_position": position, "stage": stage.stage.value}
        files += [place | {"position": index} | _evidence_row(file) for index, file in enumerate(stage.evidence)]
    for position, test in enumerate(attempt.tests):
        tests.append(key | {"position": position} | _test_row(test))
        place = key | {"test_position": position}
        metrics += [place | {"position": index} | _metric_row(metric) for index, metric in enumerate(test.metrics)]
    expected = [key | {"position": index} | _prediction_row(one) for index, one in enumerate(attempt.predictions)]
    known = [key | {"position": index} | _issue_row(one) for index, one in enumerate(attempt.issues)]
    for table, rows in (
        (STAGE_RESULT, stages),
        (EVIDENCE, files),
        (TEST_RESULT, tests),
        (MEASUREMENT, metrics),
        (PREDICTION, expected),
        (ISSUE_MATCH, known),
    ):
        if rows:
            connection.execute(table.insert(), rows)


def load_attempts(connection: sa.Connection, where: sa.ColumnElement[bool]) -> list[Attempt]:
    """Return the attempts for which ``where`` (over :data:`ATTEMPT`) holds, by run, in the order they were recorded."""
    ids = sa.select(ATTEMPT.c.id).where(where)

    def rows(table: sa.Table) -> Iterable[sa.Row[Any]]:
        return connection.execute(table.select().where(table.c.attempt_id.in_(ids)).order_by(*table.primary_key))

    evidence: dict[tuple[int, int], list[Evidence]] = defaultdict(list)
    for row in rows(EVIDENCE):
        evidence[row.attempt_id, row.stage_position].append(
            Evidence(row.name, row.sha256, row.size, row.media_type, row.truncated)
        )
    stages: dict[int, list[StageResult]] = defaultdict(list)
    for row in rows(STAGE_RESULT):
        files = tuple(evidence[row.attempt_id, row.position])
        stages[row.attempt_id].append(
            StageResult(Stage(row.stage), Outcome(row.outcome), row.seconds, row.reason, files)
        )
    metrics: dict[tuple[int, int], list[Metric]] = defaultdict(list)
    for row in rows(MEASUREMENT):
        metrics[row.attempt_id, row.test_position].append(_metric(row))
    tests: dict[int, list[TestResult]] = defaultdict(list)
    for row in rows(TEST_RESULT):
        tests[row.attempt_id].append(
            TestResult(
                name=row.name,
                stage=Stage(row.stage),
                outcome=Outcome(row.outcome),
                reason=row.reason,
                seconds=row.seconds,
                kind=row.kind,
                metrics=tuple(metrics[row.attempt_id, row.position]),
                details=row.details,
            )
        )
    predictions: dict[int, list[Prediction]] = defaultdict(list)
    for row in rows(PREDICTION):
        predictions[row.attempt_id].append(Prediction(Stage(row.stage), Outcome(row.outcome), row.reason, row.source))
    issues: dict[int, list[IssueMatch]] = defaultdict(list)
    for row in rows(ISSUE_MATCH):
        issues[row.attempt_id].append(_issue(row))
    found = connection.execute(ATTEMPT.select().where(where).order_by(ATTEMPT.c.run_id, ATTEMPT.c.id))
    return [
        Attempt(
            run_id=row.run_id,
            cell_id=row.cell_id,
            number=row.number,
            started=row.started,
            finished=row.finished,
            outcome=Outcome(row.outcome),
            rung=Stage(row.rung),
            reason=row.reason,
            stages=tuple(stages[row.id]),
            tests=tuple(tests[row.id]),
            facts=row.facts,
            predictions=tuple(predictions[row.id]),
            issues=tuple(issues[row.id]),
        )
        for row in found
    ]


def _stage_row(stage: StageResult) -> dict[str, Any]:
    return {
        "stage": stage.stage.value,
        "outcome": stage.outcome.value,
        "seconds": stage.seconds,
        "reason": stage.reason,
    }


def _evidence_row(file: Evidence) -> dict[str, Any]:
    return {
        "name": file.name,
        "sha256": file.sha256,
        "size": file.size,
        "media_type": file.media_type,
        "truncated": file.truncated,
    }


def _test_row(test: TestResult) -> dict[str, Any]:
    return {
        "name": test.name,
        "stage": test.stage.value,
        "outcome": test.outcome.value,
        "reason": test.reason,
        "seconds": test.seconds,
        "kind": test.kind,
        "details": test.details,
    }


def _prediction_row(prediction: Prediction) -> dict[str, Any]:
    return {
        "stage": prediction.stage.value,
        "outcome": prediction.outcome.value,
        "reason": prediction.reason,
        "source": prediction.source,
    }


def _issue_row(match: IssueMatch) -> dict[str, Any]:
    return {
        "issue": match.issue,
        "title": match.title,
        "stage": match.stage.value,
        "grade": match.grade.value,
        "cause": match.cause,
        "fixed_in": match.fixed_in,
        "workaround": match.workaround,
        "fault": match.fault,
        "confidence": match.confidence,
        "sources": list(match.sources),
        "excerpt": match.excerpt,
    }


def _issue(row: sa.Row[Any]) -> IssueMatch:
    return IssueMatch(
        issue=row.issue,
        title=row.title,
        stage=Stage(row.stage),
        grade=Grade(row.grade),
        cause=row.cause,
        fixed_in=row.fixed_in,
        workaround=row.workaround,
        fault=row.fault,
        confidence=row.confidence,
        sources=tuple(row.sources),
        excerpt=row.excerpt,
    )


def _metric_row(metric: Metric) -> dict[str, Any]:
    return {
        "name": metric.name,
        "unit": metric.unit,
        "better": metric.better,
        "n": metric.n,
        "minimum": _number(metric.minimum),
        "p50": _number(metric.value),
        "p95": _number(metric.p95),
        "maximum": _number(metric.maximum),
        "samples": list(metric.samples),
        "roofline": _number(metric.roofline),
        "roofline_source": metric.roofline_source,
    }


def _metric(row: sa.Row[Any]) -> Metric:
    return Metric(
        name=row.name,
        value=math.nan if row.p50 is None else row.p50,
        unit=row.unit,
        better=row.better,
        n=row.n,
        minimum=row.minimum,
        p95=row.p95,
        maximum=row.maximum,
        samples=tuple(row.samples),
        roofline=row.roofline,
        roofline_source=row.roofline_source,
    )


def _number(value: float | None) -> float | None:
    """NaN as NULL in every database, because SQLite stores it so and PostgreSQL does not."""
    return None if value is None or math.isnan(value) else value
