"""How many VMs a host takes, and what the exit code of a run says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import pytest

from engine.cells import attempt_of, cell
from harness import run
from harness.model.matrix import Limits
from harness.model.outcome import Outcome
from harness.run import Interrupt, exit_code, slots_for

GIB = 1 << 30


@pytest.mark.parametrize(
    ("limits", "accelerator", "cores", "available", "slots"),
    [
        (Limits(vms=7), "qemu", 1, 0, 7),
        (Limits(), "kvm", 8, 64 * GIB, 8),
        (Limits(vm_cpus=4), "kvm", 8, 64 * GIB, 8),
        (Limits(vm_cpus=4), "qemu", 8, 64 * GIB, 2),
        (Limits(), "kvm", 8, 5 * GIB, 3),
        (Limits(vm_memory=4 * GIB), "kvm", 8, 11 * GIB, 2),
        (Limits(vm_cpus=16), "qemu", 8, 64 * GIB, 1),
        (Limits(), "kvm", 8, GIB, 1),
    ],
)
def test_processors_and_memory_limit_the_vms_unless_the_matrix_says_how_many(
    monkeypatch: pytest.MonkeyPatch, limits: Limits, accelerator: str, cores: int, available: int, slots: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(cores)))
    monkeypatch.setattr(run, "_available_memory", lambda: available)
    assert slots_for(limits, accelerator) == slots


def test_this_hosts_memory_is_read() -> None:
    assert run._available_memory() > 1 << 20


PASS, FAIL, ERROR, MISS, SKIP, DONE = (
    Outcome.PASS, Outcome.FAIL, Outcome.ERROR, Outcome.MISS, Outcome.SKIP, Outcome.DONE,
)  # fmt: skip


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([PASS, PASS], 0),
        ([PASS, SKIP], 0),
        ([PASS, DONE], 0),
        ([PASS, FAIL], 1),
        ([ERROR, PASS], 1),
        ([FAIL, MISS], 1),
        ([PASS, MISS], 4),
        ([MISS, MISS], 4),
        ([SKIP, SKIP], 3),
        ([PASS, None], 4),
        ([FAIL, None], 1),
        ([None, None], 3),
    ],
)
def test_the_exit_code_tells_findings_from_gaps_from_nothing(outcomes: Sequence[Outcome | None], code: int) -> None:
    cells = [cell(f"k{index}") for index in range(len(outcomes))]
    attempts = [attempt_of(one, 1, outcome) for one, outcome in zip(cells, outcomes, strict=True) if outcome]
    assert exit_code(attempts, cells, {}) == code


def test_a_cell_that_was_booted_less_often_than_planned_is_a_gap() -> None:
    one = cell("k", boots=3)
    attempts = [attempt_of(one, number) for number in (1, 2)]
    assert exit_code(attempts, [one], {}) == 4
    assert exit_code([*attempts, attempt_of(one, 3)], [one], {}) == 0
    assert exit_code(attempts, [one], {one.id: 2}) == 0


@pytest.mark.parametrize(("outcome", "code"), [(PASS, 4), (SKIP, 4), (FAIL, 1)])
@pytest.mark.parametrize("fact", ["box.trouble", "device.trouble", "device.2.trouble"])
def test_a_device_or_box_that_did_not_come_back_well_is_trouble_whatever_its_cell_showed(
    outcome: Outcome, code: int, fact: str
) -> None:
    one = cell("k")
    attempt = replace(attempt_of(one, 1, outcome), facts={fact: "it hangs", "device.health": "well"})
    assert attempt.trouble == ("it hangs",)
    assert exit_code([attempt], [one], {}) == code


def test_an_interrupt_sets_its_event_before_it_ends_what_runs() -> None:
    interrupt = Interrupt()
    seen: list[bool] = []
    interrupt.actions.append(lambda: seen.append(interrupt.event.is_set()))
    interrupt.request()
    assert seen == [True]
