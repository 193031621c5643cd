"""A guest made of RPMs boots a kernel from RPMs: base, kernel, stack and module builds of that world in one run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from images.rpm_distribution import PROGRAMS, Distribution, make_distribution
from images.rpm_guest import write_guest

from harness.content import content_dir
from harness.errors import InfraError, UserError
from harness.kernels.archive import Archive
from harness.kernels.mirror import checked_keyring, find_mirror
from harness.model.outcome import Outcome
from harness.model.records import Attempt

from .installation import Installation, Running, installed

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.xdist_group("e2e"), pytest.mark.timeout(1800)]

MATRIX = """
version: 1
kernels: [{{name: rpm-6.12, series: longterm, rpm: "{repository}"}}]
guests: [tiny-rpm]
stacks: [tool, akmods, torn]
devices: [none]
"""
CELL = "tiny-rpm/rpm-6.12/{stack}/none"


@pytest.fixture(scope="module")
def distribution(shared_cache: Path) -> Distribution:
    for program in (*PROGRAMS, "qemu-system-x86_64", "buildah", "mkfs.erofs", "busybox"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    pytest.importorskip("libvirt", reason="libvirt-python is not installed")
    try:
        archive = Archive(shared_cache / "apt", find_mirror(), checked_keyring())
        return make_distribution(shared_cache, archive)
    except (InfraError, UserError) as error:
        pytest.skip(f"no packages to make a distribution of: {error}")


@pytest.fixture(scope="module")
def installation(
    distribution: Distribution, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    content = tmp_path_factory.mktemp("content")
    for name in ("_boot", "_build", "_kernels"):
        shutil.copytree(content_dir("guests") / name, content / "guests" / name)
    write_guest(content / "guests", distribution)
    with installed(content, shared_cache) as made:
        yield made


@pytest.fixture(scope="module")
def run(installation: Installation, distribution: Distribution) -> Running:
    """Its one run."""
    return installation.run("run", installation.matrix(MATRIX.format(repository=distribution.repository)))


def attempt(installation: Installation, stack: str) -> Attempt:
    (found,) = [one for one in installation.stored().attempts if one.cell_id == CELL.format(stack=stack)]
    return found


def test_the_guest_boots_its_kernel_and_its_stacks_package_is_installed(
    installation: Installation, run: Running, distribution: Distribution
) -> None:
    found = attempt(installation, "tool")
    seen = {test.name: test.outcome for test in found.tests}
    assert found.facts["uname_release"] == distribution.release, run.out + run.err
    assert found.facts["kernel.source"].startswith("rpm ")
    assert seen["load dummy"] is seen["unload dummy"] is Outcome.PASS
    assert [name for name, outcome in seen.items() if outcome not in (Outcome.PASS, Outcome.SKIP)] == []
    listed = installation.evidence(found, "packages.txt")
    assert "tiny-tool-1-1" in listed
    assert "glibc-" in listed
    assert f"Linux version {distribution.release} " in installation.evidence(found, "console.log")


def test_an_akmod_package_is_built_for_the_kernel_and_its_module_loads(
    installation: Installation, run: Running
) -> None:
    seen = {test.name: test.outcome for test in attempt(installation, "akmods").tests}
    assert seen["load tiny"] is seen["unload tiny"] is Outcome.PASS, run.out + run.err


def test_an_akmod_package_that_does_not_link_is_the_drivers_failure_with_the_symbol(
    installation: Installation, run: Running
) -> None:
    found = attempt(installation, "torn")
    assert found.outcome is Outcome.FAIL, run.out + run.err
    assert "no_kernel_has_this" in run.out
