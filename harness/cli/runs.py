"""Commands about matrices and runs: run, plan, validate, runs, report."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from harness.cli.here import HereOptions, begin_here
from harness.cli.longterm import longterm_warnings
from harness.cli.output import BAD_INPUT, NOTHING_RAN, OK, err, fail, out, reported, say, show_json, warn
from harness.devices.borrow import Lender
from harness.devices.lending import what_force_does
from harness.errors import UserError
from harness.lab import Lab, host_facts
from harness.matrix import MatrixError, units
from harness.model.cell import LeftOut
from harness.model.machine import ThisMachine
from harness.model.matrix import Limits
from harness.model.stage import LADDER, Stage
from harness.planning import PlannedCell, Selection, choose, look_ahead
from harness.run import Interrupt, carry_out, exit_code
from harness.store.run import StoredRun
from harness.store.store import Store
from harness.view import SYMBOLS, RunView

MatrixFile = Annotated[
    Path | None,
    typer.Argument(help="Matrix file; matrix.yaml here, or the shipped one, when not given.", show_default=False),
]
Preset = Annotated[str | None, typer.Option("--preset", "-p", help="A preset of the matrix file.", show_default=False)]
Keyword = Annotated[
    str | None,
    typer.Option(
        "-k", metavar="EXPR", help="Only cells whose id matches, such as 'lts and not intree'.", show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]


@reported
def run(
    matrix: MatrixFile = None,
    preset: Preset = None,
    keyword: Keyword = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the latest run that was not finished.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    until: Annotated[
        Stage, typer.Option("--until", help="Last rung to climb; up to build, nothing is booted.")
    ] = LADDER[-1],
    force_device: Annotated[
        list[str] | None,
        typer.Option(
            "--force-device",
            metavar="ADDRESS",
            help="Lend this device although the host uses it; may be repeated. `kdmatrix devices` says what speaks "
            "against it.",
            show_default=False,
        ),
    ] = None,
    vms: Annotated[int | None, typer.Option("--vms", min=1, help="VMs at a time.", show_default=False)] = None,
    here: Annotated[
        bool,
        typer.Option("--here", help="Test the kernel and drivers that this machine runs, without a VM or a matrix."),
    ] = False,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            "--backend",
            metavar="NAME",
            help="With --here: test this compute API (opencl, cuda, hip, …), may be repeated; all that answer, when "
            "not given.",
            show_default=False,
        ),
    ] = None,
    tier: Annotated[
        int | None,
        typer.Option(
            "--tier",
            min=1,
            max=3,
            help="With --here: run the tests up to this tier; 1 when not given, 3 may take the driver down.",
            show_default=False,
        ),
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option(
            "--test", metavar="NAME", help="With --here: run only this test, may be repeated.", show_default=False
        ),
    ] = None,
    report_dir: Annotated[
        Path | None, typer.Option("--report", help="Directory for the HTML report.", show_default=False)
    ] = None,
) -> None:
    """Execute a matrix, or with --here test this very machine, and write the report."""
    lab = Lab.open()
    forced = _forced(force_device or ())
    asked = HereOptions(tuple(backend or ()), tier, tuple(test or ()))
    if here:
        asked.alone(matrix=matrix, preset=preset, resume=resume, vms=vms, force_device=force_device)
    elif asked.given:
        raise UserError(f"{asked.given} goes with --here; a matrix file says which tests and stacks")
    with lab.store() as store:
        if here:
            run_id = begin_here(lab, store, asked, keyword, until, dry_run=dry_run)
            limits = Limits()
        elif resume:
            if matrix or preset or keyword or forced:
                raise UserError(
                    "--resume goes on with a run's own plan: leave matrix, --preset, -k and --force-device out"
                )
            run_id, limits, until, forced = _resumable(store)
            say(f"resuming run {run_id}")
        else:
            selection = choose(lab, matrix, preset=preset, expression=keyword)
            if dry_run:
                _show_plan(look_ahead(lab, selection.cells), selection.left_out)
                raise typer.Exit(OK)
            if not selection.cells:
                _show_left_out(selection.left_out)
                fail("no cell is left to run", NOTHING_RAN)
            leased = [record.unit for record in Lender().leases.held()] if forced else []
            for text in what_force_does(forced, leased=leased):
                warn(text)
            run_id, limits = _begin(store, selection, vms, until, forced)
        _carry_out(lab, store, run_id, _with_vms(limits, vms), until, forced)
        stored = store.load_run(run_id)
        from harness.report.from_store import publish

        page = publish(stored, lab.evidence, report_dir or lab.home.runs / run_id / "report")
    _summary(stored)
    say(f"report: {page}")
    raise typer.Exit(exit_code(stored.attempts, stored.cells, {}))


@reported
def plan(
    matrix: MatrixFile = None,
    preset: Preset = None,
    keyword: Keyword = None,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Fetch kernels first, so that predictions know their configurations.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the cells, exact kernel releases, what is to be made first, what is expected, and what is left out."""
    lab = Lab.open()
    selection = choose(lab, matrix, preset=preset, expression=keyword)
    rows = look_ahead(lab, selection.cells, fetch=fetch)
    for text in (warnings := longterm_warnings(lab, ((row.cell.kernel, row.release) for row in rows))):
        warn(text)
    if as_json:
        show_json(
            {
                "cells": [
                    {
                        "id": row.cell.id,
                        "release": row.release,
                        "to_make": row.to_make,
                        "problem": row.problem,
                        "configuration_known": row.configured,
                        "predictions": [asdict(one) for one in row.predictions],
                    }
                    for row in rows
                ],
                "left_out": [{"id": one.cell_id, "reason": one.reason} for one in selection.left_out],
                "warnings": warnings,
            }
        )
    else:
        _show_plan(rows, selection.left_out)
    raise typer.Exit(OK if rows else NOTHING_RAN)


