"""Files that are there in full, or not at all, after a crash or a power cut."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

TEMPORARY = ".tmp"
"""Suffix of a file that is still being written; one that outlives its writer holds nothing of value."""


def make_directory(path: Path) -> None:
    """Create ``path`` with its parents, each entry made durable in the directory that holds it."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        directory.mkdir(exist_ok=True)
        fsync_directory(directory.parent)


def fsync_directory(path: Path) -> None:
    """Make the names in ``path`` durable: fsync(2) of a file says nothing about its directory entry."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def temporary_name() -> str:
    """Return a file name that no other process chooses; hidden, so that listings of finished files skip it."""
    return f".{os.getpid()}-{secrets.token_hex(8)}{TEMPORARY}"


def write_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Put ``data`` at ``path`` atomically and durably, replacing what was there. The directory must exist."""
    temporary = path.parent / temporary_name()
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)
