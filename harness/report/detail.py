"""What a cell's own page shows, as data for its script. Everything is formatted here; the script only places it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from harness.model.cell import Cell, DebianKernel
from harness.model.outcome import DECIDING, Outcome
from harness.model.records import Attempt, Metric, StageResult, TestResult
from harness.model.stage import LADDER, Stage
from harness.report.data import ReproCommand
from harness.report.evidence import NOT_COLLECTED, Stored
from harness.report.foresight import foresight
from harness.report.grid import boots_words, facts_of
from harness.report.summary import KIND_TAGS
from harness.report.text import duration, percent, quantity, size, spread
from harness.report.view import CellView, State, highest, lowest

CELLS_PER_CHUNK = 24
_DUE = (("console", "serial console"), ("dmesg", "kernel log"))
"""Evidence that every boot owes us: a word in its name, and what to call it when it is not there."""


def chunk_of(cell_id: str, chunks: int) -> int:
    """Return the number (from 0) of the file that holds a cell: FNV-1a (32 bit) of its id, so no index is needed.

    Source of the hash: Fowler, Noll, Vo (IETF draft-eastlake-fnv). The script computes the same.
    """
    value = 0x811C9DC5
    for byte in cell_id.encode("utf-8", errors="replace"):
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value % max(1, chunks)


def chunk_count(cells: int) -> int:
    """Return into how many files the details of so many cells go."""
    return max(1, -(-cells // CELLS_PER_CHUNK))


def cell_detail(
    view: CellView,
    cell: Cell | None,
    attempts: Sequence[Attempt],
    stored: Mapping[str, Stored],
    repro: ReproCommand,
) -> dict[str, Any]:
    """Return one cell's page as JSON-able data."""
    return {
        "id": view.id,
        "guest": view.guest,
        "kernel": view.kernel,
        "series": view.series,
        "stack": view.stack,
        "device": view.device,
        "state": str(view.state),
        "kind": view.kind,
        "tag": KIND_TAGS[view.kind] if view.tagged else "",
        "rung": str(view.rung or ""),
        "reason": view.reason,
        "tests": f"{view.tests_passed}/{view.tests_total}" if view.tests_total else "",
        "boots": boots_words(view),
        "facts": facts_of(view, cell is not None),
        "spec": _spec(cell),
        "attempts": [
            _attempt(attempt, stored, repro) for attempt in sorted(attempts, key=lambda a: (a.number, a.started))
        ],
    }


def _spec(cell: Cell | None) -> list[tuple[str, str]]:
    if cell is None:
        return []
    source = cell.kernel.source
    if isinstance(source, DebianKernel):
        origin = f"Debian {source.suite}, version {source.version or 'any'}, release {source.release}, {source.flavour}"
    else:
        named = {item.name: getattr(source, item.name) for item in fields(source)}
        said = ", ".join(f"{name} {_plain(value)}" for name, value in named.items() if value not in (None, "", ()))
        origin = f"{type(source).__name__.removesuffix('Kernel').lower()}: {said}"
    return [
        ("kernel source", origin),
        ("kernel arguments", cell.kernel.cmdline or "none added"),
        ("boots planned", str(cell.boots)),
        ("tests planned", ", ".join(cell.tests) or "none"),
    ]


def _plain(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _attempt(attempt: Attempt, stored: Mapping[str, Stored], repro: ReproCommand) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "run": attempt.run_id,
        "started": attempt.started,
        "finished": attempt.finished,
        "outcome": attempt.outcome.lower(),
        "rung": str(attempt.rung),
        "reason": attempt.reason,
        "repro": repro(attempt) or "",
        "total": duration(sum(stage.seconds for stage in attempt.stages)),
        "ladder": ladder(attempt.stages),
        "tests": [_test(test) for test in attempt.tests],
        "facts": sorted(attempt.facts.items()),
        "evidence": _evidence(attempt, stored),
        **foresight(attempt),
    }


