"""``kdmatrix artefacts``: compiles the compute tests' device code and compares it with the committed digests."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from harness.cli.output import FINDINGS, GAPS, OK, reported, say
from harness.content import content_dir
from harness.lab import Lab
from harness.suites.artefact_spec import load_spec
from harness.suites.artefacts import Outcome, State, build_artefacts, update_lists
from harness.suites.build import ARTEFACTS

_WRONG = (State.DIFFERS, State.NEW, State.STALE, State.FAILED)


@reported
def artefacts(
    update: Annotated[
        bool, typer.Option("--update", help="Write what was built into the list (gpu_tests/digests/).")
    ] = False,
) -> None:
    """Compile the device code of the compute tests for all targets, and compare it with the list of digests.

    What is built is carried into guests from then on. Exit codes: 0 all as listed, 1 something differs or does not
    compile, 4 a compiler is missing.
    """
    sources = content_dir("gpu_tests")
    lab = Lab.open()
    outcome = build_artefacts(sources, lab.home.cache / "gpu_tests" / ARTEFACTS, jobs=len(os.sched_getaffinity(0)))
    _show(outcome, [State.NEW, State.DIFFERS] if update else [])
    for gap in load_spec(sources).gaps:
        say(f"  gap: {', '.join(gap.targets)}: {gap.why}")
    say(f"in {outcome.directory}")
    wrong = outcome.of(*_WRONG)
    if outcome.of(State.NEW, State.DIFFERS, State.STALE) and not update:
        say("'kdmatrix artefacts --update' makes a list of what was built")
    if update:
        for kernel in update_lists(sources, outcome):
            say(f"listed anew: {kernel}")
        wrong = outcome.of(State.FAILED)
    if wrong:
        raise typer.Exit(FINDINGS)
    raise typer.Exit(GAPS if outcome.of(State.ABSENT) else OK)


def _show(outcome: Outcome, expected: list[State]) -> None:
    names = dict.fromkeys(result.compiler for result in outcome.results if result.compiler)
    for name in names:
        of_it = [result for result in outcome.results if result.compiler == name]
        if name not in outcome.versions:
            say(f"{name}: {len(of_it)} artefacts not built: {of_it[0].detail}", "yellow")
            continue
        same = sum(result.state is State.SAME for result in of_it)
        say(f"{name} ({outcome.versions[name]}): {same} of {len(of_it)} artefacts are as listed")
        for result in of_it:
            if result.state not in (State.SAME, *expected):
                say(f"  {result}", "red" if result.state in _WRONG else "yellow")
    for result in outcome.of(State.STALE):
        say(f"  {result}", "red")
