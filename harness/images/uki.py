"""Unified kernel images: kernel, initramfs and command line in one signed program of the firmware.

Secure Boot verifies programs. Where kernel and initramfs lie apart, only the kernel is verified; in one program a
single signature covers all that runs before the root is mounted. The layout is UAPI.5 (Unified Kernel Image); the
section table is read as the PE/COFF specification has it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import InfraError
from harness.hostcmd import must
from harness.keys import SigningKey

STUB = Path("usr/lib/systemd/boot/efi/linuxx64.efi.stub")
"""Where every distribution's systemd puts its stub for the firmware."""
_PAGE = 4096
_SECTOR = 512
_TRACK = 63 * _SECTOR
_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class UkiParts:
    """What goes into one image."""

    stub: Path
    kernel: Path
    """A bzImage: it is a program of the firmware, too."""
    initramfs: Path
    cmdline: str
    release: str


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where sections of a PE image may still be put."""

    base: int
    end: int
    """First address behind the last section, relative to ``base``."""


def build_uki(parts: UkiParts, into: Path) -> None:
    """Write an unsigned image to the file ``into``.

    Raises:
        InfraError: the stub is no PE image, or binutils' objcopy is missing or fails.
    """
    layout = _layout(parts.stub)
    texts = {
        ".osrel": f'NAME="kdmatrix"\nID=kdmatrix\nPRETTY_NAME="kdmatrix {parts.release}"\n',
        ".uname": parts.release,
        ".cmdline": parts.cmdline,
    }
    sections: dict[str, Path] = {}
    for name, text in texts.items():
        sections[name] = into.with_name(f"{into.name}{name}")
        sections[name].write_bytes(text.encode() + b"\0")
    sections[".initrd"] = parts.initramfs
    sections[".linux"] = parts.kernel  # last: a kernel may unpack itself beyond its own end
    words: list[str | Path] = ["objcopy"]
    address = layout.base + _page_up(layout.end)
    for name, file in sections.items():
        words += ["--add-section", f"{name}={file}", "--change-section-vma", f"{name}={address:#x}"]
        address += _page_up(file.stat().st_size)
    try:
        must([*words, parts.stub, into], timeout=_SECONDS)
    finally:
        for name in texts:
            sections[name].unlink(missing_ok=True)


def sign(image: Path, key: SigningKey, into: Path) -> None:
    """Write ``image`` with a signature by ``key`` to ``into``.

    Raises:
        InfraError: sbsign is missing or refuses the image.
    """
    must(["sbsign", "--key", key.key, "--cert", key.pem, "--output", into, image], timeout=_SECONDS)


def system_partition(files: Mapping[str, Path], into: Path) -> None:
    """Write a FAT file system with ``files`` (path in it → file here): what firmware can read.

    Raises:
        InfraError: mtools is missing or fails.
    """
    size = sum(path.stat().st_size + _PAGE for path in files.values()) + (4 << 20)
    tracks = -(-size // _TRACK)
    into.unlink(missing_ok=True)
    must(["mformat", "-C", "-i", into, "-T", str(tracks * 63), "-v", "ESP", "-N", "4b444d58", "::"], timeout=_SECONDS)
    folders = dict.fromkeys(str(parent) for name in files for parent in reversed(Path(name).parents) if parent.name)
    for folder in folders:
        must(["mmd", "-i", into, f"::/{folder}"], timeout=_SECONDS)
    for name, path in files.items():
        must(["mcopy", "-i", into, path, f"::/{name}"], timeout=_SECONDS)


def _page_up(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def _layout(image: Path) -> _Layout:
    data = image.read_bytes()
    try:
        header = struct.unpack_from("<I", data, 0x3C)[0]
        if data[:2] != b"MZ" or data[header : header + 4] != b"PE\0\0":
            raise InfraError(f"{image} is no program for UEFI firmware")
        sections = struct.unpack_from("<H", data, header + 6)[0]
        optional_size = struct.unpack_from("<H", data, header + 20)[0]
        optional = header + 24
        base = struct.unpack_from("<Q", data, optional + 24)[0]
        table = optional + optional_size
        ends = [sum(struct.unpack_from("<II", data, table + 40 * index + 8)) for index in range(sections)]
    except struct.error:
        raise InfraError(f"{image} is cut short") from None
    return _Layout(base, max(ends, default=0))
