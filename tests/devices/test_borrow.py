"""A device is lent for a block and comes back on every way out; what is wrong with it is said and remembered."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

import harness
from devices.host import ADMINS, GPU, SOUND, UNITS, Host, leased
from harness.devices import binding
from harness.devices.binding import VFIO
from harness.devices.borrow import Lender, Patience
from harness.devices.leases import Phase
from harness.devices.writes import ChildWrites, Stuck
from harness.errors import InfraError
from harness.model.device import PassthroughUnit

ROOT = Path(harness.__file__).parents[1]
SIMULATOR = Path(__file__).parent / "simulator.py"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def free_and_as_it_was(host: Host, before: dict[str, tuple[str, str, str]]) -> None:
    assert host.kernel.state() == before
    assert host.lender().leases.held() == []


@pytest.mark.parametrize("address", list(UNITS))
def test_a_device_is_bound_in_the_block_and_as_it_was_after_it(host: Host, address: str) -> None:
    before = host.kernel.state()
    with host.lender().borrow(host.units[address], "run, cell", 0) as borrowed:
        assert {host.kernel.driver(function) for function in UNITS[address]} == {VFIO}
        assert borrowed.functions == UNITS[address]
        borrowed.check()
        (held,) = host.lender().leases.held()
        assert (held.token, held.what, held.phase) == (borrowed.token, "run, cell", Phase.TOUCHED)
    free_and_as_it_was(host, before)
    assert borrowed.trouble == ""
    with pytest.raises(InfraError, match="not valid any more"):
        borrowed.check()
    assert host.lender().quarantine.active() == []


def test_the_facts_are_what_a_report_needs_to_know_of_the_device(host: Host) -> None:
    with host.lender().borrow(host.units[GPU], "x", 0) as borrowed:
        assert borrowed.facts == {
            "device.functions": f"{GPU}, {SOUND}",
            "device.ids": "10de:2684, 10de:22ba",
            "device.host_drivers": "nouveau, snd_hda_intel",
            "device.vfio": "group 14; cdev vfio2, vfio3",
            "device.reset_methods": "flr bus",
            "device.lease": "1",
            "device.link": "16 GT/s x16",
        }
    assert borrowed.facts["device.reset"] == f"flr ({GPU}), no reset method ({SOUND})"
    assert borrowed.facts["device.health"] == "well"
    assert borrowed.facts["device.host_log"].startswith("not collected: /dev/kmsg")


def test_the_hosts_complaints_are_those_from_binding_to_restoring(host: Host) -> None:
    log = host.root / "dev/kmsg"
    log.write_bytes(b"")

    def before(act: str, about: str) -> None:
        if act == "reset":
            with log.open("a") as stream:
                stream.write(f"3,7,1000,-;vfio-pci {about}: not ready 1023ms after FLR; waiting\n")
                stream.write("3,8,1000,-;DMAR: [DMA Read] Request device [02:00.0] fault addr 0x0\n")

    host.kernel.before = before
    with host.lender().borrow(host.units[GPU], "x", 0) as borrowed:
        assert borrowed.host_complaints.not_collected == "it is still lent"
    assert [one.kind for one in borrowed.host_complaints.unit] == ["reset"]
    assert [one.addresses for one in borrowed.host_complaints.others] == [(ADMINS,)]
    assert borrowed.facts["device.host_log"].startswith("1 about the device: vfio-pci")


@pytest.mark.parametrize("error", [InfraError("no VM"), KeyboardInterrupt(), SystemExit(1), ValueError("a defect")])
def test_whatever_ends_the_block_the_device_comes_back_and_the_error_goes_on(host: Host, error: BaseException) -> None:
    before = host.kernel.state()
    with pytest.raises(type(error)) as caught, host.lender().borrow(host.units[GPU], "x", 0):
        raise error
    assert caught.value is error
    free_and_as_it_was(host, before)


@pytest.mark.parametrize("act", ["driver_override", "unbind", "probe"])
@pytest.mark.parametrize("function", [GPU, SOUND])
def test_a_device_that_cannot_be_bound_is_put_back_and_not_lent(host: Host, act: str, function: str) -> None:
    before = host.kernel.state()
    once = iter([True])

    def refuse(now: str, about: str) -> None:
        if (now, about) == (act, function) and next(once, False):
            raise OSError(errno.EBUSY, "Device or resource busy")

    host.kernel.before = refuse
    with pytest.raises(InfraError, match=rf"{function}.* failed: Device or resource busy"):
        lend(host)
    free_and_as_it_was(host, before)
    assert host.lender().quarantine.active() == []


def lend(host: Host, address: str = GPU) -> None:
    with host.lender().borrow(host.units[address], "x", 0):
        pytest.fail("it was lent")


def test_an_interrupt_while_it_is_bound_puts_it_back(host: Host) -> None:
    before = host.kernel.state()
    once = iter([True])

    def interrupt(act: str, about: str) -> None:
        if (act, about) == ("probe", SOUND) and next(once, False):
            raise KeyboardInterrupt

    host.kernel.after = interrupt
    with pytest.raises(KeyboardInterrupt):
        lend(host)
    free_and_as_it_was(host, before)


def test_a_second_interrupt_while_it_goes_back_leaves_it_to_the_next(host: Host) -> None:
    before = host.kernel.state()
    once = iter([True])

    def interrupt(act: str, _about: str) -> None:
        if act == "bind" and next(once, False):
            raise KeyboardInterrupt

    host.kernel.before = interrupt
    with pytest.raises(KeyboardInterrupt), host.lender().borrow(host.units[GPU], "x", 0):
        pass
    (held,) = host.lender().leases.held()
    assert held.phase is Phase.ABANDONED
    (line,) = host.lender().reap()
    assert line.startswith(f"{GPU}: given back to nouveau, snd_hda_intel (left by pid")
    free_and_as_it_was(host, before)
    assert host.lender().reap() == []


def test_a_second_process_waits_or_is_told_who_has_it(host: Host) -> None:
    owner = host.process()
    with host.lender(owner).borrow(host.units[GPU], "the first cell", 0):
        with pytest.raises(InfraError, match=rf"is leased: pid {owner.pid} of .* for the first cell"):
            lend(host)
        with host.lender().borrow(host.units[ADMINS], "another device", 0):
            pass


def test_who_waited_for_a_device_does_not_get_it_when_it_went_into_quarantine_meanwhile(host: Host) -> None:
    said: list[str] = []

    def wait() -> None:
        with pytest.raises(InfraError) as caught, host.lender().borrow(host.units[GPU], "second", 20):
            pass
        said.append(str(caught.value))

    with host.lender().borrow(host.units[GPU], "first", 0):
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.3)
        host.kernel.fall_off(GPU)
    host.kernel.recover(GPU)
    waiting.join()
    assert "is in quarantine" in said[0]
    assert "after a cell and a reset" in said[0]
    assert host.lender().leases.held() == []


def test_a_sick_device_is_not_lent_and_goes_into_quarantine_with_the_reason(host: Host) -> None:
    before = host.kernel.state()
    host.kernel.fall_off(GPU)
    with pytest.raises(InfraError, match="does not answer"):
        lend(host)
    free_and_as_it_was(host, before)
    host.kernel.recover(GPU)
    with pytest.raises(
        InfraError, match=rf"{GPU} is in quarantine until 2025-03-02 12:00 UTC: before it was lent: .*ffff"
    ):
        lend(host)
    host.pass_time(timedelta(hours=24))
    with host.lender().borrow(host.units[GPU], "x", 0):
        pass


def test_a_device_that_dies_in_the_block_goes_into_quarantine_and_the_cells_result_stands(host: Host) -> None:
    before = host.kernel.state()
    with host.lender().borrow(host.units[GPU], "x", 0) as borrowed:
        host.kernel.fall_off(GPU)
    assert "does not answer" in borrowed.trouble
    assert "removed from the bus and found again" in borrowed.facts["device.reset"]
    (found,) = host.lender().quarantine.active()
    assert found.address == GPU
    assert found.reason.startswith("after a cell and a reset")
    free_and_as_it_was(host, before)
    host.lender().quarantine.lift(GPU)
    host.kernel.recover(GPU)
    with host.lender().borrow(host.units[GPU], "x", 0):
        pass


def test_a_device_that_a_reset_mends_is_lent_again(host: Host) -> None:
    host.kernel.after = lambda act, about: host.kernel.recover(about) if act == "reset" else None
    with host.lender().borrow(host.units[GPU], "x", 0) as borrowed:
        host.kernel.fall_off(GPU)
    assert (borrowed.trouble, borrowed.facts["device.health"]) == ("", "well")
    assert host.lender().quarantine.active() == []


def test_a_lost_lane_is_noticed_after_the_cell(host: Host) -> None:
    with host.lender().borrow(host.units[GPU], "x", 0) as borrowed:
        (host.kernel.device(GPU) / "current_link_width").write_text("8\n")
    assert "its link has x8; before: x16" in borrowed.trouble


def test_a_driver_that_never_lets_go_is_left_alone_said_and_put_in_quarantine(host: Host) -> None:
    def stuck(act: str, about: str) -> None:
        if (act, about) == ("unbind", GPU):
            raise Stuck("the write to unbind did not come back for 30 s and waits in the kernel as pid 4711")

    host.kernel.before = stuck
    with pytest.raises(InfraError, match="did not come back for 30 s and waits in the kernel as pid 4711"):
        lend(host)
    (found,) = host.lender().quarantine.active()
    assert "pid 4711" in found.reason
    (held,) = host.lender().leases.held()
    assert held.phase is Phase.ABANDONED
    host.kernel.before = lambda _act, _about: None
    host.lender().reap()
    assert host.lender().leases.held() == []
    assert host.kernel.override(GPU) == ""


def test_a_driver_that_does_not_take_it_back_is_said_and_tried_again_later(host: Host) -> None:
    before = host.kernel.state()

    def refuse(act: str, about: str) -> None:
        if (act, about) == ("bind", GPU):
            raise OSError(errno.ENODEV, "No such device")

    host.kernel.before = refuse
    with host.lender().borrow(host.units[GPU], "x", 0) as borrowed:
        pass
    assert borrowed.trouble == f"giving {GPU} back to nouveau failed: No such device"
    assert len(host.lender().quarantine.active()) == 1
    (line,) = host.lender().reap()
    assert line == f"{GPU}: left alone: giving {GPU} back to nouveau failed: No such device"
    host.kernel.before = lambda _act, _about: None
    host.lender().reap()
    free_and_as_it_was(host, before)


def test_a_device_that_qemu_has_still_open_is_not_torn_from_it(host: Host) -> None:
    before = host.kernel.state()
    with host.lender().borrow(host.units[GPU], "x", 0) as borrowed:
        host.kernel.hold_node(77, "qemu-system-x86", "/dev/vfio/14")
        host.kernel.acts.clear()
    assert host.kernel.acts == []
    assert "is still in use by qemu-system-x86 (pid 77) /dev/vfio/14" in borrowed.trouble
    assert host.lender().quarantine.active() == [], "that says nothing against the device"
    (line,) = host.lender().reap()
    assert "left alone" in line
    (host.root / "proc/77/fd/3").unlink()
    host.lender().reap()
    free_and_as_it_was(host, before)


def test_a_device_that_somebody_uses_is_not_taken_from_him(host: Host) -> None:
    host.kernel.hold_node(78, "qemu-system-x86", "/dev/vfio/15")
    host.kernel.acts.clear()
    said = f"{ADMINS} is in use by qemu-system-x86 .pid 78. /dev/vfio/15; nothing was changed"
    with pytest.raises(InfraError, match=said):
        lend(host, ADMINS)
    assert host.kernel.acts == []
    assert host.lender().leases.held() == []
    assert host.lender().quarantine.active() == []


def test_a_kernel_that_does_not_even_answer_is_left_alone_by_the_reaper(host: Host) -> None:
    unit = leased(host, GPU)
    unit.lease.touching(binding.read_originals(unit))
    unit.lease.abandon("test")

    def stuck(act: str, about: str) -> None:
        if (act, about) == ("read", GPU):
            raise Stuck("the read of driver_override did not come back")

    host.kernel.before = stuck
    host.kernel.acts.clear()
    (line,) = host.lender().reap()
    assert line == f"{GPU}: left alone: the read of driver_override did not come back"
    assert host.kernel.acts == []
    assert len(host.lender().quarantine.active()) == 1


def test_a_device_that_changed_since_the_plan_is_not_lent(host: Host) -> None:
    (host.kernel.device(GPU) / "device").write_text("0x2330\n")
    with pytest.raises(InfraError, match=f"{GPU} is not the device any more"):
        lend(host)


def test_a_group_with_a_new_number_is_the_same_and_one_that_fell_apart_is_not(host: Host) -> None:
    def regroup(address: str, number: str) -> None:
        link = host.kernel.device(address) / "iommu_group"
        link.unlink()
        link.symlink_to(f"../../../../kernel/iommu_groups/{number}")

    regroup(GPU, "40")
    with pytest.raises(InfraError, match=f"{SOUND} is not the device any more"):
        lend(host)
    regroup(SOUND, "40")
    with host.lender().borrow(host.units[GPU], "x", 0) as borrowed:
        assert borrowed.unit.group == 40
        assert borrowed.facts["device.vfio"].startswith("group 40")


def test_one_that_is_gone_is_not_lent(host: Host) -> None:
    host.kernel.device(SOUND).unlink()
    host.kernel._rescan = lambda *_: None  # type: ignore[method-assign]
    with pytest.raises(InfraError, match=f"{SOUND} is gone from the bus"):
        lend(host)
    assert host.lender().leases.held() == []


def test_a_lease_that_was_removed_by_hand_stops_the_way_back_and_says_what_was_there(host: Host) -> None:
    with host.lender().borrow(host.units[GPU], "x", 0) as borrowed:
        for path in host.directory.glob("*.lease"):
            path.unlink()
        host.kernel.acts.clear()
    assert host.kernel.acts == []
    assert f"nothing was restored: {GPU} had nouveau, {SOUND} had snd_hda_intel" in borrowed.trouble


def test_a_reboot_frees_everything_and_writes_nothing(host: Host) -> None:
    before = host.kernel.state()
    unit = leased(host, GPU)
    unit.lease.touching(binding.read_originals(unit))
    binding.bind(unit)
    unit.lease.let_go()
    host.reboot()
    host.kernel.acts.clear()
    (line,) = host.lender().reap()
    assert line.startswith(f"{GPU}: freed")
    assert host.kernel.acts == []
    free_and_as_it_was(host, before)


ANY_USER = """
import os, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests"]
from devices.host import ADMINS, GPU, BRIEF, unit_at
from harness.devices.borrow import Lender
from harness.errors import InfraError
from harness.journal import Owner, owner_alive
from devices.simulator import SimulatedKernel
root, directory = map(Path, sys.argv[2:4])
owner_alive(Owner.current())
if os.geteuid() == 0:
    os.setgid(65534); os.setgroups([]); os.setuid(65534)
