"""clpeak's ``--json-file`` (2.x, format version 2): a row for each measurement."""

from __future__ import annotations

from harness.model.outcome import Outcome
from harness.suites.formats.case import Case, Unreadable, bounded, json_object, line, measured, number

_UNITS = {
    "gflops": (1e9, "flop/s"),
    "tflops": (1e12, "flop/s"),
    "gops": (1e9, "op/s"),
    "tops": (1e12, "op/s"),
    "gbps": (1e9, "B/s"),
    "us": (1e-6, "s"),
}
_STATUS = {"unsupported": Outcome.SKIP, "skipped": Outcome.SKIP, "error": Outcome.FAIL}


def read(report: bytes) -> list[Case]:
    """Each row as a case ``backend/device/test/metric``."""
    data = json_object(report)
    if data.get("format_version") != 2:
        raise Unreadable(f"its format_version is {str(data.get('format_version'))[:20]}, not 2")
    entries = data.get("entries")
    if not isinstance(entries, list):
        raise Unreadable("it has no list of entries")
    return bounded(_case(entry) for entry in entries if isinstance(entry, dict))


def _case(entry: dict[str, object]) -> Case:
    name = line("/".join(str(entry.get(key, "")) for key in ("backend", "device", "test", "metric")))
    status = entry.get("status")
    if status is not None:
        return Case(
            name, _STATUS.get(str(status), Outcome.ERROR), line(str(entry.get("reason", ""))) or str(status)[:40]
        )
    value = number(entry.get("value"))
    scale = _UNITS.get(str(entry.get("unit")))
    if value is None or value <= 0 or scale is None:
        return Case(name, Outcome.ERROR, "its value or its unit is not known")
    return Case(
        name, Outcome.PASS, "", (measured("peak", value * scale[0], scale[1], lower_is_better=scale[1] == "s"),)
    )
