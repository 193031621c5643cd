"""The SYCL runner: what it is built from, what happens where it cannot be built, and the tests on a real SYCL."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from intel_wheels import intel_runtime

from harness.content import content_dir
from harness.errors import InfraError, UserError
from harness.model.outcome import Outcome
from harness.suites import sycl
from harness.suites.build import compile_cxx
from harness.suites.manifest import load_tests
from harness.suites.run import LEFT_OUT, run_test
from harness.suites.sycl import build_with_sycl

from .conftest import LocalShell

BACKEND = """
#include <sycl/sycl.hpp>
extern "C" int gt_make_sycl() { return stands_for_sycl(); }
"""
OPENER = """
#include <dlfcn.h>
#include <cstdio>
#include <cstdlib>
struct AtStart {
    AtStart() {
        void *library = dlopen(std::getenv("GT_SYCL"), RTLD_NOW);
        if (library) std::printf("%d ", reinterpret_cast<int (*)()>(dlsym(library, "gt_make_sycl"))());
    }
} at_start;
"""

needs_gcc = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")


@pytest.fixture
def tiny_sycl(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Compute tests whose SYCL is one function, in a wheel that lies in a directory and is fetched by the real pip."""
    (tiny / "sycl").mkdir()
    (tiny / "sycl" / "be_sycl.cpp").write_text(BACKEND)
    (tiny / "sycl" / "open_sycl.cpp").write_text(OPENER)
    library = tmp_path / "libsycl.so"
    (tmp_path / "sycl.cpp").write_text("int stands_for_sycl() { return 42; }\n")
    compile_cxx(["g++"], ["-shared", "-fPIC", "sycl.cpp", "-Wl,-soname,libsycl.so", "-o", "libsycl.so"], cwd=tmp_path)
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    with zipfile.ZipFile(shelf / "intel_sycl_rt-1-py3-none-any.whl", "w") as wheel:
        inside = "intel_sycl_rt-1.data/data"
        wheel.writestr(f"{inside}/include/sycl/sycl.hpp", "int stands_for_sycl();\n")
        wheel.writestr(f"{inside}/lib/libsycl.so", library.read_bytes())
        wheel.writestr(f"{inside}/lib/libsycl-jit.so", b"large")
        info = "intel_sycl_rt-1.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: intel-sycl-rt\nVersion: 1\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    digest = subprocess.run(
        ["sha256sum", shelf / "intel_sycl_rt-1-py3-none-any.whl"], capture_output=True, check=True, text=True
    ).stdout.split()[0]
    (tiny / "sycl" / "wheels.txt").write_text(f"intel-sycl-rt==1 --hash=sha256:{digest}\n")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    # The portable runner is not the subject, and zig takes its time.
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    return tiny


@needs_gcc
def test_the_runner_and_its_backend_are_added_to_the_portable_ones_directory(tiny_sycl: Path, tmp_path: Path) -> None:
    made = build_with_sycl(tiny_sycl, tmp_path / "out", tmp_path / "wheels")
    done = LocalShell({"GT_SYCL": str(made / "lib/gt_sycl.so"), "LD_LIBRARY_PATH": str(tmp_path)}).run(
        [str(made / "bin/gtrun-sycl")], timeout=20
    )
    assert done.stdout.decode() == f"42 {made.name}\n"
    assert (made / "bin" / "gtrun").is_file()
    assert (made / "kernels" / "a.inc").is_file()
    assert not (made / "absent").exists()


