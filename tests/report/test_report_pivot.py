from random import Random

from synthetic_run import small_run

from harness.report.pivot import lay_out, roll_up
from harness.report.view import CellView, State, views


def test_rows_go_by_series_and_every_cell_has_one_place() -> None:
    cells = views(small_run()[0], lambda _: True)
    shuffled = list(cells)
    Random(4).shuffle(shuffled)
    layout = lay_out(shuffled)
    series = [row.series for row in layout.rows]
    assert series == ["longterm", "longterm", "stable", "mainline"]
    places = [index for line in layout.grid for index in line if index is not None]
    assert sorted(places) == list(range(len(cells)))
    for row, line in zip(layout.rows, layout.grid, strict=True):
        for column, index in zip(layout.columns, line, strict=True):
            if index is not None:
                cell = shuffled[index]
                assert (cell.kernel, cell.stack, cell.guest, cell.device) == (
                    row.kernel,
                    column.stack,
                    column.guest,
                    column.device,
                )


def test_a_row_shows_the_release_that_guests_printed() -> None:
    rows = lay_out(views(small_run()[0], lambda _: True)).rows
    assert rows[1].releases == ("6.12.107+deb13-amd64",)


def test_positions_that_were_never_planned_stay_empty() -> None:
    cells = [
        CellView("g/a/s/d", "g", "a", "stable", "s", "d", State.PASS),
        CellView("g/b/t/d", "g", "b", "stable", "t", "d", State.FAIL),
        CellView("odd", "odd", "", "", "", "", State.LEFT_OUT),
    ]
    assert lay_out(cells).grid == ((0, None), (None, 1))


def test_an_empty_run_has_an_empty_matrix() -> None:
    assert lay_out(()).grid == ()
    assert roll_up(()).series == ()


def test_the_roll_up_counts_every_cell_once() -> None:
    cells = views(small_run()[0], lambda _: True)
    counted = roll_up(cells)
    assert sum(number for line in counted.counts for place in line for _, number in place) == len(cells)
    nova = counted.counts[counted.series.index("longterm")][counted.stacks.index("nova")]
    assert nova == ((State.LEFT_OUT, 2),)
