"""Kernels of Ubuntu: from a suite of its archive, or a build of upstream's kernel from its mainline archive.

A suite is read as Debian's are, with a mirror and a keyring of its own. The mainline archive is folders by version,
each with its packages and a file ``CHECKSUMS``; its kernels are neither signed for Secure Boot nor supported.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from harness.errors import InfraError, UserError
from harness.kernels.archive import Archive
from harness.kernels.debian import DebianSource
from harness.kernels.fetching import Downloads, NotThere, checked_url, read_url
from harness.kernels.mirror import checked_mirror
from harness.kernels.signatures import check_detached
from harness.kernels.source import Headers, KernelFiles, KernelUnavailable
from harness.kernels.unpacking import place_headers, place_kernel
from harness.kernels.version import in_series, release_key
from harness.model.cell import DebianKernel, KernelIdentity, UbuntuKernel
from harness.placing import digest_of_parts

MIRROR = "KDMATRIX_UBUNTU_MIRROR"
KEYRING = "KDMATRIX_UBUNTU_KEYRING"
MAINLINE = "KDMATRIX_UBUNTU_MAINLINE"
MAINLINE_KEY = "KDMATRIX_UBUNTU_MAINLINE_KEY"
_DEFAULT_KEYRING = Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg")
_LINK = re.compile(r"""href=["']?(?:\./)?(v[0-9][^"'/>\s]*)/?["'>\s]""", re.IGNORECASE)
_CHECKSUM = re.compile(r"^([0-9a-f]{64})\s+\*?(?:\./)?(?:amd64/)?(linux-[^/\s]+\.deb)$", re.MULTILINE)
_DEB = re.compile(r"^(?P<name>linux-[a-z0-9.+~-]+)_(?P<version>[0-9][A-Za-z0-9.+~-]*)_(?P<arch>amd64|all)\.deb$")
_TRIED = 8
"""Versions of the mainline archive looked at for ``latest``: builds that failed leave folders without packages."""


def open_ubuntu_archive(cache: Path) -> Archive:
    """The Ubuntu archive of this host's settings, with its files in ``cache/ubuntu``.

    Raises:
        UserError: no mirror is set, or the keyring is missing.
    """
    named = os.environ.get(MIRROR, "").strip()
    if not named:
        raise UserError(f"no Ubuntu mirror is known on this host: set {MIRROR} to the URL of one")
    keyring = Path(os.environ.get(KEYRING, "").strip() or _DEFAULT_KEYRING).expanduser()
    if not keyring.is_file():
        raise UserError(
            f"{keyring} is missing, so no signature can be checked: set {KEYRING} to Ubuntu's archive keyring"
        )
    mirror = checked_mirror(named, where=MIRROR)
    return Archive(cache / "ubuntu", mirror, keyring, security_apart=False, keyring_package="ubuntu-keyring")


def suite_source(spec: UbuntuKernel, archive: Archive, *, need_headers: bool) -> DebianSource:
    """The source of a kernel from a suite of Ubuntu's archive."""
    asked = DebianKernel(spec.suite or "", spec.version, spec.release, spec.flavour)
    return DebianSource(asked, archive, need_headers=need_headers, vendor="ubuntu")


@dataclass(frozen=True, slots=True)
class _Build:
    """What one folder of the mainline archive holds for a flavour."""

    tag: str
    url: str
    release: str
    version: str
    image: tuple[tuple[str, str], ...]
    """(file, SHA-256) of what is unpacked to boot it."""
    headers: tuple[tuple[str, str], ...]