@needs_gcc
def test_a_second_build_fetches_and_compiles_nothing(
    tiny_sycl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build_with_sycl(tiny_sycl, tmp_path / "out", tmp_path / "wheels")

    def never(*_: object, **__: object) -> None:
        raise AssertionError("again")

    monkeypatch.setattr(sycl, "compile_cxx", never)
    monkeypatch.setattr(sycl, "_download", never)
    assert build_with_sycl(tiny_sycl, tmp_path / "out", tmp_path / "wheels") == first
    assert [path.name for path in (tmp_path / "wheels").iterdir()] == [
        path.name for path in (tmp_path / "wheels").glob("sycl-*")
    ]
    with (tiny_sycl / "sycl" / "be_sycl.cpp").open("a") as file:
        file.write("\n")
    with pytest.raises(AssertionError, match="again"):
        build_with_sycl(tiny_sycl, tmp_path / "out", tmp_path / "wheels")


@needs_gcc
def test_a_wheel_that_is_not_the_pinned_one_leaves_the_runner_out(tiny_sycl: Path, tmp_path: Path) -> None:
    (tiny_sycl / "sycl" / "wheels.txt").write_text(f"intel-sycl-rt==1 --hash=sha256:{'0' * 64}\n")
    made = build_with_sycl(tiny_sycl, tmp_path / "out", tmp_path / "wheels")
    why = (made / "absent" / "sycl").read_text()
    assert why.startswith("pip did not fetch libsycl for the SYCL runner: ERROR")
    assert not (made / "bin" / "gtrun-sycl").exists()
    assert (made / "bin" / "gtrun").is_file()


@needs_gcc
def test_a_host_without_a_compiler_of_its_own_leaves_the_runner_out(
    tiny_sycl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(sycl, "build_runner", lambda *_: tiny_sycl)
    monkeypatch.setattr("shutil.which", lambda name: None)
    (tmp_path / "out").mkdir()
    made = build_with_sycl(tiny_sycl, tmp_path / "out", tmp_path / "wheels")
    assert (made / "absent" / "sycl").read_text() == (
        "no C++ compiler of this host's own for the SYCL runner: install g++\n"
    )


@needs_gcc
def test_a_backend_that_does_not_compile_is_told_and_nothing_is_kept(tiny_sycl: Path, tmp_path: Path) -> None:
    (tiny_sycl / "sycl" / "be_sycl.cpp").write_text("nonsense\n")
    with pytest.raises(UserError, match=r"do not compile: .*nonsense"):
        build_with_sycl(tiny_sycl, tmp_path / "out", tmp_path / "wheels")
    assert [path.name for path in (tmp_path / "out").iterdir() if "sycl" in path.name] == []


def test_a_wheel_that_reaches_out_of_its_directory_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.whl", "w") as wheel:
        wheel.writestr("x.data/data/include/../../../out.h", "")
    with pytest.raises(InfraError, match="refuses to unpack"):
        sycl._unpack(tmp_path / "bad.whl", tmp_path / "into")
    assert not (tmp_path / "out.h").exists()


def test_a_runner_that_was_left_out_is_a_skip_with_the_reason(sources: Path, tmp_path: Path) -> None:
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent" / "sycl").write_text("no C++ compiler\n")
    spec = dataclasses.replace(load_tests(sources)["vecadd"], backends=("sycl",))
    (result,), _ = run_test(LocalShell(), spec, backend="sycl", timeout=5, gpu_tests_dir=str(tmp_path))
    assert (result.outcome, result.reason) == (Outcome.SKIP, "no C++ compiler")
    assert result.details[LEFT_OUT] == "no C++ compiler"


# --- the real SYCL, on this host's CPU

ON_SYCL = [test.name for test in load_tests(content_dir("gpu_tests")).values() if "sycl" in test.backends]


@pytest.fixture(scope="session")
def built_with_sycl(sources: Path, cache: Path, shared_cache: Path) -> Path:
    made = build_with_sycl(sources, cache, shared_cache / "wheels")
    if (made / "absent").is_dir():
        pytest.skip((made / "absent" / "sycl").read_text().strip())
    return made


@pytest.fixture(scope="session")
def sycl_environment(shared_cache: Path) -> Mapping[str, str]:
    return intel_runtime(shared_cache)


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_SYCL)
def test_a_test_passes_on_a_real_sycl(
    name: str, sources: Path, built_with_sycl: Path, sycl_environment: Mapping[str, str]
) -> None:
    spec = dataclasses.replace(load_tests(sources)[name], budget=0.5)
    shell = LocalShell(sycl_environment)
    (result,) = run_test(shell, spec, backend="sycl", timeout=120, gpu_tests_dir=str(built_with_sycl))[0]
    assert result.outcome is Outcome.PASS, result.reason
    assert result.kind == "cpu-runtime"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "before", "after", "noticed"),
    [
        ("vecadd", "a[a0 + i] + b[b0 + i]", "a[a0 + i] - b[b0 + i]", "wrong"),
        ("vecadd", "if (i < n) c", "if (i + 1u < n) c", "wrong"),
        ("vecadd", "a[a0 + i] + b[b0 + i]", "no code", "SYCL builds no kernels"),
        ("atomics", "if (GT_ATOMIC_CAS((GT_G gt_uint *)out + out0, 0u, 1u) == 0u)", "", "lock_excludes"),
        ("atomics", "GT_ATOMIC_ADD(out + out0, word);", "out[out0] += word;", "sum_least_greatest"),
        ("managed", "gt_mix(memory[memory0 + i] + turn)", "gt_mix(memory[memory0 + i])", "managed_ping_pong"),
        ("managed", "GT_ATOMIC_ADD(memory + memory0 + 2u * i + 1u, 1u)", "memory[memory0 + 2u * i] += 1u", "together"),
    ],
)
def test_device_code_that_computes_something_else_fails_on_sycl(
    name: str,
    before: str,
    after: str,
    noticed: str,
    sources: Path,
    built_with_sycl: Path,
    sycl_environment: Mapping[str, str],
    tmp_path: Path,
) -> None:
    root = tmp_path / "gpu_tests"
    shutil.copytree(built_with_sycl, root)
    code = (root / "kernels" / f"{name}.inc").read_text()
    assert before in code
    (root / "kernels" / f"{name}.inc").write_text(code.replace(before, after))
    spec = dataclasses.replace(load_tests(sources)[name], budget=0.5)
    (result,) = run_test(LocalShell(sycl_environment), spec, backend="sycl", timeout=60, gpu_tests_dir=str(root))[0]
    assert result.outcome is Outcome.FAIL
    assert noticed in result.reason


@pytest.mark.slow
def test_a_guest_without_sycls_libraries_is_a_skip_and_one_without_a_device_a_failure(
    sources: Path, built_with_sycl: Path, sycl_environment: Mapping[str, str], tmp_path: Path
) -> None:
    spec = load_tests(sources)["enumerate"]
    (absent,) = run_test(LocalShell(), spec, backend="sycl", timeout=60, gpu_tests_dir=str(built_with_sycl))[0]
    assert (absent.outcome, absent.reason[:21]) == (Outcome.SKIP, "no SYCL: libsycl.so.9")
    no_device = LocalShell({**sycl_environment, "OCL_ICD_VENDORS": str(tmp_path)})
    (none,) = run_test(no_device, spec, backend="sycl", timeout=60, gpu_tests_dir=str(built_with_sycl))[0]
    assert none.outcome is Outcome.FAIL


@pytest.mark.slow
def test_the_sycl_runner_has_every_test_that_names_sycl(sources: Path, built_with_sycl: Path) -> None:
    done = LocalShell().run([str(built_with_sycl / "bin/gtrun-sycl"), "list"], timeout=20)
    known = done.stdout.decode().split("\n")
    assert "backend sycl" in known
    for name in ON_SYCL:
        assert f"test {load_tests(sources)[name].argv[1]}" in known
