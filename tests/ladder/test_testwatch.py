"""What a test leaves behind in the kernel is found after that test, told in the kernel's words, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from harness.images.recipe import Module, StackRecipe
from harness.ladder import rungs, testwatch
from harness.ladder.testwatch import TestWatch, watch_over
from harness.machines import guest as guest_module
from harness.machines.guest import Guest
from harness.model.outcome import Outcome
from harness.model.records import TestResult
from harness.model.shell import Completed
from harness.model.stage import Stage
from harness.model.taint import BIT
from harness.suites.manifest import TestSpec
from harness.suites.wire import encode
from ladder.scripted_guest import LATE, LOST, FakeShell, a_guest, said

PASS, FAIL, ERROR, MISS, SKIP = Outcome.PASS, Outcome.FAIL, Outcome.ERROR, Outcome.MISS, Outcome.SKIP
WARNING = "WARNING: CPU: 0 PID: 9 at drivers/gpu/drm/drm_gem.c:100 drm_gem_x+0x1/0x2"
XID = "NVRM: Xid (PCI:0000:01:00): 31, pid=4242, name=gtrun, MMU Fault"
STUCK = "77 (gt (D) run) D 1 77 77 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 5511 0 0\n"
WAITING = (
    "@pid 77\nName:\tgtrun\nState:\tD (disk sleep)\nvoluntary_ctxt_switches:\t{}\n@where uvm_va_space_mm_shutdown\n"
)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_module, "_DEATH_GRACE", 0.02)
    monkeypatch.setattr(guest_module, "_RECONNECT", 0.02)
    monkeypatch.setattr(testwatch, "_POLL", 0.001)
    monkeypatch.setattr(testwatch, "_SETTLES", 0.02)


def spec(name: str, **settings: Any) -> TestSpec:
    return replace(TestSpec(name, name, Stage.COMPUTE, ("run", name), ("opencl",), 60.0, 1.0), **settings)


def passed(name: str, kind: str = "cpu-runtime") -> Completed:
    records = (
        {"ev": "hello", "schema": 1, "build": "b", "test": name, "backend": "opencl", "pid": 1, "budget": 1},
        {"ev": "device", "kind": kind, "name": "device"},
        {"ev": "check", "name": "sum", "kind": kind, "ok": True, "checked": 1, "bad": 0},
        {"ev": "result", "status": "pass", "kind": kind, "reason": "", "secs": 1.0},
    )
    return said(b"".join(map(encode, records)).decode())


def run(
    meanwhile: dict[str, Callable[[FakeShell], object]], shell: FakeShell | None = None, **watch: Any
) -> dict[str, TestResult]:
    """Run one, two and three under watch while something happens during some of them; return the results by name."""
    shell = shell or FakeShell()
    guest = a_guest(shell)
    guest.change()
    tests = [spec(name) for name in ("one", "two", "three")]
    tests[1] = replace(tests[1], expects=watch.pop("expects", ()))
    return climb(guest, shell, tests, meanwhile, TestWatch(guest, **watch))


def climb(
    guest: Guest,
    shell: FakeShell,
    tests: list[TestSpec],
    meanwhile: dict[str, Callable[[FakeShell], object]],
    watch: TestWatch,
) -> dict[str, TestResult]:
    for test in tests:

        def answer(name: str = test.name) -> Completed:
            done = meanwhile.get(name, lambda _shell: None)(shell)
            return done if isinstance(done, Completed) else passed(name)

        shell.answers[f"/opt/gpu_tests/bin/gtrun run {test.name} "] = answer
    recipe = StackRecipe(description="x", backends=("opencl",), kind="cpu-runtime", device="none")
    rung = rungs.compute(watch, recipe, tests, Stage.COMPUTE, 60.0, 1.0)
    return {result.name: result for result in rung.tests}


def test_what_leaves_the_kernel_alone_is_told_as_clean() -> None:
    results = run({})
    seen = [(name, one.outcome, one.details["kernel"]) for name, one in results.items()]
    assert seen == [(name, PASS, "clean") for name in ("one", "two", "three")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (WARNING, f"the kernel complained: {WARNING}"),
        (XID, f"nvidia complained: {XID}"),
        ("pcieport 0000:00:01.0: AER: Uncorrected (Fatal) error received", "the bus complained: pcieport"),
        ("INFO: task gtrun:9 blocked for more than 120 seconds.", "the kernel complained: INFO: task gtrun:9"),
    ],
)
def test_a_complaint_makes_the_pass_of_the_test_under_which_it_came_a_failure_in_its_own_words(
    line: str, reason: str
) -> None:
    results = run({"two": lambda shell: shell.log.append(line)})
    assert [(one.name, one.outcome) for one in results.values()] == [("one", PASS), ("two", FAIL), ("three", PASS)]
    assert results["two"].reason.startswith(reason)
    assert results["two"].details["kernel.complaints"] == 1
    assert str(results["two"].details["kernel"]).startswith(reason)


def test_a_complaint_outweighs_what_the_test_said_and_its_words_are_kept() -> None:
    def break_down(shell: FakeShell) -> Completed:
        shell.log.append(WARNING)
        return said("no record\n", 1)

    result = run({"two": break_down})["two"]
    assert result.outcome is FAIL
    assert result.reason.startswith(f"the kernel complained: {WARNING} (the test said ERROR: exit status 1")


def test_what_a_test_provokes_on_purpose_is_no_complaint_and_only_that() -> None:
    warned = f"{WARNING} as wanted"

    def provoke(shell: FakeShell) -> None:
        shell.log += [warned]
        shell.taint |= BIT["W"]

    results = run({"two": provoke}, expects=("as wanted$",))
    assert (results["two"].outcome, results["two"].details["kernel.expected"]) == (PASS, 1)
    other = run({"two": lambda shell: shell.log.extend([warned, XID])}, expects=("as wanted$",))
    assert other["two"].reason.startswith("nvidia complained")
    # What one test expects is held against another all the same.
    assert run({"three": provoke}, expects=("as wanted$",))["three"].outcome is FAIL


def test_a_taint_by_which_the_kernel_complains_is_enough_and_one_that_tells_what_came_is_not() -> None:
    warned = run({"one": lambda shell: setattr(shell, "taint", BIT["W"])})["one"]
    assert (warned.outcome, warned.reason) == (FAIL, "the kernel became tainted: W (kernel issued a warning)")
    loaded = run({"one": lambda shell: setattr(shell, "taint", BIT["O"])})["one"]
    assert (loaded.outcome, loaded.details["kernel.taint_added"]) == (PASS, "O (out-of-tree module loaded)")


def test_a_log_that_cannot_be_read_is_not_collected_and_never_clean() -> None:
    shell = FakeShell(answers={"sh -c cat /proc/sys": said("0\n@modules\n@log\nsh: cannot open /dev/kmsg: no\n")})
    assert run({}, shell)["one"].details["kernel"] == "not collected: sh: cannot open /dev/kmsg: no"
    missing = FakeShell(answers={"sh -c cat /proc/sys": said("0\n@modules\n@log\n", 127, "sh: dd: not found\n")})
    assert run({}, missing)["one"].details["kernel"] == "not collected: sh: dd: not found"


def test_a_log_of_which_some_was_overwritten_is_not_clean() -> None:
    logs = iter(["4,1,0,-;a\n", "4,2,0,-;b\n", "4,90,0,-;z\n", "4,91,0,-;z\n", "4,92,0,-;z\n"])
    answer = lambda: said(f"0\n@modules\n@log\n{next(logs)}", 1)  # noqa: E731
    results = run({}, FakeShell(answers={"sh -c cat /proc/sys": answer}))
    assert str(results["one"].details["kernel"]).startswith("not all collected")
    assert results["two"].details["kernel"] == "clean"


def hang(shell: FakeShell) -> None:
    shell.blocked = STUCK


def test_a_process_that_hangs_in_the_kernel_since_a_test_is_that_tests_failure() -> None:
    shell = FakeShell(answers={"sh -c for pid": said(WAITING.format(3))})
    results = run({"two": hang}, shell)
    assert results["two"].reason == (
        "a process hangs in the kernel: 'gt (D) run' (pid 77, in uvm_va_space_mm_shutdown)"
    )
    # It hangs there still, and nobody is blamed a second time.
    assert (results["one"].outcome, results["three"].outcome) == (PASS, PASS)


@pytest.mark.parametrize(
    "answers",
    [
        [WAITING.format(3), WAITING.format(4)],
        [WAITING.format(3).replace("D (disk", "S (sl")],
        ["@pid 77\n"],
        [""],
    ],
)
def test_a_process_that_waits_for_a_moment_hangs_not(answers: list[str]) -> None:
    told = iter([*answers, *answers[-1:] * 3])
    shell = FakeShell(answers={"sh -c for pid": lambda: said(next(told))})
    assert run({"two": hang}, shell)["two"].outcome is PASS


def test_a_process_that_hung_before_is_held_against_no_test() -> None:
    shell = FakeShell(blocked=STUCK, answers={"sh -c for pid": said(WAITING.format(3))})
    assert {one.outcome for one in run({}, shell).values()} == {PASS}


def hold(shell: FakeShell) -> None:
    shell.users["nvidia"] = (2, "-")


def test_a_reference_that_a_test_leaves_on_the_stacks_module_is_its_failure() -> None:
    loaded = FakeShell(loaded={"nvidia"}, users={"nvidia": (1, "-")})
    loaded.answers["cat /proc/modules"] = lambda: said("nvidia 1 2 - Live 0x0\n")
    results = run({"two": hold}, loaded, modules=frozenset({"nvidia"}))
    assert results["two"].reason == "nvidia is left with 2 references, 1 before the test"
    assert (results["one"].outcome, results["three"].outcome) == (PASS, PASS)
    assert run({"two": hold}, replace(loaded, users={"nvidia": (1, "-")}))["two"].outcome is PASS  # no module of ours


def test_a_reference_that_is_given_back_late_or_held_by_another_module_is_none() -> None:
    late = FakeShell(loaded={"nvidia"}, answers={"cat /proc/modules": said("nvidia 1 0 - Live 0x0\n")})
    assert run({"two": hold}, late, modules=frozenset({"nvidia"}))["two"].outcome is PASS

    def another(shell: FakeShell) -> None:
        shell.loaded.add("nvidia_uvm")
        shell.users["nvidia"] = (1, "nvidia_uvm,")

    assert run({"two": another}, FakeShell(loaded={"nvidia"}), modules=frozenset({"nvidia"}))["two"].outcome is PASS


def gpu_watch(shell: FakeShell, answer: Completed) -> TestWatch:
    shell.answers["/t/bin/gtrun run enumerate "] = answer
    module = Module(name="nvidia")
    recipe = StackRecipe(description="x", backends=("cuda",), kind="gpu", device="required", modules=(module,))
    guest = a_guest(shell)
    guest.change()
    watch = watch_over(guest, recipe, 4.0, "/t")
    watch.begin()
    return watch


def test_a_gpus_driver_that_answers_nobody_any_more_is_found_after_the_test() -> None:
    shell = FakeShell()
    seen = gpu_watch(shell, LATE).after("vecadd", "cuda", ())
    assert seen.complaint == "the driver did not list its devices within 20 s after the test"
    assert any(line.startswith("/t/bin/gtrun run enumerate --backend cuda ") for line in shell.ran)
    assert gpu_watch(FakeShell(), said("", 124)).after("vecadd", "cuda", ()).complaint
    assert gpu_watch(FakeShell(), said()).after("vecadd", "cuda", ()).details["kernel"] == "clean"


def test_a_driver_that_never_listed_its_devices_is_not_blamed_for_not_doing_so() -> None:
    assert gpu_watch(FakeShell(), said("", 1)).after("vecadd", "cuda", ()).complaint == ""
    watch = gpu_watch(FakeShell(), said("", 1))
    watch.listed("cuda", 0.1)
    gone = watch.after("vecadd", "cuda", ())
    assert gone.complaint == "the driver does not list its devices any more after the test"


def test_a_driver_that_is_slow_at_first_may_be_slow_later() -> None:
    watch = gpu_watch(FakeShell(), LATE)
    watch.listed("cuda", 30.0)
    assert "within 90 s" in watch.after("vecadd", "cuda", ()).complaint


def test_a_stack_that_computes_on_the_cpu_has_no_driver_to_ask() -> None:
    shell = FakeShell()
    recipe = StackRecipe(description="x", backends=("opencl",), kind="cpu-runtime", device="none")
    guest = a_guest(shell)
    watch = watch_over(guest, recipe, 1.0, "/t")
    watch.begin()
    watch.after("vecadd", "opencl", ())
    assert not any("gtrun" in line for line in shell.ran)


def test_a_full_disk_is_told_of_the_test_that_filled_it_and_excuses_those_that_fail_on_it() -> None:
    def fill(shell: FakeShell) -> None:
        shell.disk = "0 131072 4096"

    results = run({"two": fill, "three": lambda _shell: said("no record\n", 1)})
    full = "the guest's disk is full (512 MiB overlay in memory), since two ran"
    assert (results["two"].outcome, results["two"].details["kernel.disk"]) == (PASS, full)
    assert results["three"].outcome is MISS
    assert results["three"].reason.startswith(f"{full} (the test said ERROR: ")


def test_on_a_machine_that_others_use_their_processes_and_references_are_theirs() -> None:
    def everything(shell: FakeShell) -> None:
        hold(shell)
        shell.blocked = STUCK.replace("gt (D) run", "firefox")

    shell = FakeShell(loaded={"nvidia"}, answers={"sh -c for pid": said(WAITING.format(3))})
    assert run({"two": everything}, shell, shared=True, modules=frozenset({"nvidia"}))["two"].outcome is PASS
    ours = FakeShell(answers={"sh -c for pid": said(WAITING.format(3))})
    assert (
        run({"two": lambda one: setattr(one, "blocked", STUCK.replace("gt (D) ", "gt"))}, ours, shared=True)[
            "two"
        ].outcome
        is FAIL
    )


def test_a_message_about_another_device_than_ours_is_not_about_the_test() -> None:
    among = frozenset({"0000:01:00.0"})
    wifi = "iwlwifi 0000:05:00.0: PCIe Bus Error: severity=Corrected, type=Data Link Layer, (Receiver ID)"
    assert run({"two": lambda shell: shell.log.append(wifi)}, among=among)["two"].outcome is PASS
    assert run({"two": lambda shell: shell.log.append(XID)}, among=among)["two"].outcome is FAIL
    assert run({"two": lambda shell: shell.log.append("[drm] device wedged")}, among=among)["two"].outcome is FAIL


def test_a_guest_that_is_gone_right_after_a_pass_has_not_passed() -> None:
    shell = FakeShell()
    guest = a_guest(shell)

    def die(shell: FakeShell) -> None:
        shell.alive = False
        guest.machine.dead = (FAIL, "kernel panic: after the test")  # type: ignore[attr-defined]

    guest.change()
    results = climb(guest, shell, [spec("one"), spec("two")], {"one": die}, TestWatch(guest))
    assert [(one.name, one.outcome, one.reason) for one in results.values()] == [
        ("one", FAIL, "kernel panic: after the test")
    ]


def test_a_complaint_that_came_before_the_first_test_is_not_blamed_on_it() -> None:
    shell = FakeShell()
    guest = a_guest(shell)
    guest.change()
    shell.log.append(WARNING)
    results = climb(guest, shell, [spec("one")], {}, TestWatch(guest))
    assert results["before the tests"].reason == f"the kernel complained: {WARNING}"
    assert results["one"].outcome is PASS


def test_what_the_kernel_said_under_a_test_lies_with_its_output() -> None:
    shell = FakeShell()
    guest = a_guest(shell)
    guest.change()
    watch = TestWatch(guest)
    watch.begin()
    shell.log.append(XID)
    assert XID.encode() in watch.after("vecadd", "opencl", ()).log


def test_one_look_is_all_that_a_clean_test_costs() -> None:
    shell = FakeShell()
    run({}, shell)
    looks = [line for line in shell.ran if "gtrun" not in line]
    assert len(looks) == 5  # the boot's, the rung's first one, and one after each of three tests


def test_lower_tiers_run_first_whatever_the_backend() -> None:
    shell = FakeShell()
    guest = a_guest(shell)
    tests = [spec("one", tier=2, backends=("opencl", "cuda")), spec("two", backends=("opencl", "cuda"))]
    recipe = StackRecipe(description="x", backends=("opencl", "cuda"), kind="cpu-runtime", device="none")
    rungs.compute(TestWatch(guest), recipe, tests, Stage.COMPUTE, 60.0, 1.0)
    ran = [line.split()[2:5:2] for line in shell.ran if "gtrun" in line]
    assert ran == [["two", "opencl"], ["two", "cuda"], ["one", "opencl"], ["one", "cuda"]]


def test_a_lost_connection_that_comes_back_leaves_the_watch_standing() -> None:
    shell, second = FakeShell(), FakeShell()

    def die() -> Completed:
        shell.alive = False
        return LOST

    guest = a_guest(shell, comes_back=second)
    guest.change()
    shell.answers["/opt/gpu_tests/bin/gtrun run one "] = die
    recipe = StackRecipe(description="x", backends=("opencl",), kind="cpu-runtime", device="none")
    rung = rungs.compute(TestWatch(guest), recipe, [spec("one")], Stage.COMPUTE, 60.0, 1.0)
    assert rung.outcome is MISS
    assert rung.tests[0].details["kernel"] == "clean"


def test_a_full_disk_of_this_machine_is_not_called_a_guests() -> None:
    results = run({"two": lambda shell: setattr(shell, "disk", "0 131072 4096")}, shared=True)
    full = "this machine's root file system has no space left, since two ran"
    assert results["two"].details["kernel.disk"] == full


def test_a_disk_that_was_full_before_the_tests_is_no_tests_doing() -> None:
    shell = FakeShell(disk="0 131072 4096")
    result = run({"one": lambda _shell: said("no record\n", 1)}, shell)["one"]
    assert result.reason.startswith("the guest's disk is full (512 MiB overlay in memory), already before the tests")
