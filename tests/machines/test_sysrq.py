"""A silent kernel is asked which of its tasks are blocked, and its answer is read."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.machines.console import Console
from harness.machines.sysrq import BlockedTask, SysRq, parse_blocked

NEW = """\
[   30.1] sysrq: Show Blocked State
[   30.2] task:modprobe        state:D stack:0     pid:97    tgid:97    ppid:1      flags:0x00000002
[   30.2] Call Trace:
[   30.2]  <TASK>
[   30.2]  __schedule+0x3a1/0xa80
[   30.2]  schedule+0x27/0xf0
[   30.2]  __mutex_lock.constprop.0+0x3d5/0x6f0
[   30.2]  open_card+0x42/0x90 [card]
[   30.2]  ? do_one_initcall+0x5b/0x320
[   30.2] RIP: 0033:0x7f21a
[   30.2]  </TASK>
"""
OLD = """\
[   30.1] sysrq: SysRq : Show Blocked State
[   30.1]   task                        PC stack   pid father
[   30.2] cat             D    0    41      1 0x00000000
[   30.2] Call Trace:
[   30.2]  __schedule+0x2a1/0x880
[   30.2]  io_schedule+0x12/0x40
[   30.2]  folio_wait_bit_common+0x10/0x20
"""


def test_each_blocked_task_is_read_with_the_stack_that_it_sleeps_in() -> None:
    (task,) = parse_blocked(NEW) or ()
    assert (task.name, task.pid) == ("modprobe", 97)
    assert task.frames[:2] == ("__schedule", "schedule")
    assert task.frames[2:] == ("__mutex_lock.constprop.0", "open_card [card]")
    assert str(task) == "task modprobe (pid 97) blocked in open_card [card]"
    assert not task.waits_for_disk


def test_a_task_that_sleeps_for_a_given_time_is_not_blocked() -> None:
    assert parse_blocked(NEW.replace("__mutex_lock.constprop.0", "msleep")) == ()


def test_the_form_of_old_kernels_is_read_and_a_wait_for_a_disk_is_known() -> None:
    (task,) = parse_blocked(OLD) or ()
    assert (task.name, task.pid, task.waits_for_disk) == ("cat", 41, True)


def test_of_several_answers_the_last_counts_and_an_empty_one_is_no_silence() -> None:
    assert parse_blocked(NEW + "[   40.0] sysrq: Show Blocked State\n") == ()
    assert parse_blocked("[    1.0] Linux version 6.12\n") is None


@given(st.text())
def test_no_output_of_a_guest_is_an_error(text: str) -> None:
    parse_blocked("sysrq: Show Blocked State\n" + text)
    assert str(BlockedTask("x", 1, ())) == "task x (pid 1) blocked in an unknown place"


class Guest:
    """A kernel behind a serial line that takes a letter after a break, if it has had time to read the break."""

    def __init__(self, answer: str, needs_gap: float = 0.0) -> None:
        self.console = Console()
        self.answer = answer
        self.needs_gap = needs_gap
        self.slept = 0.0
        self.broke: float | None = None
        self.parts: list[bytes] = []

    def send_break(self) -> None:
        self.broke = self.slept

    def send(self, data: bytes) -> None:
        assert data == b"w"
        if self.broke is not None and self.slept - self.broke >= self.needs_gap:
            self.parts = [line.encode() for line in self.answer.splitlines(keepends=True)]
        self.broke = None

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        if self.parts:
            self.console.feed(self.parts.pop(0))


@pytest.fixture
def ask() -> Callable[[Guest], tuple[BlockedTask, ...] | None]:
    def asking(guest: Guest) -> tuple[BlockedTask, ...] | None:
        return SysRq(guest.console, guest.send_break, guest.send, guest.sleep).blocked(6.0)

    return asking


@pytest.mark.parametrize("gap", [0.0, 0.9, 1.9])
def test_a_guest_that_reads_its_line_slowly_is_asked_again_with_more_time(
    ask: Callable[[Guest], tuple[BlockedTask, ...] | None], gap: float
) -> None:
    assert ask(Guest(NEW, gap)) == parse_blocked(NEW)


def test_what_the_console_said_before_is_no_answer(ask: Callable[[Guest], tuple[BlockedTask, ...] | None]) -> None:
    guest = Guest("")
    guest.console.feed(NEW.encode())
    assert ask(guest) is None


def test_a_console_too_long_to_be_kept_whole_still_holds_the_answer(
    ask: Callable[[Guest], tuple[BlockedTask, ...] | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.machines.console.HEAD_LIMIT", 100)
    monkeypatch.setattr("harness.machines.console.TAIL_LIMIT", 2000)
    guest = Guest(NEW)
    guest.console.feed(b"x" * 5000 + b"\n")
    assert ask(guest) == parse_blocked(NEW)


def test_an_answer_that_the_tail_of_a_long_console_still_holds_from_before_is_no_answer(
    ask: Callable[[Guest], tuple[BlockedTask, ...] | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.machines.console.HEAD_LIMIT", 100)
    guest = Guest("")
    guest.console.feed(b"x" * 200 + b"\n" + NEW.encode())
    assert ask(guest) is None
