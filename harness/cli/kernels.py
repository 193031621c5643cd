"""``kdmatrix kernels``: longterm series and their ends, and what this host's sources have for a matrix today."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from harness.cli.longterm import longterm_warning
from harness.cli.output import out, reported, say, show_json
from harness.cli.runs import AsJson, MatrixFile
from harness.content import content_dir
from harness.errors import KdmatrixError
from harness.kernels.longterm import LongtermList, LongtermSeries, read_longterm, refresh
from harness.kernels.repositories import known_names
from harness.lab import Lab
from harness.model.cell import KernelSpec
from harness.planning import choose

_SOON = 90
"""Days before its end from which a series is shown as ending."""


@dataclass(frozen=True, slots=True)
class _Row:
    kernel: KernelSpec
    release: str
    version: str
    source: str
    problem: str
    warning: str


@reported
def kernels(
    matrix: MatrixFile = None,
    refresh_from: Annotated[
        str | None,
        typer.Option(
            "--refresh",
            metavar="URL|FILE",
            help="Read kernel.org's releases.json from there first, and keep what it says in the lab's home.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List longterm series with their ends, and what the sources of this host have for each kernel of the matrix."""
    lab = Lab.open()
    today = datetime.datetime.now(datetime.UTC).date()
    data = content_dir("guests") / "_kernels"
    known = read_longterm(data, lab.home.root)
    if refresh_from is not None:
        known = refresh(known, refresh_from, lab.home.root, today)
    selection = choose(lab, matrix, preset=None, expression=None)
    rows = [_row(lab, kernel, known, today) for kernel in selection.matrix.kernels]
    if as_json:
        show_json(
            {
                "read": known.read.isoformat(),
                "source": known.source,
                "file": str(known.file),
                "longterm": [_series_json(one, today) for one in known.series],
                "kernels": [_row_json(row) for row in rows],
                "repositories": known_names(data),
            }
        )
        return
    out.print(_series_table(known, today))
    say(f"read {known.read} from {known.source} ({known.file})")
    say("")
    out.print(_kernel_table(rows))
    for row in rows:
        if row.warning:
            say(f"warning: {row.kernel.name}: {row.warning}", "yellow")
    say("")
    say(f"RPM repositories that a matrix may name: {', '.join(known_names(data))}")


def _row(lab: Lab, kernel: KernelSpec, known: LongtermList, today: datetime.date) -> _Row:
    try:
        identity = lab.images.identity(kernel)
    except KdmatrixError as error:
        return _Row(kernel, "", "", "", str(error), "")
    warning = longterm_warning(kernel, identity.release, known, today)
    return _Row(kernel, identity.release, identity.version, identity.source, "", warning)


def _state(one: LongtermSeries, today: datetime.date) -> tuple[str, str]:
    """(what is said of a series, its style)."""
    left = one.days_left(today)
    if one.is_over(today):
        return "ended", "bold red"
    if left is None:
        return "maintained", ""
    return (f"{left} days left", "yellow" if left <= _SOON else "")


def _series_table(known: LongtermList, today: datetime.date) -> Table:
    table = Table("longterm series", "ends", "state", "latest", box=None, pad_edge=False)
    for one in known.series:
        state, style = _state(one, today)
        ends = str(one.end) if one.end else "not known"
        table.add_row(one.series, ends, Text(state, style=style), one.latest)
    return table


def _kernel_table(rows: list[_Row]) -> Table:
    table = Table("kernel", "series", "release", "package version", "source", box=None, pad_edge=False)
    for row in rows:
        if row.problem:
            table.add_row(
                row.kernel.name, row.kernel.series, Text("not known", "yellow"), "", Text(row.problem, "yellow")
            )
        else:
            table.add_row(*map(Text, (row.kernel.name, row.kernel.series, row.release, row.version, row.source)))
    return table


def _series_json(one: LongtermSeries, today: datetime.date) -> dict[str, object]:
    return {
        "series": one.series,
        "end": one.end.isoformat() if one.end else None,
        "days_left": one.days_left(today),
        "over": one.is_over(today),
        "latest": one.latest,
    }


def _row_json(row: _Row) -> dict[str, object]:
    return {
        "name": row.kernel.name,
        "series": str(row.kernel.series),
        "release": row.release,
        "version": row.version,
        "source": row.source,
        "problem": row.problem,
        "warning": row.warning,
    }
