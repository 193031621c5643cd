"""``kdmatrix``: which kernel works with which GPU driver stack."""

from __future__ import annotations

import traceback
from typing import Annotated

import typer

from harness import __version__
from harness.cli import artefacts, cells, devices, host, kernels, runs
from harness.cli.output import GAPS, err, say

app = typer.Typer(
    name="kdmatrix",
    help="Test which kernel works with which GPU driver stack, in real VMs, and show it as an HTML matrix.\n\n"
    "Exit codes: 0 all pass, 1 findings, 2 bad input, 3 nothing ran, 4 infrastructure trouble left gaps.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"kdmatrix {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options before the command."""


app.command("run")(runs.run)
app.command("plan")(runs.plan)
app.command("validate")(runs.validate)
app.command("runs")(runs.list_runs)
app.command("report")(runs.report)
app.command("logs")(cells.logs)
app.command("shell")(cells.shell)
app.command("repro")(cells.repro)
app.command("devices")(devices.devices)
app.command("doctor")(host.doctor)
app.command("clean")(host.clean)
app.command("kernels")(kernels.kernels)
app.command("artefacts")(artefacts.artefacts)
app.command("schema")(host.schema)


def main() -> None:
    """Entry point. A defect of ours must not leave by 1, which says that something was found in the product."""
    try:
        app()
    except Exception:
        traceback.print_exc()
        err.print("kdmatrix: this is a defect in kdmatrix, not in what it tests")
        raise SystemExit(GAPS) from None
