"""Compiling device code in a guest with the stack's own compiler: found, called, and believed only with a result."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.suites.artefact_spec import device_source

PROGRAM = r"""
#include <cstdio>
#include <fstream>
#include <sstream>
#include "toolkit.h"
// EXTENSION ARCHITECTURE SOURCE SECONDS: prints what compiles it and how much that made, or why nothing.
int main(int, char **argv) {
    const gt::CodeTarget target{gt::Form::kBinary, "binary", argv[2], argv[1]};
    const std::string program = gt::toolkit_program(target);
    if (program.empty()) return std::printf("absent %s\n", gt::toolkit_name(target)), 0;
    std::stringstream source;
    source << std::ifstream(argv[3]).rdbuf();
    try {
        const std::string code = gt::toolkit_compile(program, target, argv[2], source.str(), std::atof(argv[4]));
        std::printf("made %zu %s\n", code.size(), code.substr(0, 60).c_str());
    } catch (const gt::ApiFailure &e) {
        std::printf("failed %s\n", e.what());
    }
}
"""


@pytest.fixture(scope="module")
def toolkit(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler on this host (Debian package: g++)")
    folder = tmp_path_factory.mktemp("toolkit")
    (folder / "main.cpp").write_text(PROGRAM)
    host = sources / "host"
    units = [folder / "main.cpp", host / "toolkit.cpp", host / "wire.cpp", host / "gt_api.cpp"]
    argv = [compiler, "-std=c++17", "-O1", f"-I{host}", *map(str, units), "-o", str(folder / "toolkit"), "-pthread"]
    subprocess.run(argv, check=True)
    return folder / "toolkit"


@pytest.fixture
def source(sources: Path, tmp_path: Path) -> Path:
    path = tmp_path / "magic"
    path.write_bytes(device_source(sources, "magic"))
    return path


def run(toolkit: Path, source: Path, extension: str, architecture: str, path: Path, seconds: float = 30.0) -> str:
    environment = {"PATH": f"{path}:{os.environ['PATH']}", "TMPDIR": str(source.parent)}
    argv = [toolkit, extension, architecture, source, str(seconds)]
    done = subprocess.run(argv, env=environment, capture_output=True, check=True, text=True, timeout=120)
    left = [one.name for one in source.parent.iterdir() if one.name.startswith("gtrun-toolkit-")]
    assert left == [], "the working directory stays behind"
    return done.stdout


def program(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    return folder


def test_intels_own_compiler_makes_a_binary(toolkit: Path, source: Path, tmp_path: Path) -> None:
    if shutil.which("ocloc") is None:
        pytest.skip("ocloc is not installed (Debian package: intel-opencl-icd)")
    said = run(toolkit, source, "bin", "dg2-g10", tmp_path / "none")
    assert said.startswith("made ")
    assert int(said.split()[1]) > 1000


def test_nvcc_and_hipcc_are_asked_for_the_architecture(toolkit: Path, source: Path, tmp_path: Path) -> None:
    found = program(tmp_path / "bin", "nvcc", 'test -s code.cu && echo "$*" > code.bin')
    assert "-cubin -arch=sm_90 -o code.bin code.cu" in run(toolkit, source, "cubin", "sm_90", found)
    found = program(tmp_path / "bin", "hipcc", 'test $HIP_PLATFORM = amd -a -s code.cu && echo "$*" > code.bin')
    said = run(toolkit, source, "hsaco", "gfx942", found)
    assert "--genco --offload-arch=gfx942 -x hip -o code.bin code.cu" in said


def test_a_toolkit_that_is_not_there_is_named(toolkit: Path, source: Path, tmp_path: Path) -> None:
    if shutil.which("hipcc") or Path("/opt/rocm/bin/hipcc").exists():
        pytest.skip("hipcc is installed")
    assert run(toolkit, source, "hsaco", "gfx942", tmp_path / "none") == "absent hipcc\n"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo note >&2; echo 'code.cu(1): error: no' >&2; exit 2", "failed nvcc returned 2: code.cu(1): error: no\n"),
        ("exit 0", "failed nvcc made nothing: \n"),
        ("kill -SEGV $$", "failed nvcc was ended by signal 11: \n"),
        ("sleep 60 & sleep 60", "failed nvcc did not finish within 1 s\n"),
    ],
)
def test_a_toolkit_that_does_not_work_is_a_finding(
    toolkit: Path, source: Path, tmp_path: Path, script: str, said: str
) -> None:
    assert run(toolkit, source, "cubin", "sm_90", program(tmp_path / "bin", "nvcc", script), 1.0) == said
