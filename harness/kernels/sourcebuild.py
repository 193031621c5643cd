"""Kernels that are built here from source, in a container, with the compilers of a guest's distribution.

One build gives both what is booted and what modules are built against; it is kept under the digest of everything that
went in, so it is made once. Sources: Documentation/kbuild/kbuild.rst, scripts/package/install-extmod-build,
Documentation/rust/quick-start.rst (``make rustavailable``).
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from harness.errors import InfraError
from harness.kernels.archive import Archive
from harness.kernels.config import read_config
from harness.kernels.fragments import Fragment, lost, read_fragments, requested
from harness.kernels.layout import files_in, headers_in, lay_out
from harness.kernels.source import Headers, KernelFiles, KernelUnavailable
from harness.kernels.sourcecode import Described, SourceCode, source_code
from harness.model.cell import KernelIdentity, SourceKernel
from harness.placing import digest_of_parts, placed_once, write_atomically

LOCALVERSION = "-kdmatrix"
"""Ends every release that is built here: no kernel of a distribution is called so."""
BUILD_TIMEOUT = 7200.0
_CONFIGURE_TIMEOUT = 900.0
_PROGRAM = "build.sh"
_RUST = re.compile(r"^CONFIG_(?:RUST|RUST_\w+|NOVA_CORE|DRM_NOVA)$")
_ERRORS = (
    re.compile(r"^\S+?:\d+(?::\d+)?: (?:fatal )?error: .*$", re.MULTILINE),
    re.compile(r"^error(?:\[E\d+\])?: .*$", re.MULTILINE),
    re.compile(r"^(?:ERROR|error): .*$|^.*\bld: .*$|^.*: undefined reference to .*$", re.MULTILINE),
    re.compile(r"^make(?:\[\d+\])?: \*\*\* .*$", re.MULTILINE),
)
"""What tells most about a failed build, the most telling first."""
_CCACHE_SIZE = "5G"


class Toolchain(Protocol):
    """Gives build roots: a guest's distribution with what compiles a kernel."""

    def key(self, guest: str) -> str:
        """What the build root of a guest is made of, in one digest; nothing is built."""
        ...

    def run(
        self,
        guest: str,
        argv: Sequence[str],
        *,
        volumes: Sequence[tuple[Path, str, str]],
        env: Mapping[str, str],
        timeout: float,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run ``argv`` in the build root, with (path on the host, path inside, ``ro`` or ``rw``) mounted."""
        ...


class KernelBuildFailed(KernelUnavailable):
    """A source does not give the kernel that is asked for: its configuration is not to be had, or it does not compile.

    That speaks of a source, a configuration and a compiler, before any driver is under test: the cells of this kernel
    are not covered.
    """


@dataclass(slots=True)
class SourceBuild:
    """A kernel built from source; see :class:`harness.kernels.source.KernelSource`."""

    spec: SourceKernel
    content: Path
    """The folder ``_kernels`` of the guests' content: configurations, the build program."""
    cache: Path
    """Holds ``sourcebuilds`` and ``ccache-kernels``."""
    toolchain: Toolchain
    archive: Callable[[], Archive]
    """Called when Debian's source is wanted."""
    jobs: int = 1
    on_part: Callable[[str], None] = lambda _part: None
    """Told when a build begins, and of its steps."""
    _identity: KernelIdentity | None = field(default=None, init=False, repr=False)
    _code: SourceCode | None = field(default=None, init=False, repr=False)
    _fragments: tuple[Fragment, ...] = field(default=(), init=False, repr=False)

    def resolve(self) -> KernelIdentity:
        """See :meth:`KernelSource.resolve`. Nothing is built: the source says what its release will be."""
        if self._identity is None:
            self._fragments = read_fragments(self.content, self.spec.base, self.spec.fragments)
            self._code = source_code(self.spec, self.archive)
            described = self._code.describe()
            program = hashlib.sha256((self.content / _PROGRAM).read_bytes()).hexdigest()
            parts = (
                described.part,
                *((f"{index} {one.name}.config", one.digest) for index, one in enumerate(self._fragments)),
                (_PROGRAM, program),
                (f"toolchain {self.spec.guest}", self.toolchain.key(self.spec.guest)),
            )
            names = "+".join(one.name for one in self._fragments)
            self._identity = KernelIdentity(
                release=_release(described, self._fragments),
                version=described.version,
                source=f"built from {described.what} ({names})",
                digest=digest_of_parts(parts),
                parts=parts,
                has_headers=True,
                commit=described.commit,
            )
        return self._identity

    def fetch(self, into: Path) -> KernelFiles:
        """See :meth:`KernelSource.fetch`. Builds the kernel if no earlier call did.

        Raises:
            KernelBuildFailed: a symbol of the configuration did not survive, or the source does not compile.
            InfraError: the build root cannot be had, or the build did not end in time.
        """
        identity = self.resolve()
        built = self._built()
        root = placed_once(into.absolute() / identity.digest, lambda folder: _link_tree(built / "kernel", folder))
        return files_in(root, identity.release)

    def headers(self, into: Path) -> Headers:
        """See :meth:`KernelSource.headers`. Comes from the same build as the kernel.

        Raises:
            KernelUnavailable: the source is too old to tell which of its files modules need.
        """
        identity = self.resolve()
        built = self._built()
        if not (built / "headers").is_dir():
            why = "it has no modules, or is older than 6.4"
            raise KernelUnavailable(f"{identity.release}: its build delivers no headers ({why})")
        root = placed_once(into.absolute() / identity.digest, lambda folder: _link_tree(built / "headers", folder))
        return headers_in(root, identity.release)

    def _built(self) -> Path:
        """The folder with ``kernel``, ``headers``, ``build.json`` and ``build.log`` of this build."""
        identity = self.resolve()
        final = self.cache.absolute() / "sourcebuilds" / identity.digest
        final.parent.mkdir(parents=True, exist_ok=True)
        return placed_once(final, self._build, timeout=2 * BUILD_TIMEOUT)

    def _build(self, folder: Path) -> None:
        identity = self.resolve()
        assert self._code is not None
        work = folder / "work"
        for name in ("source", "build", "config", "out"):
            (work / name).mkdir(parents=True)
        self.on_part(f"source of {identity.release}")
        self._code.unpack(work / "source")
        for index, fragment in enumerate(self._fragments):
            (work / "config" / f"{index:02}-{fragment.name}.config").write_text(fragment.text)
        self._configure(work)
        self.on_part(f"building {identity.release} ({identity.source})")
        started = time.monotonic()
        log = self._step("compile", work, BUILD_TIMEOUT)
        seconds = time.monotonic() - started
        self._check_release(work)
        for product in sorted((work / "out").iterdir()):
            product.rename(folder / product.name)
        lay_out(folder / "kernel", identity.release)
        (folder / "build.log").write_bytes(log)
        (folder / "build.json").write_text(json.dumps(_facts(work, identity, seconds), indent=1) + "\n")
        shutil.rmtree(work)

    def _configure(self, work: Path) -> None:
        """Merge the configurations and hold the result against what they ask for, before anything is compiled."""
        self._step("configure", work, _CONFIGURE_TIMEOUT)
        config = read_config(work / "build" / ".config")
        gone = lost(requested(self._fragments), config)
        if gone:
            reason = f"{len(gone)} of the requested symbols did not survive: {'; '.join(gone[:5])}"
            if any(_RUST.match(line.partition(":")[0]) for line in gone):
                said = (work / "build" / "rustavailable").read_text(errors="replace").split("\n")
                words = " ".join(line.strip(" *") for line in said if line.strip())
                reason += f"; make rustavailable says: {words[:300]}"
            raise KernelBuildFailed(f"{self.resolve().release}: {reason}")

    def _step(self, step: str, work: Path, timeout: float) -> bytes:
        """Run one step of the build program in the build root; return its log."""
        ccache = self.cache.absolute() / "ccache-kernels"
        ccache.mkdir(parents=True, exist_ok=True)
        done = self.toolchain.run(
            self.spec.guest,
            ["/kernel/build.sh", step],
            volumes=(
                ((self.content / _PROGRAM).absolute(), "/kernel/build.sh", "ro"),
                (work / "source", "/kernel/source", "ro"),
                (work / "config", "/kernel/config", "ro"),
                (work / "build", "/kernel/build", "rw"),
                (work / "out", "/kernel/out", "rw"),
                (ccache, "/kernel/ccache", "rw"),
            ),
            env={
                "KDM_JOBS": str(self.jobs),
                "KDM_LOCALVERSION": LOCALVERSION,
                "KDM_RELEASE": self.resolve().release,
                "CCACHE_DIR": "/kernel/ccache",
                "CCACHE_MAXSIZE": _CCACHE_SIZE,
                # The same compiler from another image has another time, and is still the same compiler.
                "CCACHE_COMPILERCHECK": "content",
            },
            timeout=timeout,
        )
        log = done.stdout + done.stderr
        if done.returncode != 0:
            kept = self.cache.absolute() / "sourcebuilds" / f"{self.resolve().digest}.failed.log"
            write_atomically(kept, log)
            what = f"{self.resolve().release} did not {step} (status {done.returncode})"
            raise KernelBuildFailed(f"{what}: {first_error(log.decode(errors='replace'))}; its log is {kept}")
        return log

    def _check_release(self, work: Path) -> None:
        """Refuse a kernel that calls itself otherwise than was said before it was built."""
        said = (work / "build" / "release").read_text(errors="replace").strip()
        if said != self.resolve().release:
            raise InfraError(f"the source of {self.resolve().release} was built, and calls itself {said}")


def first_error(log: str) -> str:
    """The line of a build's log that tells most: the first compiler error, else what make says."""
    for pattern in _ERRORS:
        if match := pattern.search(log):
            return " ".join(match[0].split())[:300]
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def _release(described: Described, fragments: Sequence[Fragment]) -> str:
    """What ``uname -r`` will print: the order of the parts is that of scripts/setlocalversion."""
    local = ""
    for fragment in fragments:
        for found in re.findall(r'^CONFIG_LOCALVERSION="(.*)"$', fragment.text, re.MULTILINE):
            local = found
    return f"{described.release}{local}{LOCALVERSION}"


def _facts(work: Path, identity: KernelIdentity, seconds: float) -> dict[str, object]:
    """What is recorded of a build beside its products."""
    path = work / "build" / ".config"
    config = read_config(path)
    minutes = re.findall(r"(\d+)m([\d.]+)s", (work / "build" / "times").read_text().splitlines()[-1])
    return {
        "release": identity.release,
        "version": identity.version,
        "source": identity.source,
        "commit": identity.commit,
        "parts": dict(identity.parts),
        "config_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "compiler": config.get("CONFIG_CC_VERSION_TEXT", ""),
        "rustc": config.get("CONFIG_RUSTC_VERSION_TEXT", ""),
        "bindgen": config.get("CONFIG_BINDGEN_VERSION_TEXT", ""),
        "wall_seconds": round(seconds, 1),
        "cpu_seconds": round(sum(60 * int(one) + float(two) for one, two in minutes), 1),
    }


def _link_tree(source: Path, into: Path) -> None:
    """Copy a tree of read-only files as hard links, or in full where the target is on another file system."""

    def place(one: str, other: str) -> str:
        try:
            Path(other).hardlink_to(one)
        except OSError:
            shutil.copy2(one, other)
        return other

    shutil.copytree(source, into, symlinks=True, copy_function=place, dirs_exist_ok=True)
