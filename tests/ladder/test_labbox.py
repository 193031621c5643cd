"""A cell whose lab box cannot be had, or lacks its kernel, is MISS before anything is booted, and leaves nothing.

The box is a real SSH server on loopback; nothing here ever gets as far as a reboot.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from machines.sshd import Server, needs_sshd, serving

from harness.clean import undo_orphans
from harness.home import Home
from harness.journal import Journal, Owner
from harness.lab import Lab
from harness.ladder.cell import Stopped
from harness.ladder.labbox import _BoxLadder, execute_on_box
from harness.ladder.workshop import Workshop
from harness.machines.labbox import claim
from harness.machines.labbox.box import LabBoxMachine, look
from harness.machines.labbox.home import KIND, record
from harness.machines.labbox.identity import Identity
from harness.machines.ssh import KeyPair
from harness.model.cell import Cell, InstalledKernel, KernelSpec, Series
from harness.model.machine import LabBox
from harness.model.outcome import Outcome
from harness.model.records import Attempt, StageResult
from harness.model.stage import Stage

pytestmark = needs_sshd

NO_SUCH = KernelSpec("mine", Series.LONGTERM, InstalledKernel("9999.*"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("sshd"), ("/var/lib",)) as made:
        yield made


@pytest.fixture
def box(server: Server, tmp_path: Path) -> LabBox:
    key = tmp_path / "key"
    key.write_bytes(server.client_key.private)
    key.chmod(0o600)
    pinned = " ".join(server.host_key.public.decode().split()[:2])
    return LabBox("box", "debian-13", "127.0.0.1", "kexec", str(key), host_key=pinned, port=server.port, patience=5.0)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(Home(tmp_path / "home"))


def climb(lab: Lab, box: LabBox, until: Stage = Stage.UNLOAD, stop: threading.Event | None = None) -> Attempt:
    return execute_on_box(Cell("debian-13", NO_SUCH, "intree", machine=box), 1, workshop(lab, until, stop))


def workshop(lab: Lab, until: Stage = Stage.UNLOAD, stop: threading.Event | None = None) -> Workshop:
    return Workshop(
        run_id="r",
        images=lab.images,
        recipes=lab.recipes,
        hypervisor=None,
        journal=lab.journal("r"),
        evidence=lab.evidence,
        tests=lab.tests,
        drivers=lab.drivers,
        work=lab.home.runs / "r" / "work",
        until=until,
        stop=stop or threading.Event(),
    )


def left_on(box: LabBox) -> str:
    machine = LabBoxMachine(Identity.read(box), lambda: False)
    try:
        return machine.connect(20.0).script("ls /var/lib")
    finally:
        machine.close()


def test_a_kernel_that_the_box_lacks_is_a_miss_and_the_box_is_free_again(lab: Lab, box: LabBox) -> None:
    attempt = climb(lab, box)
    assert (attempt.outcome, attempt.rung) == (Outcome.MISS, Stage.IMAGE)
    assert attempt.reason.startswith("no installed kernel fits 9999.*; installed are: ")
    assert {stage.outcome for stage in attempt.stages[1:]} == {Outcome.SKIP}
    assert lab.journal().entries() == []
    assert left_on(box) == ""


def test_another_machine_in_its_place_is_a_miss_in_one_line(lab: Lab, box: LabBox) -> None:
    stranger = " ".join(KeyPair.generate("stranger").public.decode().split()[:2])
    attempt = climb(lab, replace(box, host_key=stranger))
    assert (attempt.outcome, attempt.rung) == (Outcome.MISS, Stage.IMAGE)
    assert "another machine answers there" in attempt.reason
    assert "\n" not in attempt.reason
    assert lab.journal().entries() == []


def test_a_run_that_boots_nothing_never_asks_the_box(lab: Lab, box: LabBox) -> None:
    attempt = climb(lab, replace(box, host="192.0.2.1"), until=Stage.BUILD)
    assert (attempt.outcome, attempt.reason) == (Outcome.SKIP, "the box's own installation is used")


def test_an_interruption_leaves_no_record_and_the_box_free(lab: Lab, box: LabBox) -> None:
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(Stopped):
        climb(lab, replace(box, host="127.0.0.2", port=1), stop=stop)
    assert lab.journal().entries() == []


def test_a_box_that_does_not_come_home_leaves_the_result_and_is_trouble(
    lab: Lab, box: LabBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.machines.labbox.home._QUICK", 0.1)
    shop = workshop(lab)
    gone = replace(box, port=1, patience=1.0)
    ladder = _BoxLadder(Cell("debian-13", NO_SUCH, "intree", machine=gone), 1, shop)
    ladder.machine = LabBoxMachine(Identity.read(gone), lambda: False)
    ladder.journalled = shop.journal.add(KIND, gone.name, **record(gone, "6.12.0", "b"))
    ladder.default, ladder.before, ladder.away = "6.12.0", "b", True
    ladder.stages = [StageResult(stage, Outcome.PASS) for stage in (Stage.BOOT, Stage.LOAD)]
    ladder._finish()
    ladder.machine.close()
    attempt = ladder._attempt()
    assert (attempt.outcome, attempt.rung) == (Outcome.PASS, Stage.LOAD)
    assert attempt.facts["box.returned"] == "no"
    (trouble,) = attempt.trouble
    assert "did not answer within 1 s" in trouble
    assert "names no power: command" in trouble
    assert len(lab.journal().entries()) == 1, "whoever comes next brings it home"


def test_what_a_dead_run_left_is_taken_back_from_a_box_in_its_default_kernel(lab: Lab, box: LabBox) -> None:
    machine = LabBoxMachine(Identity.read(box), lambda: False)
    remote = machine.connect(20.0)
    running = look(remote)
    dead = Owner(2**22 - 1, 1, Owner.current().boot_id, Owner.current().host)
    mine, _ = claim.take(remote, running.release, running.boot_id, "r", 5.0, lambda: False)
    remote.script(f"cat >{claim.FOLDER}/owner", stdin=replace(mine, owner=dead).dump())
    machine.close()
    entry = Journal(lab.home.journal, "r").add(KIND, box.name, **record(box, running.release, running.boot_id))
    entry.owner = dead
    entry.note()
    (undone,) = undo_orphans(lab)
    assert (undone.what, undone.state) == (f"lab box {box}", "removed")
    assert left_on(box) == ""


def test_a_box_that_does_not_answer_stays_in_the_journal(
    lab: Lab, box: LabBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.machines.labbox.home._ANSWERS", 1.0)
    entry = Journal(lab.home.journal, "r").add(KIND, box.name, **record(replace(box, port=1), "6.12.0", "b"))
    entry.owner = Owner(2**22 - 1, 1, Owner.current().boot_id, Owner.current().host)
    entry.note()
    (undone,) = undo_orphans(lab)
    assert undone.state.startswith("left alone: box (root@127.0.0.1:1) did not answer within 1 s")
    assert len(lab.journal().entries()) == 1
