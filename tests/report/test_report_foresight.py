from dataclasses import replace

import pytest
from synthetic_run import foreseen_run, hostile_run, small_run

from harness.model.outcome import Outcome
from harness.model.prediction import Prediction
from harness.model.stage import Stage
from harness.report.foresight import best_issue, expectations, expected_words, foresight, links, prediction_rows

DATA = foreseen_run()[0]


def of(cell_id: str):  # type: ignore[no-untyped-def]
    return next(attempt for attempt in DATA.attempts if attempt.cell_id == cell_id)


FAILED = of("debian-13/stable/cpu-opencl/none")


def test_predictions_that_did_not_come_true_are_drawn_together() -> None:
    found = expectations(DATA.attempts)
    (surprise,) = found.surprises
    assert (surprise.stage, surprise.expected, surprise.happened, surprise.count) == ("build", "FAIL", "PASS", 2)
    assert surprise.cells == ("fedora-44/stable/nova/nvidia-l4", "fedora-44/rc/nova/nvidia-l4")
    assert found.lines[0] == (
        "4 predictions made before the cells ran: 1 came true, 2 did not come true, 1 not tested."
    )


def test_failures_that_nobody_foresaw_and_nothing_explains_are_counted() -> None:
    assert expectations(DATA.attempts).lines[1].startswith("2 of 3 failed attempts were neither predicted")
    bare = [replace(one, predictions=(), issues=()) for one in DATA.attempts]
    assert expectations(bare).lines == (
        "3 of 3 failed attempts were neither predicted nor identified as a known issue.",
    )


def test_a_run_without_predictions_and_failures_has_nothing_to_say() -> None:
    fine = [one for one in small_run()[0].attempts if one.outcome is Outcome.PASS]
    assert expectations(fine).lines == ()


def test_only_identified_issues_stand_on_the_front_page() -> None:
    (seen,) = expectations(DATA.attempts).seen
    assert (seen.match.issue, seen.count, seen.cells) == ("ki-001-sgemm", 1, (FAILED.cell_id,))


def test_the_page_of_a_cell_has_issue_cause_fix_and_links() -> None:
    shown = foresight(FAILED)
    first, second = shown["issues"]
    assert (first["id"], first["grade"], second["grade"]) == ("ki-001-sgemm", "identified", "candidate")
    assert ("fixed in", "7.4") in first["facts"]
    assert ("seen in", "max error 3.1e-02 at [17, 203]") in first["facts"]
    assert first["links"][:2] == [
        ("example/runtime#12", "https://github.com/example/runtime/issues/12"),
        ("Debian bug 1130057", "https://bugs.debian.org/1130057"),
    ]
    assert [one["judgement"] for one in shown["predictions"]] == ["came true", "not tested"]


@pytest.mark.parametrize("text", ["javascript:alert(1)", "a/b#1\nx", "https://a b/", "data:text/html,x", "a/b#x", ""])
def test_what_is_no_known_form_of_a_source_is_never_a_link(text: str) -> None:
    assert links([text]) == [(text, "")]


def test_a_cell_says_in_words_what_was_expected_of_it() -> None:
    assert expected_words([FAILED]) == "compute FAIL: came true; throughput SKIP: not tested"
    assert expected_words([]) == ""
    best = best_issue([FAILED])
    assert best is not None
    assert best.issue == "ki-001-sgemm"


def test_the_rows_of_csv_cannot_start_a_formula() -> None:
    attempt = replace(FAILED, predictions=(Prediction(Stage.LOAD, Outcome.FAIL, "=cmd|'/c calc'!A1", "@x"),))
    _, row = prediction_rows([attempt])
    assert row[-2:] == ["'=cmd|'/c calc'!A1", "'@x"]
    assert len(list(prediction_rows(hostile_run()[0].attempts))) == 12
