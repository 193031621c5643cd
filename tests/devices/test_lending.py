"""From a request to borrowed devices, on a machine whose kernel is simulated."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from devices.host import BRIEF, Host
from harness.devices.borrow import Lender
from harness.devices.lending import Desk, what_force_does
from harness.errors import InfraError, UserError
from harness.journal import Journal
from harness.model.device import DeviceRequest

NVIDIA = DeviceRequest("card", vendor=0x10DE)
ANY = DeviceRequest("any")


class Lab(Host):
    """That host with desks on it."""

    def desk(self, *forced: str) -> Desk:
        lender = Lender(self.root, self.directory, writes=self.kernel, patience=BRIEF)
        return Desk(lender, Journal(self.base / "journal"), self.root, forced)


@pytest.fixture
def host(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def lend(desk: Desk, request: DeviceRequest, wait: float = 0.0):  # type: ignore[no-untyped-def]  # a context manager
    return desk.lend(request, "a cell", wait, threading.Event())


def test_what_fits_is_bound_for_the_block_and_goes_back(host: Lab) -> None:
    before = host.kernel.state()
    with lend(host.desk(), NVIDIA) as lent:
        assert [unit.address for unit in lent.units] == ["0000:01:00.0"]
        assert {host.kernel.driver(f"0000:01:00.{function}") for function in (0, 1)} == {"vfio-pci"}
        assert lent.facts["device.functions"] == "0000:01:00.0, 0000:01:00.1"
        assert lent.facts["device.host_drivers"] == "nouveau, snd_hda_intel"
        lent.check()
    assert host.kernel.state() == before
    assert lent.facts["device.reset"]
    assert lent.facts["device.health"] == "well"


def test_a_display_beside_the_device_is_passed_on_to_who_makes_the_vm(host: Lab) -> None:
    with lend(host.desk(), replace(NVIDIA, display=True)) as lent:
        assert lent.display
        assert lent.facts["device.display"] == "emulated, beside it"
    with lend(host.desk(), NVIDIA) as lent:
        assert not lent.display
        assert "device.display" not in lent.facts


def test_several_are_had_together_or_not_at_all(host: Lab) -> None:
    before = host.kernel.state()
    desk = host.desk()
    assert desk.capacity(ANY) == 3
    pair = DeviceRequest("pair", count=2)
    with lend(desk, pair) as lent:
        assert len(lent.units) == 2
        with pytest.raises(InfraError, match=r"all that fits pair is taken: .*a cell"), lend(desk, pair):
            pass
        # The third was taken for the second pair, and given back.
        with lend(desk, ANY) as third:
            assert third.units[0].address not in [unit.address for unit in lent.units]
        assert {"device.functions", "device.2.functions"} <= set(lent.facts)
    assert host.kernel.state() == before
    four = DeviceRequest("four", count=4)
    with (
        pytest.raises(InfraError, match=r"4 devices for four, and only .*0000:03:00\.0.* may be lent"),
        lend(desk, four),
    ):
        pass


def test_who_waits_gets_it_when_the_other_gives_it_back(host: Lab) -> None:
    had, done = threading.Event(), threading.Event()

    def other() -> None:
        with lend(host.desk(), NVIDIA):
            had.set()
            done.wait(30)

    thread = threading.Thread(target=other)
    thread.start()
    assert had.wait(30)
    threading.Timer(0.2, done.set).start()
    with lend(host.desk(), NVIDIA, 60.0) as lent:
        assert done.is_set()
        assert lent.units[0].address == "0000:01:00.0"
    thread.join(30)


def test_a_device_that_another_cells_vm_has_open_is_waited_for_and_not_refused(host: Lab) -> None:
    with lend(host.desk(), NVIDIA):
        host.kernel.hold_node(4242, "qemu-system-x86", "/dev/vfio/14")
        with pytest.raises(InfraError, match="all that fits card is taken"), lend(host.desk(), NVIDIA):
            pass
        # Nor is it one for a user who forces it: the run waits.
        with pytest.raises(UserError, match="a VM has it"):
            what_force_does(["0000:01:00.0"], host.root)
        assert what_force_does(["0000:01:00.0"], host.root, ["0000:01:00.0"])
        (host.root / "proc/4242/fd/3").unlink()


def test_waiting_ends_with_the_run(host: Lab) -> None:
    stop = threading.Event()
    stop.set()
    with (
        lend(host.desk(), NVIDIA),
        pytest.raises(InfraError, match="all that fits card is taken"),
        host.desk().lend(NVIDIA, "another", 3600.0, stop),
    ):
        pass


def test_what_is_not_safe_is_not_lent_and_what_may_be_forced_is_with_a_word(host: Lab) -> None:
    (host.root / "sys/bus/pci/devices/0000:01:00.0/boot_vga").write_text("1\n")
    with pytest.raises(InfraError, match=r"no device for card: 0000:01:00\.0: .*screen"), lend(host.desk(), NVIDIA):
        pass
    (said,) = what_force_does(["0000:01:00.0"], host.root)
    assert said.startswith("0000:01:00.0, 0000:01:00.1 is taken from the host until its cells have ended: ")
    assert "screen" in said
    with lend(host.desk("0000:01:00.0"), NVIDIA) as lent:
        assert lent.units[0].address == "0000:01:00.0"


def test_force_needs_a_device_that_is_there_and_helps_against_nothing_that_cannot_work(host: Lab) -> None:
    with pytest.raises(UserError, match=r"0000:09:00\.0: no GPU of this host has this address; known: 0000:01:00\.0"):
        what_force_does(["0000:09:00.0"], host.root)
    host.kernel.fall_off("0000:01:00.0")
    with pytest.raises(UserError, match=r"no force helps: 0000:01:00\.0 does not answer"):
        what_force_does(["0000:01:00.0"], host.root)
    assert what_force_does([], host.root) == []


def test_a_device_that_its_driver_does_not_let_go_is_not_waited_for(host: Lab) -> None:
    def refuse(act: str, subject: str) -> None:
        if act == "unbind":
            raise OSError(16, "Device or resource busy")

    host.kernel.before = refuse
    with (
        pytest.raises(InfraError, match=r"^no device for card: 0000:01:00\.0: .*busy"),
        lend(host.desk(), NVIDIA, 3600.0),
    ):
        pass


def test_a_device_that_is_sick_is_put_aside_and_another_that_fits_is_taken(host: Lab) -> None:
    desk = host.desk()
    desk.lender.quarantine.add("0000:01:00.0", "it fell off the bus")
    # Nobody waits for it: it will not be free within this run.
    told = r"^no device for card: 0000:01:00\.0: .*it fell off the bus"
    with pytest.raises(InfraError, match=told), lend(desk, NVIDIA, 3600.0):
        pass
    with lend(desk, ANY) as lent:
        assert lent.units[0].address != "0000:01:00.0"