@dataclass(slots=True)
class MainlineSource:
    """A build of Ubuntu's mainline archive; see :class:`harness.kernels.source.KernelSource`."""

    spec: UbuntuKernel
    downloads: Downloads
    need_headers: bool = False
    _chosen: _Build | None = field(default=None, init=False, repr=False)

    @property
    def note(self) -> str:
        """Why the answer may be out of date, or what does not vouch for it."""
        unsigned = "" if _mainline_key() else f"checksums not signed: no key is configured in {MAINLINE_KEY}"
        return "; ".join(filter(None, (self.downloads.note, unsigned)))

    def resolve(self) -> KernelIdentity:
        """See :meth:`KernelSource.resolve`."""
        build = self._build()
        parts = tuple(sorted((*build.image, *build.headers)))
        return KernelIdentity(
            release=build.release,
            version=build.version,
            source=f"ubuntu mainline {build.tag}" + ("" if _mainline_key() else " (not signed)"),
            digest=digest_of_parts(parts),
            parts=parts,
            has_headers=bool(build.headers),
        )

    def fetch(self, into: Path) -> KernelFiles:
        """See :meth:`KernelSource.fetch`."""
        build, identity = self._build(), self.resolve()
        return place_kernel(into, identity.digest, build.release, lambda: self._download(build, build.image))

    def headers(self, into: Path) -> Headers:
        """See :meth:`KernelSource.headers`. They want the newest compilers and C library, whatever the guest has."""
        build, identity = self._build(), self.resolve()
        if not build.headers:
            raise KernelUnavailable(f"ubuntu mainline {build.tag} has kernel {build.release} without headers")
        return place_headers(into, identity.digest, build.release, lambda: self._download(build, build.headers))

    def _download(self, build: _Build, parts: tuple[tuple[str, str], ...]) -> list[Path]:
        return [self.downloads.file(f"{build.url}/{name}", name, sha256) for name, sha256 in parts]

    def _build(self) -> _Build:
        if self._chosen is None:
            self._chosen = self._choose()
        return self._chosen

    def _choose(self) -> _Build:
        named = os.environ.get(MAINLINE, "").strip()
        if not named:
            raise UserError(f"ubuntu mainline needs a setting of this host: set {MAINLINE} to the URL of that archive")
        base = checked_url(named, where=MAINLINE)
        wanted = self.spec.mainline or "latest"
        if wanted != "latest":
            found = self._folder(base, f"v{wanted.removeprefix('v')}")
            if isinstance(found, _Build):
                return found
            raise KernelUnavailable(found)
        listing = self.downloads.metadata(f"{base}/", lambda data: None, limit=16 << 20).decode(errors="replace")
        tags = {unquote(tag) for tag in _LINK.findall(listing)}
        if self.spec.version:
            tags = {tag for tag in tags if in_series(tag[1:], self.spec.version)}
        problems = []
        for tag in sorted(tags, key=lambda tag: release_key(tag[1:]), reverse=True)[:_TRIED]:
            found = self._folder(base, tag)
            if isinstance(found, _Build):
                return found
            problems.append(found)
        what = f"kernel {self.spec.version}" if self.spec.version else "kernel"
        raise KernelUnavailable(
            f"ubuntu mainline has no {what} that is whole" + (f": {problems[0]}" if problems else "")
        )

    def _folder(self, base: str, tag: str) -> _Build | str:
        """What a version's folder holds, or why that is no kernel of the wanted flavour."""
        url = f"{base}/{tag}/amd64"

        def check(data: bytes) -> None:
            if (key := _mainline_key()) is not None:
                try:
                    signature = read_url(f"{url}/CHECKSUMS.gpg", limit=1 << 20)
                except NotThere as error:
                    raise InfraError(f"refusing {url}/CHECKSUMS: not signed: {error}") from None
                check_detached(data, signature, key, f"{url}/CHECKSUMS")
            if not _CHECKSUM.search(data.decode(errors="replace")):
                raise InfraError(f"{url}/CHECKSUMS names no package with its SHA-256")

        try:
            data = self.downloads.metadata(f"{url}/CHECKSUMS", check, limit=1 << 20)
        except NotThere:
            return f"ubuntu mainline has no build {tag} for amd64"
        return self._parts(tag, url, _CHECKSUM.findall(data.decode(errors="replace")))

    def _parts(self, tag: str, url: str, listed: list[tuple[str, str]]) -> _Build | str:
        flavour = self.spec.flavour
        image: dict[str, tuple[str, str]] = {}
        headers: dict[str, tuple[str, str]] = {}
        release = version = ""
        for sha256, name in listed:
            match = _DEB.match(name)
            if match is None:
                continue
            package = match["name"]
            kind = re.match(rf"^linux-(image-unsigned|image|modules)-([0-9].*-{re.escape(flavour)})$", package)
            if kind:
                image[kind[1].partition("-")[0]] = (name, sha256)
                release, version = kind[2], match["version"]
            elif re.match(rf"^linux-headers-[0-9].*-{re.escape(flavour)}$", package):
                headers["flavour"] = (name, sha256)
            elif package.startswith("linux-headers-") and match["arch"] == "all":
                headers["shared"] = (name, sha256)
        if missing := [part for part in ("image", "modules") if part not in image]:
            return f"ubuntu mainline has build {tag} without its {' and '.join(missing)} for {flavour}"
        whole = tuple(headers.values()) if len(headers) == 2 else ()
        if self.need_headers and not whole:
            return f"ubuntu mainline has build {tag} without headers for {flavour}"
        return _Build(tag, url, release, version, tuple(image.values()), whole)


def _mainline_key() -> Path | None:
    named = os.environ.get(MAINLINE_KEY, "").strip()
    if not named:
        return None
    key = Path(named).expanduser()
    if not key.is_file():
        raise UserError(f"{MAINLINE_KEY}: {key} is missing, so no signature can be checked")
    return key
