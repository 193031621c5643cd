"""What each rung makes of a guest's answers. The guest is a script here; the real one is booted in tests/machines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from harness.images.recipe import Module, StackRecipe, Step
from harness.ladder import rungs
from harness.ladder.loading import Modules
from harness.ladder.testwatch import TestWatch
from harness.machines import guest as guest_module
from harness.machines.guest import Guest, GuestLost
from harness.machines.vm import BootFailure
from harness.model.outcome import Outcome
from harness.model.shell import Completed
from harness.model.stage import Stage
from harness.suites.manifest import TestSpec
from ladder.scripted_guest import LATE, LOST, FakeShell, a_guest, said

PASS, FAIL, ERROR, MISS, SKIP = Outcome.PASS, Outcome.FAIL, Outcome.ERROR, Outcome.MISS, Outcome.SKIP


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_module, "_DEATH_GRACE", 0.02)
    monkeypatch.setattr(guest_module, "_RECONNECT", 0.02)


def stack(*modules: Module, **settings: Any) -> StackRecipe:
    return StackRecipe(description="x", modules=modules, **settings)


@pytest.mark.parametrize(
    ("answer", "outcome", "reason"),
    [
        (said("bound: amdgpu"), PASS, ""),
        (said("bound: radeon"), FAIL, "its output does not match 'bound: amdgpu'"),
        (said("", 2, "first\nno such device\n"), FAIL, "returned 2: no such device"),
        (LATE, FAIL, "did not finish within 10 s"),
    ],
)
def test_a_step_passes_by_its_status_and_its_output(answer: Completed, outcome: Outcome, reason: str) -> None:
    steps = [Step(run=("check", "it"), match="bound: amdgpu"), Step(run=("next",))]
    shell = FakeShell(answers={"check": answer})
    results, lost = rungs.run_steps(a_guest(shell), steps, Stage.LOAD, 10.0, 1.0)
    assert not lost
    assert (results[0].outcome, results[0].reason) == (outcome, reason)
    # The first one that fails ends them.
    assert ("next" in shell.ran) == (outcome is PASS)


SPEC = TestSpec("vecadd", "Vectors add up", Stage.COMPUTE, ("vecadd",), ("opencl",), 60.0, 1.0)
CPU = stack(backends=("opencl",), kind="cpu-runtime", device="none")


def compute(guest: Guest, recipe: StackRecipe = CPU, stage: Stage = Stage.COMPUTE) -> rungs.Rung:
    return rungs.compute(TestWatch(guest), recipe, [SPEC], stage, 60.0, 1.0)


def test_a_stack_without_an_api_and_a_rung_without_tests_are_skipped() -> None:
    assert compute(a_guest(FakeShell()), stack()).outcome is SKIP
    rung = compute(a_guest(FakeShell()), stage=Stage.THROUGHPUT)
    assert (rung.outcome, rung.reason) == (SKIP, "no test of the matrix stands on the throughput rung")


def test_a_stack_that_says_why_it_cannot_compute_is_skipped_for_that_reason() -> None:
    rung = compute(a_guest(FakeShell()), stack(no_compute="Nova ends when the system processor is up"))
    assert (rung.outcome, rung.reason) == (SKIP, "Nova ends when the system processor is up")


GTRUN = "/opt/gpu_tests/bin/gtrun"
SILENT = said("nothing that is a record\n", 1)


def test_a_runner_that_says_nothing_is_our_own_error_and_its_output_is_kept() -> None:
    rung = compute(a_guest(FakeShell(answers={GTRUN: SILENT})))
    assert rung.outcome is ERROR
    assert b"nothing that is a record" in rung.files["opencl-vecadd.txt"]


def test_a_full_disk_is_the_reason_for_whatever_failed_on_it() -> None:
    rung = compute(a_guest(FakeShell(answers={GTRUN: SILENT}, disk="1 131072 4096")))
    assert rung.outcome is MISS
    full = (
        "vecadd: the guest's disk is full (512 MiB overlay in memory), already before the tests (the test said ERROR: "
    )
    assert rung.reason.startswith(full)


def test_a_backend_that_this_host_could_not_build_is_no_broken_promise_of_the_guest() -> None:
    spec = TestSpec("enumerate", "Devices are listed", Stage.ENUMERATE, ("run", "enumerate"), ("sycl",), 30.0, 1.0)
    recipe = stack(backends=("sycl",), kind="cpu-runtime", device="none")
    left_out = FakeShell(answers={"cat /opt/gpu_tests/absent/sycl": said("no C++ compiler of this host's own\n")})
    rung = rungs.compute(TestWatch(a_guest(left_out)), recipe, [spec], Stage.ENUMERATE, 60.0, 1.0)
    assert (rung.outcome, rung.reason) == (SKIP, "enumerate: no C++ compiler of this host's own")
    assert not any("gtrun-sycl" in command for command in left_out.ran)


@pytest.mark.parametrize("disk", ["", "- - -", "1 2", "one two three"])
def test_a_disk_that_cannot_be_asked_leaves_the_outcome_alone(disk: str) -> None:
    assert compute(a_guest(FakeShell(answers={GTRUN: SILENT}, disk=disk))).outcome is ERROR


@pytest.mark.parametrize(
    ("dead", "outcome", "reason"),
    [
        ((FAIL, "kernel panic: in compute"), FAIL, "vecadd: kernel panic: in compute"),
        (None, MISS, "vecadd: the SSH server in the guest stopped answering"),
    ],
)
def test_a_guest_lost_under_a_test_is_judged_by_how_it_ended(
    dead: tuple[Outcome, str] | None, outcome: Outcome, reason: str
) -> None:
    shell = FakeShell()

    def die() -> Completed:
        shell.alive = False
        guest.machine.dead = dead  # type: ignore[attr-defined]
        return LOST

    shell.answers[GTRUN] = die
    guest = a_guest(shell)
    rung = compute(guest)
    assert rung.outcome is outcome
    assert rung.reason.startswith(reason)
    assert "opencl-vecadd.txt" in rung.files


def test_a_connection_that_comes_back_leaves_the_test_without_a_result_and_the_guest_usable() -> None:
    shell, second = FakeShell(), FakeShell()

    def die() -> Completed:
        shell.alive = False
        return LOST

    shell.answers[GTRUN] = die
    guest = a_guest(shell, comes_back=second)
    assert compute(guest).outcome is MISS
    assert guest.run(["true"], timeout=1.0).ok


def test_a_command_of_our_own_that_fails_is_nobodys_finding() -> None:
    guest = a_guest(FakeShell(answers={"cat": said("", 1, "cat: I/O error"), "sh": said("", 1)}))
    with pytest.raises(GuestLost, match="cat in the guest returned 1: cat: I/O error") as caught:
        guest.must(["cat", "/proc/version"], timeout=1.0)
    assert caught.value.outcome is MISS
    with pytest.raises(GuestLost, match="could not read its kernel's log") as caught:
        guest.change()
    assert caught.value.outcome is MISS


def test_overwritten_records_of_the_kernels_log_are_noticed() -> None:
    logs: Mapping[int, str] = {0: "4,1,0,-;a\n4,2,0,-;b\n", 1: "4,3,0,-;c\n", 2: "4,90,0,-;z\n"}
    turn = iter(range(3))
    guest = a_guest(FakeShell(answers={"sh": lambda: said(f"0\n@modules\n@log\n{logs[next(turn)]}", 1)}))
    assert [message.text for message in guest.change().messages] == ["a", "b"]
    assert [message.text for message in guest.change().messages] == ["c"]
    assert not guest.log_lost
    assert [message.text for message in guest.change().messages] == ["z"]
    assert guest.log_lost


@pytest.mark.parametrize("error", [GuestLost(MISS, "gone"), BootFailure(FAIL, "hang")])
def test_the_loss_of_a_guest_passes_through_with_statements_unchanged(error: Exception) -> None:
    @contextmanager
    def manager() -> Iterator[None]:
        yield

    with pytest.raises(type(error)) as caught, manager():
        raise error
    assert caught.value is error
    assert str(error) in ("gone", "hang")


def modules_of(recipe: StackRecipe, *, device: str = "none", refused: str = "") -> Modules:
    return Modules(a_guest(FakeShell()), recipe, 10.0, device, refused)


def test_a_gpu_stack_without_a_device_says_why_nothing_can_be_computed() -> None:
    gpu, cpu = stack(kind="gpu", device="optional"), stack(kind="cpu-runtime", device="none")
    assert rungs.no_device(modules_of(gpu)) == "no device: the stack computes on a GPU, and none is attached"
    assert (
        rungs.no_device(modules_of(gpu, refused="NVRM: No NVIDIA GPU found."))
        == "no device: NVRM: No NVIDIA GPU found."
    )
    assert rungs.no_device(modules_of(gpu, device="0000:01:00.0")) == ""
    assert rungs.no_device(modules_of(cpu)) == ""


def test_a_driver_that_found_no_device_is_neither_activated_nor_verified_nor_unloaded() -> None:
    module = Module(name="amdgpu", refusal="No such device")
    recipe = stack(module, activate=(Step(run=("start-it",)),), verify=(Step(run=("check-it",)),))
    shell = FakeShell(answers={"modprobe": said("", 1, "modprobe: ERROR: could not insert 'amdgpu': No such device\n")})
    modules = Modules(a_guest(shell), recipe, 10.0)
    rung = rungs.load(modules, 10.0, 1.0)
    assert (rung.outcome, rung.reason) == (PASS, "")
    assert rung.facts["load.refused"] == "modprobe: ERROR: could not insert 'amdgpu': No such device"
    assert not {"start-it", "check-it"} & set(shell.ran)
    gone = rungs.unload(modules)
    assert (gone.outcome, gone.reason) == (SKIP, f"no device: {modules.refused}")


def test_steps_follow_modules_that_loaded_and_nothing_follows_one_that_did_not() -> None:
    recipe = stack(Module(name="amdgpu"), activate=(Step(run=("start-it",)),))
    shell = FakeShell()
    rung = rungs.load(Modules(a_guest(shell), recipe, 10.0), 10.0, 1.0)
    assert (rung.outcome, [test.name for test in rung.tests]) == (PASS, ["load amdgpu", "start-it"])
    assert set(rung.files) == {"modinfo.txt", "modules.txt"}
    assert rung.facts["module.amdgpu.license"] == "GPL"
    broken = FakeShell(answers={"modprobe": said("", 1, "modprobe: ERROR: Exec format error")})
    assert rungs.load(Modules(a_guest(broken), recipe, 10.0), 10.0, 1.0).outcome is FAIL
    assert "start-it" not in broken.ran
