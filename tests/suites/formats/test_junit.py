from __future__ import annotations

import pytest

from harness.model.outcome import Outcome
from harness.suites.formats import MAX_CASES, Unreadable
from harness.suites.formats.junit import read

PYTEST = b"""<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" errors="1" failures="1" skipped="1" tests="4">
<testcase classname="test_gpu.TestCopy" name="test_small" time="0.1"/>
<testcase classname="test_gpu" name="test_large"><failure message="assert 1 == 2">long text</failure></testcase>
<testcase classname="test_gpu" name="test_peer"><skipped message="one device only"/></testcase>
<testcase classname="test_gpu" name="test_setup"><error message="fixture broke"/></testcase>
</testsuite></testsuites>"""

GTEST = b"""<testsuites tests="3" failures="1" disabled="1" errors="0" name="AllTests">
<testsuite name="zeInit"><testcase name="Twice" status="run" result="completed" classname="zeInit"/>
<testcase name="Never" status="notrun" result="suppressed" classname="zeInit"/>
<testcase name="Copy" status="run" result="completed" classname="zeCopy">
<failure message="Value of: x&#x0A;Expected: y" type=""><![CDATA[file.cpp:12]]></failure></testcase>
</testsuite></testsuites>"""


def test_pytests_report_gives_a_case_for_each_test() -> None:
    assert [(case.name, case.outcome, case.reason) for case in read(PYTEST)] == [
        ("test_gpu.TestCopy.test_small", Outcome.PASS, ""),
        ("test_gpu.test_large", Outcome.FAIL, "assert 1 == 2"),
        ("test_gpu.test_peer", Outcome.SKIP, "one device only"),
        ("test_gpu.test_setup", Outcome.ERROR, "fixture broke"),
    ]


def test_googletests_report_knows_tests_that_were_not_run() -> None:
    assert [(case.name, case.outcome) for case in read(GTEST)] == [
        ("zeInit.Twice", Outcome.PASS),
        ("zeInit.Never", Outcome.SKIP),
        ("zeCopy.Copy", Outcome.FAIL),
    ]


def test_errors_that_a_suite_counts_and_no_case_shows_are_not_lost() -> None:
    (case,) = read(b'<testsuite name="s" errors="2"></testsuite>')
    assert (case.name, case.outcome) == ("s", Outcome.ERROR)


def test_entities_are_refused_before_they_are_expanded() -> None:
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><testsuite name="&b;"/>'
    with pytest.raises(Unreadable, match="document type"):
        read(bomb)


@pytest.mark.parametrize("report", [b"", b"<html/>", b"<testsuite>", b"\xff\xfe", b"<testsuite name='\xff'/>"])
def test_what_is_no_junit_xml_is_unreadable(report: bytes) -> None:
    with pytest.raises(Unreadable):
        read(report)


def test_a_flood_of_cases_is_bounded_and_keeps_those_that_failed() -> None:
    good = b"".join(b'<testcase name="t%d"/>' % number for number in range(MAX_CASES + 50))
    cases = read(b"<testsuite>" + good + b'<testcase name="bad"><failure/></testcase></testsuite>')
    assert len(cases) == MAX_CASES
    assert cases[0].name == "bad"
    assert cases[-1].name == "52 more cases"
