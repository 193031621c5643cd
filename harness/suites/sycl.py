"""Builds the SYCL runner, and puts it beside the other one.

``libsycl`` is a C++ library of the host's ABI, so what links with it cannot come from the compiler that the portable
runner is built with. It needs no SYCL compiler: libsycl compiles device code at run time. Its headers and the library
to link with come from a Python wheel, whose licence forbids to pass it on: it is downloaded when it is first needed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.errors import InfraError, UserError
from harness.suites.build import COMPILE_SECONDS, build_runner, compile_cxx

RUNNER = "gtrun-sycl"
ABSENT = "absent"
"""Folder of the built directory: one text file per backend that this host could not build, which says why."""
DOWNLOAD_SECONDS = 900.0

_FLAGS = ("-std=c++17", "-O2", "-fno-ident", "-Wall", "-Wextra", "-Ihost")
_LINK = ("-Wl,--build-id=none", "-s", "-pthread", "-ldl")


def build_with_sycl(sources: Path, into: Path, wheels: Path) -> Path:
    """Return the directory of :func:`harness.suites.build.build_runner` with the SYCL runner added.

    ``wheels`` is a cache of what was downloaded. On a host without a C++ compiler of its own, or without a way to the
    wheel, the runner is left out and ``absent/sycl`` of the result says why.

    Raises:
        UserError: the sources do not compile.
        InfraError: the portable runner cannot be built.

    """
    portable = build_runner(sources, into)
    requirements = sources / "sycl" / "wheels.txt"
    try:
        compiler = native_compiler()
        # The portable runner's name stands for all sources but SYCL's own.
        sha = hashlib.sha256(repr((portable.name, compiler, _version(compiler), _FLAGS, _LINK)).encode())
        for path in sorted((sources / "sycl").iterdir()):
            sha.update(f"\0{path.name}\0".encode() + path.read_bytes())
        target = into / f"{portable.name}-sycl-{sha.hexdigest()[:12]}"
        if target.is_dir():
            return target
        libraries = sycl_libraries(requirements, wheels)
    except InfraError as error:
        reason = str(error)
        name = f"{portable.name}-no-sycl-{hashlib.sha256(reason.encode()).hexdigest()[:12]}"
        return _placed(portable, into / name, lambda made: _leave_out(made, reason))
    return _placed(portable, target, lambda made: _compile(compiler, sources, libraries, made, target.name))


def native_compiler() -> str:
    """The host's own C++ compiler, whose standard library is the one that libsycl uses."""
    for name in (os.environ.get("CXX"), "g++", "c++"):
        if name and shutil.which(name):
            return name
    raise InfraError("no C++ compiler of this host's own for the SYCL runner: install g++")


def sycl_libraries(requirements: Path, wheels: Path) -> Path:
    """Return a directory with ``include/`` and ``lib/libsycl.so`` of the wheel that ``requirements`` names.

    Raises:
        InfraError: it cannot be downloaded.

    """
    try:
        pinned = requirements.read_bytes()
    except OSError as error:
        raise UserError(f"{requirements}: not readable: {error.strerror}") from error
    target = wheels / f"sycl-{hashlib.sha256(pinned).hexdigest()[:20]}"
    if target.is_dir():
        return target
    wheels.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".sycl-", dir=wheels) as temporary:
        _download(requirements, Path(temporary))
        made = Path(temporary) / "made"
        for wheel in sorted(Path(temporary).glob("*.whl")):
            _unpack(wheel, made)
        if not (made / "lib" / "libsycl.so").is_file() or not (made / "include" / "sycl" / "sycl.hpp").is_file():
            raise InfraError(f"{requirements}: the wheel holds no libsycl.so with its headers")
        _rename(made, target)
    return target


def _download(requirements: Path, into: Path) -> None:
    arguments = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--requirement", str(requirements.resolve())]
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(into.resolve()), *arguments]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=DOWNLOAD_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InfraError(f"pip did not fetch libsycl for the SYCL runner: {error}") from error
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no message"]
        told = next((line for line in lines if line.startswith("ERROR")), lines[-1])
        raise InfraError(f"pip did not fetch libsycl for the SYCL runner: {told[:300]}")


def _unpack(wheel: Path, into: Path) -> None:
    """Take the headers and the one library that is linked with; the rest of the wheel is half a gigabyte."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            inside = name.partition(".data/data/")[2]
            if inside != "lib/libsycl.so" and not inside.startswith("include/"):
                continue
            path = into / inside
            if ".." in path.parts:
                raise InfraError(f"{wheel.name}: refuses to unpack {name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            if not name.endswith("/"):
                path.write_bytes(archive.read(name))


def _compile(compiler: str, sources: Path, libraries: Path, made: Path, build: str) -> None:
    (made / "lib").mkdir()
    backend = made / "lib" / "gt_sycl.so"
    include = [*("-isystem", str((libraries / "include").resolve()))]
    link = [f"-L{(libraries / 'lib').resolve()}", "-lsycl", *_LINK]
    runner = made / "bin" / RUNNER
    # Other backends open a driver's library; this program is for the one that cannot.
    units = [p for p in sorted((sources / "host").rglob("*.cpp")) if not p.name.startswith("be_")]
    names = [*(p.relative_to(sources).as_posix() for p in units), "sycl/open_sycl.cpp"]
    with tempfile.TemporaryDirectory(prefix=".objects-", dir=made.parent) as objects:

        def one(name: str) -> str:
            output = Path(objects).resolve() / f"{name.replace('/', '.')}.o"
            naming = [f'-DGT_BUILD="{build}"'] if name == "host/gtrun.cpp" else []
            compile_cxx([compiler], [*_FLAGS, *naming, "-c", name, "-o", str(output)], cwd=sources)
            return str(output)

        with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
            shared = ["-fPIC", "-shared", *include, "sycl/be_sycl.cpp", "-o", str(backend.resolve()), *link]
            library = pool.submit(compile_cxx, [compiler], [*_FLAGS, *shared], cwd=sources)
            linked = list(pool.map(one, names))
            library.result()
        # What the library throws and derives from is the program's own.
        compile_cxx([compiler], [*linked, "-rdynamic", "-o", str(runner.resolve()), *_LINK], cwd=sources)
    runner.chmod(0o755)
    backend.chmod(0o755)


def _leave_out(made: Path, reason: str) -> None:
    (made / ABSENT).mkdir()
    (made / ABSENT / "sycl").write_text(f"{reason}\n", encoding="utf-8")


def _placed(portable: Path, target: Path, add: Callable[[Path], None]) -> Path:
    """``target``, made of a copy of ``portable`` and what ``add`` puts in; in full or not at all."""
    if target.is_dir():
        return target
    with tempfile.TemporaryDirectory(prefix=".gpu_tests-", dir=target.parent) as temporary:
        made = Path(temporary) / "made"
        shutil.copytree(portable, made)
        add(made)
        made.chmod(0o755)
        _rename(made, target)
    return target


def _rename(made: Path, target: Path) -> None:
    try:
        made.rename(target)
    except OSError:
        if not target.is_dir():  # another process was faster: its directory is as good as ours
            raise


def _version(compiler: str) -> str:
    try:
        done = subprocess.run([compiler, "--version"], capture_output=True, timeout=COMPILE_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise InfraError(f"the C++ compiler {compiler} did not work: {error}") from error
    return done.stdout.decode("utf-8", "replace").partition("\n")[0]
