"""Secure Boot's firmware is found by its description, trusts the owner without asking, and refuses what others sign."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from harness.content import content_dir
from harness.errors import InfraError
from harness.images.uki import STUB
from harness.journal import Journal
from harness.keys import SigningKeys
from harness.machines.booting import boot
from harness.machines.firmware import SecureBoot, _variable_tool, find_firmware, plain_firmware, prepare_variables
from harness.machines.hypervisor import Hypervisor
from harness.machines.passthrough import Passthrough
from harness.machines.ssh import KeyPair
from harness.machines.vm import BootFailure, BootRequest
from harness.model.image import BootKernel, Image
from harness.model.outcome import Outcome

CODE, VARIABLES = "/usr/share/fw/code.fd", "/usr/share/fw/vars.fd"


def describe(root: Path, name: str, features: tuple[str, ...], machine: str = "pc-q35-*", code: str = CODE) -> None:
    flash = {
        "device": "flash",
        "executable": {"filename": code, "format": "raw"},
        "nvram-template": {"filename": VARIABLES, "format": "raw"},
    }
    targets = [{"architecture": "x86_64", "machines": [machine]}]
    put(
        root,
        f"/usr/share/qemu/firmware/{name}",
        json.dumps({"mapping": flash, "features": features, "targets": targets}),
    )
    put(root, code)


def put(root: Path, name: str, text: str = "") -> None:
    path = root / name.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host that has it all."""
    describe(tmp_path, "50-secure.json", ("secure-boot", "requires-smm"))
    for name in (VARIABLES, "/usr/lib/shim/shimx64.efi.signed", f"/{STUB}"):
        put(tmp_path, name)
    return tmp_path


def test_a_firmware_without_smm_or_with_keys_of_others_is_passed_over(root: Path) -> None:
    describe(root, "10-insecure.json", ("acpi-s3",), code="/usr/share/fw/insecure.fd")
    describe(root, "20-no-smm.json", ("secure-boot",), code="/usr/share/fw/no-smm.fd")
    describe(root, "30-enrolled.json", ("secure-boot", "requires-smm", "enrolled-keys"), code="/usr/share/fw/ms.fd")
    describe(root, "40-microvm.json", ("secure-boot", "requires-smm"), machine="microvm", code="/usr/share/fw/m.fd")
    put(root, "/usr/share/qemu/firmware/45-broken.json", "{")
    put(root, "/usr/share/qemu/firmware/46-other.json", "[]")
    found = find_firmware(root)
    assert found.code == root / CODE.lstrip("/")
    assert found.variables == root / VARIABLES.lstrip("/")


def test_firmware_without_secure_boot_is_told_from_the_other_one(root: Path) -> None:
    with pytest.raises(InfraError, match="no UEFI firmware without Secure Boot"):
        plain_firmware(root)
    describe(root, "60-plain.json", ("acpi-s3", "verbose-dynamic"), code="/usr/share/fw/plain.fd")
    assert plain_firmware(root) == (root / "usr/share/fw/plain.fd", root / VARIABLES.lstrip("/"))
    assert find_firmware(root).code == root / CODE.lstrip("/")


def test_what_the_administrator_describes_hides_what_was_shipped(root: Path) -> None:
    put(root, "/etc/qemu/firmware/50-secure.json", "{}")
    with pytest.raises(InfraError, match="no UEFI firmware with Secure Boot"):
        find_firmware(root)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (CODE, "Debian: ovmf"),
        (VARIABLES, "Debian: ovmf"),
        ("/usr/lib/shim/shimx64.efi.signed", "Debian: shim-signed"),
        (f"/{STUB}", "Debian: systemd-boot-efi"),
    ],
)
def test_what_is_missing_is_said_with_its_package(root: Path, name: str, says: str) -> None:
    (root / name.lstrip("/")).unlink()
    with pytest.raises(InfraError, match=says):
        find_firmware(root)


