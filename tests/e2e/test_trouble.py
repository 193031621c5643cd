"""Trouble that is not the guest's: a dead mirror, a damaged cache, a defect of our own, an operator's Ctrl-C."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.images.builder import Images
from harness.model.cell import DebianKernel, KernelSpec, Series
from harness.model.outcome import Outcome
from harness.model.stage import Stage

from .conftest import KERNEL, make_images
from .installation import Installation, Running, complete, installed, stage_of

pytestmark = [pytest.mark.vm, pytest.mark.xdist_group("e2e"), pytest.mark.timeout(900)]


def matrix(*kernels: str, timeouts: str = "") -> str:
    entries = "".join(f"  - {kernel}\n" for kernel in kernels)
    return (
        f"version: 1\nkernels:\n{entries}guests: [debian-13]\nstacks: [probe]\ntests: [enumerate]\n"
        f"limits: {{vms: 2, vm_memory: 768MiB}}\n{timeouts}"
    )


GOOD = "{name: good, series: longterm, debian: trixie}"


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this host's loopback where nobody listens, and nobody will while the test runs."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_a_dead_mirror_costs_only_the_cells_that_need_it(installation: Installation, closed_port: int) -> None:
    apt = installation.home.cache / "apt"
    known = apt.resolve()
    apt.unlink()
    shutil.copytree(known / "suites" / "trixie", apt / "suites" / "trixie")
    # The mirror keeps its name, under which its index is cached, and is reached through a proxy that is gone.
    settings = installation.root / "apt.conf"
    proxies = "".join(f'Acquire::{scheme}::Proxy "http://127.0.0.1:{closed_port}";\n' for scheme in ("http", "https"))
    settings.write_text(proxies)
    path = installation.matrix(matrix(GOOD, "{name: gone, series: stable, debian: trixie-backports}"))
    run = installation.run("run", path, env={"APT_CONFIG": str(settings)})
    assert run.code == 4, run.out + run.err
    results = installation.results()
    assert results["good"].outcome is Outcome.PASS
    assert (results["gone"].outcome, results["gone"].rung) == (Outcome.MISS, Stage.IMAGE)
    assert re.match(r"cannot get the index of trixie-backports from \S+: .*127\.0\.0\.1", results["gone"].reason)
    assert "cannot get the index of trixie-backports" in installation.report()

    planned = installation.run("plan", path, "--json", env={"APT_CONFIG": str(settings)})
    assert [bool(cell["problem"]) for cell in json.loads(planned.out)["cells"]] == [False, True]


def test_a_mirror_that_was_never_reached_leaves_gaps_and_not_findings(
    installation: Installation, closed_port: int
) -> None:
    mirror = {"KDMATRIX_DEBIAN_MIRROR": f"http://127.0.0.1:{closed_port}/debian"}
    (installation.home.cache / "apt").unlink()
    run = installation.run("run", installation.matrix(matrix(GOOD)), env=mirror)
    assert run.code == 4, run.out + run.err
    (attempt,) = installation.stored().attempts
    assert (attempt.outcome, attempt.rung) == (Outcome.MISS, Stage.IMAGE)
    assert "Traceback" not in run.err


WRAPPER = """
from harness.ladder import rungs
from harness.cli import main

shipped = rungs.load

def load(modules, *rest):
    if "kdmatrix.test=bad" in modules.guest.must(["cat", "/proc/cmdline"], timeout=60):
        raise ZeroDivisionError("planted")
    return shipped(modules, *rest)

