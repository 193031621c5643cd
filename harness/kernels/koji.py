"""One build of a Koji instance, by its NVR.

Koji's package folders have no index and vouch for nothing but what is inside each package, so the packages are
downloaded to know their digests, once. A configured key is what vouches for them.
Source: the layout ``NAME/VERSION/RELEASE/ARCH/FILE`` of Koji's ``packages`` folder.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import InfraError, UserError
from harness.kernels.fetching import Downloads, NotThere, checked_url
from harness.kernels.signatures import check_package
from harness.kernels.source import Headers, KernelFiles, KernelUnavailable
from harness.kernels.unpacking import place_headers, place_kernel, releases_in
from harness.kernels.version import commit_in
from harness.model.cell import KernelIdentity, KojiKernel
from harness.placing import digest_of_parts, sha256_file

VARIABLE = "KDMATRIX_KOJI_PACKAGES"
KEY_VARIABLE = "KDMATRIX_KOJI_KEY"
SIGNED_VARIABLE = "KDMATRIX_KOJI_SIGNED_WITH"
_ARCH = "x86_64"
_WORD = r"[A-Za-z0-9][A-Za-z0-9._+~^]*"
_NVR = re.compile(rf"^(?P<name>[A-Za-z0-9][A-Za-z0-9._+-]*)-(?P<version>{_WORD})-(?P<release>{_WORD})$")
_REQUIRED = ("core", "modules")
_OPTIONAL = ("modules-core", "modules-extra")


@dataclass(frozen=True, slots=True)
class Nvr:
    """Name, version and release of a build."""

    name: str
    version: str
    release: str

    @classmethod
    def parse(cls, text: str) -> Nvr:
        """Read ``kernel-7.3.4-200.fc44``.

        Raises:
            UserError: it is no NVR; an architecture at its end is named as what is too much.
        """
        match = _NVR.match(text)
        if match is None or not match["version"][0].isdigit():
            raise UserError(f"{text!r} is not the NVR of a build; for example kernel-7.3.4-200.fc44")
        if match["release"].endswith((f".{_ARCH}", ".rpm", ".src", ".noarch")):
            raise UserError(
                f"{text!r} names a package, not a build; did you mean {text.removesuffix('.rpm').rpartition('.')[0]}?"
            )
        return cls(match["name"], match["version"], match["release"])

    def __str__(self) -> str:
        return f"{self.name}-{self.version}-{self.release}"


@dataclass(slots=True)
class KojiSource:
    """A kernel of a Koji instance; see :class:`harness.kernels.source.KernelSource`."""

    spec: KojiKernel
    downloads: Downloads
    need_headers: bool = False
    _image: tuple[Path, ...] = field(default=(), init=False, repr=False)
    _devel: Path | None = field(default=None, init=False, repr=False)
    _identity: KernelIdentity | None = field(default=None, init=False, repr=False)

    @property
    def note(self) -> str:
        """What does not vouch for the answer."""
        return "" if _key() else f"not signed: no key is configured in {KEY_VARIABLE}"

    def resolve(self) -> KernelIdentity:
        """See :meth:`KernelSource.resolve`. Downloads the packages, as nothing else knows their digests."""
        if self._identity is None:
            nvr = Nvr.parse(self.spec.nvr)
            self._image = self._packages(nvr)
            self._devel = self._package(nvr, "devel")
            if self.need_headers and self._devel is None:
                raise KernelUnavailable(f"koji has build {nvr} without headers ({nvr.name}-devel)")
            releases = set().union(*map(releases_in, self._image))
            if len(releases) != 1:
                raise InfraError(f"the packages of {nvr} hold {len(releases)} kernel releases, not one")
            files = (*self._image, *((self._devel,) if self._devel else ()))
            parts = tuple(sorted((file.name, sha256_file(file)) for file in files))
            self._identity = KernelIdentity(
                release=releases.pop(),
                version=f"{nvr.version}-{nvr.release}",
                source=f"koji {nvr}" + ("" if _key() else " (not signed)"),
                digest=digest_of_parts(parts),
                parts=parts,
                has_headers=self._devel is not None,
                commit=commit_in(nvr.release),
            )
        return self._identity

    def fetch(self, into: Path) -> KernelFiles:
        """See :meth:`KernelSource.fetch`."""
        identity = self.resolve()
        return place_kernel(into, identity.digest, identity.release, lambda: self._image)

    def headers(self, into: Path) -> Headers:
        """See :meth:`KernelSource.headers`."""
        identity = self.resolve()
        devel = self._devel
        if devel is None:
            raise KernelUnavailable(f"koji has build {self.spec.nvr} without headers")
        return place_headers(into, identity.digest, identity.release, lambda: [devel])

    def _packages(self, nvr: Nvr) -> tuple[Path, ...]:
        found = {part: self._package(nvr, part) for part in (*_REQUIRED, *_OPTIONAL)}
        missing = [f"{nvr.name}-{part}" for part in _REQUIRED if found[part] is None]
        if missing == [f"{nvr.name}-{part}" for part in _REQUIRED]:
            raise KernelUnavailable(f"koji has no build {nvr} for {_ARCH}, or its packages were removed")
        if missing:
            raise KernelUnavailable(f"koji has build {nvr} only in part (no {', '.join(missing)})")
        return tuple(path for path in found.values() if path is not None)

    def _package(self, nvr: Nvr, part: str) -> Path | None:
        base = os.environ.get(VARIABLE, "").strip()
        if not base:
            raise UserError(f"koji {nvr} needs a setting of this host: set {VARIABLE} to the URL of Koji's packages")
        folder = f"{checked_url(base, where=VARIABLE)}/{nvr.name}/{nvr.version}/{nvr.release}"
        # Koji keeps the signed copies of a build apart from what was built.
        signed = os.environ.get(SIGNED_VARIABLE, "").strip()
        folder += f"/data/signed/{signed}/{_ARCH}" if signed else f"/{_ARCH}"
        name = f"{nvr.name}-{part}-{nvr.version}-{nvr.release}.{_ARCH}.rpm"

        def accept(file: Path) -> None:
            check_package(file, _key(), self.downloads.root)

        try:
            return self.downloads.whole(f"{folder}/{name}", name, accept)
        except NotThere:
            return None


def _key() -> Path | None:
    named = os.environ.get(KEY_VARIABLE, "").strip()
    if not named:
        return None
    key = Path(named).expanduser()
    if not key.is_file():
        raise UserError(f"{KEY_VARIABLE}: {key} is missing, so no signature can be checked")
    return key
