"""Kernels from a Debian archive, or from another one in its format whose packages are cut alike (Ubuntu's).

Up to 6.18 ``linux-image-RELEASE`` is one package. Since 6.19 it is a shell that depends on ``linux-base-``,
``linux-binary-`` and ``linux-modules-RELEASE``; backports suites go on listing such shells after their parts are gone.
So a kernel is taken only when every package that its dependencies pin is in the index.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from harness.kernels.archive import Archive
from harness.kernels.packages import Package, PackageSet, Relation, parse_depends
from harness.kernels.source import Headers, KernelFiles, KernelUnavailable
from harness.kernels.unpacking import place_headers, place_kernel
from harness.kernels.version import debian_key, in_series, upstream_of
from harness.model.cell import DebianKernel, KernelIdentity
from harness.placing import digest_of_parts

_PART = re.compile(r"^linux-(?:[a-z]+-\d[\d.]*-)?(?:base|binary|modules|headers|kbuild|compiler|image)-\S*\d")
"""Packages made from the kernel's own source for one version; ``linux-base`` itself is the distribution's.
Ubuntu puts the name of a kernel that it carries to an older release in front: ``linux-hwe-6.14-headers-6.14.0-24``."""
_FOR_BUILDING = re.compile(r"^linux-(?:[a-z]+-\d[\d.]*-)?(?:headers|kbuild|base)-")
"""Header packages depend on images and compilers, too, which a build of modules does not read from there."""
_ABI = r"\d+\.\d+[0-9a-z.+~]*(?:-rc\d+)?(?:-\d+)?"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One release that the index lists, whole or not."""

    release: str
    version: str
    image: tuple[Package, ...]
    """Packages to unpack for booting it."""
    headers: tuple[Package, ...]
    """Packages to unpack for building modules; empty unless all are there."""
    missing: tuple[str, ...]
    """Parts of the image that the archive no longer has."""
    missing_headers: tuple[str, ...]

    @property
    def bootable(self) -> bool:
        """Image, base, binary and modules are all there."""
        return not self.missing

    @property
    def has_headers(self) -> bool:
        """Modules can be built for it."""
        return not self.missing_headers

    @property
    def problem(self) -> str:
        """What is missing, for people; empty when nothing is."""
        parts = []
        if self.missing:
            parts.append(f"the archive no longer has {', '.join(self.missing)}")
        if self.missing_headers:
            parts.append(f"no headers ({', '.join(self.missing_headers)})")
        return "; ".join(parts)

    def usable(self, *, need_headers: bool) -> bool:
        """Whether it serves a cell that does or does not build modules."""
        return self.bootable and (self.has_headers or not need_headers)


def find_candidates(packages: PackageSet, flavour: str) -> tuple[Candidate, ...]:
    """Every release of a flavour in an index, newest first."""
    pattern = re.compile(rf"^linux-image-(?:unsigned-)?({_ABI}-{re.escape(flavour)})$")
    found: dict[str, Candidate] = {}
    for name in packages.names():  # sorted, so the signed image of a release comes before the unsigned one
        match = pattern.match(name)
        if match and match[1] not in found:
            found[match[1]] = _candidate(packages, match[1], packages.versions(name)[0])
    return tuple(sorted(found.values(), key=lambda one: (debian_key(one.version), one.release), reverse=True))


def _candidate(packages: PackageSet, release: str, image: Package) -> Candidate:
    # Ubuntu keeps drivers that servers lack in a package that the image itself does not ask for.
    extra = packages.satisfying(Relation(f"linux-modules-extra-{release}", "=", image.version))
    parts, missing = _closure(packages, [image, extra] if extra else [image])
    pinned = Relation(f"linux-headers-{release}", "=", image.version)
    top = packages.satisfying(pinned)
    headers, missing_headers = _closure(packages, [top]) if top else ((), (pinned.name,))
    return Candidate(release, image.version, parts, () if missing_headers else headers, missing, missing_headers)


