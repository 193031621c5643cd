"""A cell on this machine: its own kernel and drivers, the same tests and the same judgement, and nothing changed."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from machines.test_here import until_gone
from scripted_runner import CPU, GPU, asked, hanging, scripted_runner

from harness.home import Home
from harness.lab import Lab
from harness.ladder import here
from harness.ladder.cell import Stopped
from harness.ladder.here import execute_here
from harness.ladder.workshop import Workshop
from harness.machines.guest import LOOK
from harness.model.cell import Cell, KernelSpec, RunningKernel, Series, Timeouts
from harness.model.device import PciFunction
from harness.model.machine import ThisMachine
from harness.model.outcome import Outcome
from harness.model.records import Attempt
from harness.model.stage import Stage

RELEASE = platform.release()


def climb(
    folder: Path,
    behaviour: dict[str, Any],
    *,
    release: str = RELEASE,
    device: str = "",
    until: Stage = Stage.UNLOAD,
    timeout: float = 60.0,
    stop: threading.Event | None = None,
) -> Attempt:
    """Run the tests enumerate and vecadd of a scripted runner as a cell of this machine."""
    lab = Lab(Home(folder / "home"))
    runner = scripted_runner(folder / "runner", {"cuda": behaviour})
    tests = {
        name: replace(lab.tests[name], backends=("cuda",), timeout=timeout, metrics=())
        for name in ("enumerate", "vecadd")
    }
    shop = Workshop(
        run_id="r",
        images=replace(lab.images, tests=lambda: runner),
        recipes=lab.recipes,
        hypervisor=None,
        journal=lab.journal("r"),
        evidence=lab.evidence,
        tests=tests,
        drivers=lab.drivers,
        work=folder,
        until=until,
        knowledge=lab.knowledge,
        stop=stop or threading.Event(),
    )
    kernel = KernelSpec(release, Series.STABLE, RunningKernel(release))
    cell = Cell("here", kernel, "cuda", tests=tuple(tests), timeouts=Timeouts(), machine=ThisMachine("box", device, ()))
    return execute_here(cell, 1, shop)


def outcomes(attempt: Attempt) -> list[tuple[str, str]]:
    return [(one.stage.value, one.outcome.value) for one in attempt.stages]


def test_tests_run_on_the_machine_as_it_is(tmp_path: Path) -> None:
    attempt = climb(tmp_path, {"devices": [CPU]})
    assert (attempt.outcome, attempt.reason) == (Outcome.PASS, "")
    assert outcomes(attempt) == [
        *[(stage, "SKIP") for stage in ("image", "build", "boot", "load")],
        *[("enumerate", "PASS"), ("compute", "PASS"), ("throughput", "SKIP"), ("unload", "SKIP")],
    ]
    assert attempt.facts["uname_release"] == attempt.facts["kernel.release"] == RELEASE
    assert {test.kind for test in attempt.tests} == {"cpu-runtime"}
    # Either what the log said or that it could not be read; which of the two depends on who runs this.
    readable = attempt.facts["kernel.log"] == "collected around each test"
    for test in attempt.tests:
        said = str(test.details["kernel"])
        assert said == "clean" if readable else said.startswith("not collected: ")


def test_a_kernel_log_that_may_not_be_read_is_said_to_be_not_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.machines.guest.LOOK", (*LOOK[:2], LOOK[2].replace("/dev/kmsg", "/nowhere/kmsg")))
    attempt = climb(tmp_path, {"devices": [CPU]})
    assert attempt.outcome is Outcome.PASS
    assert attempt.facts["kernel.log"].startswith("not collected: ")
    assert all("/nowhere/kmsg" in str(test.details["kernel"]) for test in attempt.tests)


def test_what_computes_is_as_promised_where_it_is_what_the_driver_lists(tmp_path: Path) -> None:
    assert {test.kind for test in climb(tmp_path, {"devices": [GPU]}, device="0000:01:00.0").tests} == {"gpu"}
    ran = [words for words in asked(tmp_path / "runner") if "--device" in words]
    assert [words[words.index("--device") + 1] for words in ran] == ["0000:01:00.0"] * 2


def test_a_gpus_driver_is_asked_whether_it_still_answers_after_each_test(tmp_path: Path) -> None:
    climb(tmp_path, {"devices": [GPU]})
    assert [words[1] for words in asked(tmp_path / "runner")] == [
        *["enumerate"],  # before: what does it offer?
        *["enumerate", "enumerate"],  # the test, and the question after it
        *["vecadd", "enumerate"],
    ]


def test_an_absent_library_leaves_nothing_to_test(tmp_path: Path) -> None:
    attempt = climb(tmp_path, {"absent": "libcuda.so.1 is not there"})
    assert (attempt.outcome, attempt.rung, attempt.reason) == (Outcome.SKIP, Stage.LOAD, "libcuda.so.1 is not there")
    assert {one.reason for one in attempt.stages if one.stage in (Stage.LOAD, Stage.ENUMERATE, Stage.COMPUTE)} == {
        "libcuda.so.1 is not there"
    }


def test_a_driver_without_a_device_has_failed_on_enumerate(tmp_path: Path) -> None:
    attempt = climb(tmp_path, {"reason": "cuInit returned 999"})
    assert (attempt.outcome, attempt.rung) == (Outcome.FAIL, Stage.ENUMERATE)
    assert attempt.reason == "enumerate: cuInit returned 999"


def test_a_driver_that_crashes_is_a_finding_of_its_test(tmp_path: Path) -> None:
    attempt = climb(tmp_path, {"devices": [CPU], "act": {"vecadd": "crash"}})
    assert (attempt.outcome, attempt.rung) == (Outcome.FAIL, Stage.COMPUTE)
    assert attempt.reason.startswith("vecadd: crashed: killed by signal SIGSEGV")


def test_a_test_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    attempt = climb(tmp_path, {"devices": [CPU], "act": {"vecadd": "hang"}}, timeout=3.0)
    assert attempt.reason.startswith("vecadd: no result within 3 s")
    pids = hanging(tmp_path / "runner")
    assert len(pids) == 2
    until_gone(pids)


def test_an_interrupt_ends_the_test_and_its_children_and_leaves_no_result(tmp_path: Path) -> None:
    stop = threading.Event()

    def interrupt() -> None:
        while len(hanging(tmp_path / "runner")) < 2:
            time.sleep(0.01)
        stop.set()

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(Stopped, match="interrupted in compute"):
        climb(tmp_path, {"devices": [CPU], "act": {"vecadd": "hang"}}, stop=stop)
    until_gone(hanging(tmp_path / "runner"))


def test_another_kernel_than_the_planned_one_says_nothing_of_it(tmp_path: Path) -> None:
    attempt = climb(tmp_path, {"devices": [CPU]}, release="9.9.9-gone")
    assert (attempt.outcome, attempt.rung) == (Outcome.MISS, Stage.IMAGE)
    assert (
        attempt.reason == f"this machine runs {RELEASE} by now, not 9.9.9-gone: nothing is known of the cell's kernel"
    )
    assert asked(tmp_path / "runner") == []


def test_the_ladder_ends_where_it_is_told_to(tmp_path: Path) -> None:
    attempt = climb(tmp_path, {"devices": [CPU]}, until=Stage.ENUMERATE)
    assert (attempt.outcome, attempt.rung) == (Outcome.PASS, Stage.ENUMERATE)
    assert outcomes(attempt)[5:] == [(stage, "SKIP") for stage in ("compute", "throughput", "unload")]


def test_sysfs_tells_which_driver_holds_a_gpu_and_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = PciFunction("0000:01:00.0", 0x10DE, 0x2330, 0x030200, driver="nvidia", driver_version="580.126.09")
    other = PciFunction("0000:05:00.0", 0x8086, 0x2725, 0x028000, driver="iwlwifi")
    monkeypatch.setattr(here, "read_functions", lambda: (card, other))
    facts = climb(tmp_path, {"devices": [CPU]}).facts
    told = {key: value for key, value in facts.items() if key.startswith("device.") and not key.endswith(".name")}
    assert told == {
        "device.0000:01:00.0.id": "10de:2330",
        "device.0000:01:00.0.driver": "nvidia",
        "device.0000:01:00.0.driver_version": "580.126.09",
    }


def test_a_debug_kernel_is_not_measured_here_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config: Callable[[str], dict[str, str]] = lambda _release: {"CONFIG_KASAN": "y"}  # noqa: E731
    monkeypatch.setattr(here, "running_config", config)
    attempt = climb(tmp_path, {"devices": [CPU]})
    throughput = next(one for one in attempt.stages if one.stage is Stage.THROUGHPUT)
    assert throughput.reason.startswith("debug kernel: CONFIG_KASAN=y")
