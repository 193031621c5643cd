"""What is known before a cell runs, and what is recognised after it failed; both are kept with the attempt."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.model.outcome import Outcome
from harness.model.stage import Stage


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a rung is expected to come to, said before it was tried. It never decides an outcome."""

    stage: Stage
    outcome: Outcome
    reason: str
    source: str
    """What says so: ``requires``, ``rule ID``, ``floors``, ``known issue ID``, ``headers ID``."""


class Grade(StrEnum):
    """How much speaks for a known issue; the order of definition is from most to least."""

    IDENTIFIED = "identified"
    """Its signature is in the log, and the versions are in its ranges."""
    RESEMBLES = "resembles"
    """Its signature is in the log, but the versions are outside its ranges, or not known."""
    CANDIDATE = "candidate"
    """The versions are in its ranges, but no signature of it was seen."""


@dataclass(frozen=True, slots=True)
class IssueMatch:
    """A known issue that explains, or may explain, a failed rung; a copy of what was known at that time."""

    issue: str
    """Its id."""
    title: str
    stage: Stage
    grade: Grade
    cause: str = ""
    fixed_in: str = ""
    workaround: str = ""
    fault: str = ""
    """``driver``, ``kernel``, ``firmware``, ``packaging`` or ``host``."""
    confidence: str = ""
    sources: tuple[str, ...] = ()
    """Threads and bugs: ``owner/project#1``, ``Debian bug 1``."""
    excerpt: str = ""
    """The line of the log in which its signature was found."""
