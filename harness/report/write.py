"""Writes a report: a directory that opens from ``file://`` with no server, no network and no other file."""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from harness.errors import UserError
from harness.model.records import ATTEMPT, Attempt
from harness.report.data import ReadEvidence, ReportInput, ReproCommand
from harness.report.detail import cell_detail, chunk_count, chunk_of
from harness.report.evidence import Stored, store_evidence
from harness.report.foresight import expectations, prediction_rows
from harness.report.grid import (
    STATES,
    boots_words,
    csv_rows,
    grid_data,
    metric_words,
    release_words,
    rung_words,
)
from harness.report.pages import Pages
from harness.report.pivot import Layout, lay_out, roll_up
from harness.report.summary import KIND_TAGS, WORDS, count_of, summarise_run
from harness.report.text import csv_text, finite, own, page_text, page_value, script_json
from harness.report.view import CellView, views

STATIC_LIMIT = 600
"""Up to so many positions the front page carries the whole table for readers without scripts; above, it counts."""
SCHEMA = "kdmatrix.report/1"
_MARK = "results.json"


def write_report(data: ReportInput, into: Path, *, read_evidence: ReadEvidence, repro_command: ReproCommand) -> Path:
    """Write the report of a run into the directory ``into`` and return the path of its ``index.html``.

    The report is made beside its place and moved there when it is whole; a report that was there is replaced. The
    same input gives the same bytes. Raises UserError when ``into`` holds something that is not a report.
    """
    into = into.resolve()
    if into.exists() and not (into.is_dir() and ((into / _MARK).is_file() or not any(into.iterdir()))):
        raise UserError(f"{into}: not an earlier report; name a new or empty directory for the report")
    into.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{into.name}.", dir=into.parent))
    try:
        _fill(data, made, read_evidence, repro_command)
        made.chmod(0o755)
        _replace(made, into)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return into / "index.html"


def link(cell_id: str) -> str:
    """Return the address of a cell's page, relative to the report."""
    return "cell.html#" + quote(page_text(cell_id), safe="/")


def _replace(made: Path, into: Path) -> None:
    if not into.exists():
        made.rename(into)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{into.name}.old.", dir=into.parent))
    try:
        into.replace(old)
        try:
            made.rename(into)
        except OSError:
            old.replace(into)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _fill(data: ReportInput, into: Path, read_evidence: ReadEvidence, repro: ReproCommand) -> None:
    stored = store_evidence(data.attempts, read_evidence, into / "evidence")
    # A digest that was altered is as good as gone: only what could be shown counts as collected.
    cells = views(data, lambda sha256: sha256 in stored and stored[sha256].status in ("text", "binary"))
    layout = lay_out(cells)
    by_cell: dict[str, list[Attempt]] = {}
    for attempt in data.attempts:
        by_cell.setdefault(attempt.cell_id, []).append(attempt)
    chunks = _write_details(data, cells, by_cell, stored, repro, into / "details")
    _write_pages(data, cells, layout, chunks, into)
    _write_results(data, cells, into)


def _write_details(
    data: ReportInput,
    cells: Sequence[CellView],
    by_cell: Mapping[str, list[Attempt]],
    stored: Mapping[str, Stored],
    repro: ReproCommand,
    into: Path,
) -> int:
    into.mkdir()
    planned = {cell.id: cell for cell in data.cells}
    chunks = chunk_count(len(cells))
    members: list[list[CellView]] = [[] for _ in range(chunks)]
    for view in cells:
        members[chunk_of(page_text(view.id), chunks)].append(view)
    for number, chunk in enumerate(members):
        with (into / f"{number:04d}.js").open("w", encoding="ascii", newline="\n") as file:
            file.write(f"kdmatrixDetail({number},[")
            for position, view in enumerate(chunk):
                detail = cell_detail(view, planned.get(view.id), by_cell.get(view.id, ()), stored, repro)
                file.write((",\n" if position else "\n") + script_json(page_value(detail)))
            file.write("\n]);\n")
    return chunks


