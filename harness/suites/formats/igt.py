"""Tests of IGT GPU Tools, run one by one: result lines on standard output, and an exit status."""

from __future__ import annotations

import re

from harness.model.outcome import Outcome
from harness.suites.formats.case import Case, Unreadable, bounded, decoded, line

SKIP_STATUS = 77
_LINE = re.compile(
    r"(?:(?P<kind>Subtest|Dynamic subtest) (?P<name>\S+): )?"
    r"(?P<result>SUCCESS|SKIP|FAIL|CRASH|TIMEOUT|INVALID) ?\((?P<seconds>[0-9]{1,9}(?:[.][0-9]{1,9})?)s\)"
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_RESULT = {
    "SUCCESS": Outcome.PASS,
    "SKIP": Outcome.SKIP,
    "FAIL": Outcome.FAIL,
    "CRASH": Outcome.FAIL,
    "TIMEOUT": Outcome.FAIL,
    "INVALID": Outcome.ERROR,
}


def read(report: bytes) -> list[Case]:
    """Each subtest as a case; dynamic subtests, which come before theirs, as cases ``subtest/dynamic``.

    A test without subtests has one result line without a name.
    """
    cases: list[Case] = []
    dynamic: list[Case] = []
    for text in decoded(report).splitlines():
        found = _LINE.fullmatch(_COLOUR.sub("", text).strip())
        if not found:
            continue
        outcome = _RESULT[found["result"]]
        reason = "" if outcome is Outcome.PASS else found["result"].lower()
        name = line(found["name"] or "test")
        case = Case(name, outcome, reason, details={"seconds": float(found["seconds"])})
        if found["kind"] == "Dynamic subtest":
            dynamic.append(case)
            continue
        cases += [Case(f"{name}/{one.name}", one.outcome, one.reason, details=one.details) for one in dynamic]
        dynamic.clear()
        cases.append(case)
    cases += dynamic  # their subtest never ended
    if dynamic:
        cases.append(Case("subtest", Outcome.ERROR, "the last dynamic subtests belong to a subtest that did not end"))
    if not cases:
        raise Unreadable("it holds no result line")
    return bounded(cases)
