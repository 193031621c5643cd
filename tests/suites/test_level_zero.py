"""The Level Zero backend: its declarations against the vendor's header, and the real loader."""

from __future__ import annotations

import ctypes
import ctypes.util
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.model.shell import Completed
from harness.suites.fakes import build_fake
from harness.suites.wire import parse

from .conftest import LocalShell

HEADER = Path("/usr/include/level_zero/ze_api.h")
CHECK = Path(__file__).with_name("ze_abi_check.cpp")

needs_header = pytest.mark.skipif(
    not HEADER.is_file() or shutil.which("g++") is None, reason="no ze_api.h or g++ (Debian packages: libze-dev g++)"
)


needs_ocloc = pytest.mark.skipif(
    ctypes.util.find_library("ocloc") is None, reason="no libocloc.so (Debian package: intel-opencl-icd)"
)


def run_on_fake(arguments: list[str], sources: Path, built: Path, cache: Path, **environment: str) -> Completed:
    shell = LocalShell({"GT_LIBRARY": str(build_fake("level-zero", sources, cache)), **environment})
    return shell.run([str(built / "bin/gtrun"), "run", *arguments, "--backend", "level-zero"], timeout=60)


def compiles(declarations: Path) -> subprocess.CompletedProcess[str]:
    argv = ["g++", "-std=c++17", "-fsyntax-only", f"-I{declarations}", str(CHECK)]
    return subprocess.run(argv, capture_output=True, text=True)


@needs_header
def test_our_declarations_are_those_of_the_vendors_header(sources: Path) -> None:
    done = compiles(sources / "host")
    assert done.returncode == 0, done.stderr


@needs_header
@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("kDeviceLost = 0x70000001", "kDeviceLost = 0x70000002", "kDeviceLost"),
        ("std::uint64_t max_alloc;", "std::uint32_t max_alloc;", "ze::DeviceProperties"),
        ("X(zeModuleDestroy, (Object))", "X(zeModuleDestroy, (Object, Object))", "zeModuleDestroy"),
    ],
)
def test_a_declaration_that_differs_is_noticed(
    right: str, wrong: str, told: str, sources: Path, tmp_path: Path
) -> None:
    text = (sources / "host" / "ze_abi.h").read_text()
    assert right in text
    (tmp_path / "ze_abi.h").write_text(text.replace(right, wrong))
    done = compiles(tmp_path)
    assert done.returncode != 0
    assert told in done.stderr


@needs_ocloc
def test_memory_is_shared_where_the_driver_takes_the_descriptor_over_by_itself(
    sources: Path, built: Path, cache: Path
) -> None:
    done = run_on_fake(["ipc"], sources, built, cache, GT_FAKE_IPC_NAMES_PROCESS="1")
    assert done.exit_status == 0, done.stdout.decode()


@needs_ocloc
@pytest.mark.parametrize(("environment", "looks"), [({}, True), ({"GT_FAKE_UNPRIVILEGED": "1"}, False)])
def test_free_memory_is_not_believed_where_the_kernel_calls_all_of_it_free(
    environment: dict[str, str], looks: bool, sources: Path, built: Path, cache: Path
) -> None:
    done = run_on_fake(["memory_walk", "--budget", "0.4"], sources, built, cache, **environment)
    assert done.exit_status == 0, done.stdout.decode()
    assert (b"device_memory_returns" in done.stdout) is looks


@needs_ocloc
def test_the_roof_of_memory_is_the_bandwidth_that_the_driver_states_and_not_from_its_width_of_addresses(
    sources: Path, built: Path, cache: Path
) -> None:
    done = run_on_fake(["stream", "--budget", "0.2"], sources, built, cache)
    (copied,) = [one for one in parse(done.stdout).of("metric") if one.text("name") == "copy_bw"]
    assert (copied.number("roof"), copied.text("roof_src")) == (3352e9, "attr:read_bandwidth")


@needs_ocloc
def test_vector_engines_are_counted_also_where_slices_are_not_alike(sources: Path, built: Path, cache: Path) -> None:
    done = run_on_fake(["enumerate"], sources, built, cache)
    assert {one.number("compute_units") for one in parse(done.stdout).of("device")} == {4}


def test_an_absent_loader_is_a_skip(built: Path) -> None:
    shell = LocalShell({"GT_LIBRARY": "libNoSuchLevelZero.so.1"})
    argv = [str(built / "bin/gtrun"), "run", "enumerate", "--backend", "level-zero"]
    done = shell.run(argv, timeout=20)
    assert done.exit_status == 77
    assert b"no Level Zero loader" in done.stdout


def test_a_loader_without_a_driver_offers_no_device(built: Path) -> None:
    try:
        ctypes.CDLL("libze_loader.so.1")
    except OSError:
        pytest.skip("no Level Zero loader on this host (Debian package: libze1)")
    if list(Path("/usr/lib").glob("*/libze_intel_gpu.so.1")):
        pytest.skip("a Level Zero driver is installed")
    argv = [str(built / "bin/gtrun"), "run", "vecadd", "--backend", "level-zero"]
    done = LocalShell().run(argv, timeout=20)
    assert done.exit_status == 1
    assert b"the driver offers no device" in done.stdout
