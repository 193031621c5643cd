"""One connection: what it runs on, and domains that are ended and forgotten by uuid."""

from __future__ import annotations

import os
import re
from pathlib import Path
from uuid import uuid4

import pytest

from harness.errors import InfraError
from harness.machines.hypervisor import Hypervisor, emulator


def test_versions_are_recorded_as_dotted_numbers(hypervisor: Hypervisor) -> None:
    versions = hypervisor.versions
    assert set(versions) == {"host.libvirt", "host.qemu"}
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in versions.values())


def test_a_domain_that_is_not_there_can_be_ended_and_forgotten(hypervisor: Hypervisor) -> None:
    uuid = str(uuid4())
    first = hypervisor.expect_end(uuid)
    assert hypervisor.expect_end(uuid) is first
    assert not hypervisor.destroy(uuid)
    hypervisor.destroy_all_of_this_process()
    hypervisor.forget(uuid)
    hypervisor.forget(uuid)
    assert hypervisor.expect_end(uuid) is not first
    hypervisor.forget(uuid)
    assert not first.stopped.is_set()


def test_the_emulator_is_found_in_the_path_or_named_as_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "qemu-system-x86_64"
    fake.write_text("#!/bin/sh\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert emulator() == str(fake)
    fake.unlink()
    if not os.access("/usr/libexec/qemu-kvm", os.X_OK):
        with pytest.raises(InfraError, match="QEMU is not installed on this host"):
            emulator()
