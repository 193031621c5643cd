"""Kernels from an RPM repository: Fedora's, a COPR project's, or any other that createrepo_c made.

Fedora cuts a kernel into ``-core`` (image, configuration), ``-modules-core`` (since 38), ``-modules``,
``-modules-extra`` and ``-devel``; a kernel beside the distribution's has parallel names (``kernel-longterm-core``).
Kernels that were packaged by the kernel's own ``make binrpm-pkg`` are one package and ``-devel``.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.kernels.fetching import Downloads
from harness.kernels.repositories import Repository
from harness.kernels.rpmmd import RpmPackage, read_index
from harness.kernels.signatures import check_package
from harness.kernels.source import Headers, KernelFiles, KernelUnavailable
from harness.kernels.unpacking import place_headers, place_kernel
from harness.kernels.version import commit_in, evr_key, in_series
from harness.model.cell import KernelIdentity, RpmKernel
from harness.placing import digest_of_parts

_ARCH = "x86_64"


@dataclass(frozen=True, slots=True)
class RpmCandidate:
    """One build that an index lists, whole or not."""

    release: str
    package: RpmPackage
    """The one with the image."""
    image: tuple[RpmPackage, ...]
    headers: tuple[RpmPackage, ...]
    missing: tuple[str, ...]

    @property
    def version(self) -> str:
        """Version and release of the package."""
        epoch = f"{self.package.epoch}:" if self.package.epoch not in ("", "0") else ""
        return f"{epoch}{self.package.version}-{self.package.release}"

    def usable(self, *, need_headers: bool) -> bool:
        """Whether it serves a cell that does or does not build modules."""
        return not self.missing and (bool(self.headers) or not need_headers)


def find_candidates(packages: Sequence[RpmPackage], name: str) -> tuple[RpmCandidate, ...]:
    """Every build of the kernel package ``name`` in an index, newest first."""
    mine = [one for one in packages if one.arch == _ARCH]
    table = {(one.name, one.evr): one for one in mine}
    split = any(one.name == f"{name}-core" for one in mine)
    images = [one for one in mine if one.name == (f"{name}-core" if split else name)]
    found = []
    for image in sorted(images, key=lambda one: evr_key(one.evr), reverse=True):
        parts, missing = [image], []
        for part in ("modules-core", "modules", "modules-extra") if split else ():
            package = table.get((f"{name}-{part}", image.evr))
            if package is not None:
                parts.append(package)
            elif part == "modules" or (part == "modules-core" and _asks_for(parts, table, name, image, part)):
                missing.append(f"{name}-{part}")
        devel = table.get((f"{name}-devel", image.evr))
        found.append(RpmCandidate(_uname(image), image, tuple(parts), (devel,) if devel else (), tuple(missing)))
    return tuple(found)


def _asks_for(
    parts: Sequence[RpmPackage],
    table: dict[tuple[str, tuple[str, str, str]], RpmPackage],
    name: str,
    image: RpmPackage,
    part: str,
) -> bool:
    modules = table.get((f"{name}-modules", image.evr))
    asking = [*parts, modules] if modules else parts
    return any(wanted.startswith(f"{name}-{part}") for package in asking for wanted in package.requires)


def _uname(image: RpmPackage) -> str:
    """What ``uname -r`` prints: the package says so, else it is made as Fedora makes it."""
    said = next((version for name, version in image.provides if name.endswith("-uname-r") and version), "")
    return said or f"{image.version}-{image.release}.{image.arch}"


@dataclass(slots=True)
class RpmSource:
    """A kernel of an RPM repository; see :class:`harness.kernels.source.KernelSource`."""

    spec: RpmKernel
    repository: Repository
    downloads: Downloads
    need_headers: bool = False
    _chosen: RpmCandidate | None = field(default=None, init=False, repr=False)

    @property
    def note(self) -> str:
        """Why the answer may be out of date, or what does not vouch for it; empty when there is nothing to say."""
        unsigned = f"not signed: {self.repository.note}" if self.repository.signed == "nothing" else ""
        return "; ".join(filter(None, (self.downloads.note, unsigned)))

    def candidates(self) -> tuple[RpmCandidate, ...]:
        """Every build of the wanted package, newest first, whole or not."""
        return find_candidates(read_index(self.repository, self.downloads, self._package), self._package)

    def resolve(self) -> KernelIdentity:
        """See :meth:`KernelSource.resolve`."""
        chosen = self._candidate()
        parts = tuple(sorted((one.filename, one.sha256) for one in (*chosen.image, *chosen.headers)))
        unsigned = " (not signed)" if self.repository.signed == "nothing" else ""
        return KernelIdentity(
            release=chosen.release,
            version=chosen.version,
            source=f"rpm {self.repository.name}{unsigned}",
            digest=digest_of_parts(parts),
            parts=parts,
            has_headers=bool(chosen.headers),
            commit=commit_in(chosen.version),
        )

    def fetch(self, into: Path) -> KernelFiles:
        """See :meth:`KernelSource.fetch`."""
        chosen, identity = self._candidate(), self.resolve()
        return place_kernel(into, identity.digest, chosen.release, lambda: self._download(chosen.image))

    def headers(self, into: Path) -> Headers:
        """See :meth:`KernelSource.headers`."""
        chosen, identity = self._candidate(), self.resolve()
        if not chosen.headers:
            lacking = f"{self._package}-devel {chosen.version}"
            raise KernelUnavailable(
                f"rpm {self.repository.name} has kernel {chosen.release} without headers ({lacking})"
            )
        return place_headers(into, identity.digest, chosen.release, lambda: self._download(chosen.headers))

    @property
    def _package(self) -> str:
        return (
            self.repository.package if self.spec.package == "kernel" and self.repository.package else self.spec.package
        )

    def _download(self, packages: Sequence[RpmPackage]) -> list[Path]:
        """Every file is what the index promises, and signed where packages are, before anybody unpacks it."""
        key = self.repository.key if self.repository.signed == "packages" else None
        files = []
        for package in packages:
            file = self.downloads.file(f"{self.repository.url}/{package.href}", package.filename, package.sha256)
            check_package(file, key, self.downloads.root)
            files.append(file)
        return files

    def _candidate(self) -> RpmCandidate:
        if self._chosen is None:
            self._chosen = choose(self.spec, self.repository.name, self.candidates(), need_headers=self.need_headers)
        return self._chosen


def choose(spec: RpmKernel, where: str, candidates: tuple[RpmCandidate, ...], *, need_headers: bool) -> RpmCandidate:
    """Pick the newest candidate that fits ``spec``; ``candidates`` are newest first.

    Raises:
        KernelUnavailable: none fits, or none that fits is whole; the message says what is missing and what there is.
    """
    fitting = [one for one in candidates if spec.version is None or in_series(one.package.version, spec.version)]
    if spec.release != "latest":
        # With or without the architecture: people copy either from what dnf and uname print.
        fitting = [one for one in fitting if spec.release in (one.release, one.release.removesuffix(f".{_ARCH}"))]
    for one in fitting:
        if one.usable(need_headers=need_headers):
            return one
    whole = [one.release for one in candidates if one.usable(need_headers=need_headers)]
    named = spec.release != "latest"
    if named:
        whole.sort(key=lambda release: -difflib.SequenceMatcher(None, release, spec.release).ratio())
    wanted = spec.release if named else f"{spec.package} {spec.version or 'of any version'}"
    offer = f"did you mean {' or '.join(whole[:5])}?" if whole else "nor any other complete kernel of this name"
    if not fitting:
        raise KernelUnavailable(f"rpm {where} has no kernel {wanted}; {offer}")
    lacking = ", ".join(fitting[0].missing or (f"{fitting[0].package.name.removesuffix('-core')}-devel",))
    raise KernelUnavailable(
        f"rpm {where} has kernel {wanted} only in part ({fitting[0].release}: no {lacking}); {offer}"
    )
