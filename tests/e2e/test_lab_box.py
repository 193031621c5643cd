"""Cells on a lab box: a machine of its own, booted into a kernel for one boot, and brought back whatever happens."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import InfraError
from harness.images.builder import Images
from harness.machines.labbox.claim import FOLDER
from harness.machines.ssh import SshShell
from harness.model.outcome import Outcome
from harness.model.records import Attempt
from harness.model.stage import Stage

from .installation import Installation, Running, installed, stage_of
from .lab_box import FIRMWARE, LOADER, Box, switch_on

pytestmark = [
    pytest.mark.vm,
    pytest.mark.slow,
    pytest.mark.xdist_group("e2e"),
    pytest.mark.timeout(3600),
]

PATIENCE = 300.0
"""Seconds for the box to start, emulated on a busy host."""

STACK = """
description: computes on the CPU of a lab box, and loads one small module
apis: [opencl]
backends: [opencl]
kind: cpu-runtime
device: none
modules:
  - {name: dummy}
"""

MATRIX = """
version: 1
machines:
  box:
    guest: debian-13
    ssh: {{host: 127.0.0.1, port: {port}, key: {folder}/client_key, known_hosts: {folder}/known_hosts}}
    boot: systemd-boot
    power: {power}
    answers_within: {patience:.0f}s
  watched:
    guest: debian-13
    ssh: {{host: 127.0.0.1, port: {port}, key: {folder}/client_key, host_key: {host_key}}}
    boot: systemd-boot
    power: {power}
    console: [tail, -n0, -F, {folder}/console.log]
    answers_within: {patience:.0f}s
  jumped:
    guest: debian-13
    ssh: {{host: 127.0.0.1, port: {port}, key: {folder}/client_key, known_hosts: {folder}/known_hosts}}
    boot: kexec
    answers_within: {patience:.0f}s
kernels:
  - {{name: tested, series: longterm, installed: {{release: 6.1.*, entry: tested.conf}}}}
  - {{name: crashing, series: longterm, installed: {{release: 6.1.*, entry: crashing.conf}}}}
  - {{name: files, series: longterm, installed: 6.1.*, cmdline: box.asked=yes}}
