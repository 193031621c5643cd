"""Takes the ELF kernel out of a bzImage.

QEMU boots an ELF kernel with a PVH note directly, which skips the decompressor: seconds under emulation.
Sources: Documentation/arch/x86/boot.rst (the setup header), arch/x86/boot/compressed/Makefile (the payload formats),
Xen's public/elfnote.h (``XEN_ELFNOTE_PHYS32_ENTRY`` is 18).
"""

from __future__ import annotations

import bz2
import lzma
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import zstandard

from harness.hostcmd import run
from harness.placing import write_atomically

_MOST = 1 << 30
"""Bytes a decompressed kernel may have; more is no kernel, and would eat the host's memory."""
_PHYS32_ENTRY = 18
_PT_NOTE = 4
_PROTOCOL_2_08 = 0x0208
"""First boot protocol with payload_offset and payload_length."""


def extract_vmlinux(bzimage: Path, into: Path) -> Path | None:
    """Write the ELF kernel inside ``bzimage`` to the file ``into`` and return it.

    None, and nothing is written, where that is not possible: no bzImage, a payload format that this host cannot
    decompress, or a kernel without a PVH entry (``CONFIG_PVH`` not set).
    """
    payload = payload_of(bzimage.read_bytes())
    if payload is None:
        return None
    kernel = decompress(payload)
    if kernel is None or not has_pvh_note(kernel):
        return None
    write_atomically(into, kernel)
    return into


def payload_of(image: bytes) -> bytes | None:
    """The compressed kernel in a bzImage by its setup header; None where there is no such header."""
    if len(image) < 0x250 or image[0x1FE:0x200] != b"\x55\xaa" or image[0x202:0x206] != b"HdrS":
        return None
    (protocol,) = struct.unpack_from("<H", image, 0x206)
    if protocol < _PROTOCOL_2_08:
        return None
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = ((image[0x1F1] or 4) + 1) * 512 + offset  # a setup_sects of 0 means 4
    payload = image[start : start + length]
    return payload if length and len(payload) == length else None


def decompress(payload: bytes) -> bytes | None:
    """Decompress by magic. The 4 bytes of size that the kernel build appends are ignored."""
    for magic, method in _METHODS:
        if payload.startswith(magic):
            try:
                return method(payload)
            except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, zstandard.ZstdError):
                return None
    return None


def _gzip(payload: bytes) -> bytes:
    return zlib.decompressobj(wbits=31).decompress(payload, _MOST)


def _lzma(payload: bytes) -> bytes:
    return lzma.LZMADecompressor().decompress(payload, _MOST)  # FORMAT_AUTO: xz and the legacy .lzma


def _bzip2(payload: bytes) -> bytes:
    return bz2.BZ2Decompressor().decompress(payload, _MOST)


def _zstd(payload: bytes) -> bytes:
    # Read as a stream: a frame need not say how large its content is, and _MOST bytes must not be set aside for it.
    with zstandard.ZstdDecompressor().stream_reader(payload) as reader:
        return reader.read(_MOST)


def _lz4(payload: bytes) -> bytes | None:
    """The legacy frame has no end mark: the appended size would be read as one more block, so it is cut off."""
    if shutil.which("lz4") is None:
        return None
    with tempfile.NamedTemporaryFile(suffix=".lz4") as file:
        file.write(payload[:-4])
        file.flush()
        done = run(["lz4", "-dc", file.name], timeout=60)
    return done.stdout if done.returncode == 0 else None


_METHODS: tuple[tuple[bytes, Callable[[bytes], bytes | None]], ...] = (
    (b"\x1f\x8b", _gzip),
    (b"\xfd7zXZ\x00", _lzma),
    (b"\x5d\x00\x00", _lzma),
    (b"BZh", _bzip2),
    (b"\x28\xb5\x2f\xfd", _zstd),
    (b"\x02\x21\x4c\x18", _lz4),
)


def has_pvh_note(elf: bytes) -> bool:
    """Whether a little-endian ELF file has a PT_NOTE segment with Xen's 32-bit entry point."""
    if elf[:6] not in (b"\x7fELF\x02\x01", b"\x7fELF\x01\x01") or len(elf) < 64:
        return False
    wide = elf[4] == 2
    (headers,) = struct.unpack_from("<Q" if wide else "<I", elf, 0x20 if wide else 0x1C)
    size, count = struct.unpack_from("<HH", elf, 0x36 if wide else 0x2A)
    for index in range(count):
        at = headers + index * size
        if at + size > len(elf):
            return False
        (kind,) = struct.unpack_from("<I", elf, at)
        if kind != _PT_NOTE:
            continue
        offset, length = (
            (struct.unpack_from("<Q", elf, at + 8)[0], struct.unpack_from("<Q", elf, at + 32)[0])
            if wide
            else (struct.unpack_from("<I", elf, at + 4)[0], struct.unpack_from("<I", elf, at + 16)[0])
        )
        if _has_note(elf[offset : offset + length], b"Xen\x00", _PHYS32_ENTRY):
            return True
    return False


def _has_note(notes: bytes, owner: bytes, wanted: int) -> bool:
    at = 0
    while at + 12 <= len(notes):
        name_size, data_size, kind = struct.unpack_from("<III", notes, at)
        if kind == wanted and notes[at + 12 : at + 12 + name_size] == owner:
            return True
        at += 12 + (name_size + 3 & ~3) + (data_size + 3 & ~3)
    return False
