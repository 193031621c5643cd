"""Kernels from a Debian archive.

Up to 6.18 ``linux-image-RELEASE`` is one package. Since 6.19 it is a shell that depends on ``linux-base-``,
``linux-binary-`` and ``linux-modules-RELEASE``; backports suites go on listing such shells after their parts are gone.
So a kernel is taken only when every package that its dependencies pin is in the index.
"""

from __future__ import annotations

import difflib
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import InfraError
from harness.hostcmd import must
from harness.kernels.archive import Archive
from harness.kernels.packages import Package, PackageSet, Relation, parse_depends
from harness.kernels.source import KernelFiles, KernelUnavailable
from harness.kernels.version import debian_key, in_series, upstream_of
from harness.model.cell import DebianKernel, KernelIdentity
from harness.placing import digest_of_parts, placed_once

_PART = re.compile(r"^linux-(?:base|binary|modules|headers|kbuild|compiler|image)-\S*\d")
"""Packages made from the kernel's own source for one version; ``linux-base`` itself is the distribution's."""
_ABI = r"\d+\.\d+[0-9a-z.+~]*(?:-rc\d+)?(?:-\d+)?"
_UNPACK_TIMEOUT = 600.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """One release that the index lists, whole or not."""

    release: str
    version: str
    image: tuple[Package, ...]
    """Packages to unpack for booting it."""
    headers: tuple[Package, ...]
    """Packages to install for building modules; empty unless all are there."""
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
    pattern = re.compile(rf"^linux-image-({_ABI}-{re.escape(flavour)})$")
    found = []
    for name in packages.names():
        if match := pattern.match(name):
            image = packages.versions(name)[0]
            found.append(_candidate(packages, match[1], image))
    return tuple(sorted(found, key=lambda one: (debian_key(one.version), one.release), reverse=True))


def _candidate(packages: PackageSet, release: str, image: Package) -> Candidate:
    parts, missing = _closure(packages, [image])
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
            source=f"debian {self.spec.suite}",
            digest=digest_of_parts(parts),
            parts=parts,
            has_headers=chosen.has_headers,
        )

    def fetch(self, into: Path) -> KernelFiles:
        """See :meth:`KernelSource.fetch`."""
        chosen, identity = self._candidate(), self.resolve()

        def build(root: Path) -> None:
            for deb in self.archive.download(self.spec.suite, chosen.image):
                must(["dpkg-deb", "-x", deb, root], timeout=_UNPACK_TIMEOUT)
            lay_out(root, chosen.release)

        headers = self.archive.download(self.spec.suite, chosen.headers) if self.need_headers else []
        root = placed_once(into.absolute() / identity.digest, build)
        return files_in(root, chosen.release, header_debs=tuple(headers))

    def _candidate(self) -> Candidate:
        if self._chosen is None:
            self._chosen = choose(self.spec, self.candidates(), need_headers=self.need_headers)
        return self._chosen


def choose(spec: DebianKernel, candidates: tuple[Candidate, ...], *, need_headers: bool) -> Candidate:
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
        raise KernelUnavailable(f"debian {spec.suite} has no kernel {wanted}; {offer}")
    lacking = "; ".join(f"{one.release}: {one.problem}" for one in fitting[:1])
    raise KernelUnavailable(f"debian {spec.suite} has kernel {wanted} only in part ({lacking}); {offer}")


def lay_out(root: Path, release: str) -> None:
    """Bring an unpacked kernel into merged-/usr layout and index its modules.

    Packages before the /usr merge ship ``lib/modules``; depmod may look for either, so ``lib`` becomes a link.
    """
    modules = root / "usr" / "lib" / "modules"
    old = root / "lib"
    if old.is_dir() and not old.is_symlink():
        (root / "usr" / "lib").mkdir(parents=True, exist_ok=True)
        for folder in old.iterdir():
            folder.rename(root / "usr" / "lib" / folder.name)
        old.rmdir()
    if not old.exists():
        old.symlink_to("usr/lib")
    if not (modules / release).is_dir():
        raise InfraError(f"the packages of {release} hold no usr/lib/modules/{release}")
    shutil.rmtree(root / "usr" / "share", ignore_errors=True)  # documentation
    must(["depmod", "-b", root, release], timeout=_UNPACK_TIMEOUT)


def files_in(root: Path, release: str, *, header_debs: tuple[Path, ...] = ()) -> KernelFiles:
    """Find the parts of a kernel laid out at ``root``, wherever its packaging puts them.

    Raises:
        InfraError: one is not there.
    """
    modules = root / "usr" / "lib" / "modules" / release
    found = []
    for what, places in (
        ("kernel image", (root / "boot" / f"vmlinuz-{release}", modules / "vmlinuz")),
        ("configuration", (root / "boot" / f"config-{release}", modules / "config")),
    ):
        place = next((place for place in places if place.is_file()), None)
        if place is None:
            raise InfraError(f"the packages of {release} hold no {what}; delete {root} to try again")
        found.append(place)
    return KernelFiles(release, found[0], found[1], modules, root, header_debs)
