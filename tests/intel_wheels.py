"""Intel's runtimes for OpenCL and SYCL on CPUs, as the wheels that pip fetches; never part of this project."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

from harness.placing import placed_once

VERSION = "2026.2.0"
"""That of the stack cpu-intel and of gpu_tests/sycl/wheels.txt."""
_NAMES = ("intel-opencl-rt", "intel-cmplr-lib-rt", "intel-sycl-rt")


def intel_wheels(cache: Path) -> Path:
    """A directory with the wheels and what they need; skips where pip cannot fetch them."""

    def fetch(into: Path) -> None:
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--dest", str(into)]
        done = subprocess.run([*argv, *(f"{name}=={VERSION}" for name in _NAMES)], capture_output=True, timeout=550)
        if done.returncode != 0:
            pytest.skip(f"pip did not fetch Intel's runtimes: {done.stderr.decode(errors='replace')[-300:]}")

    return placed_once(cache / "wheels" / f"intel-{VERSION}", fetch)


def intel_runtime(cache: Path) -> dict[str, str]:
    """The environment of a process that computes with Intel's OpenCL and SYCL on this host's CPU, and nothing else."""
    wheels = intel_wheels(cache)

    def unpack(into: Path) -> None:
        (into / "lib").mkdir()
        for wheel in sorted(wheels.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory(dir=into) as folder:
                wanted = [name for name in archive.namelist() if ".data/data/lib/" in name and "-gdb" not in name]
                archive.extractall(folder, [name for name in wanted if name.count("/") == 3])
                for path in Path(folder).rglob("*.data/data/lib/*"):
                    path.rename(into / "lib" / path.name)

    lib = placed_once(cache / "wheels" / f"intel-{VERSION}-unpacked", unpack) / "lib"
    vendors = cache / "wheels" / "intel-vendors"
    vendors.mkdir(exist_ok=True)
    (vendors / "intel-cpu.icd").write_text(f"{lib / 'libintelocl.so'}\n")
    return {"OCL_ICD_VENDORS": str(vendors), "LD_LIBRARY_PATH": str(lib)}
