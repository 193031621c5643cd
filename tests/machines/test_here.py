"""Commands on this machine end when they should, and nothing that they started is left behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness.machines.guest import Guest
from harness.machines.here import LocalShell, ThisMachine

SHELL = LocalShell()


def lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def until_gone(pids: list[int]) -> None:
    while any(map(lives, pids)):  # pytest's timeout bounds it
        time.sleep(0.01)


def test_both_streams_the_status_and_the_input_arrive() -> None:
    done = SHELL.run(["sh", "-c", "cat; echo wrong >&2; exit 3"], timeout=60, stdin=b"said")
    assert (done.stdout, done.stderr, done.exit_status) == (b"said", b"wrong\n", 3)
    assert (done.timed_out, done.lost, done.truncated) == (False, False, False)


def test_arguments_are_words_and_never_a_shell_line() -> None:
    assert SHELL.run(["printf", "%s", "a b; exit 1 $HOME"], timeout=60).stdout == b"a b; exit 1 $HOME"


def test_output_beyond_the_limit_is_read_and_thrown_away() -> None:
    done = SHELL.run(["sh", "-c", "head -c 3000000 /dev/zero"], timeout=60, limit=1000)
    assert (len(done.stdout), done.truncated, done.exit_status) == (1000, True, 0)


def test_input_that_nobody_reads_holds_nothing_up() -> None:
    assert SHELL.run(["true"], timeout=60, stdin=b"x" * 3_000_000).ok


def test_a_program_that_is_not_there_is_told_as_a_shell_would() -> None:
    done = SHELL.run(["no-such-program-anywhere"], timeout=60)
    assert done.exit_status == 127
    assert b"no-such-program-anywhere" in done.stderr


def test_a_signal_is_told_as_a_negative_status() -> None:
    assert SHELL.run(["sh", "-c", "kill -SEGV $$"], timeout=60).exit_status == -11


FAMILY = "sleep 1000 & echo $!; (sleep 1000 & echo $!; wait) & wait"


def test_a_command_that_is_late_is_killed_with_all_that_it_started() -> None:
    done = SHELL.run(["sh", "-c", FAMILY], timeout=0.5)
    assert (done.timed_out, done.exit_status) == (True, None)
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 2
    until_gone(pids)


def test_what_a_command_leaves_running_neither_holds_it_up_nor_survives_it() -> None:
    done = SHELL.run(["sh", "-c", "sleep 1000 & echo $!"], timeout=60)
    assert (done.exit_status, done.timed_out) == (0, False)
    until_gone([int(done.stdout)])


def test_the_end_of_the_run_is_the_end_of_the_command_and_nothing_is_known_of_it() -> None:
    stop = threading.Event()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    done = LocalShell(stop).run(["sh", "-c", FAMILY], timeout=600)
    assert (done.lost, done.exit_status) == (True, None)
    until_gone([int(word) for word in done.stdout.split()])


RUNS_FOREVER = """
import sys
from harness.machines.here import LocalShell
LocalShell().run(["sh", "-c", "echo $$ >$0; sleep 1000", sys.argv[1]], timeout=999)
"""


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_a_command_dies_with_the_process_that_runs_it(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    with subprocess.Popen([sys.executable, "-c", RUNS_FOREVER, told]) as process:
        while not (told.exists() and told.read_text().strip()):
            assert process.poll() is None
            time.sleep(0.01)
        pid = int(told.read_text())
        assert lives(pid)
        process.kill()
    until_gone([pid])


def test_this_machine_is_looked_at_as_any_other() -> None:
    guest = Guest(ThisMachine())
    first = guest.change()
    assert first.unread or first.messages
    again = guest.change()
    assert again.taint_before == first.taint_after
    assert guest.machine.death() is None
