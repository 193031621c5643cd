"""What each rung makes of a guest's answers. The guest is a script here; the real one is booted in tests/machines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from harness import rungs
from harness.images.recipe import Module, StackRecipe, Step
from harness.machines import guest as guest_module
from harness.machines.console import Console
from harness.machines.guest import Guest, GuestLost
from harness.machines.vm import BootFailure
from harness.model.outcome import Outcome
from harness.model.shell import Completed
from harness.model.stage import Stage
from harness.suites.manifest import TestSpec

PASS, FAIL, ERROR, MISS, SKIP = Outcome.PASS, Outcome.FAIL, Outcome.ERROR, Outcome.MISS, Outcome.SKIP
LOST = Completed(None, b"", b"", 0.0, lost=True)
LATE = Completed(None, b"", b"", 0.0, timed_out=True)


def said(stdout: str = "", status: int = 0, stderr: str = "") -> Completed:
    return Completed(status, stdout.encode(), stderr.encode(), 0.1)


@dataclass
class FakeShell:
    """Answers by the beginning of the command line, and behaves like a kernel with loadable modules."""

    modules: set[str] = field(default_factory=lambda: {"drm", "amdgpu"})
    loaded: set[str] = field(default_factory=set)
    answers: dict[str, Completed | Callable[[], Completed]] = field(default_factory=dict)
    taint: int = 0
    log: list[str] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    alive: bool = True
    on_change: Callable[[str], None] = lambda _line: None

    def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"", limit: int = 4 << 20) -> Completed:
        line = " ".join(argv)
        self.ran.append(line)
        if not self.alive:
            return LOST
        for start, answer in self.answers.items():
            if line.startswith(start):
                return answer() if callable(answer) else answer
        if line.startswith("modinfo -F filename"):
            there = argv[-1] in self.modules
            return said(f"/lib/modules/{argv[-1]}.ko") if there else said("", 1, "modinfo: ERROR: not found")
        if line.startswith("modprobe"):
            self.on_change(line)
            (self.loaded.discard if "--remove" in argv else self.loaded.add)(argv[argv.index("--") + 1])
            return said()
        if line.startswith("sh -c cat /proc/sys/kernel/tainted"):
            modules = "".join(f"{name} 16384 0 - Live 0x0\n" for name in sorted(self.loaded))
            log = "".join(f"4,{index},1000,-;{message}\n" for index, message in enumerate(self.log))
            return said(f"{self.taint}\n@modules\n{modules}@log\n{log}", 1)
        if line.startswith("df "):
            return said("Avail 1B-blocks\n500000000 1000000000\n")
        return said()


@dataclass
class FakeMachine:
    """A machine whose end is scripted; ``comes_back`` is the shell that a reconnection gets."""

    shell: FakeShell | None
    dead: tuple[Outcome, str] | None = None
    comes_back: FakeShell | None = None
    console: Console = field(default_factory=Console)
    stopped: threading.Event = field(default_factory=threading.Event)

    def death(self) -> tuple[Outcome, str] | None:
        return self.dead

    def reconnect(self, timeout: float) -> FakeShell | None:
        if self.comes_back:
            self.shell = self.comes_back
        return self.comes_back


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_module, "_DEATH_GRACE", 0.02)
    monkeypatch.setattr(guest_module, "_RECONNECT", 0.02)


def a_guest(shell: FakeShell, **machine: Any) -> Guest:
    return Guest(FakeMachine(shell, **machine))  # type: ignore[arg-type]


def stack(*modules: Module, **settings: Any) -> StackRecipe:
    return StackRecipe(description="x", modules=modules, **settings)


def load(guest: Guest, recipe: StackRecipe) -> rungs.Rung:
    return rungs.load(guest, recipe, 10.0, 10.0, 1.0)


AMDGPU = Module(name="amdgpu")


def test_a_module_that_loads_quietly_passes_and_leaves_its_evidence() -> None:
    shell = FakeShell()
    rung = load(a_guest(shell), stack(Module(name="amdgpu", parameters=("ppfeaturemask=1",))))
    assert rung.outcome is PASS
    assert "modprobe -- amdgpu ppfeaturemask=1" in shell.ran
    assert set(rung.files) == {"modinfo.txt", "modules.txt"}
    assert rung.tests[0].details == {"taint_before": "-", "taint_after": "-", "new_messages": 0}


@pytest.mark.parametrize(("required", "outcome"), [(True, FAIL), (False, SKIP)])
def test_a_kernel_without_the_module_fails_only_what_requires_it(required: bool, outcome: Outcome) -> None:
    rung = load(a_guest(FakeShell()), stack(Module(name="xe", required=required)))
    assert rung.outcome is outcome
    assert rung.reason == "load xe: this kernel has no module xe"
    assert rung.files == {}


def test_one_optional_module_that_is_missing_does_not_hide_one_that_passed() -> None:
    rung = load(a_guest(FakeShell()), stack(Module(name="xe", required=False), AMDGPU))
    assert rung.outcome is PASS
    assert [test.outcome for test in rung.tests] == [SKIP, PASS]


def test_a_stack_without_modules_skips_the_rung() -> None:
    rung = load(a_guest(FakeShell()), stack())
    assert (rung.outcome, rung.reason) == (SKIP, "the stack has no kernel module")


def test_a_built_in_module_passes_and_is_not_loaded() -> None:
    shell = FakeShell(answers={"modinfo -F filename": said("(builtin)\n")})
    assert load(a_guest(shell), stack(AMDGPU)).outcome is PASS
    assert not [line for line in shell.ran if line.startswith("modprobe")]


@pytest.mark.parametrize("answer", [LATE, said(status=127, stderr="modinfo: command not found")])
def test_a_modinfo_that_does_not_answer_says_nothing_about_the_kernel(answer: Completed) -> None:
    rung = load(a_guest(FakeShell(answers={"modinfo": answer})), stack(AMDGPU))
    assert rung.outcome is MISS
    assert "modinfo in the guest" in rung.reason


def grow(shell: FakeShell, *, taint: int = 0, log: Sequence[str] = ()) -> FakeShell:
    """Let the next change of modules taint the kernel and write to its log."""

    def change(_line: str) -> None:
        shell.taint |= taint
        shell.log += log

    shell.on_change = change
    return shell


@pytest.mark.parametrize(
    ("taint", "log", "outcome", "reason"),
    [
        (1 << 9, [], FAIL, "load amdgpu: the kernel became tainted: W (kernel issued a warning)"),
        (1 << 7, [], FAIL, "load amdgpu: the kernel became tainted: D (kernel died: oops or BUG)"),
        (1 << 12 | 1 << 13, [], PASS, ""),
        (0, ["WARNING: CPU: 0 PID: 1 at x.c:1"], FAIL, "load amdgpu: the kernel complained: WARNING: CPU: 0 PID: 1"),
        (0, ["amdgpu: Fatal error during GPU init", "This is not a bug."], PASS, ""),
    ],
)
def test_a_kernel_that_complains_or_is_tainted_by_the_load_fails_it(
    taint: int, log: list[str], outcome: Outcome, reason: str
) -> None:
    rung = load(a_guest(grow(FakeShell(), taint=taint, log=log)), stack(AMDGPU))
    assert rung.outcome is outcome
    assert rung.reason.startswith(reason)
    assert rung.tests[0].details["new_messages"] == len(log)


def test_taint_and_complaints_from_before_the_load_are_not_held_against_it() -> None:
    guest = a_guest(FakeShell(taint=1 << 9, log=["WARNING: CPU: 0 PID: 1 at boot.c:1"]))
    guest.change()
    rung = load(guest, stack(AMDGPU))
    assert rung.outcome is PASS
    assert rung.tests[0].details["taint_before"] == "W"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (said("", 1, "modprobe: ERROR: could not insert 'amdgpu': Exec format error\n"), "Exec format error"),
        (said("", 1), "no error output"),
        (LATE, "did not finish within 10 s"),
        (said(), "modprobe succeeded but the module is not there"),
    ],
)
def test_a_modprobe_that_does_not_do_its_work_fails_with_its_own_words(answer: Completed, reason: str) -> None:
    rung = load(a_guest(FakeShell(answers={"modprobe": answer})), stack(AMDGPU))
    assert rung.outcome is FAIL
    assert reason in rung.reason


@pytest.mark.parametrize(
    ("machine", "outcome", "reason"),
    [
        ({"dead": (FAIL, "kernel panic: drm went away")}, FAIL, "load amdgpu: kernel panic: drm went away"),
        ({"dead": (MISS, "the VM stopped by itself")}, MISS, "load amdgpu: the VM stopped by itself"),
        ({}, MISS, "load amdgpu: the SSH server in the guest stopped answering; the VM still runs"),
    ],
)
def test_a_guest_lost_while_a_module_loads_is_judged_by_how_it_ended(
    machine: dict[str, Any], outcome: Outcome, reason: str
) -> None:
    shell = FakeShell()

    def die() -> Completed:
        shell.alive = False
        guest.machine.dead = machine.get("dead")  # type: ignore[attr-defined]
        return LOST

    shell.answers["modprobe"] = die
    guest = a_guest(shell)
    rung = load(guest, stack(AMDGPU, Module(name="drm")))
    assert (rung.outcome, rung.reason) == (outcome, reason)
    assert [test.name for test in rung.tests] == ["load amdgpu"]


def test_an_oops_on_the_console_explains_a_modprobe_that_failed() -> None:
    guest = a_guest(FakeShell(answers={"modprobe": said("", 137, "Killed")}))
    guest.machine.console.feed(b"BUG: kernel NULL pointer dereference, address: 0000000000000008\n")
    rung = load(guest, stack(AMDGPU))
    assert rung.outcome is FAIL
    assert "oops: BUG: kernel NULL pointer dereference" in rung.reason


def test_modules_are_removed_in_reverse_and_only_those_that_were_loaded() -> None:
    shell = FakeShell(loaded={"drm", "amdgpu"})
    recipe = stack(Module(name="drm"), AMDGPU, Module(name="xe"))
    assert rungs.unload(a_guest(shell), recipe, ["drm", "amdgpu"], 10.0).outcome is PASS
    removed = [line for line in shell.ran if "--remove" in line]
    assert removed == ["modprobe --remove -- amdgpu", "modprobe --remove -- drm"]
    assert shell.loaded == set()
    rung = rungs.unload(a_guest(shell), recipe, [], 10.0)
    assert (rung.outcome, rung.reason) == (SKIP, "nothing was loaded that could be removed")


def test_a_module_that_stays_or_complains_when_it_goes_is_a_finding() -> None:
    stays = FakeShell(loaded={"amdgpu"}, answers={"modprobe --remove": said()})
    assert "the module is still there" in rungs.unload(a_guest(stays), stack(AMDGPU), ["amdgpu"], 10.0).reason
    busy = FakeShell(loaded={"amdgpu"}, answers={"modprobe --remove": said("", 1, "FATAL: Module amdgpu is in use.")})
    assert "in use" in rungs.unload(a_guest(busy), stack(AMDGPU), ["amdgpu"], 10.0).reason
    warns = grow(FakeShell(loaded={"amdgpu"}), taint=1 << 9)
    assert rungs.unload(a_guest(warns), stack(AMDGPU), ["amdgpu"], 10.0).outcome is FAIL


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
    return rungs.compute(guest, recipe, [SPEC], stage, 60.0, 1.0)


def test_a_stack_without_an_api_and_a_rung_without_tests_are_skipped() -> None:
    assert compute(a_guest(FakeShell()), stack()).outcome is SKIP
    rung = compute(a_guest(FakeShell()), stage=Stage.THROUGHPUT)
    assert (rung.outcome, rung.reason) == (SKIP, "no test of the matrix stands on the throughput rung")


GTRUN = "/opt/gpu_tests/bin/gtrun"
SILENT = said("nothing that is a record\n", 1)


def test_a_runner_that_says_nothing_is_our_own_error_and_its_output_is_kept() -> None:
    rung = compute(a_guest(FakeShell(answers={GTRUN: SILENT})))
    assert rung.outcome is ERROR
    assert b"nothing that is a record" in rung.files["opencl-vecadd.txt"]


def test_a_full_disk_is_the_reason_for_whatever_failed_on_it() -> None:
    shell = FakeShell(answers={GTRUN: SILENT, "df ": said("Avail 1B-blocks\n4096 536870912\n")})
    rung = compute(a_guest(shell))
    assert rung.outcome is MISS
    assert "vecadd: the guest's disk is full (512 MiB overlay in memory) (the test said ERROR: " in rung.reason


@pytest.mark.parametrize("answer", ["", "Avail\n", "Avail 1B-blocks\n- -\n"])
def test_a_df_that_says_nothing_leaves_the_outcome_alone(answer: str) -> None:
    assert compute(a_guest(FakeShell(answers={GTRUN: SILENT, "df ": said(answer)}))).outcome is ERROR


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
