"""Every way for a cell to fail ends in the right outcome at the right rung, and takes no other cell with it."""

from __future__ import annotations

import re

import pytest

from harness.model.outcome import Outcome
from harness.model.stage import Stage

from .installation import Installation, Running, complete, stage_of

pytestmark = [pytest.mark.vm, pytest.mark.xdist_group("e2e"), pytest.mark.timeout(900)]

FAULTS = {
    "healthy": "",
    "no-init": "rdinit=/nowhere",
    "panics-booting": "",
    "hangs": "",
    "waits": "",
    "slow": "",
    "renamed": "",
    "absent": "",
    "refused": "module_blacklist=dummy",
    "panics-loading": "",
    "full": "",
    "deaf": "",
}

EXPECTED = [
    ("healthy", Outcome.PASS, Stage.UNLOAD, r"^$"),
    ("no-init", Outcome.MISS, Stage.BOOT, r"the initramfs is not usable: .*unable to mount root"),
    ("panics-booting", Outcome.FAIL, Stage.BOOT, r"kernel panic: sysrq triggered crash"),
    (
        "hangs",
        Outcome.FAIL,
        Stage.BOOT,
        r"hang in phase guest init: .* the kernel tells of .*task misbehave \(pid \d+\) bl",
    ),
    (
        "waits",
        Outcome.MISS,
        Stage.BOOT,
        r"not up within \d+ s, in phase guest init: .*: what is silent waits by",
    ),
    ("slow", Outcome.MISS, Stage.BOOT, r"not up within \d+ s, still working in phase .*: slow host or kernel"),
    ("renamed", Outcome.MISS, Stage.BOOT, r"the guest runs 2\.6\.\d+.*, not 6\.12\..*: nothing is known"),
    ("absent", Outcome.FAIL, Stage.LOAD, r"load dummy: this kernel has no module dummy"),
    ("refused", Outcome.FAIL, Stage.LOAD, r"load dummy: .*could not insert 'dummy'"),
    ("panics-loading", Outcome.FAIL, Stage.LOAD, r"kernel panic: sysrq triggered crash"),
    ("full", Outcome.MISS, Stage.COMPUTE, r"the guest's disk is full \(\d+ MiB overlay in memory\)"),
    ("deaf", Outcome.MISS, Stage.COMPUTE, r"the SSH server in the guest stopped answering; the VM still runs"),
]


def matrix() -> str:
    kernels = "".join(
        f'  - {{name: {name}, series: longterm, debian: trixie, cmdline: "kdmatrix.test={name} {words}"}}\n'
        for name, words in FAULTS.items()
    )
    return (
        f"version: 1\nkernels:\n{kernels}guests: [debian-13]\nstacks: [probe]\ntests: [enumerate]\n"
        "limits: {vms: 3, vm_memory: 768MiB}\n"
        "include:\n"
        "  - {kernel: [full, deaf], tests: [vecadd]}\n"
        "  - {kernel: slow, timeouts: {boot: 5s}}\n"
        "  - {kernel: waits, timeouts: {boot: 40s}}\n"
    )


@pytest.fixture(scope="module")
def run(module_installation: Installation) -> Running:
    """One run with every fault in it."""
    return module_installation.run("run", module_installation.matrix(matrix()))


@pytest.mark.parametrize(("name", "outcome", "rung", "reason"), EXPECTED, ids=[row[0] for row in EXPECTED])
def test_a_cell_ends_where_its_fault_is_and_says_so(
    module_installation: Installation, run: Running, name: str, outcome: Outcome, rung: Stage, reason: str
) -> None:
    attempt = module_installation.results()[name]
    assert (attempt.outcome, attempt.rung) == (outcome, rung), attempt.reason
    assert re.search(reason, attempt.reason, re.IGNORECASE), attempt.reason
    console = module_installation.evidence(attempt, "console.log")
    assert "Linux version 6.12." in console
    if "panics" in name:
        assert "Kernel panic - not syncing: sysrq triggered crash" in console


def test_every_cell_of_the_run_has_exactly_one_result(module_installation: Installation, run: Running) -> None:
    stored = module_installation.stored()
    assert complete(stored)
    assert len(stored.attempts) == len(FAULTS)


def test_findings_decide_the_exit_code_and_every_fault_has_its_line(run: Running) -> None:
    assert run.code == 1, run.out + run.err
    for name, outcome, rung, _ in EXPECTED:
        told = f"{outcome} debian-13/{name}/probe/none #1 at {rung}: "
        assert (told in run.err) == (outcome is not Outcome.PASS)
    assert "Traceback" not in run.out + run.err


def test_the_report_shows_every_reason(module_installation: Installation, run: Running) -> None:
    pages = module_installation.report()
    for words in (
        "the initramfs is not usable",
        "kernel panic: sysrq triggered crash",
        "hang in phase guest init",
        "slow host or kernel",
        "nothing is known about the cell",
        "this kernel has no module dummy",
        "disk is full",
        "stopped answering",
    ):
        assert words in pages, words


def test_rungs_behind_a_fault_are_blocked_and_those_before_it_keep_their_results(
    module_installation: Installation, run: Running
) -> None:
    attempt = module_installation.results()["panics-loading"]
    assert stage_of(attempt, Stage.BOOT) == (Outcome.PASS, "")
    assert attempt.facts["uname_release"] == attempt.facts["kernel.release"]
    outcome, reason = stage_of(attempt, Stage.UNLOAD)
    assert (outcome, reason) == (Outcome.SKIP, "blocked: load was FAIL")


def test_a_run_with_faults_leaves_nothing_behind(module_installation: Installation, run: Running) -> None:
    assert module_installation.run("clean").code == 0
    assert module_installation.left() == []
