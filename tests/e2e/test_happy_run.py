"""The whole path of the shipped stacks: from a matrix file to results, evidence and a report."""

from __future__ import annotations

import json
import re

import pytest

from harness.model.outcome import Outcome
from harness.model.stage import Stage

from .installation import Installation, Running, complete

pytestmark = [pytest.mark.vm, pytest.mark.xdist_group("e2e"), pytest.mark.timeout(900)]

MATRIX = """
version: 1
kernels: [{name: lts-6.12, series: longterm, debian: trixie}]
guests: [debian-13]
stacks: [cpu-opencl, intree]
tests: [enumerate, vecadd, triad]
include:
  - {stack: cpu-opencl, device: "0000:01:00.0"}
presets:
  again: {stacks: [cpu-opencl], devices: [none], tests: [enumerate]}
"""
OPENCL, INTREE = "debian-13/lts-6.12/cpu-opencl/none", "debian-13/lts-6.12/intree/none"


@pytest.fixture(scope="module")
def run(module_installation: Installation) -> Running:
    """The first run of an installation."""
    return module_installation.run("run", module_installation.matrix(MATRIX), "--report", "page")


def test_a_healthy_matrix_exits_with_0_and_names_its_report(module_installation: Installation, run: Running) -> None:
    assert run.code == 0, run.out + run.err
    assert "2 cells: 2 PASS; 1 combinations left out" in run.out
    assert complete(module_installation.stored())
    assert (module_installation.root / "page" / "index.html").is_file()
    assert f"report: {module_installation.root / 'page' / 'index.html'}" in run.out


def test_what_ran_is_proven_from_inside_the_guest(module_installation: Installation, run: Running) -> None:
    for attempt in module_installation.stored().attempts:
        release = attempt.facts["kernel.release"]
        assert re.match(r"6\.12\.\d+", release)
        assert attempt.facts["uname_release"] == release
        assert f"Linux version {release} " in module_installation.evidence(attempt, "console.log")
        assert f"Linux version {release} " in module_installation.evidence(attempt, "dmesg.txt")
        assert "openssh-server " in module_installation.evidence(attempt, "packages.txt")
        assert "<domain" in module_installation.evidence(attempt, "domain.xml")
        assert "CONFIG_MODULES=y" in module_installation.evidence(attempt, "kernel.config")


def test_compute_is_measured_and_claims_no_more_than_a_processor(
    module_installation: Installation, run: Running
) -> None:
    (attempt,) = [one for one in module_installation.stored().attempts if one.cell_id == OPENCL]
    (triad,) = [test for test in attempt.tests if test.name == "triad"]
    assert (triad.outcome, triad.stage, triad.kind) == (Outcome.PASS, Stage.THROUGHPUT, "cpu-runtime")
    (metric,) = [metric for metric in triad.metrics if metric.name == "triad_bw"]
    assert metric.unit == "B/s"
    assert metric.value > 1e6
    assert len(metric.samples) == metric.n > 1


def test_the_kernels_own_drivers_are_loaded_and_removed(module_installation: Installation, run: Running) -> None:
    (attempt,) = [one for one in module_installation.stored().attempts if one.cell_id == INTREE]
    seen = {test.name: test.outcome for test in attempt.tests}
    for driver in ("amdgpu", "nouveau", "i915", "xe"):
        assert seen[f"load {driver}"] is Outcome.PASS
        assert seen[f"unload {driver}"] is Outcome.PASS
    assert "amdgpu" in module_installation.evidence(attempt, "modinfo.txt")


def test_the_report_is_whole_and_shows_what_was_left_out(module_installation: Installation, run: Running) -> None:
    folder = module_installation.root / "page"
    pages = "\n".join(page.read_text() for page in sorted(folder.rglob("*.html")))
    release = module_installation.stored().attempts[0].facts["kernel.release"]
    for words in (release, OPENCL, INTREE, "triad", "PASS", "computes on the CPU and takes no device"):
        assert words in pages, words
    assert re.search(r"\d [kMGT]?B/s", pages)
    for link in set(re.findall(r'(?:href|src)="([^"#:]+)(?:#[^"]*)?"', (folder / "index.html").read_text())):
        assert (folder / link).exists(), link


def test_a_second_run_builds_nothing_and_is_listed(module_installation: Installation, run: Running) -> None:
    planned = module_installation.run("plan", "matrix.yaml", "--preset", "again", "--json")
    (cell,) = json.loads(planned.out)["cells"]
    assert (cell["id"], cell["to_make"], cell["problem"]) == (OPENCL, [], "")
    assert planned.code == 0

    again = module_installation.run("run", "--preset", "again")
    assert again.code == 0, again.out + again.err
    assert "making" not in again.out
    (attempt,) = module_installation.stored().attempts
    assert attempt.facts["image.made"] == "nothing: all parts were cached"
    assert attempt.facts["kernel.release"] == cell["release"]

    listed = json.loads(module_installation.run("runs", "--json").out)
    assert [one["state"] for one in listed] == ["finished", "finished"]
    assert listed[-1]["id"] == module_installation.stored().info.id


def test_evidence_is_listed_and_printed_byte_by_byte(module_installation: Installation, run: Running) -> None:
    listed = module_installation.run("logs", "cpu-opencl")
    for name in ("console.log", "dmesg.txt", "packages.txt", "domain.xml"):
        assert name in listed.out
    printed = module_installation.run("logs", "cpu-opencl", "domain.xml")
    (attempt,) = module_installation.stored().attempts
    assert printed.out == module_installation.evidence(attempt, "domain.xml")
    assert (listed.code, printed.code) == (0, 0)


def test_a_finished_run_leaves_nothing_behind(module_installation: Installation, run: Running) -> None:
    assert module_installation.run("clean").code == 0
    assert module_installation.left() == []
    assert module_installation.run("clean").out.startswith("nothing to clean")
