from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.model.outcome import Outcome
from harness.model.shell import Completed
from harness.suites.manifest import load_tests
from harness.suites.run import OUTPUT_LIMIT, run_test, to_run


class FakeShell:
    """Answers with what it was given and remembers what it was asked; a real machine's shell is tested elsewhere."""

    def __init__(self, completed: Completed) -> None:
        self.completed = completed
        self.asked: list[tuple[list[str], float, int]] = []

    def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"", limit: int = 4 << 20) -> Completed:
        self.asked.append((list(argv), timeout, limit))
        return self.completed


def test_the_runner_is_asked_with_an_argument_vector_a_budget_and_a_later_deadline(sources: Path) -> None:
    shell = FakeShell(Completed(None, b"", b"", 1.0, lost=True))
    run_test(shell, load_tests(sources)["triad"], backend="opencl", timeout=90)
    assert shell.asked == [
        (
            ["/opt/gpu_tests/bin/gtrun", "run", "triad", "--backend", "opencl", "--budget", "3", "--deadline", "95"],
            90,
            OUTPUT_LIMIT,
        )
    ]


def test_the_raw_output_keeps_the_bytes_and_says_how_it_ended(sources: Path) -> None:
    shell = FakeShell(Completed(None, b"\xff\x00out", b"err", 2.5, timed_out=True, truncated=True))
    (result,), raw = run_test(shell, load_tests(sources)["vecadd"], backend="opencl", timeout=9)
    assert result.outcome is Outcome.FAIL
    assert raw.startswith(b"$ /opt/gpu_tests/bin/gtrun run vecadd ")
    assert b"\xff\x00out\n--- stderr ---\nerr\n--- timed out after 2.500 s, output cut ---\n" in raw


def test_a_backend_that_the_test_lacks_is_a_skip_without_a_run(sources: Path) -> None:
    shell = FakeShell(Completed(0, b"", b"", 0.0))
    spec = dataclasses.replace(load_tests(sources)["vecadd"], backends=("opencl",))
    (result,), raw = run_test(shell, spec, backend="cuda", timeout=9)
    assert (result.outcome, raw, shell.asked) == (Outcome.SKIP, b"", [])
    assert "not written for cuda" in result.reason


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_must_be_positive(sources: Path, timeout: float) -> None:
    shell = FakeShell(Completed(0, b"", b"", 0.0))
    with pytest.raises(UserError, match="timeout must be positive"):
        run_test(shell, load_tests(sources)["vecadd"], backend="opencl", timeout=timeout)


def test_tests_of_a_rung_come_tier_by_tier_whatever_the_backend(sources: Path) -> None:
    spec = load_tests(sources)["vecadd"]
    late, early = (dataclasses.replace(spec, name=name, tier=tier) for name, tier in (("late", 3), ("early", 1)))
    order = [(backend, test.name) for backend, test in to_run([late, early], ["opencl", "cuda"], spec.stage)]
    assert order == [("opencl", "early"), ("cuda", "early"), ("opencl", "late"), ("cuda", "late")]
    assert list(to_run([late, early], [], spec.stage)) == []
