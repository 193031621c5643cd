"""The first rung that does not pass decides, and booting alone proves nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.outcome import DECIDING, Outcome
from harness.model.records import ATTEMPT, Attempt, Evidence, Metric, StageResult, TestResult, decide, merged
from harness.model.stage import LADDER, Stage

PASS, FAIL, MISS, SKIP, DONE = Outcome.PASS, Outcome.FAIL, Outcome.MISS, Outcome.SKIP, Outcome.DONE


def ladder(*outcomes: Outcome) -> list[StageResult]:
    return [
        StageResult(stage, outcome, reason="" if outcome is PASS else f"{stage} {outcome}")
        for stage, outcome in zip(LADDER, outcomes, strict=False)
    ]


@pytest.mark.parametrize(
    ("outcomes", "decision"),
    [
        ([], (SKIP, Stage.IMAGE, "nothing was tried")),
        ([PASS, SKIP, PASS, PASS, SKIP, PASS], (PASS, Stage.COMPUTE, "")),
        ([PASS, SKIP, PASS, PASS, PASS, PASS, DONE], (PASS, Stage.THROUGHPUT, "")),
        ([PASS, SKIP, FAIL], (FAIL, Stage.BOOT, "boot FAIL")),
        ([PASS, PASS, PASS, FAIL, MISS], (FAIL, Stage.LOAD, "load FAIL")),
        ([MISS, SKIP, SKIP], (MISS, Stage.IMAGE, "image MISS")),
        ([PASS, SKIP, PASS], (SKIP, Stage.BOOT, "build SKIP")),
        ([PASS, PASS, PASS], (SKIP, Stage.BOOT, "no rung past boot applies")),
        ([PASS, PASS, SKIP, SKIP], (PASS, Stage.BUILD, "")),
        ([SKIP, SKIP], (SKIP, Stage.IMAGE, "image SKIP")),
    ],
)
def test_a_ladder_is_decided_by_its_first_rung_that_does_not_pass(
    outcomes: list[Outcome], decision: tuple[Outcome, Stage, str]
) -> None:
    assert decide(ladder(*outcomes)) == decision


@given(st.lists(st.sampled_from(Outcome), max_size=len(LADDER)))
def test_no_ladder_with_a_deciding_rung_ever_passes(outcomes: list[Outcome]) -> None:
    outcome, rung, _reason = decide(ladder(*outcomes))
    bad = [index for index, one in enumerate(outcomes) if one in DECIDING]
    if bad:
        assert (outcome, rung) == (outcomes[bad[0]], LADDER[bad[0]])
    else:
        assert outcome in (PASS, SKIP)
        passed = [index for index, one in enumerate(outcomes) if one in (PASS, DONE)]
        assert (outcome is PASS) == (bool(passed) and LADDER[passed[-1]] not in (Stage.IMAGE, Stage.BOOT))


def test_an_attempt_crosses_processes_as_json_unchanged() -> None:
    evidence = Evidence("console.log", "0" * 64, 3, truncated=True)
    metric = Metric("bandwidth", 2.5e9, "B/s", n=2, samples=(2e9, 3e9))
    attempt = Attempt(
        *("run", "g/k/s/none", 1, "2026-04-12T10:15:30+00:00", "2026-04-12T10:16:00+00:00"),
        PASS,
        Stage.COMPUTE,
        "",
        (StageResult(Stage.BOOT, PASS, 1.5, "", (evidence,)),),
        (TestResult("t", Stage.COMPUTE, PASS, kind="gpu", metrics=(metric,), details={"n": 1, "ok": True}),),
        {"uname_release": "6.12"},
    )
    assert ATTEMPT.validate_json(ATTEMPT.dump_json(attempt)) == attempt


@pytest.mark.parametrize(
    ("first", "later", "outcome", "reason"),
    [
        ((Outcome.PASS, ""), (Outcome.FAIL, "later"), Outcome.FAIL, "later"),
        ((Outcome.FAIL, "first"), (Outcome.PASS, ""), Outcome.FAIL, "first"),
        ((Outcome.SKIP, "no test"), (Outcome.PASS, ""), Outcome.PASS, ""),
        ((Outcome.MISS, "first"), (Outcome.MISS, "later"), Outcome.MISS, "first"),
    ],
)
def test_a_rung_climbed_in_two_goes_has_the_most_telling_outcome_of_both(
    first: tuple[Outcome, str], later: tuple[Outcome, str], outcome: Outcome, reason: str
) -> None:
    one = StageResult(Stage.COMPUTE, first[0], 1.0, first[1], (Evidence("a", "0" * 64, 1),))
    two = StageResult(Stage.COMPUTE, later[0], 2.0, later[1], (Evidence("b", "1" * 64, 1),))
    both = merged(one, two)
    assert (both.outcome, both.reason, both.seconds) == (outcome, reason, 3.0)
    assert [file.name for file in both.evidence] == ["a", "b"]