def test_the_variables_make_the_lab_the_owner_and_let_only_shims_signers_start(tmp_path: Path) -> None:
    try:
        empty = find_firmware().variables
    except InfraError as error:
        pytest.skip(str(error))
    tool = _variable_tool()
    if tool is None:
        pytest.skip("virt-fw-vars is not installed")
    keys = SigningKeys.open(tmp_path / "keys")
    made = tmp_path / "vars.fd"
    before = empty.read_bytes()
    prepare_variables(empty, keys.lab, made)
    assert empty.read_bytes() == before
    said = subprocess.run([tool, "-i", made, "-p", "-v"], capture_output=True, text=True, check=True).stdout
    variables = {block.split()[0]: block for block in said.split("name=") if block.strip()}
    for name in ("PK", "KEK", "MokList"):
        assert variables[name].count("subject") == 1
        assert keys.lab.common_name in variables[name]
    assert keys.lab.common_name not in variables["db"], "the owner's key must count through shim alone"
    assert "UEFI CA" in variables["db"]
    assert "bool: ON" in variables["SecureBootEnable"]


def test_without_its_tool_the_variables_are_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.machines.firmware.sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("virt-fw-vars") is None
    keys = SigningKeys.open(tmp_path / "keys")
    with pytest.raises(InfraError, match="virt-fw-vars is not installed"):
        prepare_variables(tmp_path / "empty", keys.lab, tmp_path / "vars")


def without_a_root(kernel: BootKernel, work: Path, **more: Any) -> BootRequest:
    """What gets as far as a kernel without a root can."""
    return BootRequest(
        cell_id="c/k/s/none",
        run_id="run",
        image=Image(kernel, ()),
        boot_dir=content_dir("guests") / "_boot",
        accelerator="qemu",
        init="minimal",
        memory=512 << 20,
        vcpus=1,
        cmdline="",
        work=work,
        **more,
    )


@pytest.mark.vm
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_kernel_that_a_stranger_signed_does_not_start(
    hypervisor: Hypervisor, real_boot_kernel: BootKernel, tmp_path: Path
) -> None:
    try:
        find_firmware()
    except InfraError as error:
        pytest.skip(str(error))
    keys = SigningKeys.open(tmp_path / "keys")
    request = without_a_root(
        real_boot_kernel, tmp_path / "work", secure_boot=SecureBoot(owner=keys.lab, signer=keys.stranger)
    )
    journal = Journal(tmp_path / "journal", "run")
    with boot(hypervisor, request, journal, KeyPair.generate("test")) as machine:
        with pytest.raises(BootFailure) as caught:
            machine.wait_for_ssh(time.monotonic() + 400, 5.0)
        console = machine.console.content().decode(errors="replace")
    assert caught.value.outcome is Outcome.MISS
    assert caught.value.reason.startswith("firmware: "), caught.value.reason
    assert "Security Violation" in caught.value.reason
    assert "Linux version" not in console
    assert journal.entries() == []
    assert list((tmp_path / "work").iterdir()) == [], "variables and partition go with the VM"


@pytest.mark.vm
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_firmware_for_large_windows_starts_the_kernel_that_it_is_handed(
    hypervisor: Hypervisor, real_boot_kernel: BootKernel, tmp_path: Path
) -> None:
    try:
        plain_firmware()
    except InfraError as error:
        pytest.skip(str(error))
    request = without_a_root(real_boot_kernel, tmp_path / "work", passthrough=Passthrough(uefi=True, window=256 << 10))
    journal = Journal(tmp_path / "journal", "run")
    with boot(hypervisor, request, journal, KeyPair.generate("test")) as machine:
        with pytest.raises(BootFailure) as caught:
            machine.wait_for_ssh(time.monotonic() + 400, 5.0)
        console = machine.console.content().decode(errors="replace")
    # It gets as far as a kernel without a root can.
    assert "Linux version" in console
    assert "EFI v2" in console
    assert caught.value.outcome is Outcome.MISS
    assert "initramfs" in caught.value.reason
    assert list((tmp_path / "work").iterdir()) == [], "the variables go with the VM"
