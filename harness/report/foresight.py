"""What was expected and what is known, beside what happened. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.model.judgement import Judgement, judge
from harness.model.outcome import Outcome
from harness.model.prediction import Grade, IssueMatch
from harness.model.records import Attempt
from harness.report.text import csv_text

MOST_GROUPS = 12
MOST_EXAMPLES = 4
_THREAD = re.compile(r"^([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)#(\d+)$")
_DEBIAN = re.compile(r"^Debian bug (\d+)$")
_LAUNCHPAD = re.compile(r"^LP#(\d+)$")
_URL = re.compile(r"^https://[A-Za-z0-9.-]+/[\w./?=&%#~+-]*$")


@dataclass(frozen=True, slots=True)
class Surprise:
    """Cells in which one prediction did not come true."""

    stage: str
    expected: str
    happened: str
    reason: str
    source: str
    cells: tuple[str, ...]
    """Ids, at most :data:`MOST_EXAMPLES`."""
    count: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A known issue that was identified in this run."""

    match: IssueMatch
    links: tuple[tuple[str, str], ...]
    cells: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Expectations:
    """What the front page says of predictions and known issues."""

    lines: tuple[str, ...]
    surprises: tuple[Surprise, ...]
    surprises_more: int
    seen: tuple[Seen, ...]
    seen_more: int


def links(sources: Iterable[str]) -> list[tuple[str, str]]:
    """Return (text, address) of each source; the address is empty where none can be told from its form."""
    return [(text, _address(text)) for text in sources]


def _address(text: str) -> str:
    if match := _THREAD.match(text):
        return f"https://github.com/{match[1]}/issues/{match[2]}"
    if match := _DEBIAN.match(text):
        return f"https://bugs.debian.org/{match[1]}"
    if match := _LAUNCHPAD.match(text):
        return f"https://bugs.launchpad.net/bugs/{match[1]}"
    return text if _URL.match(text) else ""


def foresight(attempt: Attempt) -> dict[str, Any]:
    """What an attempt's page shows of both."""
    return {
        "predictions": [
            {
                "stage": str(one.stage),
                "outcome": one.outcome.lower(),
                "judgement": str(judge(one, attempt.stages)),
                "failed": judge(one, attempt.stages) is Judgement.FALSE,
                "happened": _happened(attempt, one.stage),
                "reason": one.reason,
                "source": one.source,
            }
            for one in attempt.predictions
        ],
        "issues": [
            {
                "id": match.issue,
                "title": match.title,
                "grade": str(match.grade),
                "facts": [
                    (name, value)
                    for name, value in (
                        ("seen in", match.excerpt),
                        ("cause", match.cause),
                        ("fixed in", match.fixed_in or "nothing known"),
                        ("workaround", match.workaround),
                        ("at fault", match.fault),
                        ("confidence", match.confidence),
                    )
                    if value
                ],
                "links": links(match.sources),
            }
            for match in attempt.issues
        ],
    }


def best_issue(attempts: Sequence[Attempt]) -> IssueMatch | None:
    """The known issue that says most about a cell."""
    found = [attempt.issues[0] for attempt in attempts if attempt.issues]
    return min(found, key=lambda match: list(Grade).index(match.grade), default=None)


def expected_words(attempts: Sequence[Attempt]) -> str:
    """Say what was expected of a cell and whether it happened: ``build FAIL: came true``; empty without predictions."""
    words: dict[str, None] = {}
    for attempt in attempts:
        for one in attempt.predictions:
            words[f"{one.stage} {one.outcome}: {judge(one, attempt.stages)}"] = None
    return "; ".join(words)


def expectations(attempts: Sequence[Attempt]) -> Expectations:
    """Draw the predictions and known issues of a run together."""
    judged = [(attempt, one, judge(one, attempt.stages)) for attempt in attempts for one in attempt.predictions]
    wrong: dict[tuple[str, str, str, str, str], list[str]] = {}
    for attempt, one, judgement in judged:
        if judgement is Judgement.FALSE:
            happened = _happened(attempt, one.stage)
            key = (str(one.stage), str(one.outcome), happened, one.reason, one.source)
            wrong.setdefault(key, []).append(attempt.cell_id)
    surprises = [
        Surprise(*key, tuple(dict.fromkeys(cells))[:MOST_EXAMPLES], len(set(cells))) for key, cells in wrong.items()
    ]
    surprises.sort(key=lambda one: -one.count)
    known: dict[str, tuple[IssueMatch, list[str]]] = {}
    for attempt in attempts:
        for match in attempt.issues:
            if match.grade is Grade.IDENTIFIED:
                known.setdefault(match.issue, (match, []))[1].append(attempt.cell_id)
    seen = [
        Seen(match, tuple(links(match.sources)), tuple(dict.fromkeys(cells))[:MOST_EXAMPLES], len(set(cells)))
        for match, cells in known.values()
    ]
    seen.sort(key=lambda one: -one.count)
    return Expectations(
        tuple(_lines(attempts, Counter(judgement for _, _, judgement in judged))),
        tuple(surprises[:MOST_GROUPS]),
        max(0, len(surprises) - MOST_GROUPS),
        tuple(seen[:MOST_GROUPS]),
        max(0, len(seen) - MOST_GROUPS),
    )


def prediction_rows(attempts: Iterable[Attempt]) -> Iterable[list[str]]:
    """Yield the header and one row of CSV per prediction."""
    yield ["cell", "attempt", "stage", "predicted", "happened", "judgement", "reason", "source"]
    for attempt in attempts:
        for one in attempt.predictions:
            happened, judgement = _happened(attempt, one.stage), str(judge(one, attempt.stages))
            words = (attempt.cell_id, str(attempt.number), str(one.stage), str(one.outcome), happened, judgement)
            yield [*map(csv_text, (*words, one.reason, one.source))]


def _lines(attempts: Sequence[Attempt], counts: Counter[Judgement]) -> Iterable[str]:
    if counts:
        parts = ", ".join(f"{counts[one]:,} {one}" for one in Judgement if counts[one])
        yield f"{counts.total():,} predictions made before the cells ran: {parts}."
    failed = [attempt for attempt in attempts if attempt.outcome is Outcome.FAIL]
    unexplained = sum(
        not any(match.grade is Grade.IDENTIFIED for match in attempt.issues)
        and not any(one.outcome is Outcome.FAIL and one.stage is attempt.rung for one in attempt.predictions)
        for attempt in failed
    )
    if failed:
        share = f"{unexplained:,} of {len(failed):,}"
        yield f"{share} failed attempts were neither predicted nor identified as a known issue."


def _happened(attempt: Attempt, stage: object) -> str:
    return next((str(result.outcome) for result in attempt.stages if result.stage is stage), "not reached")
