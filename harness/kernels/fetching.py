"""Gets files over HTTP(S) or from a local directory: bounded, checked before it is kept, failures told in one line."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import InfraError, UserError
from harness.placing import locked, write_atomically

TTL = 6 * 3600.0
"""Seconds for which metadata counts as fresh."""
METADATA_LIMIT = 512 << 20
_PACKAGE_LIMIT = 4 << 30
_SOCKET_TIMEOUT = 30.0
_LOCK_TIMEOUT = 1800.0
_CHUNK = 1 << 20
_URL = re.compile(r"^(?:https?://|file:///)[^\s\"'<>\\^`{|}]+$")


class NotThere(InfraError):
    """The server answers, but has no such file."""


def checked_url(text: str, *, where: str) -> str:
    """Return the URL without a trailing slash; a directory's path becomes a ``file:`` URL.

    Raises:
        UserError: it is neither; ``where`` says where it came from.
    """
    if text.startswith(("/", "~")):
        text = Path(text).expanduser().as_uri()
    if not _URL.match(text):
        raise UserError(f"{where}: {text!r} is neither a URL (http, https, file) nor an absolute path")
    return text.rstrip("/")


@dataclass(slots=True)
class Downloads:
    """What was downloaded, below ``root``: packages by their digest, metadata by its address."""

    root: Path
    ttl: float = TTL
    note: str = ""
    """Why metadata may be out of date; empty when all that was read is fresh."""

    def metadata(self, url: str, check: Callable[[bytes], None], *, limit: int = METADATA_LIMIT) -> bytes:
        """Return a small file that may change. It is kept, and served from there while fresh, once ``check`` took it.

        Raises:
            NotThere, InfraError: it cannot be had, and no earlier one is kept; or whatever ``check`` raises.
        """
        kept = self.root / "metadata" / hashlib.sha256(url.encode()).hexdigest()
        try:
            age: float | None = max(0.0, time.time() - kept.stat().st_mtime)
        except OSError:
            age = None
        if age is not None and age < self.ttl:
            return kept.read_bytes()
        try:
            data = read_url(url, limit=limit)
        except NotThere:
            raise
        except InfraError as error:
            if age is None:
                raise
            self.note = f"index is {age / 3600:.1f} h old: {error}"
            return kept.read_bytes()
        check(data)
        write_atomically(kept, data)
        return data

    def file(self, url: str, name: str, sha256: str) -> Path:
        """Return the file ``name`` with that digest, downloaded at most once.

        Raises:
            InfraError: it cannot be had, or its digest is another one.
        """
        final = self.root / "pool" / sha256 / name
        if final.is_file():
            return final
        with locked(self.root / "pool" / f".{sha256}.lock", timeout=_LOCK_TIMEOUT):
            if not final.is_file():
                self._download(url, final, sha256)
        return final

    def whole(self, url: str, name: str, accept: Callable[[Path], None]) -> Path:
        """Return a file that no index vouches for, kept by its address once ``accept`` took it."""
        final = self.root / "whole" / hashlib.sha256(url.encode()).hexdigest() / name
        if final.is_file():
            return final
        with locked(final.parent / ".lock", timeout=_LOCK_TIMEOUT):
            if not final.is_file():
                self._download(url, final, None, accept)
        return final

    def _download(
        self, url: str, final: Path, sha256: str | None, accept: Callable[[Path], None] | None = None
    ) -> None:
        final.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".incoming-", suffix=final.suffix, dir=final.parent)
        temporary = Path(name)
        digest = hashlib.sha256()
        try:
            with os.fdopen(handle, "wb") as file:

                def take(chunk: bytes) -> None:
                    digest.update(chunk)
                    file.write(chunk)

                _stream(url, take, _PACKAGE_LIMIT)
            if sha256 is not None and digest.hexdigest() != sha256:
                raise InfraError(f"refusing {final.name}: SHA-256 {digest.hexdigest()} is not the index's {sha256}")
            if accept is not None:
                accept(temporary)
            temporary.chmod(0o644)
            temporary.replace(final)
        finally:
            temporary.unlink(missing_ok=True)


def read_url(url: str, *, limit: int = METADATA_LIMIT) -> bytes:
    """Return the whole content of a URL.

    Raises:
        NotThere: the server has none.
        InfraError: it cannot be read, or has more than ``limit`` bytes.
    """
    data = bytearray()
    _stream(url, data.extend, limit)
    return bytes(data)


def _stream(url: str, take: Callable[[bytes], object], limit: int) -> None:
    # A name may hold what a URL reserves; what stands for a folder or is quoted already stays.
    # checked_url allows http, https and file; a directory of this host is a source on purpose.
    request = urllib.request.Request(  # noqa: S310  the scheme is one of those
        urllib.parse.quote(url, safe=":/?&=%@+~,;!$*()"), headers={"User-Agent": "kdmatrix"}
    )
    total = 0
    try:
        with urllib.request.urlopen(request, timeout=_SOCKET_TIMEOUT) as answer:  # noqa: S310  as above
            while chunk := answer.read(_CHUNK):
                total += len(chunk)
                if total > limit:
                    raise InfraError(f"{url} has more than {limit} bytes")
                take(chunk)
            wanted = answer.headers.get("Content-Length")
    except urllib.error.HTTPError as error:
        kind = NotThere if error.code in (404, 410) else InfraError
        raise kind(f"{url}: the server answers {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        missing = isinstance(error.reason, FileNotFoundError) or "No such file" in str(error.reason)
        kind = NotThere if missing else InfraError
        raise kind(f"{url} cannot be read: {' '.join(str(error.reason).split())}") from None
    except (OSError, http.client.HTTPException) as error:
        raise InfraError(f"{url} cannot be read: {' '.join(str(error).split()) or type(error).__name__}") from None
    if wanted is not None and wanted.isdecimal() and int(wanted) != total:
        raise InfraError(f"{url} broke off after {total} of {wanted} bytes")
