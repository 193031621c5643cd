"""Which Debian mirror and keyring this host uses; no mirror is built in."""

from __future__ import annotations

import os
import re
from pathlib import Path

from harness.errors import InfraError, UserError
from harness.hostcmd import run

VARIABLE = "KDMATRIX_DEBIAN_MIRROR"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_URL = re.compile(r"^(?:https?|file|copy|mirror\+\w+):/[^\s\[\]\"']+$")


def find_mirror() -> str:
    """The base URL of a Debian archive: ``$KDMATRIX_DEBIAN_MIRROR``, else the one that this Debian host's apt uses.

    Raises:
        UserError: neither is there; the message names the variable.
    """
    named = os.environ.get(VARIABLE, "").strip()
    if named:
        return checked_mirror(named, where=VARIABLE)
    found = _host_mirror()
    if found is None:
        raise UserError(f"no Debian mirror is known on this host: set {VARIABLE} to the URL of one")
    return found


def checked_mirror(url: str, *, where: str) -> str:
    """Return the URL without a trailing slash; it goes into a file that apt reads, so it must be one plain word.

    Raises:
        UserError: it is not; ``where`` says where it came from.
    """
    if not _URL.match(url):
        raise UserError(f"{where}: {url!r} is not the URL of a package archive (http, https, file or copy)")
    return url.rstrip("/")


def checked_keyring(path: Path = KEYRING) -> Path:
    """Return the keyring that signatures are checked against.

    Raises:
        UserError: it is not there; the message names the package that brings it.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing, so no signature can be checked: install debian-archive-keyring")
    return path


def _host_mirror() -> str | None:
    """What the host's apt is configured with.

    The origin is known from the host's last ``apt-get update``. A fresh container has not run one; its os-release
    then has to say that this is Debian. The security archive is a different tree without the suites we want.
    """
    try:
        done = run(["apt-get", "indextargets", "--format", "$(ORIGIN)|$(REPO_URI)", "Created-By: Packages"], timeout=30)
    except InfraError:
        return None  # no apt on this host
    rows = [line.split("|", 1) for line in done.stdout.decode(errors="replace").splitlines() if "|" in line]
    debian = _is_debian(Path("/etc/os-release"))
    for origin, url in rows:
        if (origin == "Debian" or (debian and not origin)) and "security" not in url and _URL.match(url):
            return url.rstrip("/")
    return None


def _is_debian(os_release: Path) -> bool:
    try:
        return any(line.strip() in ("ID=debian", 'ID="debian"') for line in os_release.read_text().splitlines())
    except OSError:
        return False
