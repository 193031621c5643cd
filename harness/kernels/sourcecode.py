"""Where a kernel's source comes from: a tarball, a commit of a local repository, or Debian's ``linux-source`` package.

What a source will call itself is known before it is built, from its top-level Makefile (``VERSION``, ``PATCHLEVEL``,
``SUBLEVEL``, ``EXTRAVERSION``) and its ``localversion*`` files; source: scripts/setlocalversion.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.errors import InfraError, UserError
from harness.hostcmd import must, run
from harness.kernels.archive import Archive
from harness.kernels.packages import Package
from harness.kernels.source import KernelUnavailable
from harness.kernels.version import debian_key, in_series, upstream_of
from harness.model.cell import SourceKernel
from harness.placing import sha256_file

_TIMEOUT = 1200.0
_PACKAGE = re.compile(r"^linux-source-\d+\.\d+(?:\.\d+)?$")
_UPSTREAM = re.compile(r"^(\d+)\.(\d+)(?:\.(\d+))?[~-]?(rc\d+)?$")
_ASSIGNMENT = re.compile(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION)[ \t]*=[ \t]*(\S*)[ \t]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Described:
    """A source tree as it is known without unpacking it."""

    what: str
    """For people: ``debian trixie-backports``, ``git /home/me/linux v7.3``."""
    version: str
    """Package version, ``git describe``, or what the Makefile says."""
    release: str
    """What ``make kernelrelease`` prints before any local version of the configuration."""
    part: tuple[str, str]
    """(name, sha256) of the content."""
    commit: str = ""


class SourceCode(Protocol):
    """One source tree."""

    def describe(self) -> Described:
        """Say what it is; the same answer for the life of this object."""
        ...

    def unpack(self, into: Path) -> None:
        """Fill the empty folder ``into`` with the tree, its Makefile on top."""
        ...


def source_code(spec: SourceKernel, archive: Callable[[], Archive]) -> SourceCode:
    """The source that a matrix names. ``archive`` is called only for Debian's."""
    if spec.tarball is not None:
        return Tarball(Path(spec.tarball).expanduser().absolute())
    if spec.git is not None:
        return Commit(Path(spec.git[0]).expanduser().absolute(), spec.git[1])
    if spec.debian is None:
        raise UserError("a kernel from source wants one of tarball, git and debian")
    return DebianPackage(spec.debian, spec.version, archive)


def release_in(makefile: str, local: Mapping[str, str]) -> str:
    """The release that a Makefile and the ``localversion*`` files (by name) make.

    Raises:
        UserError: it is no kernel's Makefile.
    """
    said = dict(reversed(_ASSIGNMENT.findall(makefile)))  # the first assignment counts
    if not (said.get("VERSION", "").isdecimal() and said.get("PATCHLEVEL", "").isdecimal()):
        raise UserError("its top-level Makefile names no VERSION and PATCHLEVEL: this is no kernel source")
    number = ".".join(said[key] for key in ("VERSION", "PATCHLEVEL", "SUBLEVEL") if said.get(key))
    suffix = "".join("".join(local[name].split()) for name in sorted(local) if not name.endswith("~"))
    return f"{number}{said.get('EXTRAVERSION', '')}{suffix}"


@dataclass(slots=True)
class Tarball:
    """``linux-*.tar`` as kernel.org publishes it, compressed in any way that tar knows; one folder on top."""

    path: Path
    _described: Described | None = None

    def describe(self) -> Described:
        """See :meth:`SourceCode.describe`."""
        if self._described is None:
            if not self.path.is_file():
                raise UserError(f"kernel source {self.path}: no such file")
            with tempfile.TemporaryDirectory() as folder:
                wanted = ["--wildcards", "--no-wildcards-match-slash", "*/Makefile", "*/localversion*"]
                # Its status also tells that one of the patterns matched nothing, as the second mostly does.
                argv: list[str | Path] = ["tar", "-x", "-f", self.path, "-C", folder, "--strip-components=1"]
                argv += ["--no-same-owner", *wanted]
                run(argv, timeout=_TIMEOUT)
                release = _release_of(Path(folder), f"kernel source {self.path}")
            part = (self.path.name, sha256_file(self.path))
            self._described = Described(f"tarball {self.path.name}", release, release, part)
        return self._described

    def unpack(self, into: Path) -> None:
        """See :meth:`SourceCode.unpack`."""
        must(["tar", "-x", "-f", self.path, "-C", into, "--strip-components=1", "--no-same-owner"], timeout=_TIMEOUT)