lender = Lender(root, directory, writes=SimulatedKernel(root), patience=BRIEF)
try:
    with lender.borrow(unit_at(root, GPU), "x", 0):
        print("lent")
except InfraError as error:
    print(error)
with lender.borrow(unit_at(root, ADMINS), "x", 0) as borrowed:
    print(borrowed.facts["device.vfio"])
print(borrowed.facts["device.reset"], borrowed.trouble)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a user's own files can always be written")
def test_a_user_lends_what_the_administrator_gave_to_vfio_and_nothing_else(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as base:
        Path(base).chmod(0o755)
        host = Host(Path(base))
        host.directory.chmod(0o1777)
        before = host.kernel.state()
        done = subprocess.run(
            [sys.executable, "-c", ANY_USER, str(ROOT), str(host.root), str(host.directory)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        refused, nodes, reset = done.stdout.splitlines()
        assert refused == (
            f"{GPU} is not bound to vfio-pci, and this user may not bind it: run as root, or have root bind it once "
            f"and for all: driverctl set-override {GPU} vfio-pci"
        )
        assert nodes == "group 15; cdev vfio4, vfio5"
        assert reset.strip() == "left to vfio-pci, as this user may not write to the device"
        assert host.kernel.state() == before


# For real: processes, signals, and children that write

VICTIM = """
import sys, time
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests"]
from devices.host import GPU, unit_at
from harness.devices.borrow import Lender
from harness.devices.writes import ChildWrites
root, directory = map(Path, sys.argv[2:4])
writes = ChildWrites((sys.executable, sys.argv[4], str(root)))
with Lender(root, directory, writes=writes).borrow(unit_at(root, GPU), "the victim", 0):
    print("lent", flush=True)
    time.sleep(600)
"""


def victim(host: Host) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", VICTIM, str(ROOT), str(host.root), str(host.directory), str(SIMULATOR)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "lent\n", process.stderr and process.stderr.read()
    return process


def really(host: Host) -> Lender:
    """As a process of this host, with children that write."""
    writes = ChildWrites((sys.executable, str(SIMULATOR), str(host.root)))
    return Lender(host.root, host.directory, writes=writes, patience=Patience(10, 10, 0))


def test_ctrl_c_gives_the_device_back_before_the_process_ends(host: Host) -> None:
    before = host.kernel.state()
    process = victim(host)
    assert host.kernel.driver(GPU) == VFIO
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    free_and_as_it_was(host, before)


def test_after_kill_9_the_next_start_gives_the_device_back(host: Host) -> None:
    before = host.kernel.state()
    process = victim(host)
    assert really(host).reap() == [], "its owner lives"
    process.kill()
    process.communicate(timeout=60)
    assert host.kernel.driver(GPU) == VFIO
    (line,) = really(host).reap()
    assert line.startswith(f"{GPU}: given back to nouveau, snd_hda_intel (left by pid {process.pid} of ")
    assert "for the victim" in line
    free_and_as_it_was(host, before)
    assert really(host).reap() == []


def test_after_kill_9_whoever_wants_the_device_gets_it_without_clean(host: Host) -> None:
    before = host.kernel.state()
    process = victim(host)
    process.kill()
    process.communicate(timeout=60)
    with really(host).borrow(PassthroughUnit(host.units[GPU].functions), "next", 0) as borrowed:
        assert host.kernel.driver(GPU) == VFIO
        assert borrowed.facts["device.host_drivers"] == "nouveau, snd_hda_intel", "and not what the victim made of it"
    free_and_as_it_was(host, before)


SLOW_DRIVER = """
import sys, time
sys.argv[0] = sys.argv.pop(1)
if sys.argv[2].endswith("nouveau/unbind"):
    time.sleep(2)
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
import simulator
simulator.main()
"""


def test_a_write_of_a_killed_process_is_waited_for_before_the_device_is_judged(host: Host) -> None:
    """Else the reaper sees the original driver, is content, and the unbinding that is under way ends after it."""
    before = host.kernel.state()
    script = VICTIM.replace(
        "(sys.executable, sys.argv[4], str(root))", "(sys.executable, '-c', sys.argv[5], sys.argv[4], str(root))"
    )
    argv = [sys.executable, "-c", script, str(ROOT), str(host.root), str(host.directory), str(SIMULATOR), SLOW_DRIVER]
    process = subprocess.Popen(argv)
    deadline = time.monotonic() + 30
    while host.kernel.override(GPU) != VFIO and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)
    process.kill()
    process.wait()
    assert host.kernel.driver(GPU) == "nouveau", "the unbinding is still under way"
    (line,) = really(host).reap()
    assert line.endswith("has not come back from the kernel")
    while host.kernel.driver(GPU) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    really(host).reap()
    free_and_as_it_was(host, before)