guests: [box, watched, jumped]
stacks: [on-a-box]
tests: [enumerate]
timeouts: {{test: 4m}}
"""


@pytest.fixture(scope="module")
def box(real_images: Images, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """The machine, up in its default kernel."""
    for program in ("qemu-system-x86_64", "buildah", "mcopy", "mformat", "mke2fs", "debugfs", "busybox"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    for path in (LOADER, FIRMWARE):
        if not path.is_file():
            pytest.skip(f"{path} is not there")
    made = switch_on(real_images, shared_cache, tmp_path_factory.mktemp("box"))
    (made.folder / "known_hosts").write_text(f"[127.0.0.1]:{made.port} {made.host_key.public.decode()}")
    try:
        connected(made).close()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def lab(content: Path, shared_cache: Path) -> Iterator[Installation]:
    stack = content / "guests" / "debian-13" / "stacks" / "on-a-box"
    stack.mkdir(exist_ok=True)
    (stack / "stack.yaml").write_text(STACK)
    (stack / "Containerfile").write_text("ARG BASE\nFROM ${BASE}\n")
    with installed(content, shared_cache) as made:
        yield made


def connected(box: Box) -> SshShell:
    deadline = time.monotonic() + PATIENCE
    while True:
        assert box.process.poll() is None, (box.folder / "qemu.log").read_text()
        try:
            return SshShell.connect(box.port, box.host_key, box.client_key, timeout=5.0)
        except InfraError:
            assert time.monotonic() < deadline, f"the box does not start:\n{box.console[-3000:]}"
            time.sleep(1)


def matrix(lab: Installation, box: Box) -> Path:
    text = MATRIX.format(
        port=box.port,
        folder=box.folder,
        host_key=box.host_key.public.decode().strip(),
        power=f"[{', '.join(box.power)}]",
        patience=PATIENCE,
    )
    return lab.matrix(text)


def run(lab: Installation, box: Box, cell: str) -> tuple[Running, Attempt]:
    done = lab.run("run", matrix(lab, box), "-k", cell)
    attempts = lab.stored().attempts
    assert len(attempts) == 1, done.out + done.err
    return done, attempts[0]


def assert_at_home(lab: Installation, box: Box) -> None:
    """The default kernel runs, nothing is chosen for the next boot, and nobody has the box any more."""
    shell = connected(box)
    try:
        said = shell.run(
            ["sh", "-c", f"uname -r; ls -d {FOLDER}* /sys/firmware/efi/efivars/LoaderEntryOneShot*"], timeout=60
        )
    finally:
        shell.close()
    assert said.stdout.decode() == f"{box.releases['default']}\n"
    assert list(lab.home.journal.glob("*")) == []


def test_a_cell_runs_on_the_chosen_kernel_and_the_box_returns_to_its_own(lab: Installation, box: Box) -> None:
    done, attempt = run(lab, box, "box/tested and not watched")
    assert done.code == 0, f"{attempt}\n{done.out}{done.err}"
    assert attempt.cell_id == "box/tested/on-a-box/none"
    assert attempt.facts["uname_release"] == box.releases["tested"]
    own = (Outcome.SKIP, "the box's own installation is used")
    assert [stage_of(attempt, stage) for stage in (Stage.IMAGE, Stage.BUILD)] == [own, own]
    for stage in (Stage.BOOT, Stage.LOAD, Stage.ENUMERATE, Stage.UNLOAD):
        assert stage_of(attempt, stage) == (Outcome.PASS, ""), stage
    assert box.releases["tested"] in lab.evidence(attempt, "dmesg-boot.txt")
    assert attempt.facts["module.dummy.vermagic"].startswith(box.releases["tested"])
    assert "PoCL" in lab.evidence(attempt, "opencl-enumerate.txt")
    assert attempt.facts["box.returned"] == "it was rebooted"
    assert_at_home(lab, box)


def test_a_box_that_does_not_come_back_is_a_miss_and_is_recovered_by_its_power(lab: Installation, box: Box) -> None:
    done, attempt = run(lab, box, "box/crashing and not watched")
    assert done.code == 4, f"{attempt}\n{done.out}{done.err}"
    outcome, reason = stage_of(attempt, Stage.BOOT)
    assert outcome is Outcome.MISS
    assert f"did not answer within {PATIENCE:.0f} s" in reason
    assert reason.endswith("without a console, a hang cannot be told from trouble on the network")
    assert attempt.facts["box.returned"] == "its power was cycled"
    assert_at_home(lab, box)


def test_the_console_tells_that_it_was_the_kernel(lab: Installation, box: Box) -> None:
    done, attempt = run(lab, box, "watched/crashing")
    assert done.code == 1, f"{attempt}\n{done.out}{done.err}"
    assert stage_of(attempt, Stage.BOOT) == (Outcome.FAIL, "kernel panic: sysrq triggered crash")
    assert "box: about to crash" in lab.evidence(attempt, "console.log")
    assert attempt.facts["box.returned"] == "its power was cycled"
    assert_at_home(lab, box)


def test_kexec_needs_no_entry_and_hands_arguments_over(lab: Installation, box: Box) -> None:
    done, attempt = run(lab, box, "jumped/files")
    assert done.code == 0, f"{attempt}\n{done.out}{done.err}"
    assert attempt.facts["uname_release"] == box.releases["tested"]
    assert "box.asked=yes" in attempt.facts["kernel.cmdline"]
    assert_at_home(lab, box)


def test_a_box_left_by_a_killed_run_is_brought_home(lab: Installation, box: Box) -> None:
    running = lab.start("run", matrix(lab, box), "-k", "box/tested and not watched")
    running.until(lambda: running.said("box/tested", "load"), "the cell was on its kernel")
    running.kill()
    shell = connected(box)
    assert shell.run(["uname", "-r"], timeout=60).stdout.decode().strip() == box.releases["tested"]
    shell.close()
    cleaned = lab.run("clean")
    assert cleaned.code == 0, cleaned.out + cleaned.err
    assert_at_home(lab, box)
