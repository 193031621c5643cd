"""A compute test in a rootless container, on this host's podman."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from harness.model.shell import Completed
from harness.suites.fakes import build_fake
from harness.suites.wire import parse

from .conftest import LocalShell
from .test_level_zero import needs_ocloc

# A container's manager wants the unified hierarchy, which not every host has mounted; the kernel of each has it.
UNIFIED = 'umount -R -l /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup && cd "${CLOSED:-/}" && exec "$@"'


@pytest.fixture
def podman() -> str:
    """Skips where this host has no rootless containers."""
    for program in ("podman", "crun", "conmon"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian package: {program})")
    if os.geteuid() != 0:
        pytest.skip("the test mounts a cgroup hierarchy, which takes root")
    probe = ["unshare", "--mount", "sh", "-c", UNIFIED, "sh", "true"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("the unified cgroup hierarchy cannot be mounted here")
    return "podman"


def contained(built: Path, env: Mapping[str, str], *words: str) -> Completed:
    argv = [str(built / "bin/gtrun"), "run", "container", "--budget", "0.3", "--deadline", "100", *words]
    return LocalShell(env).run(["unshare", "--mount", "sh", "-c", UNIFIED, "sh", *argv], timeout=120)


@pytest.fixture
def scratch(opencl: Mapping[str, str], tmp_path: Path) -> Iterator[Mapping[str, str]]:
    """The environment of a runner whose containers lie in a folder that must be empty afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="kdm-"))
    folder.chmod(0o755)  # who runs the container is not the owner
    try:
        yield {**opencl, "TMPDIR": str(folder), "CLOSED": str(tmp_path)}
        assert list(folder.iterdir()) == []
    finally:
        shutil.rmtree(folder)


def test_a_test_passes_in_a_container_without_root_and_with_its_device_by_cdi(
    built: Path, scratch: Mapping[str, str], podman: str
) -> None:
    done = contained(built, scratch, "--set", "test=triad")
    wire = parse(done.stdout)
    assert done.exit_status == 0, (wire.of("result"), done.stderr)
    assert {record.text("test") for record in wire.of("hello")} == {"container"}
    checks = {record.text("name"): record.data["ok"] for record in wire.of("check")}
    for name in ("in_a_container", "without_root", "described_by_cdi", "triad_exact", "passed_in_a_container"):
        assert checks[name] is True
    assert [record.text("name") for record in wire.of("metric")] == ["triad_bw"]
    assert len(wire.of("result")) == 1
    (mark,) = [r.text("detail").partition("=")[2] for r in wire.of("check") if r.text("name") == "described_by_cdi"]
    assert mark
    assert not Path(f"/run/cdi/kdmatrix-{mark}.json").exists()


@pytest.mark.parametrize("backend", ["cuda", "hip", pytest.param("level-zero", marks=needs_ocloc)])
def test_a_drivers_library_is_opened_in_a_container_too(
    built: Path, scratch: Mapping[str, str], sources: Path, cache: Path, podman: str, backend: str
) -> None:
    library = str(build_fake(backend, sources, cache))
    done = contained(built, scratch, "--backend", backend, "--library", library, "--set", "test=inference")
    wire = parse(done.stdout)
    assert done.exit_status == 0, (wire.of("result"), done.stderr)
    checks = {record.text("name"): record.data["ok"] for record in wire.of("check")}
    assert all(checks[name] is True for name in ("in_a_container", "without_root", "tiny_logits"))


def test_wrong_data_in_the_container_fails_the_test_outside(
    built: Path, scratch: Mapping[str, str], fake_opencl: Path, podman: str
) -> None:
    done = contained(
        built, {**scratch, "GT_FAKE_FAULT": "bitflip"}, "--library", str(fake_opencl), "--set", "test=vecadd"
    )
    wire = parse(done.stdout)
    assert done.exit_status == 1
    assert "sum_exact" in wire.of("result")[0].text("reason")


def test_a_container_that_hangs_is_ended_and_removed(
    built: Path, scratch: Mapping[str, str], fake_opencl: Path, podman: str
) -> None:
    env = {**scratch, "GT_FAKE_FAULT": "hang"}
    done = contained(built, env, "--library", str(fake_opencl), "--set", "test=vecadd", "--deadline", "12")
    assert done.exit_status == 1, parse(done.stdout).of("result")
    assert str(fake_opencl) not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout


def test_a_host_without_podman_skips_the_test_and_says_so(built: Path, opencl: Mapping[str, str]) -> None:
    argv = [str(built / "bin/gtrun"), "run", "container", "--set", "test=vecadd"]
    there = shutil.which("podman")
    if there is not None:
        if os.geteuid() != 0:
            pytest.skip("hiding this host's podman takes root")
        argv = ["unshare", "--mount", "sh", "-c", 'mount --bind /dev/null "$0" && exec "$@"', there, *argv]
    done = LocalShell(opencl).run(argv, timeout=60)
    assert done.exit_status == 77
    assert "podman is not installed" in parse(done.stdout).of("result")[0].text("reason")


def test_a_name_that_is_no_test_is_our_own_error(built: Path, opencl: Mapping[str, str]) -> None:
    done = LocalShell(opencl).run([str(built / "bin/gtrun"), "run", "container", "--set", "test=vecad"], timeout=60)
    assert done.exit_status == 2
