"""Builds the compute tests' runner, once per content, into a directory that is ready to be copied into a guest."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.errors import InfraError, UserError
from harness.suites.artefacts import ABSENT, INDEX, find_set

MACHINES = ("x86_64", "aarch64")
"""What the runner is built for, as ``uname -m`` says it: one binary each."""
_C_LIBRARY = "linux-gnu.2.17"
"""The oldest C library that the runner must start on (RHEL 7 and everything since)."""
COMPILE_SECONDS = 900.0
"""The first build with zig compiles its C++ library, too: minutes on a small machine."""

_FLAGS = ("-std=c++17", "-O2", "-fno-ident", "-Wall", "-Wextra", "-Ihost")
_LINK = ("-Wl,--build-id=none", "-s", "-pthread", "-ldl")
_NAMED = "host/gtrun.cpp"
"""The one unit that knows the build's name."""
_COPIED = ("kernels", "tests", "wire.schema.json")
ARTEFACTS = "artefacts"
"""Folder of compiled device code: beside the runner, and of the cache of it below ``into``."""
_NOT_BUILT = "not built on the host that sent the tests: 'kdmatrix artefacts' builds it"


def build_runner(sources: Path, into: Path, *, machine: str = "") -> Path:
    """Compile ``gtrun`` from a ``gpu_tests`` directory and return the directory to copy to ``/opt/gpu_tests``.

    The result, ``into/gpu_tests-<digest>``, holds ``bin/gtrun``, ``kernels/``, ``tests/``, ``wire.schema.json`` and
    ``artefacts/``: the compiled device code, if it has been built for these sources below ``into/artefacts`` (then its
    digest follows in the name), and otherwise the word that it has not. The digest covers sources, compiler and flags;
    a directory of that name is complete (it is renamed into place), so it is returned without building. Safe to call
    from several processes at once.

    ``machine`` is one of MACHINES, this host's if not given; the other one takes zig's compiler.

    Raises:
        UserError: ``sources`` is no ``gpu_tests`` directory, or its code does not compile.
        InfraError: there is no C++ compiler that builds for the machine, or it hangs.

    """
    units = _units(sources)
    compiler = find_compiler(machine)
    digest = _digest(sources, compiler)
    bare = into / f"gpu_tests-{digest[:20]}"
    if not bare.is_dir():
        _compile(sources, units, compiler, digest[:20], bare)
    artefacts = find_set(sources, into / ARTEFACTS)
    return bare if artefacts is None else _carrying(bare, artefacts)


def _compile(sources: Path, units: list[str], compiler: list[str], build: str, target: Path) -> None:
    into = target.parent
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".gpu_tests-", dir=into) as temporary:
        made = Path(temporary) / "made"
        (made / "bin").mkdir(parents=True)
        output = made / "bin" / "gtrun"
        objects = Path(temporary) / "objects"
        objects.mkdir()

        def compile_unit(unit: str) -> str:
            # Paths relative to the sources, and a build name that depends on content alone: the same bytes anywhere.
            made = objects / f"{unit.replace('/', '.')}.o"
            naming = [f'-DGT_BUILD="{build}"'] if unit == _NAMED else []
            compile_cxx(compiler, [*_FLAGS, *naming, "-c", unit, "-o", str(made.resolve())], cwd=sources)
            return made.name

        with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
            linked = list(pool.map(compile_unit, units))
        compile_cxx(compiler, [*linked, "-o", str(output.resolve()), *_LINK], cwd=objects)
        output.chmod(0o755)
        for name in _COPIED:
            _copy(sources / name, made / name)
        (made / ARTEFACTS).mkdir()
        (made / ARTEFACTS / ABSENT).write_text(f"*\t*\t{_NOT_BUILT}\n")
        _place(made, target)


