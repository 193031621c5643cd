"""Lays cells out as kernels × (stack, guest, device), and counts them by series and stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.view import SERIES_ORDER, CellView, State


@dataclass(frozen=True, slots=True)
class Row:
    """One kernel of the matrix."""

    kernel: str
    series: str
    releases: tuple[str, ...]
    """Every ``uname -r`` that a guest of this row printed."""
    resolved: str
    """What was asked for, shown where no guest of this row got far enough to tell."""


@dataclass(frozen=True, slots=True)
class Column:
    """One (stack, guest, device) of the matrix."""

    stack: str
    guest: str
    device: str


@dataclass(frozen=True, slots=True)
class Layout:
    """The matrix: ``grid[row][column]`` is an index into the cells, or None where no cell was ever meant to be."""

    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    grid: tuple[tuple[int | None, ...], ...]


@dataclass(frozen=True, slots=True)
class Rollup:
    """Counts by series and stack, for a matrix too large to be read as a whole without a script."""

    series: tuple[str, ...]
    stacks: tuple[str, ...]
    counts: tuple[tuple[tuple[tuple[State, int], ...], ...], ...]
    """``counts[series][stack]``: (state, how many), in the order of :class:`State`."""


def lay_out(cells: Sequence[CellView]) -> Layout:
    """Return the matrix of some cells. Rows go by series, then as planned; columns as planned."""
    # What an odd id leaves without an axis is told in the summary and has its own page, but no place here.
    placed = [(index, cell) for index, cell in enumerate(cells) if cell.kernel and cell.stack and cell.device]
    if not placed:
        return Layout((), (), ())
    # pandas takes most of a second to import: only a report pays for it.
    import pandas as pd

    frame = pd.DataFrame(
        {
            "row": [cell.kernel for _, cell in placed],
            "column": [(cell.stack, cell.guest, cell.device) for _, cell in placed],
            "index": [index for index, _ in placed],
        }
    ).drop_duplicates(["row", "column"])
    pivot = frame.pivot(index="row", columns="column", values="index")
    rows = _rows([cell for _, cell in placed])
    columns = list(dict.fromkeys((cell.stack, cell.guest, cell.device) for _, cell in placed))
    table = pivot.reindex(index=[row.kernel for row in rows]).reindex(columns=pd.Index(columns, tupleize_cols=False))
    # NaN, the pivot's mark for an empty position, is the only value that differs from itself.
    grid = tuple(tuple(None if value != value else int(value) for value in line) for line in table.to_numpy().tolist())
    return Layout(rows, tuple(Column(*column) for column in columns), grid)


def _rows(cells: Sequence[CellView]) -> tuple[Row, ...]:
    by_kernel: dict[str, list[CellView]] = {}
    for cell in cells:
        by_kernel.setdefault(cell.kernel, []).append(cell)
    rows = [
        Row(
            kernel,
            next((cell.series for cell in members if cell.series), ""),
            tuple(dict.fromkeys(release for cell in members for release in cell.releases)),
            next((cell.resolved for cell in members if cell.resolved), ""),
        )
        for kernel, members in by_kernel.items()
    ]
    order = {series: position for position, series in enumerate(SERIES_ORDER)}
    return tuple(sorted(rows, key=lambda row: order.get(row.series, len(order))))


def roll_up(cells: Sequence[CellView]) -> Rollup:
    """Return how many cells of each state there are by kernel series and stack."""
    if not cells:
        return Rollup((), (), ())
    import pandas as pd

    frame = pd.DataFrame(
        {
            "series": [cell.series for cell in cells],
            "stack": [cell.stack for cell in cells],
            "state": [str(cell.state) for cell in cells],
        }
    )
    sizes = {key: int(count) for key, count in frame.groupby(["series", "stack", "state"]).size().to_dict().items()}
    present = set(frame["series"])
    series = tuple(name for name in SERIES_ORDER if name in present)
    stacks = tuple(dict.fromkeys(cell.stack for cell in cells))
    return Rollup(
        series,
        stacks,
        tuple(
            tuple(
                tuple((state, sizes[one, stack, str(state)]) for state in State if (one, stack, str(state)) in sizes)
                for stack in stacks
            )
            for one in series
        ),
    )
