from dataclasses import replace

from synthetic_run import RUN, small_run

from harness.model.outcome import Outcome
from harness.report.data import RunInfo
from harness.report.summary import summarise_run
from harness.report.view import State, views


def summary_of(run: RunInfo = RUN):  # type: ignore[no-untyped-def]
    return summarise_run(run, views(small_run()[0], lambda _: True))


def test_the_lead_says_what_ran_where_and_what_computed() -> None:
    lead = " ".join(summary_of().lead)
    assert (
        "4 kernels × 4 driver stacks on 2 guests, with 2 passed-through devices: 14 cells planned, 13 executed" in lead
    )
    assert "7 passed (1 computing on a GPU, 3 computing on the CPU, 3 without computing), 3 failed" in lead
    assert "tcg (emulation)" in lead


def test_a_run_of_this_machine_speaks_of_no_guest_and_no_vm() -> None:
    shown = [replace(cell, guest="here", device="0000:01:00.0") for cell in views(small_run()[0], lambda _: True)[:2]]
    lead = summarise_run(replace(RUN, host={"accelerator": "none: this machine"}), shown).lead
    assert lead[0].startswith("1 kernel × 2 driver stacks on this machine, with 1 device: 2 cells planned")
    assert lead[-1] == "No VM ran: every cell was executed on this machine."


def test_a_run_on_boxes_and_in_vms_says_both() -> None:
    lead = summary_of(replace(RUN, host={"accelerator": "KVM / none: a lab box"})).lead[-1]
    assert lead == "VMs ran with KVM / none: a lab box."


def test_an_accelerator_that_nobody_recorded_is_said_to_be_unknown() -> None:
    assert "not recorded" in summary_of(replace(RUN, host={})).lead[-1]


def test_a_run_that_was_to_end_before_any_boot_says_so() -> None:
    lead = summary_of(replace(RUN, host={}, options={"until": "build"})).lead[-1]
    assert lead == "Nothing was booted: the run was to end with build."


def test_failures_that_differ_only_in_numbers_are_one_group() -> None:
    cells = views(small_run()[0], lambda _: True)
    failed = next(cell for cell in cells if cell.state is State.FAIL)
    many = [replace(failed, id=f"c{n}", reason=f"oops at 0x{n:x}, code {n}") for n in range(30)]
    (group,) = summarise_run(RUN, many).broken
    assert (group.count, len(group.cells)) == (30, 6)


def test_every_kind_of_empty_is_listed_with_its_reason() -> None:
    uncovered = {group.state: group.reason for group in summary_of().uncovered}
    assert set(uncovered) == {State.MISS, State.BLOCKED, State.NOT_RUN, State.LEFT_OUT}
    assert uncovered[State.LEFT_OUT] == "nova needs a kernel of at least 6.15"


def test_a_pass_of_one_boot_is_never_bare() -> None:
    assert "1/1 shows" in summary_of().confidence[0]
    assert "at least 21 %" in summary_of().confidence[0]


def test_a_run_without_a_gpu_says_that_it_is_no_evidence_about_one() -> None:
    cells = [cell for cell in views(small_run()[0], lambda _: True) if cell.kind != "gpu"]
    assert any(
        "No cell of this run is evidence that a GPU computes" in line for line in summarise_run(RUN, cells).limits
    )


def test_a_box_that_did_not_come_home_is_told_beside_its_cells_pass() -> None:
    data = small_run()[0]
    passed = next(attempt for attempt in data.attempts if attempt.outcome is Outcome.PASS)
    away = replace(passed, facts={**passed.facts, "box.trouble": "box did not answer"})
    attempts = tuple(away if attempt is passed else attempt for attempt in data.attempts)
    found = views(replace(data, attempts=attempts), lambda _: True)
    assert next(cell.state for cell in found if cell.id == passed.cell_id) is State.PASS
    (line,) = [line for line in summarise_run(RUN, found).limits if passed.cell_id in line]
    assert line.endswith("its device or lab box is in trouble: box did not answer")
    assert not any("trouble" in line for line in summary_of().limits)


def test_rungs_count_where_ladders_stopped() -> None:
    stopped = {rung.name: rung.stopped for rung in summary_of().rungs}
    assert stopped["load"] == 1
    assert stopped["compute"] == 2
    assert stopped["throughput"] == 0
