"""Builds a stack's modules for a kernel, without a VM and without a GPU.

A container of the stack's build root sees the kernel's headers where the distribution has them, ``/proc``, a compiler
cache that all builds share, and an empty directory for what it makes. The build programs are content:
``guests/_build/METHOD``. What counts are the module files; an exit status only says why there are none.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.drivers.compiler import compiler_of
from harness.drivers.diagnose import first_error, infrastructure_fault
from harness.drivers.prove import complaint, read_module
from harness.drivers.result import MODULE_BUILD, CompilerError, ModuleBuild, ModuleFile
from harness.drivers.roots import BuildRoot, Roots
from harness.errors import InfraError
from harness.hostcmd import must
from harness.images.buildah import Volume
from harness.images.builder import Images, content_key, digest_of_tree
from harness.images.recipe import Build
from harness.kernels.source import Headers, KernelUnavailable
from harness.keys import SigningKeys
from harness.model.cell import KernelSpec
from harness.model.image import Layer
from harness.model.outcome import Outcome
from harness.placing import placed_once

_PROGRAMS = "/run/kdmatrix/build"
_OUT = "/run/kdmatrix/out"
_CCACHE = "/run/kdmatrix/ccache"
_KEYS = "/run/kdmatrix/keys"
_BAD_BUILD = frozenset({6, 7, 10})
"""Exit statuses that blame the driver: its patches do not apply, it made no module, it did not compile."""
_NO_HEADERS = frozenset({13, 21})
_EXCLUDED = 77
_STATUS = re.compile(r"exit(?:ed with)? status")
_LOG_LIMIT = 4 << 20
_CCACHE_SIZE = "6G"
_REMEMBERED = "result.json"
_LOG = "build.log"


class NotBuilt(InfraError):
    """The build root or the lab kept a build from saying anything about the driver."""

    def __init__(self, reason: str, log: bytes = b"") -> None:
        super().__init__(reason)
        self.log = log


@dataclass(frozen=True, slots=True)
class Built:
    """A build as it lies in the cache."""

    result: ModuleBuild
    folder: Path
    """Holds ``build.log`` and, where it passed, ``modules/*.ko``."""
    key: str
    fresh: bool
    """Whether it was made just now."""

    @property
    def log(self) -> bytes:
        """What compiler and build method said, head and tail where it is long."""
        return (self.folder / _LOG).read_bytes()


@dataclass(slots=True)
class Drivers:
    """Builds and keeps the modules of stacks."""

    images: Images
    roots: Roots
    keys: Callable[[], SigningKeys]
    jobs: int
    """Compilers at a time in each build."""
    cache: Path
    """Where built modules and the compilers' cache are kept."""
    ccache: bool = True
    """Whether compilers share a cache."""

    def prepare(self, guest: str, stack: str, kernel: KernelSpec, *, timeout: float) -> BuildRoot:
        """Make everything that a build needs: headers, and a build root with the kernel's own compiler.

        Raises:
            KernelUnavailable: there are no headers.
            BuildFailed, InfraError: the build root cannot be made.
        """
        return self.roots.of(guest, stack, self._compiler(kernel), timeout)

    def build(self, guest: str, stack: str, kernel: KernelSpec, *, timeout: float) -> Built:
        """Build the modules of a stack for a kernel, or return what an earlier build of the same came to.

        Raises:
            KernelUnavailable: there are no headers.
            BuildFailed: the build root cannot be made.
            NotBuilt: the build failed for a reason that says nothing about the driver; it is not remembered.
        """
        recipe = self.images.recipes.stack(guest, stack).build
        assert recipe is not None, "asked to build a stack without modules"
        root = self.prepare(guest, stack, kernel, timeout=timeout)
        headers = self.headers(kernel)
        key = self._key(root, recipe, kernel)
        folder = self.cache / "modules" / key[:32]
        made: list[bool] = []

        def make(into: Path) -> None:
            made.append(True)
            self.images.begin(f"modules of {stack} for {headers.release}")
            self._build_into(into, root, recipe, headers, timeout)

        self.images.once(f"modules {key}", lambda: placed_once(folder, make, timeout=timeout))
        return Built(MODULE_BUILD.validate_json((folder / _REMEMBERED).read_bytes()), folder, key, bool(made))

    def headers(self, kernel: KernelSpec) -> Headers:
        """What modules for a kernel are built against.

        Raises:
            KernelUnavailable: the source has no headers of it.
        """

        def fetch() -> Headers:
            folder = self.images.cache / "headers"
            folder.mkdir(parents=True, exist_ok=True)
            return self.images.kernel_source(kernel, False).headers(folder)

        return self.images.once(f"headers {kernel.source}", fetch)

    def missing(self, guest: str, stack: str, kernel: KernelSpec) -> tuple[str, ...]:
        """The parts of a build that are not in the cache; nothing is made, except that headers may be fetched."""
        recipe = self.images.recipes.stack(guest, stack).build
        if recipe is None:
            return ()
        identity = self.images.identity(kernel)
        if not (self.images.cache / "headers" / identity.digest).is_dir():
            return (f"headers {identity.release}", f"modules of {stack}")
        compiler = self._compiler(kernel)
        if not self.roots.exists(guest, stack, compiler):
            return (f"build root {guest} with {stack} and {compiler}", f"modules of {stack}")
        root = self.roots.of(guest, stack, compiler, 60)
        done = self.cache / "modules" / self._key(root, recipe, kernel)[:32]
        return () if done.is_dir() else (f"modules of {stack}",)

    def layer(self, built: Built, kernel: KernelSpec) -> Layer:
        """The modules of a build as a read-only layer above the kernel's, with depmod's indices over both."""
        boot = self.images.boot_kernel(kernel)
        release = built.result.release

        def fill(tree: Path) -> None:
            modules = tree / "usr" / "lib" / "modules" / release
            with tempfile.TemporaryDirectory(prefix="depmod-", dir=self.images.scratch()) as scratch:
                both = Path(scratch) / "usr" / "lib" / "modules" / release
                both.parent.mkdir(parents=True)
                (Path(scratch) / "lib").symlink_to("usr/lib")
                shutil.copytree(boot.modules, both, symlinks=True, copy_function=_link)
                extra = both / "updates"
                extra.mkdir(exist_ok=True)
                for module in sorted((built.folder / "modules").glob("*.ko")):
                    shutil.copy(module, extra)
                for index in both.glob("modules.*"):
                    _own(index)
                must(["depmod", "-b", scratch, release], timeout=600)
                modules.parent.mkdir(parents=True)
                modules.mkdir()
                shutil.copytree(extra, modules / "updates")
                for index in both.glob("modules.*"):
                    shutil.copy2(index, modules)

        key = content_key("modules", built.key, boot.identity.digest)
        return Layer("modules", self.images.layer_of("modules", key, f"modules layer {release}", fill))

    def _compiler(self, kernel: KernelSpec) -> str:
        return compiler_of(self.headers(kernel).config.read_text(errors="replace")).package

    def _key(self, root: BuildRoot, recipe: Build, kernel: KernelSpec) -> str:
        identity = self.images.identity(kernel)
        programs = [self.images.recipes.build_dir / name for name in ("entry", recipe.method)]
        certificate = "" if recipe.sign == "none" else self._signing(recipe)[1].read_bytes().hex()
        return content_key(
            root.key, identity.digest, certificate, *recipe.produces, *(digest_of_tree(path) for path in programs)
        )

    def _signing(self, recipe: Build) -> tuple[Path, Path]:
        keys = self.keys()
        pair = keys.lab if recipe.sign == "lab" else keys.stranger
        return pair.key, pair.certificate

    def _build_into(self, into: Path, root: BuildRoot, recipe: Build, headers: Headers, timeout: float) -> None:
        out = into / "modules"
        out.mkdir()
        ccache = self.cache / "ccache"
        ccache.mkdir(exist_ok=True)
        volumes: list[Volume] = [
            (self.images.recipes.build_dir.absolute(), _PROGRAMS, "ro"),
            (out, _OUT, "rw"),
            (ccache, _CCACHE, "rw"),
            *mounts(headers),
        ]
        environment = {
            "KDM_RELEASE": headers.release,
            "KDM_JOBS": str(self.jobs),
            "KDM_OUT": _OUT,
            "KDM_SIGN_KEY": "",
            "KDM_SIGN_CERT": "",
            "CCACHE_DIR": _CCACHE,
            "CCACHE_MAXSIZE": _CCACHE_SIZE,
            "CCACHE_STATSLOG": f"{_OUT}/ccache",
        }
        if not self.ccache:
            environment["CCACHE_DISABLE"] = "1"
        if recipe.sign != "none":
            key, certificate = self._signing(recipe)
            volumes += [(key, f"{_KEYS}/key.pem", "ro"), (certificate, f"{_KEYS}/certificate.der", "ro")]
            environment |= {"KDM_SIGN_KEY": f"{_KEYS}/key.pem", "KDM_SIGN_CERT": f"{_KEYS}/certificate.der"}
        started = time.monotonic()
        done = self.images.buildah.run(
            root.reference,
            ["sh", f"{_PROGRAMS}/entry", recipe.method],
            volumes=volumes,
            env=environment,
            timeout=timeout,
        )
        seconds = time.monotonic() - started
        said = done.stdout + done.stderr
        compiled = _read(out / "log")
        log = _bounded(said + (b"\n--- log of the build ---\n" + compiled if compiled else b""))
        hits, misses = _ccache_counts(_read(out / "ccache").decode(errors="replace"))
        sources = tuple(
            (name, version)
            for name, _, version in (line.partition(" ") for line in _read(out / "sources").decode().splitlines())
        )
        modules = tuple(read_module(path) for path in sorted(out.glob("*.ko")))
        outcome, reason, error = _judge(done.returncode, log.decode(errors="replace"), modules, recipe, headers.release)
        cpu = _cpu_seconds(_read(out / "times").decode(errors="replace"))
        for name in ("log", "ccache", "sources", "times"):
            (out / name).unlink(missing_ok=True)
        (into / _LOG).write_bytes(log)
        result = ModuleBuild(
            outcome=outcome,
            reason=reason,
            release=headers.release,
            compiler=compiler_of(headers.config.read_text(errors="replace")).text,
            sources=sources,
            modules=modules,
            seconds=seconds,
            cpu_seconds=cpu,
            ccache_hits=hits,
            ccache_misses=misses,
            error=error,
            packages=root.packages,
        )
        (into / _REMEMBERED).write_bytes(MODULE_BUILD.dump_json(result))


def _judge(
    status: int, log: str, modules: tuple[ModuleFile, ...], recipe: Build, release: str
) -> tuple[Outcome, str, CompilerError | None]:
    """Return (outcome, reason, first error) of a build.

    Raises:
        KernelUnavailable: the headers are not there, or not all of them.
        NotBuilt: the build says nothing about the driver.
    """
    if status == 0:
        wrong = complaint(modules, recipe.produces, release)
        return (Outcome.FAIL if wrong else Outcome.PASS), wrong, None
    if status == _EXCLUDED:
        lines = [line.strip() for line in log.splitlines() if "BUILD_EXCLUSIVE" in line or "not supported" in line]
        why = lines[0] if lines else "its own rules say so"
        return Outcome.SKIP, f"the driver excludes this kernel: {why[:200]}", None
    if status in _NO_HEADERS:
        raise KernelUnavailable(f"{recipe.method} found no usable headers of {release} (status {status})")
    fault = infrastructure_fault(log)
    if fault or status not in _BAD_BUILD:
        # What buildah itself says at the end only repeats the status.
        lines = [line.strip() for line in log.splitlines() if line.strip() and not _STATUS.search(line)]
        last = lines[-1] if lines else "no output"
        raise NotBuilt(fault or f"{recipe.method} returned {status}: {last[:200]}", log.encode())
    error = first_error(log)
    if error is None:
        return Outcome.FAIL, f"{recipe.method} returned {status} and named no error; see build.log", None
    where = f"{error.file}:{error.line}: " if error.line else f"{error.file}: " if error.file else ""
    return Outcome.FAIL, f"{where}{error.message}"[:300], error


def mounts(headers: Headers) -> Iterator[Volume]:
    """Bind what a header tree holds to the same places of the build root, as few and as deep as need be."""
    usr = headers.root / "usr"
    for folder in (usr / "src", usr / "lib", usr / "lib" / "modules"):
        for one in sorted(folder.iterdir()) if folder.is_dir() else ():
            if one != usr / "lib" / "modules":
                yield one, f"/{one.relative_to(headers.root)}", "ro"
    build = usr / "lib" / "modules" / headers.release / "build"
    target = build.readlink() if build.is_symlink() else None
    if target is not None and target.is_absolute() and not (headers.root / target.relative_to("/")).exists():
        yield target, str(target), "ro"  # a build tree on this host, which its modules directory links to


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _bounded(log: bytes) -> bytes:
    if len(log) <= _LOG_LIMIT:
        return log
    half = _LOG_LIMIT // 2
    return log[:half] + f"\n[{len(log) - _LOG_LIMIT} bytes left out]\n".encode() + log[-half:]


def _ccache_counts(text: str) -> tuple[int, int]:
    """(hits, misses) of a ccache statistics log; what cannot be cached counts as neither."""
    words = text.split()
    hits = sum(words.count(name) for name in ("direct_cache_hit", "preprocessed_cache_hit"))
    return hits, words.count("cache_miss")


def _cpu_seconds(text: str) -> float:
    """Processor seconds of the children from the output of the shell's ``times``: its second line, user and system."""
    lines = text.split("\n")
    total = 0.0
    for word in lines[1].split() if len(lines) > 1 else ():
        minutes, _, seconds = word.rstrip("s").partition("m")
        total += int(minutes) * 60 + float(seconds)
    return total


def _link(source: str, target: str) -> str:
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)
    return target


def _own(path: Path) -> None:
    """Replace a hard link by a copy, so that writing to it changes nothing elsewhere."""
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
