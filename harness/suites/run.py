"""Runs one compute test on a machine and judges it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from harness.errors import UserError
from harness.model.outcome import Outcome
from harness.model.records import TestResult
from harness.model.shell import Completed, Shell
from harness.model.stage import Stage
from harness.suites.judge import judge
from harness.suites.manifest import TestSpec
from harness.suites.programs import OUTPUT_LIMIT, raw_output, run_program
from harness.suites.sycl import ABSENT, RUNNER
from harness.suites.wire import parse

GUEST_DIR = "/opt/gpu_tests"
RUNNERS = {"sycl": RUNNER}
"""Runners of backends that the portable one has not."""
LEFT_OUT = "left_out"
"""The detail of a result that says why the backend was not built: no finding about the guest."""
DEADLINE_GRACE = 5.0
"""Seconds after the harness's own limit at which a runner that nobody waits for ends itself."""


def run_test(
    shell: Shell,
    test: TestSpec,
    *,
    backend: str,
    timeout: float,
    gpu_tests_dir: str = GUEST_DIR,
    device: str = "",
) -> tuple[list[TestResult], bytes]:
    """Run ``test`` over ``shell`` and return (results, raw output for the evidence).

    ``timeout`` is in seconds, already stretched for the machine's speed. ``gpu_tests_dir`` is where the directory made
    by :func:`harness.suites.build.build_runner` lies in the machine; ``device`` is the index or PCI address of what it
    shall open, where it is not to choose itself. A test that is not written for ``backend`` is a SKIP, and is not
    started. Nothing that the machine does raises.

    Raises:
        UserError: ``timeout`` is not positive.

    """
    if not timeout > 0:
        raise UserError(f"{test.name}: the timeout must be positive, not {timeout!r}")
    if not test.runs_on(backend):
        reason = f"the test is not written for {backend} (only for {', '.join(test.backends)})"
        return [TestResult(test.name, test.stage, Outcome.SKIP, reason, details={"backend": backend})], b""
    if test.program is not None:
        return run_program(shell, test, test.program, backend=backend, timeout=timeout)
    why = not_built(shell, backend, timeout=timeout, gpu_tests_dir=gpu_tests_dir)
    if why:
        details: dict[str, str | int | float | bool] = {"backend": backend, LEFT_OUT: why}
        return [TestResult(test.name, test.stage, Outcome.SKIP, why, details=details)], b""
    argv = command(test, backend=backend, timeout=timeout, gpu_tests_dir=gpu_tests_dir, device=device)
    completed = shell.run(argv, timeout=timeout, limit=OUTPUT_LIMIT)
    results = judge(test, completed, parse(completed.stdout), backend=backend, timeout=timeout)
    return results, raw_output(argv, completed)


def not_built(shell: Shell, backend: str, *, timeout: float, gpu_tests_dir: str = GUEST_DIR) -> str:
    """Why the host that built the tests has no runner for ``backend``; empty when it has one."""
    if backend not in RUNNERS:
        return ""
    told = shell.run(["cat", f"{gpu_tests_dir}/{ABSENT}/{backend}"], timeout=timeout, limit=1000)
    return told.stdout.decode("utf-8", "replace").strip() if told.ok else ""


def list_devices(shell: Shell, *, backend: str, timeout: float, gpu_tests_dir: str = GUEST_DIR) -> Completed:
    """Have the driver behind ``backend`` list its devices in a new process: whether it still answers, and how fast."""
    runner = f"{gpu_tests_dir}/bin/{RUNNERS.get(backend, 'gtrun')}"
    argv = [runner, "run", "enumerate", "--backend", backend, "--budget", "1"]
    return shell.run([*argv, "--deadline", f"{timeout + DEADLINE_GRACE:g}"], timeout=timeout, limit=OUTPUT_LIMIT)


NO_API = "none"
"""Stands for the backend of a stack that offers no compute API: only the user's own programs run there."""


def to_run(tests: Sequence[TestSpec], backends: Sequence[str], stage: Stage) -> Iterator[tuple[str, TestSpec]]:
    """Yield (backend, test) for one rung of a stack that offers these backends: tier by tier, whatever the backend.

    A test that is not written for a backend is left out here, and so is ours where no compute API is offered.
    """
    for test, backend in sorted(product(tests, backends or (NO_API,)), key=lambda pair: pair[0].tier):
        if test.stage is stage and test.runs_on(backend):
            yield backend, test


def command(
    test: TestSpec, *, backend: str, timeout: float, gpu_tests_dir: str = GUEST_DIR, device: str = ""
) -> list[str]:
    """Return the argument vector that runs ``test``."""
    return [
        f"{gpu_tests_dir}/bin/{RUNNERS.get(backend, 'gtrun')}",
        *test.argv,
        *("--backend", backend),
        *(("--device", device) if device else ()),
        *("--budget", f"{test.budget:g}"),
        *("--deadline", f"{timeout + DEADLINE_GRACE:g}"),
    ]