rungs.load = load
main()
"""


def test_a_defect_of_our_own_is_no_finding_and_stops_no_other_cell(installation: Installation) -> None:
    program = installation.root / "wrapper.py"
    program.write_text(WRAPPER)
    bad = "{name: bad, series: longterm, debian: trixie, cmdline: kdmatrix.test=bad}"
    run = installation.run("run", installation.matrix(matrix(bad, GOOD)), program=program)
    assert run.code == 4, run.out + run.err
    results = installation.results()
    assert results["good"].outcome is Outcome.PASS
    assert (results["bad"].outcome, results["bad"].rung) == (Outcome.MISS, Stage.LOAD)
    assert results["bad"].reason == "defect in kdmatrix: ZeroDivisionError: planted"
    trace = installation.evidence(results["bad"], "traceback.txt")
    assert "ZeroDivisionError: planted" in trace
    assert "in load" in trace
    assert "Linux version" in installation.evidence(results["bad"], "console.log")
    assert "defect in kdmatrix" in installation.report()


PAUSE = [f"{{name: {name}, series: longterm, debian: trixie, cmdline: kdmatrix.test=pause}}" for name in ("one", "two")]


def check_stopped(installation: Installation, run: Running) -> None:
    assert run.said("stopping: cells that have no result go back to the plan")
    assert "kdmatrix run --resume goes on" in run.err
    assert "Traceback" not in run.err
    assert installation.stored().info.state.value == "interrupted"
    assert installation.domains() == []
    assert list(installation.home.journal.glob("*")) == []


def test_ctrl_c_keeps_what_is_known_and_resume_makes_the_rest(installation: Installation) -> None:
    run = installation.start("run", installation.matrix(matrix(*PAUSE)), "--vms", "1")
    run.until(lambda: run.said("debian-13/two/probe/none boot"), "the second cell")
    run.process.send_signal(signal.SIGINT)
    run.end()
    assert run.code == 4, run.out + run.err
    check_stopped(installation, run)
    before = installation.records()
    assert len(before) == 1
    assert [entry.state.value for entry in installation.stored().plan] == ["done", "planned"]

    resumed = installation.run("run", "--resume")
    assert resumed.code == 0, resumed.out + resumed.err
    assert complete(installation.stored())
    assert before.items() <= installation.records().items()
    assert installation.run("clean").code == 0
    assert installation.left() == []


def test_a_terminated_run_gives_its_cells_back_to_the_plan(installation: Installation) -> None:
    run = installation.start("run", installation.matrix(matrix(*PAUSE)))
    run.until(lambda: run.said("none load"), "a loading rung")
    run.process.send_signal(signal.SIGTERM)
    run.end()
    assert run.code == 3, run.out + run.err  # nothing was finished
    check_stopped(installation, run)
    assert [entry.state.value for entry in installation.stored().plan] == ["planned", "planned"]


def test_a_second_ctrl_c_kills_and_clean_tidies_up(installation: Installation) -> None:
    run = installation.start("run", installation.matrix(matrix(*PAUSE)))
    run.until(lambda: run.said("none boot"), "a boot")
    run.process.send_signal(signal.SIGINT)
    run.until(lambda: run.said("once more kills"), "the answer to the first Ctrl-C")
    if run.process.poll() is None:
        run.process.send_signal(signal.SIGINT)
    run.end()
    # The first one may have been done before the second came.
    assert run.code in (-signal.SIGINT, 3, 4), run.out + run.err
    assert installation.run("clean").code == 0
    assert installation.left() == []
    assert installation.stored().attempts == ()


OTHER = KernelSpec("other", Series.LONGTERM, DebianKernel("bookworm"))


@pytest.fixture
def two_kernels(images: Images, content: Path, shared_cache: Path) -> tuple[Path, Path]:
    """The boot files of lts-6.12 and of another kernel in the shared cache."""
    other = make_images(shared_cache, content, OTHER)
    return images.boot_kernel(KERNEL).initramfs.parent, other.boot_kernel(OTHER).initramfs.parent


@pytest.mark.slow
def test_damaged_boot_files_in_the_cache_are_a_miss_and_spare_the_other_kernel(
    two_kernels: tuple[Path, Path], content: Path, shared_cache: Path
) -> None:
    own, _ = two_kernels
    with installed(content, shared_cache) as installation:
        boot = installation.home.cache / "boot" / own.name
        boot.unlink()
        shutil.copytree(own, boot)
        with (boot / "initramfs.cpio").open("r+b") as file:
            file.truncate(own.joinpath("initramfs.cpio").stat().st_size // 3)
        other = "{name: other, series: longterm, debian: bookworm}"
        run = installation.run("run", installation.matrix(matrix(GOOD, other)))
        results = installation.results()
        assert results["other"].outcome is Outcome.PASS, results["other"].reason
        assert (results["good"].outcome, results["good"].rung) == (Outcome.MISS, Stage.BOOT), results["good"].reason
        assert "initramfs" in results["good"].reason
        assert run.code == 4


@pytest.mark.slow
def test_a_cache_that_holds_another_kernel_than_it_says_is_found_out(
    two_kernels: tuple[Path, Path], content: Path, shared_cache: Path
) -> None:
    own, other = two_kernels
    with installed(content, shared_cache) as installation:
        boot = installation.home.cache / "boot" / own.name
        boot.unlink()
        boot.symlink_to(other)
        run = installation.run("run", installation.matrix(matrix(GOOD)))
        (attempt,) = installation.stored().attempts
        assert (attempt.outcome, attempt.rung) == (Outcome.MISS, Stage.BOOT)
        assert re.search(r"the guest runs 6\.1\..*, not 6\.12\.", attempt.reason), attempt.reason
        assert stage_of(attempt, Stage.COMPUTE)[0] is Outcome.SKIP
        assert run.code == 4


@pytest.mark.slow
def test_a_guest_that_is_silent_and_busy_for_long_is_slow_and_not_hung(installation: Installation) -> None:
    late = "{name: late, series: longterm, debian: trixie, cmdline: kdmatrix.test=late}"
    run = installation.run("run", installation.matrix(matrix(late)))
    assert run.code == 0, run.out + run.err
    assert installation.results()["late"].outcome is Outcome.PASS
