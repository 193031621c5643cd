"""Runs one compute test on a machine and judges it."""

from __future__ import annotations

import shlex

from harness.errors import UserError
from harness.model.outcome import Outcome
from harness.model.records import TestResult
from harness.model.shell import Completed, Shell
from harness.suites.judge import judge
from harness.suites.manifest import TestSpec
from harness.suites.sycl import ABSENT, RUNNER
from harness.suites.wire import parse

GUEST_DIR = "/opt/gpu_tests"
RUNNERS = {"sycl": RUNNER}
"""Runners of backends that the portable one has not."""
OUTPUT_LIMIT = 1 << 20
"""Bytes kept of each output stream; a test writes some tens of kilobytes."""
LEFT_OUT = "left_out"
"""The detail of a result that says why the backend was not built: no finding about the guest."""
DEADLINE_GRACE = 5.0
"""Seconds after the harness's own limit at which a runner that nobody waits for ends itself."""


def run_test(
    shell: Shell, test: TestSpec, *, backend: str, timeout: float, gpu_tests_dir: str = GUEST_DIR
) -> tuple[list[TestResult], bytes]:
    """Run ``test`` over ``shell`` and return (results, raw output for the evidence).

    ``timeout`` is in seconds, already stretched for the machine's speed. ``gpu_tests_dir`` is where the directory made
    by :func:`harness.suites.build.build_runner` lies in the machine. A test that is not written for ``backend`` is a
    SKIP and is not started. Nothing that the machine does raises.

    Raises:
        UserError: ``timeout`` is not positive.

    """
    if not timeout > 0:
        raise UserError(f"{test.name}: the timeout must be positive, not {timeout!r}")
    if backend not in test.backends:
        reason = f"the test is not written for {backend} (only for {', '.join(test.backends)})"
        return [TestResult(test.name, test.stage, Outcome.SKIP, reason, details={"backend": backend})], b""
    if backend in RUNNERS:
        left_out = shell.run(["cat", f"{gpu_tests_dir}/{ABSENT}/{backend}"], timeout=timeout, limit=1000)
        if left_out.ok:
            why = left_out.stdout.decode("utf-8", "replace").strip()
            details: dict[str, str | int | float | bool] = {"backend": backend, LEFT_OUT: why}
            return [TestResult(test.name, test.stage, Outcome.SKIP, why, details=details)], b""
    argv = command(test, backend=backend, timeout=timeout, gpu_tests_dir=gpu_tests_dir)
    completed = shell.run(argv, timeout=timeout, limit=OUTPUT_LIMIT)
    results = judge(test, completed, parse(completed.stdout), backend=backend, timeout=timeout)
    return results, _raw(argv, completed)


def list_devices(shell: Shell, *, backend: str, timeout: float, gpu_tests_dir: str = GUEST_DIR) -> Completed:
    """Have the driver behind ``backend`` list its devices in a new process: whether it still answers, and how fast."""
    argv = [f"{gpu_tests_dir}/bin/gtrun", "run", "enumerate", "--backend", backend, "--budget", "1"]
    return shell.run([*argv, "--deadline", f"{timeout + DEADLINE_GRACE:g}"], timeout=timeout, limit=OUTPUT_LIMIT)


def command(test: TestSpec, *, backend: str, timeout: float, gpu_tests_dir: str = GUEST_DIR) -> list[str]:
    """Return the argument vector that runs ``test``."""
    return [
        f"{gpu_tests_dir}/bin/{RUNNERS.get(backend, 'gtrun')}",
        *test.argv,
        *("--backend", backend),
        *("--budget", f"{test.budget:g}"),
        *("--deadline", f"{timeout + DEADLINE_GRACE:g}"),
    ]


def _raw(argv: list[str], completed: Completed) -> bytes:
    """Put everything that was seen into one file: the command, both streams as they came, and how it ended."""
    if completed.lost:
        ended = "the connection broke"
    elif completed.timed_out:
        ended = "timed out"
    else:
        ended = f"exit status {completed.exit_status}"
    cut = ", output cut" if completed.truncated else ""
    return b"".join(
        [
            f"$ {shlex.join(argv)}\n".encode(),
            completed.stdout,
            b"\n--- stderr ---\n" if completed.stderr else b"",
            completed.stderr,
            f"\n--- {ended} after {completed.seconds:.3f} s{cut} ---\n".encode(),
        ]
    )