def _closure(packages: PackageSet, roots: Iterable[Package]) -> tuple[tuple[Package, ...], tuple[str, ...]]:
    """Follow dependencies within the kernel's own packages; return what was found and what is not there."""
    found: dict[str, Package] = {}
    missing: dict[str, None] = {}
    waiting = list(roots)
    while waiting:
        package = waiting.pop()
        if package.name in found:
            continue
        found[package.name] = package
        for group in parse_depends(package.depends):
            own = [relation for relation in group if _PART.match(relation.name)]
            if len(own) < len(group) or not own:
                continue  # the distribution's, or replaceable by something that is: the guest brings it
            chosen = next(filter(None, map(packages.satisfying, own)), None)
            if chosen is None:
                # The version says something only where another version of the package is there.
                missing[str(own[0]) if packages.versions(own[0].name) else own[0].name] = None
            else:
                waiting.append(chosen)
    return tuple(found[name] for name in sorted(found)), tuple(missing)


@dataclass(slots=True)
class DebianSource:
    """A kernel of a Debian suite; see :class:`harness.kernels.source.KernelSource`."""

    spec: DebianKernel
    archive: Archive
    need_headers: bool = False
    """Take only kernels for which modules can be built."""
    vendor: str = "debian"
    """Whose archive it is, for people."""
    _chosen: Candidate | None = field(default=None, init=False, repr=False)

    @property
    def note(self) -> str:
        """Why the answer may be out of date; empty when the index is fresh."""
        return self.archive.index(self.spec.suite).note

    def candidates(self) -> tuple[Candidate, ...]:
        """Every release of the wanted flavour in the suite, newest first, whole or not."""
        return find_candidates(self.archive.index(self.spec.suite).packages, self.spec.flavour)

    def resolve(self) -> KernelIdentity:
        """See :meth:`KernelSource.resolve`."""
        chosen = self._candidate()
        parts = tuple(sorted({(one.filename, one.sha256) for one in (*chosen.image, *chosen.headers)}))
        return KernelIdentity(
            release=chosen.release,
            version=chosen.version,
            source=f"{self.vendor} {self.spec.suite}",
            digest=digest_of_parts(parts),
            parts=parts,
            has_headers=chosen.has_headers,
        )

    def fetch(self, into: Path) -> KernelFiles:
        """See :meth:`KernelSource.fetch`."""
        chosen, identity = self._candidate(), self.resolve()
        return place_kernel(
            into, identity.digest, chosen.release, lambda: self.archive.download(self.spec.suite, chosen.image)
        )

    def headers(self, into: Path) -> Headers:
        """See :meth:`KernelSource.headers`. Compilers are left to whoever builds."""
        chosen, identity = self._candidate(), self.resolve()
        if not chosen.has_headers:
            lacking = ", ".join(chosen.missing_headers)
            where = f"{self.vendor} {self.spec.suite}"
            raise KernelUnavailable(f"{where} has kernel {chosen.release} without headers ({lacking})")
        wanted = [package for package in chosen.headers if _FOR_BUILDING.match(package.name)]
        return place_headers(
            into,
            identity.digest,
            chosen.release,
            lambda: self.archive.download(self.spec.suite, wanted),
        )

    def _candidate(self) -> Candidate:
        if self._chosen is None:
            self._chosen = choose(self.spec, self.candidates(), need_headers=self.need_headers, vendor=self.vendor)
        return self._chosen


def choose(
    spec: DebianKernel, candidates: tuple[Candidate, ...], *, need_headers: bool, vendor: str = "debian"
) -> Candidate:
    """Pick the newest candidate that fits ``spec``; ``candidates`` are newest first.

    Raises:
        KernelUnavailable: none fits, or none that fits is whole; the message says what is missing and what there is.
    """
    fitting = [one for one in candidates if spec.version is None or in_series(upstream_of(one.version), spec.version)]
    if spec.release != "latest":
        fitting = [one for one in fitting if one.release == spec.release]
    for one in fitting:
        if one.usable(need_headers=need_headers):
            return one
    named = spec.release != "latest"
    wanted = spec.release if named else f"{spec.version or 'of any version'} {spec.flavour}"
    whole = [one.release for one in candidates if one.usable(need_headers=need_headers)]
    if named:  # the nearest name first; the sort keeps newest first among equals
        whole.sort(key=lambda release: -difflib.SequenceMatcher(None, release, spec.release).ratio())
    offer = f"did you mean {' or '.join(whole[:5])}?" if whole else "nor any other complete kernel of this flavour"
    if not fitting:
        raise KernelUnavailable(f"{vendor} {spec.suite} has no kernel {wanted}; {offer}")
    lacking = "; ".join(f"{one.release}: {one.problem}" for one in fitting[:1])
    raise KernelUnavailable(f"{vendor} {spec.suite} has kernel {wanted} only in part ({lacking}); {offer}")
