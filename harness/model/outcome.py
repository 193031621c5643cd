"""What was observed: the six outcomes, with kcidb's meanings and priorities."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Outcome(StrEnum):
    """One observation. Source of the meanings: the kcidb v5 schema's test status."""

    FAIL = "FAIL"
    """The product under test (kernel, driver, runtime) is at fault."""
    ERROR = "ERROR"
    """Our own test broke."""
    MISS = "MISS"
    """The harness, host or lab failed and nothing is known."""
    PASS = "PASS"
    """It works."""
    DONE = "DONE"
    """Measured, without a verdict."""
    SKIP = "SKIP"
    """Not applicable, or blocked by an earlier rung; the reason says which."""


PRIORITY: tuple[Outcome, ...] = (
    Outcome.FAIL,
    Outcome.ERROR,
    Outcome.MISS,
    Outcome.PASS,
    Outcome.DONE,
    Outcome.SKIP,
)
"""From the most to the least telling: a summary of several outcomes is the first of these that occurs."""

DECIDING = frozenset({Outcome.FAIL, Outcome.ERROR, Outcome.MISS})
"""The outcomes that end a cell's ladder."""


def summarise(outcomes: Iterable[Outcome]) -> Outcome:
    """Return the outcome of highest priority; SKIP when there is none at all."""
    seen = set(outcomes)
    return next((outcome for outcome in PRIORITY if outcome in seen), Outcome.SKIP)
