"""``kdmatrix run --here``: what was asked for, what this machine has of it, and the run that is planned for it."""

from __future__ import annotations

from dataclasses import dataclass

import typer
from rich.table import Table
from rich.text import Text

from harness.cli.output import NOTHING_RAN, OK, fail, out, say, warn
from harness.errors import UserError
from harness.here import Plan, plan_here
from harness.lab import Lab, host_facts
from harness.model.select import select
from harness.model.stage import Stage
from harness.store.store import Store
from harness.suites.manifest import LAST_TIER


@dataclass(frozen=True, slots=True)
class HereOptions:
    """The options that go with ``--here`` only."""

    backends: tuple[str, ...] = ()
    tier: int | None = None
    tests: tuple[str, ...] = ()

    @property
    def given(self) -> str:
        """The first of them that was given; empty when none was."""
        values = {"--backend": self.backends, "--tier": self.tier, "--test": self.tests}
        return next((name for name, value in values.items() if value), "")

    def alone(self, **others: object) -> None:
        """Refuse what goes with a matrix or with VMs, and what contradicts itself.

        Raises:
            UserError: something of that kind was given.
        """
        for name, value in others.items():
            if value:
                option = "a matrix file" if name == "matrix" else f"--{name.replace('_', '-')}"
                raise UserError(f"--here tests this machine as it runs: leave {option} out")
        if self.tests and self.tier is not None:
            raise UserError("--test names tests of any tier: leave --tier out")


def begin_here(lab: Lab, store: Store, asked: HereOptions, keyword: str | None, until: Stage, *, dry_run: bool) -> str:
    """Plan a run of this machine and return its id; leaves where nothing is to be run."""
    plan = plan_here(lab, asked.backends, asked.tier or 1, asked.tests)
    cells, left_out = plan.cells, plan.left_out
    if keyword:
        cells, dropped = select(cells, keyword)
        left_out = (*left_out, *dropped)
    if dry_run or not cells:
        for one in left_out:
            say(f"left out: {one.cell_id}: {one.reason}", "dim")
    if not cells:
        fail("no driver of this machine offers anything to compute on", NOTHING_RAN)
    if dry_run:
        _show(plan)
        raise typer.Exit(OK)
    rough = [test.name for test in plan.tests if test.tier == LAST_TIER]
    if rough:
        warn(f"{', '.join(rough)} may take the driver or this machine down; they run last")
    options = {
        "here": True,
        "backends": list(asked.backends),
        "tests": [test.name for test in plan.tests],
        "until": until.value,
    }
    run_id = store.create_run(plan.text, host=host_facts(), options=options)
    store.plan(run_id, cells, left_out)
    return run_id


def _show(plan: Plan) -> None:
    table = Table("cell", "tests", box=None, pad_edge=False)
    for cell in plan.cells:
        table.add_row(Text(cell.id), Text(", ".join(cell.tests)))
    out.print(table)
    say(f"{len(plan.cells)} cells, {len(plan.left_out)} left out")
