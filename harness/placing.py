"""How files get into a cache that several processes share: one writer at a time, and only whole results visible."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.errors import InfraError


@contextlib.contextmanager
def locked(path: Path, *, timeout: float) -> Iterator[None]:
    """Hold an exclusive lock on the file ``path`` (made if missing); the kernel drops it when the process dies.

    Raises:
        InfraError: another process held it for more than ``timeout`` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout
    with path.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise InfraError(f"another process has held {path} for {timeout:.0f} s") from None
                time.sleep(0.1)
        yield


def placed_once(final: Path, build: Callable[[Path], None], *, timeout: float = 1800.0) -> Path:
    """Return the directory ``final``, built at most once: ``build`` fills a temporary one that is then renamed.

    A failed or killed build leaves ``final`` absent; what it had written is removed by the next one.
    """
    if final.is_dir():
        return final
    with locked(final.parent / f".{final.name}.lock", timeout=timeout):
        if final.is_dir():
            return final
        for stale in final.parent.glob(f".{final.name}.tmp-*"):
            shutil.rmtree(stale, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}.tmp-", dir=final.parent))
        try:
            build(temporary)
            temporary.chmod(0o755)  # mkdtemp's 0700 would hide a shared cache from the user that QEMU runs as
            temporary.rename(final)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise InfraError(f"no space left on the file system of {final.parent}") from error
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return final


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` so that a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sha256_file(path: Path) -> str:
    """Lower-case hex SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_parts(parts: tuple[tuple[str, str], ...]) -> str:
    """SHA-256 over the (name, sha256) pairs, whatever their order: the identity of what is made of them."""
    text = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(parts))
    return hashlib.sha256(text.encode()).hexdigest()
