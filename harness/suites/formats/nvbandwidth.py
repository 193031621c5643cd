"""nvbandwidth's ``--json`` (NVIDIA, 0.8): a list of test cases, bandwidths in GB/s as texts, in a matrix of devices."""

from __future__ import annotations

from harness.model.outcome import Outcome
from harness.suites.formats.case import Case, Unreadable, bounded, json_object, line, measured, number

_STATUS = {"Passed": Outcome.PASS, "Waived": Outcome.SKIP, "Not Found": Outcome.ERROR, "Error": Outcome.FAIL}


def read(report: bytes) -> list[Case]:
    """Each test case with the smallest entry of its matrix: the slowest pair of devices is what a regression shows in.

    A latency test says so in its name; its matrix is in nanoseconds.
    """
    root = json_object(report).get("nvbandwidth")
    if not isinstance(root, dict):
        raise Unreadable("it has no member 'nvbandwidth'")
    cases = []
    if error := root.get("error"):
        cases.append(Case("nvbandwidth", Outcome.FAIL, line(str(error))))
    tests = root.get("testcases")
    for test in tests if isinstance(tests, list) else ():
        if isinstance(test, dict):
            cases.append(_case(test))
    return bounded(cases)


def _case(test: dict[str, object]) -> Case:
    name = line(str(test.get("name", ""))) or "unnamed"
    status = str(test.get("status", ""))
    outcome = _STATUS.get(status, Outcome.ERROR)
    reason = line(str(test.get("error", ""))) or ("" if outcome is Outcome.PASS else f"status {status[:40]!r}")
    rows = test.get("bandwidth_matrix")
    entries = [cell for row in rows if isinstance(row, list) for cell in row] if isinstance(rows, list) else []
    values = [value for value in map(number, entries) if value is not None and value > 0]
    if outcome is not Outcome.PASS:
        return Case(name, outcome, reason)
    if not values:
        return Case(name, Outcome.ERROR, "it passed without a number")
    if "latency" in name:
        return Case(name, outcome, "", (measured("latency", max(values) * 1e-9, "s", lower_is_better=True),))
    return Case(name, outcome, "", (measured("bandwidth", min(values) * 1e9, "B/s"),))
