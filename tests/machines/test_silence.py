"""A silent guest is a hang only when its kernel speaks against itself; a slow host is none."""

from __future__ import annotations

import pytest

from harness.machines.console import Console
from harness.machines.silence import Silence
from harness.machines.sysrq import BlockedTask, SysRq
from harness.machines.watch import CpuSample, Stall
from harness.model.outcome import Outcome

IDLE = (CpuSample(0xFFFFFFFF81000000, interrupts_enabled=True, halted=True),)
LOCKED = BlockedTask("modprobe", 7, ("schedule", "open_card [card]"))
READING = BlockedTask("sh", 1, ("schedule", "io_schedule", "folio_wait_bit_common"))
Answer = tuple[BlockedTask, ...] | None


class Asked(SysRq):
    """Answers in order."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)

    def blocked(self, patience: float) -> Answer:
        return self.answers.pop(0)


def silence(phase: str, *answers: Answer) -> Silence:
    console = Console(lambda: 0.0)
    console.feed({"guest init": b"kdmatrix-initramfs: handing over to x\n", "kernel": b"Linux version 6\n"}[phase])
    return Silence(console, lambda: IDLE, Asked(*answers), 8.0)


@pytest.mark.parametrize("answers", [((LOCKED,), (LOCKED,)), ((READING, LOCKED), (LOCKED,))])
def test_a_task_that_is_blocked_in_two_answers_is_a_hang_there(answers: tuple[Answer, ...]) -> None:
    watched = silence("guest init", *answers)
    assert watched.judge(Stall.IDLE, 20.0) is None
    outcome, reason = watched.judge(Stall.IDLE, 40.0) or (None, "")
    assert outcome is Outcome.FAIL
    assert reason.startswith("hang in phase guest init: every CPU is idle, and asked twice the kernel tells of ")
    assert "task modprobe (pid 7) blocked in open_card [card]" in reason


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (((), ()), "no task blocked twice: what is silent waits by itself"),
        (((LOCKED,), ()), "no task blocked twice: what is silent waits by itself"),
        (((LOCKED,), (BlockedTask("modprobe", 8, LOCKED.frames),)), "no task blocked twice"),
        (((READING,), (READING,)), "task sh (pid 1) blocked in folio_wait_bit_common, waiting for the VM's disk"),
        (((READING, LOCKED), (LOCKED, READING)), "task sh (pid 1) blocked in "),
    ],
    ids=["init waits", "goes on", "another task", "slow disk", "slow disk under a lock"],
)
def test_a_kernel_that_answers_and_whose_tasks_go_on_is_given_until_the_deadline(
    answers: tuple[Answer, ...], said: str
) -> None:
    watched = silence("guest init", *answers)
    assert [watched.judge(Stall.IDLE, when) for when in (20.0, 40.0)] == [None, None]
    assert watched.said.startswith("the kernel answers SysRq")
    assert said in watched.said


def test_a_kernel_that_does_not_answer_hangs() -> None:
    outcome, reason = silence("guest init", None).judge(Stall.IDLE, 20.0) or (None, "")
    assert outcome is Outcome.FAIL
    assert reason.endswith("every CPU is idle and the console silent for 20 s, and the kernel does not answer SysRq")


def test_before_anything_holds_the_console_open_nobody_is_asked() -> None:
    outcome, reason = silence("kernel").judge(Stall.IDLE, 20.0) or (None, "")
    assert (outcome, reason[:20]) == (Outcome.FAIL, "hang in phase kernel")


def test_a_kernel_that_cannot_be_asked_is_not_accused() -> None:
    watched = silence("guest init")
    watched._sysrq = None
    assert watched.judge(Stall.IDLE, 20.0) is None
    assert "cannot be asked why" in watched.said


def test_looks_begin_when_the_console_has_been_silent_for_long_and_begin_again_after_a_sign_of_life() -> None:
    watched = silence("guest init", ())
    assert watched.seen(7.9) is Stall.NONE
    seen = [watched.seen(8.0 + 0.5 * step) for step in range(6)]
    assert seen == [Stall.NONE] * 5 + [Stall.IDLE]
    assert watched.seen(10.6) is Stall.NONE  # too early for the next look
    assert watched.seen(11.0) is Stall.IDLE
    watched.broken()
    assert watched.seen(11.5) is Stall.NONE
