"""A writer of ``newc`` cpio archives, the format in which Linux takes an initramfs.

Source of the format: the kernel's ``Documentation/driver-api/early-userspace/buffer-format.rst``. Archives may be
concatenated, which is how a boot's own keys are added to a cached initramfs without unpacking it.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import BinaryIO

_TRAILER = "TRAILER!!!"


class CpioWriter:
    """Writes entries to a binary stream; all owned by root with time 0, so equal input gives equal bytes."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._inode = 0
        self._written = 0
        self._directories: set[str] = set()

    def directory(self, name: str, mode: int = 0o755) -> None:
        """Add a directory and its parents, each once."""
        parts = name.strip("/").split("/")
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            if path and path not in self._directories:
                self._directories.add(path)
                self._entry(path, stat.S_IFDIR | (mode if depth == len(parts) else 0o755), b"")

    def file(self, name: str, content: bytes, mode: int = 0o644) -> None:
        """Add a regular file and the directories above it."""
        self._parents(name)
        self._entry(name.strip("/"), stat.S_IFREG | mode, content)

    def add(self, name: str, source: Path, mode: int = 0o644) -> None:
        """Add a regular file with the content of ``source``."""
        self.file(name, source.read_bytes(), mode)

    def symlink(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self._parents(name)
        self._entry(name.strip("/"), stat.S_IFLNK | 0o777, target.encode())

    def device(self, name: str, major: int, minor: int, mode: int = 0o600) -> None:
        """Add a character device node: the kernel wants ``/dev/console`` before ``devtmpfs`` is mounted."""
        self._parents(name)
        self._entry(name.strip("/"), stat.S_IFCHR | mode, b"", rdev=(major, minor))

    def close(self) -> None:
        """Write the trailer and pad to 512 bytes, so that another archive may follow."""
        self._entry(_TRAILER, 0, b"")
        self._pad(512)

    def _parents(self, name: str) -> None:
        parent = str(Path(name.strip("/")).parent)
        if parent != ".":
            self.directory(parent)

    def _entry(self, name: str, mode: int, content: bytes, rdev: tuple[int, int] = (0, 0)) -> None:
        self._inode += 1
        encoded = name.encode() + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        fields = (self._inode, mode, 0, 0, links, 0, len(content), 0, 0, *rdev, len(encoded), 0)
        self._write(b"070701" + b"".join(b"%08X" % value for value in fields))
        self._write(encoded)
        self._pad(4)
        self._write(content)
        self._pad(4)

    def _pad(self, alignment: int) -> None:
        self._write(b"\0" * (-self._written % alignment))

    def _write(self, data: bytes) -> None:
        self._stream.write(data)
        self._written += len(data)
