"""What the plugin makes of a guest's answers; a real cell is booted in tests/e2e/test_own_tests.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest

from harness.machines.guest import Change, Guest
from harness.model.kmsg import KernelMessage
from harness.model.shell import Completed
from harness.pytest_plugin import CellGuest


class Answering:
    """Stands in for a guest whose kernel says what a test wants to hear."""

    def __init__(self) -> None:
        self.said: list[tuple[KernelMessage, ...]] = []
        self.answer = Completed(0, b"", b"", 0.1)
        self.asked: list[tuple[list[str], float]] = []

    def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"", limit: int = 4 << 20) -> Completed:
        self.asked.append((list(argv), timeout))
        return self.answer

    def check(self, last: Completed | None = None) -> None:
        return None

    def change(self) -> Change:
        return Change(self.said.pop(0) if self.said else (), 0, 0, frozenset())


def message(text: str, facility: int = 0) -> KernelMessage:
    return KernelMessage(level=4, facility=facility, sequence=1, seconds=1.0, text=text)


@pytest.fixture
def answering() -> Answering:
    return Answering()


@pytest.fixture
def cell_guest(answering: Answering) -> CellGuest:
    return CellGuest(cast(Guest, answering), "a/b/c/none", "6.12.1", scale=4.0)


def test_a_complaint_of_the_kernel_is_told_and_one_of_a_program_is_not(
    answering: Answering, cell_guest: CellGuest
) -> None:
    answering.said = [(), (message("WARNING: said by a program", facility=1),), (message("BUG: kernel NULL pointer"),)]
    cell_guest.begin()
    assert cell_guest.complaint() == ""
    assert cell_guest.complaint() == "BUG: kernel NULL pointer"
    assert len(cell_guest.dmesg()) == 2


def test_what_a_test_expects_is_no_complaint_and_the_next_test_expects_nothing(
    answering: Answering, cell_guest: CellGuest
) -> None:
    answering.said = [(), (message("BUG: planted"),), (), (message("BUG: planted"),)]
    cell_guest.begin()
    cell_guest.expects("plant")
    assert cell_guest.complaint() == ""
    cell_guest.begin()
    assert cell_guest.complaint() == "BUG: planted"


def test_time_outs_are_stretched_for_a_slow_machine(answering: Answering, cell_guest: CellGuest) -> None:
    cell_guest.run("true", timeout=10)
    assert answering.asked == [(["true"], 40.0)]


def test_a_failing_command_fails_the_test_with_its_last_words(answering: Answering, cell_guest: CellGuest) -> None:
    answering.answer = Completed(3, b"", b"no such device\n", 0.1)
    with pytest.raises(pytest.fail.Exception, match=r"returned 3:\nno such device"):
        cell_guest.run("nvidia-smi")
    assert cell_guest.run("nvidia-smi", check=False).status == 3
    answering.answer = Completed(None, b"", b"", 9.0, timed_out=True)
    with pytest.raises(pytest.fail.Exception, match="did not end within 240 s"):
        cell_guest.run("nvidia-smi", check=False)


def test_a_file_that_cannot_be_had_whole_fails_the_test(answering: Answering, cell_guest: CellGuest) -> None:
    answering.answer = Completed(1, b"", b"cat: /x: No such file or directory\n", 0.1)
    with pytest.raises(pytest.fail.Exception, match="No such file"):
        cell_guest.get("/x")
    answering.answer = Completed(0, b"part", b"", 0.1, truncated=True)
    with pytest.raises(pytest.fail.Exception, match="too large"):
        cell_guest.get("/x")
