"""level-zero-tests' benchmarks: the tables that ze_peak prints, and ze_bandwidth's ``--csv``.

Its conformance and stress tests are GoogleTest programs: run them with ``--gtest_output=xml:FILE`` as JUnit.
"""

from __future__ import annotations

import re

from harness.model.outcome import Outcome
from harness.suites.formats.case import Case, Unreadable, bounded, decoded, line, measured

_PEAK = re.compile(r"(?P<name>[^:]{1,100}) : (?P<value>[0-9.]{1,20}(?:e[+-]?[0-9]+)?) ?\(?(?P<unit>GFLOPS|GB/s|us)\)?")
_UNITS = {"GFLOPS": (1e9, "flop/s"), "GB/s": (1e9, "B/s"), "us": (1e-6, "s")}
_TABLE = re.compile(r".*\((?:GFLOPS|GB/s)\)")
_DIRECTION = re.compile(r"(HOST-TO-DEVICE|DEVICE-TO-HOST|BIDIRECTIONAL)\b.*BANDWIDTH.*", re.IGNORECASE)
_ROW = re.compile(r"([0-9]{1,15}),([0-9.]{1,20}(?:e[+-]?[0-9]+)?),([0-9.]{1,20}(?:e[+-]?[0-9]+)?)")


def read_peak(report: bytes) -> list[Case]:
    """Each line of a table as a case ``table/line``."""
    table, cases = "", []
    for text in map(str.strip, decoded(report).splitlines()):
        found = _PEAK.fullmatch(text)
        if found is None:
            if _TABLE.fullmatch(text):
                table = text.partition("(")[0].strip()
            continue
        scale, unit = _UNITS[found["unit"]]
        name = line(f"{table}/{found['name']}" if table and unit != "s" else found["name"])
        cases.append(_case(name, found["value"], scale, unit))
    if not cases:
        raise Unreadable("it holds no line of ze_peak's tables")
    return bounded(cases)


def read_bandwidth(report: bytes) -> list[Case]:
    """Each row as a case ``direction/bytes``; the direction is the heading above the rows."""
    direction, cases = "", []
    for text in map(str.strip, decoded(report).splitlines()):
        if heading := _DIRECTION.match(text):
            direction = heading[1].lower()
        elif row := _ROW.fullmatch(text):
            cases.append(_case(line(f"{direction or 'copy'}/{row[1]}"), row[2], 1e9, "B/s"))
    if not cases:
        raise Unreadable("it holds no row of a table; run it with --csv")
    return bounded(cases)


def _case(name: str, text: str, scale: float, unit: str) -> Case:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        return Case(name, Outcome.ERROR, f"its value {text!r} is no positive number")
    metric = "latency" if unit == "s" else "bandwidth" if unit == "B/s" else "throughput"
    return Case(name, Outcome.PASS, "", (measured(metric, value * scale, unit, lower_is_better=unit == "s"),))
