"""The ELF kernel comes out of real bzImages, and nothing comes out of what is none."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from harness.kernels import KernelFiles
from harness.kernels.vmlinux import decompress, extract_vmlinux, has_pvh_note, payload_of

NOTE = struct.pack("<III", 4, 4, 18) + b"Xen\0" + struct.pack("<I", 0x1000000)
SIZE = struct.pack("<I", 1234)
"""The kernel build appends the size to every payload but gzip's."""


def elf(note: bytes) -> bytes:
    """A 64-bit ELF file whose only content is one PT_NOTE segment."""
    header = (
        b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    )
    return header + struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(note), len(note), 4) + note


def bzimage(payload: bytes, *, setup_sects: int = 3) -> bytes:
    setup = bytearray(((setup_sects or 4) + 1) * 512)
    setup[0x1F1] = setup_sects
    setup[0x1FE:0x206] = b"\x55\xaa\xeb\x66HdrS"
    struct.pack_into("<H", setup, 0x206, 0x020F)
    struct.pack_into("<II", setup, 0x248, 16, len(payload))
    return bytes(setup) + bytes(16) + payload + b"trailing signature"


@pytest.mark.parametrize("suite", ["bookworm", "trixie", "trixie-backports"])
def test_a_real_bzimage_gives_an_elf_with_a_pvh_entry(
    real_kernel: Callable[[str], KernelFiles], tmp_path: Path, suite: str
) -> None:
    files = real_kernel(suite)
    into = tmp_path / "vmlinux"
    assert extract_vmlinux(files.vmlinuz, into) == into
    kernel = into.read_bytes()
    assert has_pvh_note(kernel)
    assert f"Linux version {files.release} ".encode() in kernel


@pytest.mark.parametrize(
    ("name", "compress"),
    [
        ("gzip", gzip.compress),
        ("xz", lambda data: lzma.compress(data) + SIZE),
        ("lzma", lambda data: lzma.compress(data, lzma.FORMAT_ALONE) + SIZE),
        ("bzip2", lambda data: bz2.compress(data) + SIZE),
        ("zstd", lambda data: zstandard.compress(data) + SIZE),
    ],
)
def test_every_payload_format_is_read(tmp_path: Path, name: str, compress: Callable[[bytes], bytes]) -> None:
    kernel = elf(NOTE) + bytes(1000)
    image = tmp_path / name
    image.write_bytes(bzimage(compress(kernel), setup_sects=0 if name == "xz" else 3))
    found = extract_vmlinux(image, tmp_path / "vmlinux")
    assert found is not None
    assert found.read_bytes() == kernel


def test_lz4_is_read_with_the_hosts_tool() -> None:
    if shutil.which("lz4") is None:
        assert decompress(b"\x02\x21\x4c\x18rest") is None
        return
    kernel = elf(NOTE) + bytes(1000)
    packed = subprocess.run(["lz4", "-l", "-c"], input=kernel, capture_output=True, check=True).stdout
    assert decompress(packed + SIZE) == kernel


@pytest.mark.parametrize(
    "image",
    [
        b"",
        bytes(4096),
        bzimage(b"not compressed"),
        bzimage(b"\xfd7zXZ\x00 broken"),
        bzimage(gzip.compress(elf(NOTE)))[:1000],
        bzimage(gzip.compress(b"no ELF")),
        bzimage(gzip.compress(elf(struct.pack("<III", 4, 4, 17) + b"Xen\0" + bytes(4)))),
    ],
)
def test_what_cannot_be_booted_directly_gives_none(tmp_path: Path, image: bytes) -> None:
    (tmp_path / "image").write_bytes(image)
    assert extract_vmlinux(tmp_path / "image", tmp_path / "vmlinux") is None
    assert not (tmp_path / "vmlinux").exists()


def test_damaged_headers_never_raise() -> None:
    source = random.Random(1)
    whole = bytearray(elf(NOTE))
    for _ in range(500):
        broken = bytearray(whole)
        for _ in range(4):
            broken[source.randrange(len(broken))] = source.randrange(256)
        has_pvh_note(bytes(broken))
        payload_of(bytes(broken) * 10)
