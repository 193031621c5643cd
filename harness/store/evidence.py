"""Evidence files: zstd-compressed, named by the SHA-256 of what they hold, never overwritten with anything else."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, final

import zstandard

from harness.errors import InfraError
from harness.model.records import Evidence
from harness.store.durable import TEMPORARY, fsync_directory, make_directory, temporary_name

MAX_SIZE = 1 << 30
"""Largest evidence file in uncompressed bytes. What a guest sends is cut long before; this bounds a bomb."""

_CHUNK = 1 << 20
_IN_MEMORY = 8 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Problem:
    """A file of the store that is not what its name says."""

    path: Path
    reason: str


@final
class EvidenceStore:
    """Content-addressed files below ``root``: ``root/ab/ab….zst``.

    Safe between processes: a file appears under its name by rename(2), complete and on disk, and two writers of the
    same bytes write the same file.
    """

    __slots__ = ("root",)

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, sha256: str) -> Path:
        """Return where the file with this digest lives, whether or not it is there."""
        if not _SHA256.fullmatch(sha256):
            raise ValueError(f"not a lower-case hex SHA-256: {sha256!r}")
        return self.root / sha256[:2] / f"{sha256}.zst"

    def has(self, sha256: str) -> bool:
        """Whether the file is there; one that is there was made durable before it got its name."""
        return self.path(sha256).is_file()

    def put(
        self,
        data: bytes | os.PathLike[str] | IO[bytes],
        name: str,
        media_type: str = "text/plain",
        truncated: bool = False,
    ) -> Evidence:
        """Keep ``data`` (bytes, the path of a file, or a binary stream) and return the reference to it.

        When it returns, the file and its directory entry are on disk. Raises InfraError when it cannot be written
        or holds more than :data:`MAX_SIZE` bytes.
        """
        try:
            if isinstance(data, os.PathLike):
                with Path(data).open("rb") as stream:
                    digest, size = self._put_stream(stream, name)
            elif isinstance(data, bytes):
                _check_size(len(data), name)
                digest, size = hashlib.sha256(data).hexdigest(), len(data)
                self._write(digest, size, iter((data,)))
            else:
                digest, size = self._put_stream(data, name)
        except OSError as error:
            raise InfraError(f"evidence {name}: cannot be kept in {self.root}: {error}") from error
        return Evidence(name=name, sha256=digest, size=size, media_type=media_type, truncated=truncated)

    def read(self, sha256: str, size: int | None = None) -> bytes:
        """Return the uncompressed bytes, their digest verified.

        ``size`` is what the record of the evidence says; with it, no more than that is ever unpacked. Raises
        InfraError naming the file when it is missing, corrupt, or holds something else.
        """
        path = self.path(sha256)
        found = bytearray()
        try:
            for chunk in _unpack(path, size):
                found += chunk
        except FileNotFoundError:
            raise InfraError(f"evidence is missing: {path}") from None
        except (OSError, zstandard.ZstdError, ValueError) as error:
            raise InfraError(f"evidence is corrupt: {path}: {error}") from error
        if hashlib.sha256(found).hexdigest() != sha256:
            raise InfraError(f"evidence is corrupt: {path}: its content has another SHA-256")
        return bytes(found)

    def verify(self) -> list[Problem]:
        """Read every file and return those that are not what their name says. Temporary files are no problem."""
        problems = []
        for path in sorted(self.root.glob("*/*")):
            if path.name.endswith(TEMPORARY):
                continue
            reason = _fault(path)
            if reason:
                problems.append(Problem(path, reason))
        return problems

    def remove_leftovers(self, older_than: float = 3600.0) -> list[Path]:
        """Delete temporary files that no writer touched for ``older_than`` seconds, and return their paths."""
        removed = []
        for path in sorted(self.root.glob(f".*{TEMPORARY}")):
            try:
                if time.time() - path.stat().st_mtime < older_than:
                    continue
                path.unlink()
            except FileNotFoundError:  # its writer, or another cleaner, was quicker
                continue
            removed.append(path)
        return removed

    def _put_stream(self, stream: IO[bytes], name: str) -> tuple[str, int]:
        # The frame header carries the size, and a stream tells its size only at its end: spool it first.
        digest = hashlib.sha256()
        size = 0
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as spool:
            while chunk := stream.read(_CHUNK):
                size += len(chunk)
                _check_size(size, name)
                digest.update(chunk)
                spool.write(chunk)
            spool.seek(0)
            self._write(digest.hexdigest(), size, iter(lambda: spool.read(_CHUNK), b""))
        return digest.hexdigest(), size

    def _write(self, sha256: str, size: int, chunks: Iterator[bytes]) -> None:
        final_path = self.path(sha256)
        make_directory(final_path.parent)
        # An intact file stays; a damaged one is healed by the rename below. The directory is synced in either case:
        # whoever renamed the file may not have come that far.
        if not (final_path.is_file() and _fault(final_path) is None):
            temporary = self.root / temporary_name()
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
            try:
                with os.fdopen(handle, "wb") as raw:
                    compressor = zstandard.ZstdCompressor(write_checksum=True)
                    with compressor.stream_writer(raw, size=size, closefd=False) as packed:
                        for chunk in chunks:
                            packed.write(chunk)
                    raw.flush()
                    os.fsync(raw.fileno())
                temporary.replace(final_path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        fsync_directory(final_path.parent)


def _check_size(size: int, name: str) -> None:
    if size > MAX_SIZE:
        raise InfraError(f"evidence {name}: larger than the bound of {MAX_SIZE} bytes")


def _unpack(path: Path, size: int | None = None) -> Iterator[bytes]:
    """Yield the content in chunks; never more than the frame header states, nor than ``size``, nor than MAX_SIZE."""
    with path.open("rb") as raw:
        head = raw.read(18)  # the longest frame header, RFC 8878 section 3.1.1
        stated = zstandard.get_frame_parameters(head).content_size
        if stated == zstandard.CONTENTSIZE_UNKNOWN:
            raise ValueError("the frame does not state its size")
        if stated > MAX_SIZE:
            raise ValueError(f"the frame states {stated} bytes, beyond the bound of {MAX_SIZE}")
        if size is not None and stated != size:
            raise ValueError(f"the frame states {stated} bytes, the record {size}")
        raw.seek(0)
        left = stated
        with zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True, closefd=False) as packed:
            while chunk := packed.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise ValueError("holds more than its frame states")
                yield chunk
        if left:
            raise ValueError(f"ends {left} bytes early")


def _fault(path: Path) -> str | None:
    name = path.name.removesuffix(".zst")
    if not (path.is_file() and path.suffix == ".zst" and _SHA256.fullmatch(name) and path.parent.name == name[:2]):
        return "not a file of this store"
    digest = hashlib.sha256()
    try:
        for chunk in _unpack(path):
            digest.update(chunk)
    except (OSError, zstandard.ZstdError, ValueError) as error:
        return f"corrupt: {error}"
    return None if digest.hexdigest() == name else "its content has another SHA-256"
