"""Whether a prediction came true."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from harness.model.outcome import DECIDING, Outcome
from harness.model.prediction import Prediction
from harness.model.records import StageResult
from harness.model.stage import LADDER


class Judgement(StrEnum):
    """What became of a prediction."""

    TRUE = "came true"
    FALSE = "did not come true"
    OPEN = "not tested"
    """The ladder did not get there, or got there without a finding (host trouble, nothing applicable)."""


def judge(prediction: Prediction, stages: Sequence[StageResult]) -> Judgement:
    """Compare a prediction with the rungs that were climbed.

    A predicted MISS is about the lab, so it is true wherever at or below its rung the ladder is lost. Any other
    prediction is about its own rung: it is tested only where that rung came to a finding (FAIL, PASS, DONE) or was
    not applicable when exactly that was predicted. A rung that an earlier one blocked says nothing.
    """
    own = next((result for result in stages if result.stage is prediction.stage), None)
    if prediction.outcome is Outcome.MISS:
        upto = LADDER[: LADDER.index(prediction.stage) + 1]
        if any(result.outcome is Outcome.MISS for result in stages if result.stage in upto):
            return Judgement.TRUE
    if own is None or _blocked(own, stages):
        return Judgement.OPEN
    if own.outcome is prediction.outcome or {own.outcome, prediction.outcome} == {Outcome.PASS, Outcome.DONE}:
        return Judgement.TRUE
    found = own.outcome in (Outcome.FAIL, Outcome.PASS, Outcome.DONE)
    return Judgement.FALSE if found else Judgement.OPEN


def _blocked(own: StageResult, stages: Sequence[StageResult]) -> bool:
    """Whether a rung was SKIP only because the ladder had ended before it, or was not to be climbed at all."""
    if own.outcome is not Outcome.SKIP:
        return False
    before = LADDER[: LADDER.index(own.stage)]
    if any(result.outcome in DECIDING for result in stages if result.stage in before):
        return True
    return own.reason.startswith(("blocked:", "not asked for:"))
