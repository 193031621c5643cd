"""From package files, Debian's or RPM, to kernels and headers in the one layout.

Sources: dpkg-deb(1), rpm2cpio(8), cpio(1); Fedora's kernel.spec for where its packages put things.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from harness.errors import InfraError
from harness.hostcmd import must
from harness.kernels.layout import files_in, headers_in, lay_out, merge_usr
from harness.kernels.source import Headers, KernelFiles
from harness.placing import placed_once

_TIMEOUT = 900.0
_LISTED_RELEASE = re.compile(r"^\.?/?(?:usr/)?lib/modules/([^/\s]+)/", re.MULTILINE)
_HEADER_FOLDERS = ("usr/src/kernels/{release}", "usr/src/linux-headers-{release}")
Fetch = Callable[[], Iterable[Path]]


def unpack(package: Path, root: Path) -> None:
    """Unpack one package below ``root``; none of its scripts run.

    Raises:
        InfraError: it cannot be unpacked.
    """
    root.mkdir(parents=True, exist_ok=True)
    if package.suffix == ".deb":
        must(["dpkg-deb", "-x", package, root], timeout=_TIMEOUT)
        return
    pipeline = 'rpm2cpio "$1" | cpio --extract --make-directories --no-absolute-filenames --quiet'
    must(["bash", "-o", "pipefail", "-c", pipeline, "unpack", package], timeout=_TIMEOUT, cwd=root)


def releases_in(package: Path) -> set[str]:
    """Return the kernel releases for which a package holds files below ``lib/modules``."""
    if package.suffix == ".deb":
        pipeline = 'dpkg-deb --fsys-tarfile "$1" | tar --list'
        listing = must(["bash", "-o", "pipefail", "-c", pipeline, "list", package], timeout=_TIMEOUT)
    else:
        listing = must(["rpm", "--query", "--package", "--nosignature", "--list", package], timeout=_TIMEOUT)
    return set(_LISTED_RELEASE.findall(listing.decode(errors="replace")))


def place_kernel(into: Path, digest: str, release: str, fetch: Fetch) -> KernelFiles:
    """Lay a kernel out in ``into/digest`` from the packages that ``fetch`` brings; a second call fetches nothing."""

    def build(root: Path) -> None:
        for package in fetch():
            unpack(package, root)
        lay_out(root, release)
        files_in(root, release)  # what is not whole does not get into the cache

    return files_in(placed_once(into.absolute() / digest, build), release)


def place_headers(into: Path, digest: str, release: str, fetch: Fetch) -> Headers:
    """Lay headers out in ``into/digest`` from the packages that ``fetch`` brings; a second call fetches nothing."""

    def build(root: Path) -> None:
        for package in fetch():
            unpack(package, root)
        merge_usr(root)
        _link_build(root, release)
        headers_in(root, release)

    return headers_in(placed_once(into.absolute() / digest, build), release)


def _link_build(root: Path, release: str) -> None:
    """Add the ``build`` link where another package than the headers' own has it, as on Fedora."""
    modules = root / "usr" / "lib" / "modules" / release
    build = modules / "build"
    if build.is_symlink() or build.is_dir():
        return
    found = next(
        (name for name in (one.format(release=release) for one in _HEADER_FOLDERS) if (root / name).is_dir()), ""
    )
    if not found:
        raise InfraError(f"the header packages of {release} hold neither its build folder nor usr/src/…/{release}")
    modules.mkdir(parents=True, exist_ok=True)
    build.symlink_to(f"/{found}")
    if not (modules / "source").is_symlink():
        (modules / "source").symlink_to("build")