def _write_pages(data: ReportInput, cells: Sequence[CellView], layout: Layout, chunks: int, into: Path) -> None:
    pages = Pages()
    common: dict[str, Any] = {
        "run": data.run,
        "words": {str(state): WORDS[state] for state in STATES},
        "tags": KIND_TAGS,
        "cells": cells,
        "layout": layout,
        "boots_words": boots_words,
        "rung_words": rung_words,
        "metric_words": metric_words,
        "release_words": release_words,
        "count_of": count_of,
        "link": link,
    }
    positions = len(layout.rows) * len(layout.columns)
    small = positions <= STATIC_LIMIT
    front = {
        "summary": summarise_run(data.run, cells),
        "expectations": expectations(data.attempts),
        "small": small,
        "rollup": None if small else roll_up(cells),
        "positions": positions,
        "matrix_lines": data.run.matrix_text.splitlines(),
        "data": own(script_json(page_value(grid_data(cells, layout)))),
    }
    pages.write("index.html.j2", into / "index.html", ("common.js", "grid.js"), common | front)
    pages.write("table.html.j2", into / "table.html", (), common)
    states = {"states": [[str(state), *WORDS[state]] for state in STATES], "kinds": list(KIND_TAGS.items())}
    small_data = own(script_json(page_value({"chunks": chunks, **states})))
    pages.write("cell.html.j2", into / "cell.html", ("common.js", "cell.js"), {"run": data.run, "data": small_data})


def _write_results(data: ReportInput, cells: Sequence[CellView], into: Path) -> None:
    _write_csv(into / "results.csv", csv_rows(cells))
    _write_csv(into / "tests.csv", _test_rows(data.attempts))
    _write_csv(into / "predictions.csv", prediction_rows(data.attempts))
    run = {name: getattr(data.run, name) for name in type(data.run).__slots__}
    with (into / _MARK).open("w", encoding="ascii", newline="\n") as file:
        file.write(f'{{"schema":{json.dumps(SCHEMA)},\n"run":{json.dumps(run, default=dict)},\n"cells":[')
        _write_items(file.write, (_plain(view) for view in cells))
        file.write('],\n"attempts":[')
        _write_items(file.write, (ATTEMPT.dump_python(attempt, mode="json") for attempt in data.attempts))
        file.write("]}\n")


def _write_items(write: Any, items: Iterable[Any]) -> None:
    for position, item in enumerate(items):
        write((",\n" if position else "\n") + json.dumps(finite(item), allow_nan=False))


def _plain(view: CellView) -> dict[str, Any]:
    plain = {name: getattr(view, name) for name in type(view).__slots__}
    if view.headline is not None:
        plain["headline"] = {name: getattr(view.headline, name) for name in type(view.headline).__slots__}
    return plain


def _write_csv(path: Path, rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _test_rows(attempts: Iterable[Attempt]) -> Iterable[list[str]]:
    yield [
        *("cell", "attempt", "started", "test", "stage", "outcome", "computed_on", "seconds"),
        *("metric", "p50", "unit", "better", "n", "min", "p95", "max", "roofline", "reason"),
    ]
    for attempt in attempts:
        for test in attempt.tests:
            start = [*map(csv_text, (attempt.cell_id, str(attempt.number), attempt.started, test.name))]
            start += [str(test.stage), str(test.outcome), test.kind, f"{test.seconds:.3f}"]
            for metric in test.metrics or (None,):
                if metric is None:
                    yield [*start, *[""] * 9, csv_text(test.reason)]
                    continue
                bounds = (metric.minimum, metric.p95, metric.maximum, metric.roofline)
                yield [
                    *start,
                    *(csv_text(metric.name), f"{metric.value:.10g}", csv_text(metric.unit), metric.better),
                    *(str(metric.n), *("" if bound is None else f"{bound:.10g}" for bound in bounds)),
                    csv_text(test.reason),
                ]
