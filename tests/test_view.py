"""What a run shows: plain lines for logs, a live view for terminals, and guests' words only as text."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from harness.model.outcome import Outcome
from harness.model.records import Attempt
from harness.model.stage import Stage
from harness.view import SYMBOLS, RunView

CELL = "debian-13/lts/intree/none"


def attempt(outcome: Outcome = Outcome.PASS, reason: str = "", number: int = 1, cell: str = CELL) -> Attempt:
    return Attempt("r", cell, number, "", "", outcome, Stage.LOAD, reason, ())


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def plain() -> Console:
    return Console(file=io.StringIO(), width=60)


def test_lines_tell_parts_rungs_and_results_in_order() -> None:
    console = plain()
    with RunView(console, 2, {}) as view:
        view.part("kernel 6.12")
        for rung in ("image", "boot", "load", "enumerate", "compute"):
            view.rung(CELL, 1, rung)
        view.finished(attempt())
        view.finished(attempt(Outcome.FAIL, "no such device", number=2))
    lines = [line.split(" ", 3)[-1].strip() for line in shown(console).splitlines()]
    text = "\n".join(lines)
    assert "making kernel 6.12" in text
    assert [word for word in ("image", "boot", "load", "enumerate", "compute") if f"{CELL} {word}" in text] == [
        "boot",
        "load",
        "compute",
    ]
    assert f"[1/2] ✓ PASS {CELL} (load)" in shown(console)
    assert f"[2/2] ✗ FAIL {CELL} #2 (load): no such device" in shown(console)


def test_trouble_after_a_cell_has_a_line_of_its_own() -> None:
    console = plain()
    with RunView(console, 1, {}) as view:
        view.finished(replace(attempt(), facts={"box.trouble": "box did not answer"}))
    first, second = shown(console).splitlines()
    assert f"[1/1] ✓ PASS {CELL} (load)" in first
    assert second.endswith(f"trouble after {CELL}: box did not answer")


def test_a_line_is_never_folded_or_read_as_markup() -> None:
    console = plain()
    with RunView(console, 1, {}) as view:
        view.finished(attempt(Outcome.FAIL, "[bold]x[/] " + "long " * 40))
    (line,) = shown(console).splitlines()
    assert "[bold]x[/] long" in line


def test_every_outcome_has_a_symbol_beside_its_word() -> None:
    assert set(SYMBOLS) == set(Outcome)
    assert len({symbol for symbol, _ in SYMBOLS.values()}) == len(Outcome)


def test_a_terminal_shows_what_runs_and_ends_with_the_results_only() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    with RunView(console, 3, {}) as view:
        view.rung(CELL, 1, "boot")
        view.part("a layer")
        rendered = Console(file=io.StringIO(), width=100)
        rendered.print(view._render())
        assert CELL in shown(rendered)
        assert "boot" in shown(rendered)
        assert "0/3" in shown(rendered)
        assert "making a layer" in shown(rendered)
        view.finished(attempt())
        rendered = Console(file=io.StringIO(), width=100)
        rendered.print(view._render())
        assert "1/3" in shown(rendered)
        assert "1 PASS" in shown(rendered)
        assert CELL not in shown(rendered)
    assert "[1/3] ✓ PASS" in shown(console)


def test_nothing_is_estimated_from_nothing_and_earlier_runs_count() -> None:
    assert RunView(plain(), 4, {}).estimate() is None
    assert RunView(plain(), 4, {CELL: 30.0}).estimate() == 120.0
    view = RunView(plain(), 1, {CELL: 30.0})
    view.rung(CELL, 1, "boot")
    view.finished(attempt())
    assert view.estimate() == 0.0
