"""What the tests of the compute tests share: the built runner, the fault-injecting library, a shell on this host."""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.content import content_dir
from harness.model.shell import Completed
from harness.suites.build import build_runner
from harness.suites.fakes import build_fake

OPENCL_PACKAGES = "ocl-icd-libopencl1 pocl-opencl-icd"


@dataclass(frozen=True, slots=True)
class LocalShell:
    """Runs commands on this host, the way a machine's shell does."""

    env: Mapping[str, str] = field(default_factory=dict)

    def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"", limit: int = 4 << 20) -> Completed:
        started = time.monotonic()
        process = subprocess.Popen(list(argv), stdin=-1, stdout=-1, stderr=-1, env={**os.environ, **self.env})
        timed_out = False
        try:
            out, err = process.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired:
            timed_out = True
            process.kill()
            out, err = process.communicate()
        status = None if timed_out else process.returncode
        cut = len(out) > limit or len(err) > limit
        return Completed(status, out[:limit], err[:limit], time.monotonic() - started, timed_out, truncated=cut)


@pytest.fixture(scope="session")
def sources() -> Path:
    return content_dir("gpu_tests")


@pytest.fixture(scope="session")
def cache(pytestconfig: pytest.Config) -> Path:
    """Survives between test runs, because building the runner takes a minute."""
    return pytestconfig.cache.mkdir("gpu_tests")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A directory of compute tests whose runner compiles in no time."""
    root = tmp_path / "tiny"
    (root / "host").mkdir(parents=True)
    (root / "kernels").mkdir()
    (root / "tests").mkdir()
    (root / "wire.schema.json").write_text("{}")
    (root / "kernels" / "a.inc").write_text("a")
    (root / "host" / "gtrun.cpp").write_text("#include <cstdio>\nint main() { std::puts(GT_BUILD); }\n")
    return root


@pytest.fixture(scope="session")
def built(sources: Path, cache: Path) -> Path:
    return build_runner(sources, cache)


@pytest.fixture(scope="session")
def fake_opencl(sources: Path, cache: Path) -> Path:
    return build_fake("opencl", sources, cache)


@pytest.fixture(scope="session")
def fake_cuda(sources: Path, cache: Path) -> Path:
    return build_fake("cuda", sources, cache)


@pytest.fixture(scope="session")
def opencl(cache: Path) -> Mapping[str, str]:
    """The environment of a process that uses OpenCL on this host; skips where there is no OpenCL device."""
    try:
        library = ctypes.CDLL("libOpenCL.so.1")
    except OSError:
        pytest.skip(f"no OpenCL loader on this host (Debian packages: {OPENCL_PACKAGES})")
    count = ctypes.c_uint32(0)
    status = library.clGetPlatformIDs(0, None, ctypes.byref(count))
    if status != 0 or count.value == 0:
        pytest.skip(f"no OpenCL platform on this host (Debian packages: {OPENCL_PACKAGES})")
    kernels = cache / "pocl"
    kernels.mkdir(exist_ok=True)
    return {"POCL_CACHE_DIR": str(kernels.resolve())}