@dataclass(slots=True)
class Commit:
    """One commit of a repository on this host; what is not committed has no part in it."""

    repository: Path
    reference: str
    _described: Described | None = None

    def describe(self) -> Described:
        """See :meth:`SourceCode.describe`."""
        if self._described is None:
            if not self.repository.is_dir():
                raise UserError(f"kernel repository {self.repository}: no such directory")
            commit = self._parsed(f"{self.reference}^{{commit}}")
            tree = self._parsed(f"{commit}^{{tree}}")
            listed = self._git("ls-tree", "--name-only", commit).splitlines()
            local = {name: self._git("show", f"{commit}:{name}") for name in listed if name.startswith("localversion")}
            if "Makefile" not in listed:
                raise UserError(f"kernel repository {self.repository}: {self.reference} has no Makefile")
            try:
                release = release_in(self._git("show", f"{commit}:Makefile"), local)
            except UserError as error:
                raise UserError(f"kernel repository {self.repository}: {error}") from None
            described = self._git("describe", "--tags", "--always", commit).strip()
            part = (f"git tree {tree}", hashlib.sha256(tree.encode()).hexdigest())
            what = f"git {self.repository} {self.reference}"
            self._described = Described(what, described, release, part, commit)
        return self._described

    def unpack(self, into: Path) -> None:
        """See :meth:`SourceCode.unpack`."""
        commit = self.describe().commit
        with tempfile.TemporaryDirectory(dir=into.parent) as folder:
            archive = Path(folder) / "source.tar"
            self._git("archive", "--format=tar", f"--output={archive}", commit)
            must(["tar", "-x", "-f", archive, "-C", into, "--no-same-owner"], timeout=_TIMEOUT)

    def _parsed(self, expression: str) -> str:
        done = self._run("rev-parse", "--verify", "--quiet", "--end-of-options", expression)
        if done.returncode != 0:
            raise UserError(f"kernel repository {self.repository}: it has no commit {self.reference}")
        return done.stdout.decode().split()[-1]

    def _git(self, *words: str) -> str:
        done = self._run(*words)
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise InfraError(f"git {words[0]} in {self.repository} failed: {said[:200]}")
        return done.stdout.decode(errors="replace")

    def _run(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        # A repository of another user is refused by git unless it is named as safe; it is only read here.
        argv: list[str | Path] = ["git", "-c", f"safe.directory={self.repository}", "-C", self.repository, *words]
        return run(argv, timeout=_TIMEOUT)


@dataclass(slots=True)
class DebianPackage:
    """The newest ``linux-source-X.Y`` of a suite: the distribution's source with its patches applied."""

    suite: str
    version: str | None
    archive: Callable[[], Archive]
    _package: Package | None = None

    def describe(self) -> Described:
        """See :meth:`SourceCode.describe`. Nothing is downloaded but the suite's index."""
        package = self._chosen()
        upstream = upstream_of(package.version)
        match = _UPSTREAM.match(upstream)
        if match is None:
            raise KernelUnavailable(f"debian {self.suite}: no kernel release is known for {package.version}")
        release = f"{match[1]}.{match[2]}.{match[3] or 0}" + (f"-{match[4]}" if match[4] else "")
        return Described(f"debian {self.suite}", package.version, release, (package.filename, package.sha256))

    def unpack(self, into: Path) -> None:
        """See :meth:`SourceCode.unpack`."""
        package = self._chosen()
        deb = self.archive().download(self.suite, [package])[0]
        with tempfile.TemporaryDirectory(dir=into.parent) as folder:
            must(["dpkg-deb", "-x", deb, folder], timeout=_TIMEOUT)
            found = sorted(Path(folder).glob("usr/src/linux-source-*.tar.*"))
            if len(found) != 1:
                raise InfraError(f"{package.filename} holds {len(found)} source archives, expected one")
            Tarball(found[0]).unpack(into)

    def _chosen(self) -> Package:
        if self._package is None:
            packages = self.archive().index(self.suite).packages
            named = [name for name in packages.names() if _PACKAGE.match(name)]
            # Backports go on listing versions whose files are gone; the newest of each name is what there is.
            newest = [packages.versions(name)[0] for name in named]
            newest.sort(key=lambda package: debian_key(package.version), reverse=True)
            wanted = self.version
            fitting = [one for one in newest if wanted is None or in_series(upstream_of(one.version), wanted)]
            if not fitting:
                have = ", ".join(f"{one.name} ({one.version})" for one in newest) or "none"
                narrowed = f" of {wanted}" if wanted else ""
                raise KernelUnavailable(f"debian {self.suite} has no linux-source package{narrowed}; it has: {have}")
            self._package = fitting[0]
        return self._package


def _release_of(folder: Path, what: str) -> str:
    makefile = folder / "Makefile"
    if not makefile.is_file():
        raise UserError(f"{what}: it has no top-level Makefile, so it is no kernel source")
    local = {path.name: path.read_text(errors="replace") for path in folder.glob("localversion*")}
    try:
        return release_in(makefile.read_text(errors="replace"), local)
    except UserError as error:
        raise UserError(f"{what}: {error}") from None
