"""Checks OpenPGP signatures of RPM packages and of detached files, each against one named key and no other.

Sources: rpmkeys(8), gpgv(1).
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from harness.errors import InfraError
from harness.hostcmd import must, run
from harness.placing import placed_once, sha256_file

_TIMEOUT = 300.0
_BAD = re.compile(r"\b(?:BAD|NOKEY|NOTTRUSTED|NOTFOUND|UNKNOWN)\b")
_GOOD = re.compile(r"Signature, key ID [0-9a-f]+: OK", re.IGNORECASE)


def check_package(package: Path, key: Path | None, cache: Path) -> None:
    """Check the digests inside an RPM package and, where a key is given, that it is signed by that key.

    Raises:
        InfraError: it is damaged, not signed, or signed by another key.
    """
    with tempfile.TemporaryDirectory(prefix="kdmatrix-rpmdb-") as empty:
        database = Path(empty) if key is None else _database(key, cache)
        done = run(["rpmkeys", "--dbpath", database, "--checksig", "--verbose", package], timeout=_TIMEOUT)
    output = (done.stdout + done.stderr).decode(errors="replace")
    if key is None:
        broken = [line.strip() for line in output.splitlines() if "digest" in line and not line.strip().endswith("OK")]
        if broken or "digest" not in output:
            raise InfraError(f"refusing {package.name}: {(broken or ['it is no RPM package'])[0]}")
        return
    if done.returncode != 0 or _BAD.search(output) or not _GOOD.search(output):
        telling = next((line.strip() for line in output.splitlines() if _BAD.search(line)), "it is not signed")
        raise InfraError(f"refusing {package.name}: {telling} (key {key.name})")


def check_detached(data: bytes, signature: bytes, key: Path, what: str) -> None:
    """Check a detached signature of ``data``.

    Raises:
        InfraError: it is not a good one by that key; ``what`` names the data.
    """
    with tempfile.TemporaryDirectory(prefix="kdmatrix-gpg-") as name:
        folder = Path(name)
        (folder / "data").write_bytes(data)
        (folder / "data.asc").write_bytes(signature)
        keyring = folder / "keyring.gpg"
        if b"BEGIN PGP" in key.read_bytes():
            must(["gpg", "--homedir", folder, "--batch", "--dearmor", "-o", keyring, key], timeout=_TIMEOUT)
        else:
            keyring.write_bytes(key.read_bytes())
        argv: list[str | Path] = [
            "gpgv",
            "--homedir",
            folder,
            "--keyring",
            keyring,
            folder / "data.asc",
            folder / "data",
        ]
        done = run(argv, timeout=_TIMEOUT)
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        reason = lines[-1].removeprefix("gpgv: ") if lines else "no reason given"
        raise InfraError(f"refusing {what}: {reason} (key {key.name})")


def _database(key: Path, cache: Path) -> Path:
    """An RPM database that holds one key."""

    def build(folder: Path) -> None:
        must(["rpmkeys", "--dbpath", folder, "--import", key], timeout=_TIMEOUT)

    return placed_once(cache / "keys" / sha256_file(key), build)
