"""What a program of somebody else reported: cases, each with an outcome of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from harness.model.outcome import Outcome
from harness.model.records import Metric

MAX_CASES = 2000
"""Cases that are kept one by one; a conformance suite has some thousands, and a page with more helps nobody."""
MAX_TEXT = 300


class Unreadable(Exception):
    """The output is not what the format promises; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Case:
    """One case; texts come from a guest and are bounded, not escaped."""

    name: str
    outcome: Outcome
    reason: str = ""
    metrics: tuple[Metric, ...] = ()
    details: dict[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Format:
    """How a program's report is read."""

    read: Callable[[bytes], list[Case]]
    """Takes the report's bytes; raises Unreadable."""
    title: str
    skip_statuses: tuple[int, ...] = ()
    """Exit statuses with which the program says that it does not apply here."""


def line(text: str) -> str:
    """One bounded line of a text."""
    return " ".join(text.split())[:MAX_TEXT]


def decoded(report: bytes) -> str:
    """The report as text; what is not UTF-8 is replaced."""
    return report.decode("utf-8", "replace")


def json_object(report: bytes) -> dict[str, Any]:
    """The one JSON object of a report; lines before and behind it (a program's banner) are passed over."""
    text = decoded(report)
    start = text.find("{")
    if start < 0:
        raise Unreadable("it holds no JSON object")
    try:
        data, _ = json.JSONDecoder().raw_decode(text[start:])
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"it is not readable as JSON: {line(str(error))}") from None
    if not isinstance(data, dict):
        raise Unreadable("its JSON is no object")
    return data


def number(value: object) -> float | None:
    """A finite number, also where a program writes its numbers as texts."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if abs(found) < float("inf") else None


def measured(name: str, value: float, unit: str, *, lower_is_better: bool = False) -> Metric:
    """One number as a metric without a distribution."""
    return Metric(name, value, unit, "lower" if lower_is_better else "higher", samples=(value,))


def bounded(cases: Iterable[Case]) -> list[Case]:
    """At most MAX_CASES cases: those that did not pass come first, and what is left out is counted in a case."""
    every = list(cases)
    if len(every) <= MAX_CASES:
        return every
    ranked = sorted(every, key=lambda case: case.outcome is Outcome.PASS)
    kept, rest = ranked[: MAX_CASES - 1], ranked[MAX_CASES - 1 :]
    worst = next((case.outcome for case in rest if case.outcome is not Outcome.PASS), Outcome.PASS)
    reason = "" if worst is Outcome.PASS else "there are more cases that did not pass than are kept"
    return [*kept, Case(f"{len(rest)} more cases", worst, reason)]
