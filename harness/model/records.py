"""What an attempt leaves behind: rungs, test results, measurements and references to evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import TypeAdapter

from harness.model.outcome import DECIDING, Outcome, summarise
from harness.model.prediction import IssueMatch, Prediction
from harness.model.stage import LADDER, Stage

Kind = Literal["gpu", "cpu-runtime", "fake", "none"]
"""What computed: only ``gpu`` may colour a GPU cell; ``none`` where nothing computes (module load tests)."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A file that backs an outcome, addressed by its content."""

    name: str
    """File name as a reader knows it: ``console.log``, ``dmesg.txt``, ``domain.xml``."""
    sha256: str
    """Lower-case hex digest of the uncompressed bytes."""
    size: int
    """Uncompressed size in bytes."""
    media_type: str = "text/plain"
    truncated: bool = False
    """True when the bound on untrusted output cut it."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A measured number. ``value`` is the median; samples are kept raw so that analysis can resample."""

    name: str
    value: float
    unit: str
    """SI unit: ``B/s``, ``s``, ``flop/s``."""
    better: Literal["higher", "lower"] = "higher"
    n: int = 1
    minimum: float | None = None
    p95: float | None = None
    maximum: float | None = None
    samples: tuple[float, ...] = ()
    roofline: float | None = None
    """The most the hardware can give, in ``unit``; None where it is not known."""
    roofline_source: str = ""


@dataclass(frozen=True, slots=True)
class TestResult:
    """One compute test, or one module of a load/unload rung."""

    __test__ = False  # not a pytest class

    name: str
    stage: Stage
    outcome: Outcome
    reason: str = ""
    seconds: float = 0.0
    kind: Kind = "none"
    metrics: tuple[Metric, ...] = ()
    details: dict[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StageResult:
    """One rung of the ladder."""

    stage: Stage
    outcome: Outcome
    seconds: float = 0.0
    reason: str = ""
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One execution of a cell. Every attempt is kept; none overwrites another."""

    run_id: str
    cell_id: str
    number: int
    """1 … ``boots``; a deliberate re-run goes on counting."""
    started: str
    """UTC, ISO 8601."""
    finished: str
    outcome: Outcome
    rung: Stage
    """The first rung that did not pass, or the last one that did."""
    reason: str
    stages: tuple[StageResult, ...]
    tests: tuple[TestResult, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    """Versions and identities seen: ``uname_release`` (from inside the guest), ``kernel.version``, ``qemu`` …"""
    predictions: tuple[Prediction, ...] = ()
    """What was expected before anything was tried."""
    issues: tuple[IssueMatch, ...] = ()
    """Known issues that explain, or may explain, the rung that failed; the best first."""

    @property
    def trouble(self) -> tuple[str, ...]:
        """What became of the cell's device or lab box afterwards, where that is not well.

        The outcome stands: it was seen before. But somebody has to look, whatever the outcome is.
        """
        return tuple(text for name, text in sorted(self.facts.items()) if name.endswith(".trouble"))


def decide(stages: Sequence[StageResult]) -> tuple[Outcome, Stage, str]:
    """Return (outcome, rung, reason) of a ladder: the first rung that does not pass decides.

    A rung that is SKIP (not applicable) or DONE (measured without a verdict) does not stop the ladder. A ladder in
    which nothing past ``boot`` passed is a SKIP, as booting alone says nothing about a driver stack; where nothing was
    booted, a module that was built says enough.
    """
    for result in stages:
        if result.outcome in DECIDING:
            return result.outcome, result.stage, result.reason
    passed = [result for result in stages if result.outcome in (Outcome.PASS, Outcome.DONE)]
    if not passed:
        return Outcome.SKIP, LADDER[0], stages[0].reason if stages else "nothing was tried"
    last = passed[-1]
    if last.stage not in (Stage.IMAGE, Stage.BOOT):
        return Outcome.PASS, last.stage, ""
    skipped = next((result.reason for result in stages if result.outcome is Outcome.SKIP and result.reason), "")
    return Outcome.SKIP, last.stage, skipped or "no rung past boot applies"


def merged(first: StageResult, later: StageResult) -> StageResult:
    """One rung that was climbed in two goes: the most telling outcome of both, and the reason for it."""
    outcome = summarise((first.outcome, later.outcome))
    reason = first.reason if first.outcome is outcome else later.reason
    evidence = (*first.evidence, *later.evidence)
    return StageResult(first.stage, outcome, first.seconds + later.seconds, reason, evidence)


ATTEMPT = TypeAdapter(Attempt)
"""JSON in and out of an attempt, the form in which it crosses processes and hosts."""