def _carrying(bare: Path, artefacts: Path) -> Path:
    """A copy of a runner's directory with artefacts in it, so that other artefacts are no reason to compile anew."""
    digest = hashlib.sha256((artefacts / INDEX).read_bytes() + (artefacts / ABSENT).read_bytes()).hexdigest()
    target = bare.with_name(f"{bare.name}-{digest[:12]}")
    if not target.is_dir():
        with tempfile.TemporaryDirectory(prefix=".gpu_tests-", dir=bare.parent) as temporary:
            made = Path(temporary) / "made"
            shutil.copytree(bare, made, ignore=shutil.ignore_patterns(ARTEFACTS))
            shutil.copytree(artefacts, made / ARTEFACTS)
            _place(made, target)
    return target


def _place(made: Path, target: Path) -> None:
    made.chmod(0o755)
    try:
        made.rename(target)
    except OSError:
        if not target.is_dir():  # another process was faster: its directory is as good as ours
            raise


def find_compiler(machine: str = "") -> list[str]:
    """Return the command of the C++ compiler: zig's with an old C library as its target, else the host's own.

    Raises:
        UserError: ``machine`` is none of MACHINES.
        InfraError: there is no compiler, or only one that builds for this host and not for ``machine``.

    """
    here = platform.machine()
    machine = machine or here
    if machine not in MACHINES:
        raise UserError(f"the compute tests' runner is built for {' and '.join(MACHINES)}, not for {machine}")
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "c++", "-target", f"{machine}-{_C_LIBRARY}"]
    if machine != here:
        raise InfraError(f"a runner for {machine} takes zig's compiler: install the extra 'kdmatrix[build]'")
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        if name and shutil.which(name):
            return [name, "-static-libstdc++", "-static-libgcc"]
    raise InfraError("no C++ compiler for the compute tests: install the extra 'kdmatrix[build]', or g++")


def compile_cxx(compiler: list[str], arguments: list[str], *, cwd: Path) -> None:
    """Run the compiler in ``cwd``; its first error line becomes the message of what is raised."""
    try:
        done = subprocess.run(
            [*compiler, *arguments], cwd=cwd, capture_output=True, timeout=COMPILE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InfraError(f"the C++ compiler {compiler[0]} did not work: {error}") from error
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").splitlines()
        first = next((line for line in lines if "error" in line), lines[-1] if lines else "no message")
        raise UserError(f"{cwd}: the compute tests do not compile: {first.strip()}")


def _units(sources: Path) -> list[str]:
    if not (sources / "host" / "gtrun.cpp").is_file():
        raise UserError(f"{sources}: not a directory of compute tests (it lacks host/gtrun.cpp)")
    missing = [name for name in _COPIED if not (sources / name).exists()]
    if missing:
        raise UserError(f"{sources}: not a directory of compute tests (it lacks {missing[0]})")
    return sorted(path.relative_to(sources).as_posix() for path in (sources / "host").rglob("*.cpp"))


def _digest(sources: Path, compiler: list[str]) -> str:
    """Hash everything that the result depends on."""
    probe = [*compiler, "--version"]
    try:
        version = subprocess.run(probe, capture_output=True, timeout=COMPILE_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise InfraError(f"the C++ compiler {compiler[0]} did not work: {error}") from error
    # Where the interpreter lies does not matter; which compiler it starts does.
    command = ["python" if compiler[0] == sys.executable else compiler[0], *compiler[1:]]
    sha = hashlib.sha256(repr((command, _FLAGS, _LINK)).encode())
    sha.update(_version_line(version))
    paths = [path for name in ("host", *_COPIED) for path in _files(sources / name)]
    for path in sorted(paths, key=lambda p: p.relative_to(sources).as_posix()):
        content = path.read_bytes()
        sha.update(f"\0{path.relative_to(sources).as_posix()}\0{len(content)}\0".encode() + content)
    return sha.hexdigest()


def _version_line(version: bytes) -> bytes:
    """Return what names the compiler; the lines behind it tell paths of this machine."""
    return version.split(b"\n", 1)[0]


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [found for found in path.rglob("*") if found.is_file()]


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)
