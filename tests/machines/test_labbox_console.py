"""What a box' serial console says of the tested kernel, and what nobody may conclude from it."""

from __future__ import annotations

import sys
import time

import pytest

from harness.errors import InfraError
from harness.machines.console import Trouble
from harness.machines.labbox.console import BoxConsole, attached, judge_silence
from harness.model.outcome import Outcome

BEGIN = b"[    0.000000] Linux version 6.1.0-test (debian-kernel@lists.debian.org) #1 SMP\r\n"
OTHER = b"[    0.000000] Linux version 6.12.0-default (debian-kernel@lists.debian.org) #1 SMP\r\n"
PANIC = b"[    9.000000] Kernel panic - not syncing: sysrq triggered crash\r\n"


def heard(*parts: bytes) -> BoxConsole:
    console = BoxConsole("6.1.0-test")
    console.attached = True
    for part in parts:
        console.feed(part)
    return console


def test_only_what_the_tested_kernel_says_speaks_against_it() -> None:
    assert heard(BEGIN, PANIC).judged.worst(Trouble.PANIC) is not None
    assert heard(PANIC, BEGIN).judged.worst() is None
    assert heard(BEGIN, OTHER, PANIC).judged.worst() is None
    assert heard(BEGIN, BEGIN, PANIC).judged.worst() is None
    assert heard(OTHER, PANIC).record.content() == OTHER + PANIC


def test_a_quiet_kernel_is_known_by_the_trace_of_its_end() -> None:
    trace = b"[    9.0] CPU: 0 PID: 1 Comm: init Not tainted 6.1.0-test #1  Debian 6.1.0-1\r\n"
    assert heard(b"reboot: Restarting system\n", PANIC, trace).judged.panicked.is_set()
    assert not heard(PANIC, trace.replace(b"6.1.0-test", b"6.12.0-default")).judged.panicked.is_set()


def test_lines_that_arrive_in_pieces_are_read_whole() -> None:
    pieces = [(BEGIN + PANIC)[start : start + 7] for start in range(0, len(BEGIN + PANIC), 7)]
    assert heard(*pieces).judged.panicked.is_set()


@pytest.mark.parametrize(
    ("console", "silent", "answers", "outcome", "words"),
    [
        (BoxConsole("6.1.0-test"), 500.0, True, Outcome.MISS, "without a console"),
        (heard(OTHER), 500.0, True, Outcome.MISS, "the kernel's first line never came"),
        (heard(BEGIN, b"\r\nbox login: "), 500.0, True, Outcome.MISS, "asks for a login"),
        (heard(BEGIN), 5.0, True, Outcome.MISS, "was at work until 5 s before"),
        (heard(BEGIN), 500.0, False, Outcome.MISS, "does not answer, either"),
        (heard(BEGIN), 500.0, True, Outcome.FAIL, "hang: the console was silent for 500 s"),
        (heard(BEGIN, b"Oops: 0002 [#1] SMP\n"), 5.0, False, Outcome.FAIL, "oops: Oops: 0002"),
    ],
)
def test_silence_is_a_hang_only_where_nothing_else_explains_it(
    console: BoxConsole, silent: float, answers: bool, outcome: Outcome, words: str
) -> None:
    found, reason = judge_silence(console, silent, answers_now=answers)
    assert found is outcome
    assert words in reason


def test_the_users_command_is_read_while_it_runs_and_ended_with_the_block() -> None:
    console = BoxConsole("6.1.0-test")
    program = f"import sys, time; sys.stdout.buffer.write({BEGIN!r}); sys.stdout.flush(); time.sleep(600)"
    started = time.monotonic()
    with attached([sys.executable, "-c", program], console):
        while not console.begun:
            assert time.monotonic() < started + 30
            time.sleep(0.01)
    assert console.record.content() == BEGIN


def test_a_command_that_is_not_what_it_should_be_is_told_at_once() -> None:
    with pytest.raises(InfraError, match="ended at once with status 3"), attached(["sh", "-c", "exit 3"], heard()):
        pass
    with pytest.raises(InfraError, match="not installed"), attached(["no-such-program"], heard()):
        pass
