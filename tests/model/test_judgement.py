from __future__ import annotations

import pytest

from harness.model.judgement import Judgement, judge
from harness.model.outcome import Outcome
from harness.model.prediction import Prediction
from harness.model.records import StageResult
from harness.model.stage import LADDER, Stage

PASS, FAIL, MISS, SKIP, DONE = Outcome.PASS, Outcome.FAIL, Outcome.MISS, Outcome.SKIP, Outcome.DONE
TRUE, FALSE, OPEN = Judgement.TRUE, Judgement.FALSE, Judgement.OPEN


def climbed(*outcomes: Outcome, blocked: str = "blocked: build was FAIL") -> list[StageResult]:
    """A ladder from its first rung on; what is not reached is recorded as the cell records it."""
    made = [StageResult(stage, outcome) for stage, outcome in zip(LADDER, outcomes, strict=False)]
    return made + [StageResult(stage, SKIP, 0.0, blocked) for stage in LADDER[len(made) :]]


def judged(stage: Stage, outcome: Outcome, stages: list[StageResult]) -> Judgement:
    return judge(Prediction(stage, outcome, "because", "a test"), stages)


@pytest.mark.parametrize(
    ("expected", "happened", "judgement"),
    [
        (FAIL, FAIL, TRUE),
        (FAIL, PASS, FALSE),
        (FAIL, MISS, OPEN),
        (FAIL, SKIP, OPEN),
        (FAIL, Outcome.ERROR, OPEN),
        (SKIP, SKIP, TRUE),
        (SKIP, PASS, FALSE),
        (SKIP, FAIL, FALSE),
        (SKIP, MISS, OPEN),
        (MISS, MISS, TRUE),
        (MISS, PASS, FALSE),
        (MISS, SKIP, OPEN),
        (PASS, DONE, TRUE),
        (PASS, FAIL, FALSE),
    ],
)
def test_a_prediction_is_held_against_its_own_rung(expected: Outcome, happened: Outcome, judgement: Judgement) -> None:
    assert judged(Stage.BUILD, expected, climbed(PASS, happened)) is judgement


def test_a_rung_that_was_blocked_tests_nothing_not_even_a_predicted_skip() -> None:
    stages = climbed(PASS, FAIL)
    assert judged(Stage.LOAD, FAIL, stages) is OPEN
    assert judged(Stage.THROUGHPUT, SKIP, stages) is OPEN


def test_a_rung_that_was_not_asked_for_tests_nothing() -> None:
    stages = climbed(PASS, PASS, blocked="not asked for: the run ends with build")
    assert judged(Stage.THROUGHPUT, SKIP, stages) is OPEN


def test_a_skip_that_stands_on_its_own_makes_a_predicted_skip_true() -> None:
    stages = climbed(PASS, SKIP, PASS, PASS, PASS, PASS, SKIP, PASS)
    assert judged(Stage.THROUGHPUT, SKIP, stages) is TRUE


def test_a_predicted_gap_is_true_wherever_the_lab_gives_up_before() -> None:
    assert judged(Stage.BUILD, MISS, climbed(MISS)) is TRUE
    assert judged(Stage.BUILD, MISS, climbed(PASS, PASS, MISS)) is FALSE


def test_a_rung_without_a_record_tests_nothing() -> None:
    assert judged(Stage.BUILD, FAIL, []) is OPEN
