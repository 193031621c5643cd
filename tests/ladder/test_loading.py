"""What the load and unload rungs make of a guest's modules. The guest is a script; tests/e2e boots real ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from harness.images.recipe import Module, StackRecipe
from harness.ladder.loading import Modules
from harness.machines import guest as guest_module
from harness.machines.guest import Guest
from harness.model.outcome import Outcome, summarise
from harness.model.records import TestResult
from harness.model.shell import Completed
from ladder.scripted_guest import LATE, LOST, RELEASE, FakeShell, a_guest, grow, said

PASS, FAIL, MISS, SKIP = Outcome.PASS, Outcome.FAIL, Outcome.MISS, Outcome.SKIP
AMDGPU = Module(name="amdgpu")
NVIDIA = Module(name="nvidia-current", loads_as="nvidia", driver="nvidia", refusal="No such device|No NVIDIA GPU found")


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_module, "_DEATH_GRACE", 0.02)
    monkeypatch.setattr(guest_module, "_RECONNECT", 0.02)


def modules(guest: Guest, *wanted: Module, device: str = "none") -> Modules:
    return Modules(guest, StackRecipe(description="x", modules=wanted), 10.0, device)


def load(guest: Guest, *wanted: Module, device: str = "none") -> list[TestResult]:
    return modules(guest, *wanted, device=device).load()[0]


def nvidia(**settings: Any) -> FakeShell:
    return FakeShell(modules={"nvidia-current", "nvidia-current-drm"}, names={"nvidia-current": "nvidia"}, **settings)


def refusing(stderr: str, *log: str, name: str = "nvidia-current") -> FakeShell:
    """A kernel that says something and does not take the module."""
    shell = FakeShell(modules={name, "nvidia-current-drm"})

    def refuse() -> Completed:
        shell.ran.append("refused")
        shell.log += log
        return said("", 1, stderr)

    shell.answers["modprobe"] = refuse
    return shell


def test_what_a_module_says_of_itself_becomes_details_and_facts() -> None:
    known = f"version: 1.2\nvermagic: {RELEASE} SMP\nlicense: NVIDIA\nsrcversion: ABC\nsigner: CA\n"
    loading = modules(
        a_guest(FakeShell(known={"amdgpu": known})), Module(name="amdgpu", parameters=("ppfeaturemask=1",))
    )
    (result,), lost = loading.load()
    assert (result.outcome, lost) == (PASS, False)
    assert "modprobe -- amdgpu ppfeaturemask=1" in loading.guest.machine.shell.ran  # type: ignore[union-attr]
    expected = {
        "version": "1.2",
        "srcversion": "ABC",
        "license": "NVIDIA",
        "signer": "CA",
        "vermagic": f"{RELEASE} SMP",
    }
    assert expected.items() <= result.details.items()
    assert {f"module.amdgpu.{name}": value for name, value in expected.items()}.items() <= loading.facts.items()


def test_a_module_that_nobody_signed_is_called_unsigned() -> None:
    assert load(a_guest(FakeShell()), AMDGPU)[0].details["signer"] == "unsigned"


@pytest.mark.parametrize(("required", "outcome"), [(True, FAIL), (False, SKIP)])
def test_a_kernel_without_the_module_fails_only_what_requires_it(required: bool, outcome: Outcome) -> None:
    (result,) = load(a_guest(FakeShell()), Module(name="xe", required=required))
    assert (result.outcome, result.reason) == (outcome, "this kernel has no module xe")


def test_a_stack_without_modules_touches_nothing() -> None:
    shell = FakeShell()
    assert load(a_guest(shell)) == []
    assert shell.ran == []


def test_a_built_in_module_passes_and_is_neither_loaded_nor_removed() -> None:
    shell = FakeShell(known={"amdgpu": "builtin"})
    loading = modules(a_guest(shell), AMDGPU)
    assert loading.load()[0][0].details == {"builtin": True}
    assert loading.unload() == []
    assert not [line for line in shell.ran if line.startswith(("modprobe", "rmmod"))]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (LATE, "did not answer in time"),
        (said("@module amdgpu\nsh: modinfo: not found\n@status 127\n6.12\n"), "ended with status 127"),
    ],
)
def test_a_modinfo_that_does_not_answer_says_nothing_about_the_kernel(answer: Completed, reason: str) -> None:
    (result,) = load(a_guest(FakeShell(answers={"sh -c for name": answer})), AMDGPU)
    assert result.outcome is MISS
    assert reason in result.reason


def test_a_module_made_for_another_kernel_fails_before_it_is_tried() -> None:
    shell = FakeShell(known={"amdgpu": "vermagic:       6.1.0-1-amd64 SMP mod_unload\n"})
    (result,) = load(a_guest(shell), AMDGPU)
    assert (result.outcome, result.reason) == (FAIL, f"the module is made for 6.1.0-1-amd64, the guest runs {RELEASE}")
    assert not [line for line in shell.ran if line.startswith("modprobe")]


@pytest.mark.parametrize(
    ("taint", "log", "outcome", "reason"),
    [
        (1 << 9, [], FAIL, "the kernel became tainted: W (kernel issued a warning)"),
        (1 << 7, [], FAIL, "the kernel became tainted: D (kernel died: oops or BUG)"),
        (1 << 0 | 1 << 12 | 1 << 13, [], PASS, ""),
        (0, ["WARNING: CPU: 0 PID: 1 at x.c:1"], FAIL, "the kernel complained: WARNING: CPU: 0 PID: 1"),
        (0, ["amdgpu: Fatal error during GPU init", "This is not a bug."], PASS, ""),
    ],
)
def test_a_kernel_that_complains_or_is_tainted_by_the_load_fails_it(
    taint: int, log: list[str], outcome: Outcome, reason: str
) -> None:
    result = load(a_guest(grow(FakeShell(), taint=taint, log=log)), AMDGPU)[0]
    assert result.outcome is outcome
    assert result.reason.startswith(reason)
    assert result.details["new_messages"] == len(log)


def test_the_taint_of_a_proprietary_module_is_told_in_words() -> None:
    result = load(a_guest(grow(FakeShell(), taint=1 | 1 << 12)), AMDGPU)[0]
    assert (result.details["taint_before"], result.details["taint_after"]) == ("-", "PO")
    assert result.details["taint_added"] == "P (proprietary module loaded), O (out-of-tree module loaded)"


def test_taint_and_complaints_from_before_the_load_are_not_held_against_it() -> None:
    guest = a_guest(FakeShell(taint=1 << 9, log=["WARNING: CPU: 0 PID: 1 at boot.c:1"]))
    guest.change()
    (result,) = load(guest, AMDGPU)
    assert result.outcome is PASS
    assert result.details["taint_before"] == "W"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (said("", 1), "no error output"),
        (LATE, "did not finish within 10 s"),
        (said(), "modprobe succeeded but amdgpu is not there; modules that came: none"),
    ],
)
def test_a_modprobe_that_does_not_do_its_work_fails_with_its_own_words(answer: Completed, reason: str) -> None:
    (result,) = load(a_guest(FakeShell(answers={"modprobe": answer})), AMDGPU)
    assert result.outcome is FAIL
    assert reason in result.reason


@pytest.mark.parametrize(
    ("stderr", "log"),
    [
        ("could not insert 'x': Key was rejected by service", "Loading of unsigned module is rejected"),
        ("could not insert 'x': Exec format error", "x: version magic '6.1 SMP ' should be '6.12 SMP '"),
        ("could not insert 'x': Invalid argument", "x: disagrees about version of symbol module_layout"),
        ("could not insert 'x': Unknown symbol in module, or unknown parameter", "x: Unknown symbol foo (err -2)"),
    ],
)
def test_a_refusal_for_another_reason_than_the_device_fails_in_the_kernels_own_words(stderr: str, log: str) -> None:
    (result,) = load(a_guest(refusing(f"modprobe: ERROR: {stderr}\n", log)), NVIDIA)
    assert result.outcome is FAIL
    assert f"modprobe: ERROR: {stderr}; the kernel says: {log}" in result.reason
    assert result.reason.startswith("refused: the module is unsigned" if "rejected" in stderr else "modprobe: ERROR")


NO_GPU = ("modprobe: ERROR: could not insert 'nvidia_current': No such device\n", "NVRM: No NVIDIA GPU found.")


def test_the_expected_refusal_without_a_device_passes_and_ends_the_ladder() -> None:
    shell = refusing(*NO_GPU)
    loading = modules(a_guest(shell), NVIDIA, Module(name="nvidia-current-drm"))
    (first, second), _ = loading.load()
    assert (first.outcome, first.reason, first.details["refused"]) == (PASS, "", "NVRM: No NVIDIA GPU found.")
    assert (second.outcome, second.reason) == (SKIP, "no device: NVRM: No NVIDIA GPU found.")
    assert shell.ran.count("refused") == 1
    assert loading.unload() == []


def test_notices_of_a_load_that_the_kernel_allows_are_no_refusal_of_its_own() -> None:
    notices = (
        "nvidia: loading out-of-tree module taints kernel.",
        "nvidia: module license 'NVIDIA' taints kernel.",
        "nvidia: module verification failed: signature and/or required key missing - tainting kernel",
        "nvidia-nvlink: Nvlink Core is being initialized, major device number 247",
    )
    (result,) = load(a_guest(refusing(NO_GPU[0], *notices, NO_GPU[1])), NVIDIA)
    assert (result.outcome, result.details["refused"]) == (PASS, NO_GPU[1])


def test_the_same_refusal_with_a_device_attached_fails() -> None:
    (result,) = load(a_guest(refusing(*NO_GPU)), NVIDIA, device="0000:01:00.0")
    assert result.outcome is FAIL
    assert "No such device" in result.reason


def test_an_expected_refusal_does_not_cover_a_kernel_that_complains() -> None:
    (result,) = load(a_guest(refusing(*NO_GPU, "BUG: unable to handle page fault")), NVIDIA)
    assert (result.outcome, result.reason) == (FAIL, "the kernel complained: BUG: unable to handle page fault")


def test_an_expected_word_does_not_cover_an_unknown_symbol() -> None:
    said_by_kernel = "nvidia: Unknown symbol drm_atomic_commit (err -2)"
    (result,) = load(a_guest(refusing(NO_GPU[0], said_by_kernel)), NVIDIA)
    assert result.outcome is FAIL
    assert said_by_kernel in result.reason


def test_an_expected_word_does_not_cover_a_rejected_signature() -> None:
    said_by_kernel = "Loading of unsigned module is rejected"
    (result,) = load(a_guest(refusing(NO_GPU[0], said_by_kernel)), NVIDIA)
    assert result.outcome is FAIL
    assert said_by_kernel in result.reason


def test_a_module_is_known_by_the_name_that_it_has_once_loaded() -> None:
    shell = nvidia()
    loading = modules(a_guest(shell), NVIDIA)
    assert loading.load()[0][0].outcome is PASS
    assert summarise(result.outcome for result in loading.unload()) is PASS
    assert shell.ran.count("rmmod nvidia") == 2
    named_wrongly = nvidia()
    named_wrongly.names = {"nvidia-current": "nvidia_next"}
    (result,) = load(a_guest(named_wrongly), NVIDIA)
    assert result.reason == "modprobe succeeded but nvidia is not there; modules that came: nvidia_next"


@pytest.mark.parametrize(
    ("dead", "outcome", "reason"),
    [
        ((FAIL, "kernel panic: drm went away"), FAIL, "kernel panic: drm went away"),
        ((MISS, "the VM stopped by itself"), MISS, "the VM stopped by itself"),
        (None, MISS, "the SSH server in the guest stopped answering; the VM still runs"),
        (None, FAIL, "the SSH server in the guest stopped answering; the VM still runs"),
    ],
)
def test_a_guest_lost_while_a_module_loads_is_judged_by_how_it_ended(
    dead: tuple[Outcome, str] | None, outcome: Outcome, reason: str
) -> None:
    shell = FakeShell()

    def die() -> Completed:
        shell.alive = False
        guest.machine.dead = dead  # type: ignore[attr-defined]
        return LOST

    shell.answers["modprobe"] = die
    guest = a_guest(shell, blame=outcome)
    results, lost = modules(guest, AMDGPU, Module(name="drm")).load()
    assert lost
    assert [(result.name, result.outcome, result.reason) for result in results] == [("load amdgpu", outcome, reason)]


def test_an_oops_on_the_console_explains_a_modprobe_that_failed() -> None:
    guest = a_guest(FakeShell(answers={"modprobe": said("", 137, "Killed")}))
    guest.machine.console.feed(b"BUG: kernel NULL pointer dereference, address: 0000000000000008\n")
    (result,) = load(guest, AMDGPU)
    assert result.outcome is FAIL
    assert "oops: BUG: kernel NULL pointer dereference" in result.reason


GPU = "0000:01:00.0 0x030000 0x10de 0x2684"


@pytest.mark.parametrize(
    ("pci", "outcome", "reason"),
    [
        (f"{GPU} nvidia\n", PASS, ""),
        (f"{GPU} NovaCore\n", FAIL, "0000:01:00.0 (10de:2684) is held by NovaCore; expected nvidia"),
        (f"{GPU} \n", FAIL, "0000:01:00.0 (10de:2684) is bound to no driver; expected nvidia"),
        ("0000:00:02.0 0x020000 0x1af4 0x1041 virtio-pci\n", MISS, "the guest sees no display device or accelerator"),
    ],
)
def test_with_a_device_the_driver_that_holds_it_is_judged(pci: str, outcome: Outcome, reason: str) -> None:
    _, bound = load(a_guest(nvidia(pci=pci)), NVIDIA, device="0000:01:00.0")
    assert (bound.name, bound.outcome) == ("bound driver", outcome)
    assert bound.reason.startswith(reason)


def loaded(shell: FakeShell, *wanted: Module) -> Modules:
    loading = modules(a_guest(shell), *wanted)
    assert summarise(result.outcome for result in loading.load()[0]) is PASS
    shell.ran.clear()
    return loading


def changes(ran: Sequence[str]) -> list[str]:
    return [line for line in ran if line.startswith(("modprobe", "rmmod"))]


def test_modules_go_in_reverse_come_again_and_go_again() -> None:
    shell = FakeShell()
    loading = loaded(shell, Module(name="drm"), AMDGPU)
    results = loading.unload()
    assert changes(shell.ran) == [
        "modprobe --remove -- amdgpu",
        "modprobe --remove -- drm",
        "modprobe -- drm",
        "modprobe -- amdgpu",
        "modprobe --remove -- amdgpu",
        "modprobe --remove -- drm",
    ]
    assert [result.outcome for result in results] == [PASS] * 7
    assert results[-1].name == "nothing is left behind"
    assert shell.loaded == set()


def test_a_module_that_stays_or_complains_when_it_goes_is_a_finding() -> None:
    stays = FakeShell(users={"amdgpu": (2, "drm,")})
    loading = loaded(stays, AMDGPU)
    stays.answers["modprobe --remove"] = said()
    (result,) = loading.unload()
    assert result.reason == "modprobe succeeded but the module is still there (2 references, held by drm)"
    busy = FakeShell(users={"amdgpu": (1, "-")})
    loading = loaded(busy, AMDGPU)
    busy.answers["modprobe --remove"] = said("", 1, "modprobe: FATAL: Module amdgpu is in use.")
    assert loading.unload()[0].reason == "modprobe: FATAL: Module amdgpu is in use. (1 references, held by no module)"
    warns = FakeShell()
    loading = loaded(warns, AMDGPU)
    grow(warns, taint=1 << 9)
    assert loading.unload()[0].outcome is FAIL


def test_a_module_that_does_not_come_back_is_a_finding() -> None:
    shell = FakeShell()
    loading = loaded(shell, AMDGPU)
    shell.answers["modprobe -- amdgpu"] = said(
        "", 1, "modprobe: ERROR: could not insert 'amdgpu': Device or resource busy"
    )
    failed = [result for result in loading.unload() if result.outcome is FAIL]
    assert [result.name for result in failed] == ["reload amdgpu"]
    assert failed[0].reason.endswith("Device or resource busy")


def test_what_a_module_leaves_behind_is_a_finding() -> None:
    loading = loaded(FakeShell(left={"debugfs": "amdgpu_fence", "devices": "226 drm"}), AMDGPU)
    result = loading.unload()[-1]
    assert (result.outcome, result.reason) == (FAIL, "/sys/kernel/debug still has 'amdgpu_fence'")
