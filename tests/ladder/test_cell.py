"""The order of a cell's compute tests: rung by rung, and what may take the driver down after all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.content import content_dir
from harness.images.recipe import Recipes, StackRecipe, Step
from harness.journal import Journal
from harness.ladder import rungs
from harness.ladder.cell import Ladder
from harness.ladder.rungs import Rung
from harness.ladder.workshop import Workshop
from harness.model.cell import Cell, KernelSpec, Series, Timeouts, TreeKernel
from harness.model.outcome import Outcome
from harness.model.records import TestResult
from harness.model.stage import Stage
from harness.store.evidence import EvidenceStore
from harness.suites.manifest import TestSpec
from ladder.scripted_guest import FakeShell, a_guest

TESTS = {
    name: TestSpec(name, name, stage, ("run", name), ("opencl",), 60.0, 1.0, tier=tier)
    for name, stage, tier in (
        ("list", Stage.ENUMERATE, 1),
        ("add", Stage.COMPUTE, 1),
        ("wreck", Stage.COMPUTE, 3),
        ("churn", Stage.COMPUTE, 2),
        ("copy", Stage.THROUGHPUT, 1),
        ("burn", Stage.THROUGHPUT, 3),
    )
}
STACK = StackRecipe(
    description="x",
    backends=("opencl",),
    kind="cpu-runtime",
    device="none",
    verify=(Step(run=("verify-it",), stage=Stage.COMPUTE),),
)


@pytest.fixture
def shell() -> FakeShell:
    return FakeShell()


def climb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: FakeShell, failing: str = "", debugging: str = ""
) -> tuple[Ladder, list[str]]:
    """Climb the compute rungs of a cell with every test; return the ladder and the tests in the order of their runs."""
    ran: list[str] = []

    def compute(_watch: object, _stack: object, tests: Sequence[TestSpec], stage: Stage, *_: Any) -> Rung:
        own = [test.name for test in tests if test.stage is stage]
        ran.extend(own)
        found = [
            TestResult(name, stage, Outcome.FAIL if name == failing else Outcome.PASS, "broke" * (name == failing))
            for name in own
        ]
        return replace(rungs.from_tests(found, "none"), files={f"{name}.txt": name.encode() for name in own})

    monkeypatch.setattr(rungs, "compute", compute)
    shop = Workshop(
        run_id="r",
        images=None,  # type: ignore[arg-type]  # nothing is made here
        recipes=Recipes(content_dir("guests")),
        hypervisor=None,
        journal=Journal(tmp_path / "journal", "r"),
        evidence=EvidenceStore(tmp_path / "evidence"),
        tests=TESTS,
        drivers=None,  # type: ignore[arg-type]
        work=tmp_path,
        accelerator="kvm",
    )
    kernel = KernelSpec("stable", Series.STABLE, TreeKernel("/nowhere"))
    ladder = Ladder(Cell("debian-13", kernel, "x", tests=tuple(TESTS)), 1, shop)
    ladder.debugging = debugging
    ladder._climb_in(a_guest(shell), STACK, ())
    return ladder, ran


def test_tier_three_runs_after_every_other_test_of_the_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: FakeShell
) -> None:
    ladder, ran = climb(tmp_path, monkeypatch, shell)
    assert ran == ["list", "add", "churn", "copy", "wreck", "burn"]
    assert [result.stage for result in ladder.stages] == [
        Stage.LOAD,
        Stage.ENUMERATE,
        Stage.COMPUTE,
        Stage.THROUGHPUT,
        Stage.UNLOAD,
    ]
    # What the stack itself wants verified is looked at once.
    assert shell.ran.count("verify-it") == 1


def test_a_destructive_tests_failure_is_its_own_rungs_and_keeps_what_the_rung_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: FakeShell
) -> None:
    ladder, ran = climb(tmp_path, monkeypatch, shell, failing="wreck")
    compute = ladder.stages[2]
    assert (compute.stage, compute.outcome, compute.reason) == (Stage.COMPUTE, Outcome.FAIL, "wreck: broke")
    assert [file.name for file in compute.evidence] == ["add.txt", "churn.txt", "wreck.txt"]
    assert ladder.stages[3].outcome is Outcome.PASS
    assert "burn" not in ran


def test_nothing_is_wrecked_once_a_rung_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: FakeShell
) -> None:
    _, ran = climb(tmp_path, monkeypatch, shell, failing="add")
    assert ran == ["list", "add", "churn"]


def test_a_rung_that_does_not_apply_has_no_destructive_tests_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: FakeShell
) -> None:
    ladder, ran = climb(tmp_path, monkeypatch, shell, debugging="a debug kernel")
    assert ran == ["list", "add", "churn", "wreck"]
    assert (ladder.stages[3].outcome, ladder.stages[3].reason) == (Outcome.SKIP, "a debug kernel")


@pytest.mark.parametrize(("said", "own", "allowed"), [(120.0, 60.0, 60.0), (120.0, 180.0, 180.0), (45.0, 60.0, 45.0)])
def test_a_test_has_the_time_that_its_manifest_allows_unless_the_matrix_cuts_it_short(
    said: float, own: float, allowed: float
) -> None:
    assert Timeouts(test=said).for_test(own) == allowed