def ladder(stages: Sequence[StageResult]) -> list[dict[str, Any]]:
    """Return every rung, the ones without a record among them: blocked after a stop, else not recorded."""
    by_stage = {result.stage: result for result in stages}
    stopped: Stage | None = None
    rungs: list[dict[str, Any]] = []
    for stage in LADDER:
        result = by_stage.get(stage)
        if stopped is not None and (result is None or result.outcome is Outcome.SKIP):
            # What clean-up did after the stop keeps its own record; all else was never tried.
            rungs.append(_rung(stage, State.BLOCKED, 0.0, f"blocked: {stopped} did not pass"))
        elif result is None:
            rungs.append(_rung(stage, State.NOT_RUN, 0.0, "no record"))
        else:
            rungs.append(_rung(stage, State(result.outcome.lower()), result.seconds, result.reason))
            if result.outcome in DECIDING and stopped is None:
                stopped = stage
    return rungs


def _rung(stage: Stage, state: State, seconds: float, reason: str) -> dict[str, Any]:
    return {
        "stage": str(stage),
        "state": str(state),
        "seconds": seconds,
        "time": duration(seconds) if seconds else "",
        "reason": reason,
    }


def _test(test: TestResult) -> dict[str, Any]:
    return {
        "name": test.name,
        "stage": str(test.stage),
        "outcome": test.outcome.lower(),
        "reason": test.reason,
        "time": duration(test.seconds),
        "kind": test.kind,
        "metrics": [_metric(metric, test.details) for metric in test.metrics],
        "details": [(key, str(value)) for key, value in sorted(test.details.items())],
    }


def _metric(metric: Metric, details: Mapping[str, Any]) -> dict[str, Any]:
    low, high = lowest(metric), highest(metric)
    share = metric.value / metric.roofline if metric.roofline else None
    return {
        "name": metric.name,
        "p50": quantity(metric.value, metric.unit),
        "spread": spread(low, high, metric.unit),
        "n": metric.n,
        "better": metric.better,
        "roofline": quantity(metric.roofline, metric.unit),
        "source": metric.roofline_source,
        "share": percent(share) if share is not None else "",
        "beside": beside(metric.name, details),
        "fractions": [low / metric.roofline, share, high / metric.roofline]
        if metric.roofline and low is not None and high is not None
        else [],
    }


def beside(name: str, details: Mapping[str, Any]) -> str:
    """What the device's clocks, heat, power and link were while a metric was measured, as far as they were read."""

    def number(key: str) -> float | None:
        value = details.get(f"{name}.{key}")
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    said = []
    if (share := number("frac_at_clock")) is not None:
        said.append(f"{percent(share)} of the roof at this clock")
    for key, unit, what in (("sm_hz", "Hz", ""), ("mem_hz", "Hz", " memory"), ("power_w", "W", "")):
        if (value := number(key)) is not None:
            said.append(f"{quantity(value, unit)}{what}")
    if (heat := number("temp_c")) is not None:
        said.append(f"{heat:.0f} °C")
    width, rate = number("link_width"), number("link_gts")
    if width is not None and rate is not None:
        said.append(f"PCIe x{width:.0f} at {rate:g} GT/s")
    if (window := number("bar_bytes")) is not None:
        said.append(f"BAR {size(int(window))}")
    throttle = details.get(f"{name}.throttle")
    return ", ".join([*said, *([f"held back by: {throttle}"] if throttle else [])])


def _evidence(attempt: Attempt, stored: Mapping[str, Stored]) -> list[dict[str, Any]]:
    files: list[dict[str, Any]] = []
    for stage in attempt.stages:
        for item in stage.evidence:
            there = stored.get(item.sha256, NOT_COLLECTED)
            files.append(
                {
                    "name": item.name,
                    "stage": str(stage.stage),
                    "sha": item.sha256,
                    "size": size(item.size),
                    "status": there.status,
                    "raw": there.raw,
                    "truncated": item.truncated,
                    "line": there.line_for(stage.reason, attempt.reason) or 0,
                }
            )
    if any(result.stage is Stage.BOOT and result.outcome is not Outcome.SKIP for result in attempt.stages):
        for word, name in _DUE:
            if not any(word in str(entry["name"]).lower() for entry in files):
                files.append({"name": name, "stage": str(Stage.BOOT), "sha": "", "status": "not collected"})
    return files
