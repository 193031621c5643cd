"""The matrix as compact data for its script, as rows of CSV, and as the words of a single cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from harness.report.pivot import Layout, Row
from harness.report.summary import KIND_TAGS, WORDS
from harness.report.text import csv_text, page_text, percent, quantity, spread
from harness.report.view import CellView, State

REASON_LIMIT = 240
_COMPUTED = {"gpu": "a GPU", "cpu-runtime": "a CPU runtime", "fake": "a fake device", "none": "nothing computed"}
STATES: tuple[State, ...] = tuple(State)
KINDS = tuple(KIND_TAGS)
CSV_COLUMNS = (
    "cell",
    "guest",
    "kernel",
    "series",
    "uname_release",
    "stack",
    "device",
    "state",
    "computed_on",
    "rung",
    "tests_passed",
    "tests_total",
    "boots_passed",
    "boots_tried",
    "boots_planned",
    "pass_rate_95_low",
    "metric",
    "value",
    "unit",
    "low",
    "high",
    "evidence",
    "reason",
    "known_issue",
    "known_issue_grade",
    "expected",
)


def boots_words(view: CellView) -> str:
    """Return ``1/1 boots ≥ 21 %``: never a bare pass."""
    if view.boots_tried == 0:
        return ""
    words = f"{view.boots_passed}/{view.boots_tried} boots"
    return f"{words} ≥ {percent(view.bound)}" if view.boots_passed and view.bound else words


def rung_words(view: CellView) -> str:
    """Return how far a cell got: ``reached throughput``, ``stopped at load``; empty if nothing ran."""
    if view.rung is None or view.state in (State.NOT_RUN, State.LEFT_OUT):
        return ""
    stopped = view.state in (State.FAIL, State.ERROR, State.MISS)
    return f"stopped at {view.rung}" if stopped else f"reached {view.rung}"


def metric_words(view: CellView) -> str:
    """Return the headline number with its spread: ``21.3 GB/s (20.9–21.8)``."""
    if view.headline is None:
        return ""
    words = quantity(view.headline.value, view.headline.unit)
    around = spread(view.headline.low, view.headline.high, view.headline.unit)
    return f"{words} ({around.removesuffix(words.partition(' ')[2]).rstrip()})" if around else words


def release_words(row: Row) -> str:
    """Return the release that stands in a row's header; says so where no guest has told it."""
    if not row.releases:
        return f"{row.resolved} (not seen)" if row.resolved else "uname -r not seen"
    rest = f" +{len(row.releases) - 1} more" if len(row.releases) > 1 else ""
    return row.releases[0] + rest


def facts_of(view: CellView, planned: bool) -> list[tuple[str, str]]:
    """Return the short facts at the head of a cell's page."""
    facts = [
        ("kernel", f"{view.kernel} ({view.series or 'series not known'})"),
        ("uname -r", ", ".join(view.releases) or "not seen"),
        ("guest", view.guest),
        ("stack", view.stack),
        ("device", view.device),
        ("computed on", _COMPUTED[view.kind]),
        ("evidence", view.evidence),
    ]
    if view.resolved and view.resolved not in view.releases:
        facts.insert(2, ("resolved to", view.resolved))
    if view.boots_tried or view.boots_without_verdict:
        tried = f"{view.boots_passed} passed of {view.boots_tried} with a verdict, {view.boots_planned} planned"
        facts.append(("boots", tried))
        if view.boots_without_verdict:
            facts.append(("attempts without a verdict", str(view.boots_without_verdict)))
    if not planned and view.state is not State.LEFT_OUT:
        facts.append(("planned", "no: this cell is not in the run's plan"))
    return facts


def grid_data(cells: Sequence[CellView], layout: Layout) -> dict[str, Any]:
    """Return the whole matrix as data for the script; strings that repeat are stored once."""
    strings: dict[str, int] = {"": 0}

    def text(value: str, limit: int = REASON_LIMIT) -> int:
        return strings.setdefault(page_text(value, limit), len(strings))

    packed = []
    for row, line in enumerate(layout.grid):
        for column, index in enumerate(line):
            if index is not None:
                packed.append([row, column, *_packed(cells[index], text)])
    return {
        "states": [[str(state), *WORDS[state]] for state in STATES],
        "kinds": [[kind, KIND_TAGS[kind]] for kind in KINDS],
        "rows": [[row.kernel, row.series, release_words(row)] for row in layout.rows],
        "columns": [[column.stack, column.guest, column.device] for column in layout.columns],
        "cells": packed,
        "strings": list(strings),
        "csv": list(CSV_COLUMNS),
    }


def _packed(view: CellView, text: Any) -> list[Any]:
    head = view.headline
    return [
        STATES.index(view.state),
        KINDS.index(view.kind),
        text(str(view.rung or "")),
        text(rung_words(view)),
        view.tests_passed,
        view.tests_total,
        text(metric_words(view)),
        [text(head.metric), head.value, text(head.unit), head.low, head.high] if head else 0,
        view.boots_passed,
        view.boots_tried,
        view.boots_planned,
        round(view.bound, 4) if view.bound is not None else None,
        text(view.reason),
        text(", ".join(view.releases)),
        text(view.evidence),
        text(view.issue),
        text(view.issue_grade),
        text(view.expected),
    ]


def csv_rows(cells: Iterable[CellView]) -> Iterable[list[str]]:
    """Yield the header and one row per cell: planned, left out and unplanned alike."""
    yield list(CSV_COLUMNS)
    for view in cells:
        head = view.headline
        numbers = [head.value, head.low, head.high] if head else [None, None, None]
        value, low, high = ("" if number is None else f"{number:.10g}" for number in numbers)
        yield [
            *map(csv_text, (view.id, view.guest, view.kernel, view.series, ", ".join(view.releases))),
            *map(csv_text, (view.stack, view.device, str(view.state), view.kind, str(view.rung or ""))),
            *map(str, (view.tests_passed, view.tests_total, view.boots_passed, view.boots_tried, view.boots_planned)),
            "" if view.bound is None else f"{view.bound:.4f}",
            csv_text(head.metric) if head else "",
            value,
            csv_text(head.unit) if head else "",
            low,
            high,
            view.evidence,
            csv_text(view.reason),
            *map(csv_text, (view.issue, view.issue_grade, view.expected)),
        ]