@reported
def validate(matrix: MatrixFile = None, preset: Preset = None, as_json: AsJson = False) -> None:
    """Check a matrix file; every error is told with its line and column."""
    lab = Lab.open()
    try:
        selection = choose(lab, matrix, preset=preset, expression=None)
    except MatrixError as error:
        if not as_json:
            raise
        show_json({"ok": False, "errors": error.as_json()})
        raise typer.Exit(BAD_INPUT) from None
    if as_json:
        show_json({"ok": True, "cells": len(selection.cells), "left_out": len(selection.left_out)})
    else:
        say(f"{selection.matrix.source}: valid: {len(selection.cells)} cells, {len(selection.left_out)} left out")


@reported
def list_runs(as_json: AsJson = False) -> None:
    """List the runs of this host, newest last."""
    with Lab.open().store() as store:
        infos = store.runs()
        if as_json:
            show_json([{"id": i.id, "started": i.started, "finished": i.finished, "state": i.state} for i in infos])
            return
        table = Table("run", "started (UTC)", "state", box=None, pad_edge=False)
        for info in infos:
            started = datetime.fromisoformat(info.started).strftime("%Y-%m-%d %H:%M:%S")
            table.add_row(info.id, started, info.state.value)
        out.print(table) if infos else say("no run yet: kdmatrix run")


@reported
def report(
    run_id: Annotated[
        str | None, typer.Argument(metavar="RUN", help="Run; the latest when not given.", show_default=False)
    ] = None,
    into: Annotated[Path | None, typer.Option("-o", "--output", help="Directory.", show_default=False)] = None,
) -> None:
    """Write the HTML report of a run again."""
    from harness.report.from_store import publish

    lab = Lab.open()
    with lab.store() as store:
        stored = store.load_run(run_id or latest(store))
        say(f"report: {publish(stored, lab.evidence, into or lab.home.runs / stored.info.id / 'report')}")


def latest(store: Store) -> str:
    """The id of the latest run.

    Raises:
        UserError: there is none.
    """
    info = store.latest_run()
    if info is None:
        raise UserError("there is no run yet: kdmatrix run")
    return info.id


def _begin(
    store: Store, selection: Selection, vms: int | None, until: Stage, forced: tuple[str, ...]
) -> tuple[str, Limits]:
    matrix = selection.matrix
    limits = matrix.limits
    options = {
        "matrix": matrix.source,
        "preset": matrix.preset,
        "vms": limits.vms if vms is None else vms,
        "vm_memory": limits.vm_memory,
        "vm_cpus": limits.vm_cpus,
        "until": until.value,
        **({"force_device": " ".join(forced)} if forced else {}),
    }
    run_id = store.create_run(matrix.source_text, host=host_facts(), options=options)
    store.plan(run_id, selection.cells, selection.left_out)
    return run_id, limits


def _forced(texts: Sequence[str]) -> tuple[str, ...]:
    for text in texts:
        try:
            if units.device(text) == "none":
                raise ValueError("none is no device; name the address of one")
        except ValueError as error:
            raise UserError(f"--force-device: {error}") from None
    return tuple(texts)


