"""KVM counts only when a kernel booted under it; the fake QEMUs here are named as such and stand in for hosts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.machines import acceleration
from harness.machines.acceleration import Acceleration, prove

Prove = Callable[[], Acceleration]

FAKE_QEMU_THAT_BOOTS = "echo '[    0.000000] Linux version 6.12'; echo 'kdmatrix-initramfs: start 6.12'; exec sleep 60"
FAKE_QEMU_THAT_HANGS = "exec sleep 60"
FAKE_QEMU_THAT_HANGS_LATER = "echo '[    0.000000] Linux version 6.12'; exec sleep 60"
FAKE_QEMU_THAT_REFUSES = "echo first; echo 'qemu: failed to initialize kvm: Permission denied' >&2; exit 1"
FAKE_QEMU_THAT_ABORTS = "echo 'Assertion `ret == nmsrs failed.' >&2; exec >&- 2>&-; sleep 0.3; kill -ABRT $$"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Prove]:
    monkeypatch.delenv("KDMATRIX_ACCELERATOR", raising=False)
    monkeypatch.setattr(acceleration, "cannot_open", lambda: None)
    monkeypatch.setattr(acceleration, "DEADLINE", 1.0)
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(script: str) -> Prove:
        program = folder / "qemu-system-x86_64"
        program.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\n{script}\n')
        program.chmod(0o755)
        return lambda: prove(tmp_path / "vmlinuz", tmp_path / "initramfs", tmp_path / "cache")

    return make


@pytest.mark.parametrize(
    ("script", "accelerator", "reason"),
    [
        (FAKE_QEMU_THAT_BOOTS, "kvm", "a stock kernel booted under KVM"),
        (FAKE_QEMU_THAT_HANGS, "qemu", "did not reach its initramfs within 1 s"),
        (FAKE_QEMU_THAT_HANGS_LATER, "qemu", "did not reach its initramfs within 1 s"),
        (FAKE_QEMU_THAT_REFUSES, "qemu", "QEMU cannot use KVM here: qemu: failed to initialize kvm: Permission denied"),
        (FAKE_QEMU_THAT_ABORTS, "qemu", "QEMU cannot use KVM here: Assertion `ret == nmsrs failed."),
    ],
)
def test_what_a_host_does_decides(host: Callable[[str], Prove], script: str, accelerator: str, reason: str) -> None:
    found = host(script)()
    assert found.accelerator == accelerator
    assert reason in found.reason


def test_the_answer_is_kept_and_asked_for_again_after_a_reboot(host: Callable[[str], Prove], tmp_path: Path) -> None:
    proof = host(FAKE_QEMU_THAT_BOOTS)
    assert proof() == proof()
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == 1
    assert "-accel kvm" in calls[0]
    answer = tmp_path / "cache/acceleration.json"
    answer.write_text(answer.read_text().replace('"key": ["', '"key": ["another boot '))
    assert proof().accelerator == "kvm"
    answer.write_text("{torn")
    assert proof().accelerator == "kvm"
    assert len((tmp_path / "calls").read_text().splitlines()) == 3


@pytest.mark.parametrize(("wanted", "accelerator"), [("kvm", "kvm"), ("TCG ", "qemu")])
def test_the_user_may_decide_without_a_proof(
    host: Callable[[str], Prove], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str, accelerator: str
) -> None:
    monkeypatch.setenv("KDMATRIX_ACCELERATOR", wanted)
    assert host(FAKE_QEMU_THAT_REFUSES)().accelerator == accelerator
    assert not (tmp_path / "calls").exists()


def test_a_word_that_names_no_accelerator_is_refused(
    host: Callable[[str], Prove], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDMATRIX_ACCELERATOR", "xen")
    with pytest.raises(UserError, match="KDMATRIX_ACCELERATOR='xen': expected kvm, tcg or auto"):
        host(FAKE_QEMU_THAT_BOOTS)()


def test_a_host_without_the_device_is_emulated_with_the_reason(
    host: Callable[[str], Prove], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceleration, "cannot_open", lambda: "/dev/kvm is missing")
    assert host(FAKE_QEMU_THAT_BOOTS)() == Acceleration("qemu", "/dev/kvm is missing")
