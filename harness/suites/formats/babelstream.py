"""BabelStream's ``--csv`` (5.0): a row for each function. Only its exit status tells that results are wrong."""

from __future__ import annotations

import csv
import io

from harness.model.outcome import Outcome
from harness.suites.formats.case import Case, Unreadable, bounded, decoded, line, measured, number

_SCALES = {"MB": 1e6, "MiB": 2.0**20, "GB": 1e9, "GiB": 2.0**30, "TB": 1e12, "TiB": 2.0**40}


def read(report: bytes) -> list[Case]:
    """Each function with the bandwidth of its fastest run, which is what the program prints."""
    lines = decoded(report).splitlines()
    start = next((place for place, text in enumerate(lines) if text.startswith("function,")), None)
    if start is None:
        raise Unreadable("it has no CSV header; run it with --csv")
    try:
        rows = list(csv.DictReader(io.StringIO("\n".join(lines[start:]))))
    except csv.Error as error:
        raise Unreadable(f"it is not readable as CSV: {line(str(error))}") from None
    rate = next((name for name in lines[start].split(",") if name.startswith("max_") and name.endswith("_per_sec")), "")
    scale = _SCALES.get(rate.removeprefix("max_").removesuffix("_per_sec"))
    if scale is None:
        raise Unreadable("its header names no bandwidth that is known")
    return bounded(_case(row, rate, scale) for row in rows if row.get(rate) is not None)


def _case(row: dict[str, str], rate: str, scale: float) -> Case:
    name = line(row.get("function") or "") or "unnamed"
    value = number(row[rate])
    if value is None or value <= 0:
        return Case(name, Outcome.ERROR, "its bandwidth is no number")
    return Case(name, Outcome.PASS, "", (measured("bandwidth", value * scale, "B/s"),))
