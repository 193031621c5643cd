"""One program of the firmware holds kernel, initramfs and command line; its signature covers all of them."""

from __future__ import annotations

import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from harness.errors import InfraError
from harness.images.uki import STUB, UkiParts, build_uki, sign, system_partition
from harness.keys import SigningKeys

STUB_HERE = Path("/") / STUB
pytestmark = pytest.mark.skipif(
    not STUB_HERE.is_file() or any(shutil.which(name) is None for name in ("objcopy", "sbsign", "sbverify", "mcopy")),
    reason="this host lacks the tools that Secure Boot takes",
)
CMDLINE = "console=ttyS0 panic=-1"


@pytest.fixture
def parts(tmp_path: Path) -> UkiParts:
    (tmp_path / "kernel").write_bytes(bytes(range(256)) * 5000)
    (tmp_path / "initramfs").write_bytes(b"initramfs" * 4321)
    return UkiParts(STUB_HERE, tmp_path / "kernel", tmp_path / "initramfs", CMDLINE, "6.12.0-test")


@pytest.fixture
def keys(tmp_path: Path) -> SigningKeys:
    return SigningKeys.open(tmp_path / "keys")


def sections(image: Path) -> dict[str, tuple[int, int]]:
    """(address, size) of each section, as binutils sees them."""
    said = subprocess.run(["objdump", "-h", image], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in said.splitlines()]
    return {row[1]: (int(row[3], 16), int(row[2], 16)) for row in rows if len(row) == 7 and row[0].isdigit()}


def content(image: Path, section: str, into: Path) -> bytes:
    subprocess.run(["objcopy", "-O", "binary", f"--only-section={section}", image, into], check=True)
    return into.read_bytes()


def verified(image: Path, certificate: Path) -> bool:
    return subprocess.run(["sbverify", "--cert", certificate, image], capture_output=True, check=False).returncode == 0


def test_every_part_is_in_the_image_as_it_was(parts: UkiParts, tmp_path: Path) -> None:
    image = tmp_path / "uki"
    build_uki(parts, image)
    out = tmp_path / "out"
    assert content(image, ".linux", out).startswith(parts.kernel.read_bytes())
    assert content(image, ".initrd", out).startswith(parts.initramfs.read_bytes())
    assert content(image, ".cmdline", out).rstrip(b"\0") == CMDLINE.encode()
    assert content(image, ".uname", out).rstrip(b"\0") == b"6.12.0-test"
    assert {path.name for path in tmp_path.iterdir()} == {"uki", "out", "kernel", "initramfs"}


def test_no_section_lies_over_another_and_the_kernel_is_last(parts: UkiParts, tmp_path: Path) -> None:
    build_uki(parts, tmp_path / "uki")
    found = sections(tmp_path / "uki")
    placed = sorted(found.values())
    assert all(start + size <= after for (start, size), (after, _) in pairwise(placed))
    assert max(found, key=lambda name: found[name][0]) == ".linux"


@pytest.mark.parametrize("needle", [b"initramfsinitramfs", CMDLINE.encode()], ids=["initramfs", "cmdline"])
def test_the_signature_covers_what_is_beside_the_kernel(
    parts: UkiParts, keys: SigningKeys, tmp_path: Path, needle: bytes
) -> None:
    build_uki(parts, tmp_path / "plain")
    sign(tmp_path / "plain", keys.lab, tmp_path / "signed")
    assert verified(tmp_path / "signed", keys.lab.pem)
    assert not verified(tmp_path / "signed", keys.stranger.pem)
    data = (tmp_path / "signed").read_bytes()
    assert data.count(needle)
    (tmp_path / "signed").write_bytes(data.replace(needle, needle[:-1] + b"?", 1))
    assert not verified(tmp_path / "signed", keys.lab.pem)


def test_the_partition_holds_the_files_where_firmware_looks(tmp_path: Path) -> None:
    big, small = tmp_path / "big", tmp_path / "small"
    big.write_bytes(b"B" * (9 << 20))
    small.write_bytes(b"s")
    image = tmp_path / "esp"
    system_partition({"EFI/BOOT/BOOTX64.EFI": big, "EFI/BOOT/grubx64.efi": small}, image)
    for name, path in (("BOOTX64.EFI", big), ("grubx64.efi", small)):
        subprocess.run(["mcopy", "-n", "-i", image, f"::/EFI/BOOT/{name}", tmp_path / "back"], check=True)
        assert (tmp_path / "back").read_bytes() == path.read_bytes()
        (tmp_path / "back").unlink()


@pytest.mark.parametrize(
    ("data", "says"), [(b"ELF" * 100, "no program for UEFI"), (b"MZ", "is cut short")], ids=["other", "short"]
)
def test_a_stub_that_is_none_is_said(parts: UkiParts, tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "stub").write_bytes(data)
    broken = UkiParts(tmp_path / "stub", parts.kernel, parts.initramfs, CMDLINE, "6.12.0-test")
    with pytest.raises(InfraError, match=says):
        build_uki(broken, tmp_path / "uki")
