from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.outcome import Outcome
from harness.suites.formats import Unreadable
from harness.suites.formats.ktap import read


def outcomes(text: str) -> dict[str, Outcome]:
    return {case.name: case.outcome for case in read(text.encode())}


def test_each_result_of_a_flat_report_is_a_case() -> None:
    report = "TAP version 13\n1..3\nok 1 - opens\nnot ok 2 maps # it returned -22\nok 3 closes # SKIP no such ioctl\n"
    cases = read(report.encode())
    assert [(case.name, case.outcome, case.reason) for case in cases] == [
        ("opens", Outcome.PASS, ""),
        ("maps", Outcome.FAIL, "it returned -22"),
        ("closes", Outcome.SKIP, "no such ioctl"),
    ]


def test_results_of_subtests_carry_the_names_of_their_parents() -> None:
    report = """KTAP version 1
1..2
  KTAP version 1
  1..2
    KTAP version 1
    1..2
    not ok 1 test_1
    ok 2 test_2
  not ok 1 suite_1
  ok 2 suite_2
not ok 1 main
ok 2 other
"""
    assert outcomes(report) == {
        "main/suite_1/test_1": Outcome.FAIL,
        "main/suite_1/test_2": Outcome.PASS,
        "main/suite_2": Outcome.PASS,
        "other": Outcome.PASS,
    }


def test_a_parent_that_failed_although_its_subtests_did_not_is_a_case_of_its_own() -> None:
    report = "1..1\n  1..1\n  ok 1 child\nnot ok 1 parent\n"
    assert outcomes(report) == {"parent/child": Outcome.PASS, "parent": Outcome.FAIL}


def test_a_plan_that_is_not_fulfilled_is_an_error_and_no_pass() -> None:
    assert outcomes("1..3\nok 1 a\nok 2 b\n")["plan"] is Outcome.ERROR
    below = outcomes("1..1\n  1..2\n  ok 1 child\nok 1 parent\n")
    assert below["parent/plan"] is Outcome.ERROR
    assert outcomes("1..2\nok 1 a\nBail out! no memory\n")["bail out"] is Outcome.ERROR


def test_a_report_that_ends_within_a_subtest_keeps_its_results_and_is_an_error() -> None:
    assert outcomes("1..1\n  1..2\n  ok 1 child\n") == {
        "child": Outcome.PASS,
        "plan": Outcome.ERROR,
        "end": Outcome.ERROR,
    }


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        ("not ok 1 a # XFAIL known", Outcome.SKIP),
        ("not ok 1 a # TODO later", Outcome.SKIP),
        ("ok 1 a # TODO later", Outcome.PASS),
        ("not ok 1 a # TIMEOUT 45 seconds", Outcome.FAIL),
        ("not ok 1 a # ERROR cannot fork", Outcome.ERROR),
        ("ok 1 a # skip: lower case", Outcome.SKIP),
        ("[   12.345678] not ok 1 a", Outcome.FAIL),
        ("ok", Outcome.PASS),
    ],
)
def test_directives_and_prefixes_are_understood(line: str, outcome: Outcome) -> None:
    (case,) = read(f"1..1\n{line}\n".encode())
    assert case.outcome is outcome


def test_a_whole_plan_that_is_skipped_is_a_skip() -> None:
    (case,) = read(b"TAP version 13\n1..0 # SKIP no device\n")
    assert (case.outcome, case.reason) == (Outcome.SKIP, "no device")


@pytest.mark.parametrize("text", ["", "hello\n", "okay then\n", "# ok 1 commented\n"])
def test_what_holds_no_result_is_unreadable(text: str) -> None:
    with pytest.raises(Unreadable):
        read(text.encode())


@given(
    st.lists(st.sampled_from(["ok 1 a", "not ok 2 b", "  1..2", "1..2", "    ok", "KTAP version 1", "x", "Bail out!"]))
)
def test_no_order_of_lines_breaks_the_reader_or_hides_a_failure(lines: list[str]) -> None:
    try:
        cases = read("\n".join(lines).encode())
    except Unreadable:
        return
    assert cases or not any("ok" in line for line in lines)
    if "not ok 2 b" in lines and "Bail out!" not in lines:
        assert any(case.outcome is Outcome.FAIL for case in cases)
