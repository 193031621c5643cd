"""Kernels from ``.deb`` or ``.rpm`` files that lie on this host: whoever put them there vouches for them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import InfraError, UserError
from harness.hostcmd import must
from harness.kernels.source import Headers, KernelFiles, KernelUnavailable
from harness.kernels.unpacking import place_headers, place_kernel, releases_in
from harness.kernels.version import commit_in
from harness.model.cell import KernelIdentity, PackagesKernel
from harness.placing import digest_of_parts, sha256_file

_TIMEOUT = 120.0
_HEADERS = re.compile(r"^linux-(?:[a-z]+-[\d.]+-)?(?:headers|kbuild)-|^kernel\S*-devel(?:-|$)|-devel$")
_IMAGE = re.compile(r"^linux-(?:image|binary)-|^kernel(?:-[a-z0-9.]+)*$")


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    name: str
    version: str
    sha256: str
    releases: frozenset[str]

    @property
    def is_headers(self) -> bool:
        return _HEADERS.search(self.name) is not None


@dataclass(slots=True)
class FilesSource:
    """A kernel of package files; see :class:`harness.kernels.source.KernelSource`."""

    spec: PackagesKernel
    need_headers: bool = False
    _files: tuple[_File, ...] = field(default=(), init=False, repr=False)
    _identity: KernelIdentity | None = field(default=None, init=False, repr=False)

    def resolve(self) -> KernelIdentity:
        """See :meth:`KernelSource.resolve`.

        Raises:
            UserError: a file is not there or no package, or together they are not one kernel.
        """
        if self._identity is None:
            self._files = tuple(_describe(Path(path).expanduser()) for path in self.spec.paths)
            image = [one for one in self._files if not one.is_headers]
            releases = set().union(*(one.releases for one in image)) if image else set()
            names = ", ".join(one.path.name for one in self._files)
            if len(releases) != 1:
                held = f"{len(releases)} kernels: {', '.join(sorted(releases))}" if releases else "no kernel's modules"
                raise UserError(f"packages {names} hold {held}; name the packages of one kernel")
            main = next((one for one in image if _IMAGE.search(one.name)), image[0])
            has_headers = any(one.is_headers for one in self._files)
            if self.need_headers and not has_headers:
                raise KernelUnavailable(f"packages {names} hold no headers: add the headers' or -devel packages")
            parts = tuple(sorted((one.path.name, one.sha256) for one in self._files))
            self._identity = KernelIdentity(
                release=releases.pop(),
                version=main.version,
                source=f"packages {main.path.name}",
                digest=digest_of_parts(parts),
                parts=parts,
                has_headers=has_headers,
                commit=commit_in(main.version),
            )
        return self._identity

    def fetch(self, into: Path) -> KernelFiles:
        """See :meth:`KernelSource.fetch`."""
        identity = self.resolve()
        return place_kernel(into, identity.digest, identity.release, lambda: self._unchanged(headers=False))

    def headers(self, into: Path) -> Headers:
        """See :meth:`KernelSource.headers`."""
        identity = self.resolve()
        if not identity.has_headers:
            raise KernelUnavailable(
                f"packages of {identity.release} hold no headers: add the headers' or -devel packages"
            )
        return place_headers(into, identity.digest, identity.release, lambda: self._unchanged(headers=True))

    def _unchanged(self, *, headers: bool) -> list[Path]:
        """The files to unpack, read again: what is unpacked must be what was named."""
        chosen = [one for one in self._files if one.is_headers == headers]
        for one in chosen:
            if sha256_file(one.path) != one.sha256:
                raise InfraError(f"{one.path} has changed since it was looked at")
        return [one.path for one in chosen]


def _describe(path: Path) -> _File:
    if not path.is_file():
        raise UserError(f"package {path}: there is no such file")
    try:
        if path.suffix == ".deb":
            fields = must(["dpkg-deb", "--show", "--showformat", "${Package}|${Version}", path], timeout=_TIMEOUT)
        elif path.suffix == ".rpm":
            query = ["rpm", "--query", "--package", "--nosignature", "--queryformat"]
            fields = must([*query, "%{NAME}|%{VERSION}-%{RELEASE}", path], timeout=_TIMEOUT)
        else:
            raise UserError(f"package {path}: neither a .deb nor a .rpm file")
        name, _, version = fields.decode(errors="replace").strip().partition("|")
        return _File(path, name, version, sha256_file(path), frozenset(releases_in(path)))
    except InfraError as error:
        raise UserError(f"package {path}: cannot be read as a package: {error}") from None
