"""Host programs run with a deadline and fail in our own words."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness import hostcmd
from harness.errors import InfraError
from harness.hostcmd import must, run


def test_output_and_environment_are_the_callers(tmp_path: Path) -> None:
    assert must(["sh", "-c", "echo $LC_ALL $MINE; pwd"], timeout=10, env={"MINE": "x"}, cwd=tmp_path) == (
        f"C x\n{tmp_path}\n".encode()
    )


def test_the_last_error_line_explains_a_failure() -> None:
    with pytest.raises(InfraError, match="sh returned 3: second"):
        must(["sh", "-c", "echo first >&2; echo second >&2; exit 3"], timeout=10)
    assert run(["sh", "-c", "exit 3"], timeout=10).returncode == 3


def test_a_missing_program_and_a_slow_one_are_infra_errors() -> None:
    with pytest.raises(InfraError, match="not installed"):
        run(["no-such-program-here"], timeout=10)
    with pytest.raises(InfraError, match="did not finish within"):
        run(["sleep", "10"], timeout=0.2)


def test_an_interrupt_ends_a_program_that_another_thread_waits_for() -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(run, ["sleep", "300"], timeout=400)
        while not hostcmd._running:
            time.sleep(0.01)
        hostcmd.kill_all()
        assert waiting.result(timeout=60).returncode != 0
    assert not hostcmd._running
