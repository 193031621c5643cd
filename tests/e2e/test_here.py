"""``kdmatrix run --here``: the machine that runs these tests, with its own kernel and its own OpenCL."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from intel_wheels import intel_runtime
from machines.test_here import until_gone
from scripted_runner import CPU, hanging, scripted_runner

from harness.content import content_dir
from harness.errors import InfraError
from harness.model.outcome import Outcome
from harness.suites.build import build_runner
from harness.suites.sycl import build_with_sycl

from .installation import Installation, Running, complete, installed

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.timeout(1800)]
CELL = f"here/{platform.release()}/opencl/none"

SCRIPTED = """
import sys
from pathlib import Path
from harness.cli import main
from harness.images.builder import Images

Images.tests_folder = lambda self, backends: Path({runner!r})
main()
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Iterator[Installation]:
    """An installation in which nothing was made yet but the compute tests' runner, where there is one already."""
    with installed(content_dir("guests").parent, shared_cache) as made:
        yield made


@pytest.fixture(scope="module")
def real(shared_cache: Path) -> Iterator[tuple[Installation, Running]]:
    """A run of two tests on this machine's OpenCL; skips where it has none, or no compiler for the runner."""
    try:
        library = ctypes.CDLL("libOpenCL.so.1")
    except OSError:
        pytest.skip("no OpenCL loader on this host")
    count = ctypes.c_uint32(0)
    if library.clGetPlatformIDs(0, None, ctypes.byref(count)) != 0 or count.value == 0:
        pytest.skip("no OpenCL platform on this host")
    try:
        build_runner(content_dir("gpu_tests"), shared_cache / "gpu_tests")
    except InfraError as error:
        pytest.skip(str(error))
    with installed(content_dir("guests").parent, shared_cache) as made:
        words = ("--here", "--backend", "opencl", "--test", "enumerate", "--test", "vecadd")
        yield made, made.run("run", *words, "--report", "page")


def test_this_machine_is_tested_without_a_vm_and_its_results_lie_with_all_others(
    real: tuple[Installation, Running],
) -> None:
    made, run = real
    assert run.code == 0, run.out + run.err
    stored = made.stored()
    assert complete(stored)
    (attempt,) = stored.attempts
    assert (attempt.cell_id, attempt.outcome) == (CELL, Outcome.PASS), attempt.reason
    assert attempt.facts["uname_release"] == platform.release()
    assert {test.name: test.kind for test in attempt.tests} in (
        {"enumerate": "cpu-runtime", "vecadd": "cpu-runtime"},
        {"enumerate": "gpu", "vecadd": "gpu"},
    )
    assert '"status":"pass"' in made.evidence(attempt, "opencl-vecadd.txt")
    assert attempt.facts["accelerator"] == "none: this machine"


def test_its_report_says_where_it_ran_and_how_to_repeat_it(real: tuple[Installation, Running]) -> None:
    made, _ = real
    pages = "".join(page.read_text() for page in sorted((made.root / "page").rglob("*.html")))
    assert "No VM ran: every cell was executed on this machine." in pages
    details = "".join(page.read_text() for page in sorted((made.root / "page" / "details").rglob("*.js")))
    assert "kdmatrix run --here --backend opencl" in details


def test_the_other_commands_know_the_cell(real: tuple[Installation, Running]) -> None:
    made, _ = real
    assert "opencl-vecadd.txt" in made.run("logs", CELL).out
    repro = made.run("repro", CELL)
    assert repro.code == 2
    assert "booted nothing" in repro.err


@pytest.mark.slow
def test_sycl_is_tested_by_its_own_runner_and_where_its_libraries_are_absent_that_is_the_reason(
    shared_cache: Path,
) -> None:
    environment = intel_runtime(shared_cache)
    runner = build_with_sycl(content_dir("gpu_tests"), shared_cache / "gpu_tests", shared_cache / "wheels")
    if (runner / "absent").is_dir():
        pytest.skip((runner / "absent" / "sycl").read_text().strip())
    words = ("run", "--here", "--backend", "sycl", "--test", "enumerate", "--test", "vecadd", "--test", "atomics")
    with installed(content_dir("guests").parent, shared_cache) as made:
        done = made.run(*words, env=environment)
        assert done.code == 0, done.out + done.err
        (attempt,) = made.stored().attempts
        assert (attempt.cell_id, attempt.outcome) == (CELL.replace("opencl", "sycl"), Outcome.PASS)
        kinds = {test.name: test.kind for test in attempt.tests}
        assert kinds == dict.fromkeys(("enumerate", "vecadd", "atomics"), "cpu-runtime")
        assert '"platform":"Intel(R) OpenCL"' in made.evidence(attempt, "sycl-vecadd.txt")

        done = made.run(*words)
        assert done.code == 3, done.out + done.err
        (attempt,) = made.stored().attempts
        assert attempt.reason.startswith("no SYCL: libsycl.so.9: cannot open shared object file")
        assert attempt.reason in done.out


def scripted(made: Installation, behaviour: dict[str, object]) -> tuple[Path, Path]:
    """(program, runner): the command with a runner that is a script."""
    runner = scripted_runner(made.root / "runner", {"opencl": {"devices": [CPU], **behaviour}})
    program = made.root / "scripted.py"
    program.write_text(SCRIPTED.format(runner=str(runner)))
    return program, runner


HANGS = ("run", "--here", "--test", "enumerate", "--test", "vecadd")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=["INT", "TERM", "KILL"])
def test_an_end_from_outside_ends_the_runner_and_its_children_and_the_run_can_be_resumed(
    bare: Installation, number: signal.Signals
) -> None:
    program, runner = scripted(bare, {"act": {"vecadd": "hang"}})
    (runner / "asked.pids").unlink(missing_ok=True)
    started = bare.start(*HANGS, program=program)
    started.until(lambda: len(hanging(runner)) == 2, "the test hangs")
    os.kill(started.process.pid, number)
    started.end()
    if number is signal.SIGKILL:
        # The runner itself dies with us; what it started is its own to end.
        until_gone(hanging(runner)[:1])
        os.kill(hanging(runner)[1], signal.SIGKILL)
    until_gone(hanging(runner))
    assert not bare.stored().attempts
    program, _ = scripted(bare, {})
    resumed = bare.run("run", "--resume", program=program)
    assert resumed.code == 0, resumed.out + resumed.err
    assert complete(bare.stored())


def test_a_machine_that_offers_nothing_has_run_nothing(bare: Installation) -> None:
    program, _ = scripted(bare, {"devices": []})
    done = bare.run("run", "--here", "--backend", "opencl", "--until", "enumerate", program=program)
    assert done.code == 1  # it was asked for, and the driver offers no device
    absent, _ = scripted(bare, {"absent": "libOpenCL.so.1 is not there"})
    done = bare.run("run", "--here", program=absent)
    assert done.code == 3, done.out + done.err
    assert f"left out: {CELL}: libOpenCL.so.1 is not there" in done.out
    assert "no driver of this machine offers anything to compute on" in done.err
