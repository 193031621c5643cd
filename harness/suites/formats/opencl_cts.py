"""OpenCL-CTS: the file that a test of Khronos' suite writes to ``CL_CONFORMANCE_RESULTS_FILENAME``.

One run of one binary writes one object. The quick list is a script that runs many of them, each with a file of its own,
and prints the files one behind the other.
"""

from __future__ import annotations

import json

from harness.model.outcome import Outcome
from harness.suites.formats.case import Case, Unreadable, bounded, decoded, line

_RESULT = {"pass": Outcome.PASS, "fail": Outcome.FAIL, "skip": Outcome.SKIP}


def read(report: bytes) -> list[Case]:
    """Each sub-test as a case ``command/sub-test``."""
    text = decoded(report)
    decoder = json.JSONDecoder()
    cases: list[Case] = []
    start, objects = text.find("{"), 0
    while start >= 0:
        try:
            data, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            raise Unreadable(f"it is not readable as JSON: {line(str(error))}") from None
        objects += 1
        cases += _cases(data)
        start = text.find("{", end)
    if not objects:
        raise Unreadable("it holds no JSON object")
    return bounded(cases)


def _cases(data: object) -> list[Case]:
    if not isinstance(data, dict) or not isinstance(data.get("results"), dict):
        raise Unreadable("an object of it has no results")
    command = str(data.get("cmd", "")).rpartition("/")[2]
    cases = []
    for name, result in data["results"].items():
        outcome = _RESULT.get(str(result), Outcome.ERROR)
        reason = "" if outcome is Outcome.PASS else f"result {str(result)[:40]!r}"
        cases.append(Case(line(f"{command}/{name}" if command else name), outcome, reason))
    return cases