def _resumable(store: Store) -> tuple[str, Limits, Stage, tuple[str, ...]]:
    for info in reversed(store.runs()):
        if info.finished is None or info.state.value != "finished":
            options = info.options
            limits = Limits(options.get("vms"), int(options.get("vm_memory", 1 << 30)), int(options.get("vm_cpus", 1)))
            forced = tuple(str(options.get("force_device", "")).split())
            return info.id, limits, Stage(options.get("until", LADDER[-1])), forced
    raise UserError("no run was left unfinished: kdmatrix run starts a new one")


def _with_vms(limits: Limits, vms: int | None) -> Limits:
    return limits if vms is None else Limits(vms, limits.vm_memory, limits.vm_cpus)


def _carry_out(lab: Lab, store: Store, run_id: str, limits: Limits, until: Stage, forced: tuple[str, ...]) -> None:
    stored = store.load_run(run_id)
    total = sum(cell.boots for cell in stored.cells) - len(stored.attempts)
    usual = {}
    for cell in stored.cells:
        earlier = store.attempts(cell.id)
        if earlier:
            usual[cell.id] = sum(stage.seconds for stage in earlier[-1].stages)
    what = "boots" if LADDER.index(until) >= LADDER.index(Stage.BOOT) else "builds"
    if all(isinstance(cell.machine, ThisMachine) for cell in stored.cells):
        what = "cells"
    say(f"run {run_id}: {total} {what} to make, {len(stored.left_out)} combinations left out")
    interrupt = Interrupt()
    with RunView(out, total, usual) as view, _signals(interrupt, view):

        def complain(text: str) -> None:
            view.say(f"warning: {text}", "yellow")

        carry_out(lab, store, run_id, limits, view, interrupt, complain, until, forced)


@contextmanager
def _signals(interrupt: Interrupt, view: RunView) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends the run cleanly, the second one ends the process."""

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if interrupt.event.is_set():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        view.say("stopping: cells that have no result go back to the plan; once more kills", "yellow")
        # libvirt is called from another thread: the main one may be inside it.
        threading.Thread(target=interrupt.request, daemon=True, name="interrupt").start()
        interrupt.event.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show_plan(rows: Sequence[PlannedCell], left_out: Sequence[LeftOut]) -> None:
    table = Table("cell", "kernel release", "boots", "to make first", box=None, pad_edge=False)
    for row in rows:
        what = Text(row.problem, style="yellow") if row.problem else Text(", ".join(row.to_make) or "nothing")
        table.add_row(Text(row.cell.id), Text(row.release or "not known"), str(row.cell.boots), what)
    out.print(table)
    _show_left_out(left_out)
    for row in rows:
        for stage in dict.fromkeys(one.stage for one in row.predictions):
            first, *rest = [one for one in row.predictions if one.stage is stage]
            more = f", and {len(rest)} more (--json)" if rest else ""
            say(f"expected: {row.cell.id}: {stage} {first.outcome}: {first.reason} [{first.source}]{more}", "cyan")
    unknown = len({row.release for row in rows if row.release and not row.configured})
    if unknown:
        say(f"{unknown} kernels were never fetched: their configurations are not known (kdmatrix plan --fetch)", "dim")
    say(f"{len(rows)} cells, {len(left_out)} combinations left out")


def _show_left_out(left_out: Sequence[LeftOut]) -> None:
    for one in left_out:
        say(f"left out: {one.cell_id}: {one.reason}", "dim")


def _summary(stored: StoredRun) -> None:
    counts: dict[str, int] = {}
    for attempt in stored.attempts:
        counts[attempt.outcome.value] = counts.get(attempt.outcome.value, 0) + 1
        if attempt.outcome.value in ("FAIL", "ERROR", "MISS"):
            symbol, style = SYMBOLS[attempt.outcome]
            line = f"{symbol} {attempt.outcome} {attempt.cell_id} #{attempt.number} at {attempt.rung}: {attempt.reason}"
            err.print(Text(line, style=style))
        for trouble in attempt.trouble:
            warn(f"trouble after {attempt.cell_id} #{attempt.number}, whose result stands: {trouble}")
    text = ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "nothing ran"
    missing = sum(cell.boots for cell in stored.cells) - len(stored.attempts)
    if missing:
        warn(f"{missing} boots have no result: kdmatrix run --resume goes on")
    say(f"{len(stored.cells)} cells: {text}; {len(stored.left_out)} combinations left out")
