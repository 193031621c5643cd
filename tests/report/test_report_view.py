from dataclasses import replace

import pytest
from synthetic_run import KERNELS, TESTS, Shelf, attempt, small_run

from harness.model.cell import Cell, LeftOut
from harness.model.outcome import Outcome
from harness.model.records import Attempt, StageResult, TestResult
from harness.model.stage import Stage
from harness.report.data import ReportInput
from harness.report.view import CellView, State, views

KERNEL, RELEASE = KERNELS[0]
CELL = Cell("debian-13", KERNEL, "cpu-opencl", tests=TESTS, boots=3)
FAILED = (Stage.LOAD, Outcome.FAIL, "modprobe: no such device")
LOST = (Stage.BOOT, Outcome.MISS, "no answer within 120 s")


def one(*attempts: Attempt, cell: Cell = CELL) -> CellView:
    data = ReportInput(small_run()[0].run, (cell,), (), attempts)
    (view,) = views(data, lambda _: True)
    return view


def test_every_state_of_the_small_run_is_told_apart() -> None:
    data, _ = small_run()
    states = {view.id: view.state for view in views(data, lambda _: True)}
    assert states["debian-13/stable/cpu-opencl/none"] is State.FAIL
    assert states["debian-13/rc/intree/none"] is State.NOT_RUN
    assert states["fedora-44/lts-6.1/rocm/amd-w7900"] is State.BLOCKED
    assert states["fedora-44/lts-6.1/nova/nvidia-l4"] is State.LEFT_OUT
    assert states["fedora-44/rc/nova/nvidia-l4"] is State.MISS
    assert states["fedora-44/rc/rocm/amd-w7900"] is State.ERROR


def test_one_failed_boot_of_three_fails_the_cell_and_stays_countable() -> None:
    shelf = Shelf()
    view = one(
        attempt(CELL, RELEASE, shelf, number=1),
        attempt(CELL, RELEASE, shelf, number=2, stop=FAILED),
        attempt(CELL, RELEASE, shelf, number=3),
    )
    assert (view.state, view.rung, view.boots_passed, view.boots_tried) == (State.FAIL, Stage.LOAD, 2, 3)
    assert view.bound == pytest.approx(0.2077, abs=1e-4)


def test_a_lost_boot_is_no_trial_and_no_failure() -> None:
    view = one(attempt(CELL, RELEASE, Shelf()), attempt(CELL, RELEASE, Shelf(), number=2, stop=LOST))
    assert (view.state, view.boots_passed, view.boots_tried, view.boots_without_verdict) == (State.MISS, 1, 1, 1)


@pytest.mark.parametrize(
    ("kinds", "weakest"), [(("gpu", "gpu"), "gpu"), (("gpu", "cpu-runtime"), "cpu-runtime"), (("gpu", "fake"), "fake")]
)
def test_the_weakest_computer_decides_what_a_pass_is_worth(kinds: tuple[str, str], weakest: str) -> None:
    made = attempt(CELL, RELEASE, Shelf())
    tests = tuple(replace(test, kind=kinds[index % 2]) for index, test in enumerate(made.tests))  # type: ignore[arg-type]
    view = one(replace(made, tests=tests))
    assert view.kind == weakest
    assert view.gpu_pass == (weakest == "gpu")


def test_a_planned_test_without_a_result_counts_as_not_passed() -> None:
    made = attempt(CELL, RELEASE, Shelf())
    view = one(replace(made, tests=made.tests[:-1]))
    assert (view.tests_passed, view.tests_total) == (3, 4)


def test_tests_that_do_not_apply_to_the_stack_are_not_held_against_it() -> None:
    computing = (Stage.ENUMERATE, Stage.COMPUTE, Stage.THROUGHPUT)
    stages = tuple(
        StageResult(stage, Outcome.SKIP if stage in computing else Outcome.PASS, 1.0, "no compute API")
        for stage in Stage
    )
    modules = tuple(TestResult(f"load {name}", Stage.LOAD, Outcome.PASS) for name in ("amdgpu", "nouveau"))
    absent = TestResult("load xe", Stage.LOAD, Outcome.SKIP, "this kernel has no module xe")
    view = one(replace(attempt(CELL, RELEASE, Shelf()), stages=stages, tests=(*modules, absent)))
    assert (view.tests_passed, view.tests_total) == (2, 2)


def test_the_headline_is_the_median_over_boots_with_the_whole_spread() -> None:
    view = one(*(attempt(CELL, RELEASE, Shelf(), number=n, bandwidth=n * 1e10) for n in (1, 2, 3)))
    assert view.headline is not None
    assert (view.headline.value, view.headline.attempts) == (2e10, 3)
    assert (view.headline.low, view.headline.high) == (pytest.approx(0.982e10), pytest.approx(3.033e10))


def test_evidence_that_is_missing_is_never_taken_for_clean() -> None:
    data = ReportInput(small_run()[0].run, (CELL,), (), (attempt(CELL, RELEASE, Shelf()),))
    assert views(data, lambda _: True)[0].evidence == "collected"
    assert views(data, lambda _: False)[0].evidence == "not collected"
    bare = replace(data, attempts=(attempt(CELL, RELEASE, Shelf(), with_evidence=False),))
    assert views(bare, lambda _: True)[0].evidence == "not collected"


def test_an_attempt_of_an_unplanned_cell_is_shown_all_the_same() -> None:
    data = ReportInput(small_run()[0].run, (), (), (attempt(CELL, RELEASE, Shelf()),))
    (view,) = views(data, lambda _: True)
    assert (view.id, view.state, view.boots_planned) == (CELL.id, State.PASS, 0)


def test_a_planned_cell_is_not_left_out_as_well() -> None:
    data = ReportInput(small_run()[0].run, (CELL,), (LeftOut(CELL.id, "rule"), LeftOut("a/b/c/d", "rule")), ())
    assert [view.state for view in views(data, lambda _: True)] == [State.NOT_RUN, State.LEFT_OUT]
