"""UEFI firmware with Secure Boot that trusts this lab's key, without anybody at a console.

The firmware's variables are prepared from outside: this lab's certificate as platform key, key exchange key and
machine owner key, and the certificate authority that signs shim as the one signer of programs. What then boots is the
chain that distributions ship: firmware → shim → image signed by the machine's owner.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import InfraError
from harness.hostcmd import must
from harness.images.uki import STUB, UkiParts, build_uki, sign, system_partition
from harness.keys import SigningKey

_OWNER = "b0d3a5c6-52cf-4f43-8f63-0b3d8a1f7c55"
"""Says in the firmware's lists who put a certificate there."""
_DESCRIPTORS = ("etc/qemu/firmware", "usr/share/qemu/firmware")
"""Where QEMU's firmware is described, as docs/interop/firmware.json of QEMU says; the first wins."""
_SHIMS = (
    "usr/lib/shim/shimx64.efi.signed",
    "usr/share/shim/x64/shimx64.efi",
    "boot/efi/EFI/fedora/shimx64.efi",
    "boot/efi/EFI/redhat/shimx64.efi",
)


@dataclass(frozen=True, slots=True)
class Firmware:
    """The files of this host that Secure Boot begins with."""

    code: Path
    """The firmware's program, built to keep its variables from the guest's kernel (SMM)."""
    variables: Path
    """Its variables, with no key in them."""
    shim: Path
    """First program: signed for every PC, it asks the machine owner's list about the next."""
    stub: Path
    """What turns kernel and initramfs into one program."""


@dataclass(frozen=True, slots=True)
class SecureBoot:
    """Whose signature a boot relies on."""

    owner: SigningKey
    """The key that the firmware knows as its owner's."""
    signer: SigningKey
    """The key that the kernel image is signed with: the same, unless a refusal is to be seen."""


@dataclass(frozen=True, slots=True)
class SecureStart:
    """What one boot needs of its own."""

    code: Path
    variables: Path
    """Written by the guest's firmware; belongs to this boot alone."""
    partition: Path
    """FAT image with shim and the signed kernel image."""


def find_firmware(root: Path = Path("/")) -> Firmware:
    """What this host has for Secure Boot.

    Raises:
        InfraError: something is missing; says what.
    """
    code, variables = _described(root)
    shim = next((root / name for name in _SHIMS if (root / name).is_file()), None)
    if shim is None:
        raise InfraError("no signed shim is installed on this host (Debian: shim-signed; Fedora: shim-x64)")
    if not (root / STUB).is_file():
        raise InfraError(
            "systemd's stub for UEFI is not installed on this host (Debian: systemd-boot-efi; Fedora: "
            "systemd-boot-unsigned)"
        )
    return Firmware(code, variables, shim, root / STUB)


def has_variable_tool() -> bool:
    """Whether virt-fw-vars is there, which writes firmware variables."""
    return _variable_tool() is not None


def _variable_tool() -> str | None:
    """It comes with this package's dependencies, so it lies beside the interpreter."""
    beside = Path(sys.executable).with_name("virt-fw-vars")
    return str(beside) if beside.is_file() else shutil.which("virt-fw-vars")


def prepare_variables(empty: Path, key: SigningKey, into: Path) -> None:
    """Write firmware variables to ``into``: Secure Boot on, ``key`` the owner's.

    Only shim's signers may start programs directly; the owner's key counts for what shim starts.

    Raises:
        InfraError: virt-fw-vars is missing or fails.
    """
    words: list[str | Path] = ["--enroll-cert", key.pem, "--microsoft-kek", "none", "--microsoft-db", "uefi11"]
    words += ["--add-mok", _OWNER, key.pem, "--sb"]
    must([_variable_tool() or "virt-fw-vars", "--input", empty, "--output", into, *words], timeout=60)


def prepare(firmware: Firmware, parts: UkiParts, keys: SecureBoot, work: Path) -> SecureStart:
    """Make everything that one boot with Secure Boot needs, in ``work``.

    Raises:
        InfraError: a tool is missing or fails.
    """
    variables, partition = work / "variables.fd", work / "esp.img"
    prepare_variables(firmware.variables, keys.owner, variables)
    plain, signed = work / "uki.plain", work / "uki.efi"
    build_uki(parts, plain)
    sign(plain, keys.signer, signed)
    plain.unlink()
    # shim starts what lies beside it under GRUB's name.
    system_partition({"EFI/BOOT/BOOTX64.EFI": firmware.shim, "EFI/BOOT/grubx64.efi": signed}, partition)
    signed.unlink()
    partition.chmod(0o644)
    return SecureStart(firmware.code, variables, partition)


def plain_firmware(root: Path = Path("/")) -> tuple[Path, Path]:
    """Program and empty variables of a firmware without Secure Boot, for devices with large windows.

    Raises:
        InfraError: none is installed.
    """
    return _described(root, secure=False)


def _described(root: Path, *, secure: bool = True) -> tuple[Path, Path]:
    """Program and empty variables of a firmware that has Secure Boot under SMM and no keys of others, or neither."""
    found: dict[str, Path] = {}
    for folder in _DESCRIPTORS:
        for path in (root / folder).glob("*.json"):
            found.setdefault(path.name, path)
    for name in sorted(found):
        try:
            described = json.loads(found[name].read_text())
            files = _files(described, secure=secure)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # somebody else's file, which says nothing to us
        if files is not None and all((root / file.relative_to("/")).is_file() for file in files):
            return root / files[0].relative_to("/"), root / files[1].relative_to("/")
    what = "with" if secure else "without"
    raise InfraError(f"no UEFI firmware {what} Secure Boot is installed on this host (Debian: ovmf; Fedora: edk2-ovmf)")


def _files(described: dict[str, Any], *, secure: bool) -> tuple[Path, Path] | None:
    features = set(described["features"])
    machines = [
        machine
        for target in described["targets"]
        if target["architecture"] == "x86_64"
        for machine in target["machines"]
    ]
    wanted = {"secure-boot", "requires-smm"} if secure else set()
    if features & {"secure-boot", "requires-smm", "enrolled-keys"} != wanted:
        return None
    if not any(machine.startswith("pc-q35") for machine in machines):
        return None
    mapping = described["mapping"]
    if mapping["device"] != "flash" or {mapping[one]["format"] for one in ("executable", "nvram-template")} != {"raw"}:
        return None
    return Path(mapping["executable"]["filename"]), Path(mapping["nvram-template"]["filename"])
