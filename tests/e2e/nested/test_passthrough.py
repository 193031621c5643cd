"""The program on a host with an emulated IOMMU: it lends real PCI devices to VMs and takes them back, come what may.

Two emulations deep everything is slow, so time limits are there to end what hangs and not to measure anything.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from .inner import CARD_STACK, DISPLAY_STACK, GUEST, KERNEL, PLACE
from .outer import CARD_PORT, DISPLAY, DRIVERS, GPU, PLUGGED, PORT, SOUND, Outer

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.xdist_group("nested"), pytest.mark.timeout(3600)]

HOME = "/var/lib/kdmatrix"
SLOT_CONTROL = "CAP_EXP+18.w"
"""Slot Control of a PCI Express port: 01c0 has the slot's power on, 05c0 off."""
ENVIRONMENT = f"KDMATRIX_CONTENT={PLACE}/content KDMATRIX_EMULATION_FACTOR=60 COLUMNS=200"
# Without ACPI the inner kernel is up much sooner; it would then drive the root port's slot itself and, as QEMU plugs
# through ACPI there, find it empty.
MATRIX = """
version: 1
kernels:
  - name: {kernel}
    series: longterm
    packages: [{package}]
    cmdline: "loglevel=5 acpi=off pcie_ports=compat lpj=5000000 nokaslr mitigations=off"
guests: [{guest}]
stacks: [{stack}]
devices: ["{device}"]
timeouts: {{boot: 40s, activate: 10s, test: 10s, cell: 1m}}
limits: {{vms: 1, vm_memory: 256MiB}}
"""
QEMU = "'^/usr/bin/qemu-system-x86_64 -name guest=kdmatrix'"
"""An inner VM, for pgrep; libvirt starts QEMU to ask it what it can do, too."""
RUNS = f"pgrep -f {QEMU} >/dev/null"
HAS_DEVICE = f"readlink /proc/$(pgrep -f {QEMU} || echo none)/fd/* 2>/dev/null | grep -q 'vfio-device'"
END_VM = f"pkill -KILL -f {QEMU}"
FREEZE_VM = f"pkill -STOP -f {QEMU}"


def stack_for(device: str) -> str:
    return CARD_STACK if device == GPU else DISPLAY_STACK


def cell(device: str) -> str:
    return f"{GUEST}/{KERNEL}/{stack_for(device)}/{device}"


@dataclass
class Command:
    """The program at work in the outer machine."""

    outer: Outer
    name: str
    pid: str

    def said(self) -> str:
        return self.outer.sh(f"cat /root/{self.name}.log")

    def running(self) -> str:
        """A shell condition."""
        return f"[ -e /proc/{self.pid}/exe ]"

    def until(self, condition: str, timeout: float = 600) -> None:
        """Wait until a condition holds; the program must not end before."""
        self.outer.until(f"{condition} || ! {self.running()}", timeout)
        assert self.outer.run(["sh", "-c", condition]).exit_status == 0, self.said()

    def end(self, timeout: float = 600) -> str:
        """Wait for its end; return all that it said."""
        self.outer.until(f"! {self.running()}", timeout)
        return self.said()


def start(outer: Outer, name: str, *words: str, device: str = DISPLAY) -> Command:
    """Start ``kdmatrix run`` for one device in the outer machine."""
    package = outer.sh(f"echo {PLACE}/*.deb")
    text = MATRIX.format(kernel=KERNEL, package=package, guest=GUEST, stack=stack_for(device), device=device)
    outer.sh(f"cat >/root/{name}.yaml <<'END'\n{text}END")
    argv = " ".join(("kdmatrix", "run", *words, f"/root/{name}.yaml"))
    pid = outer.sh(f"cd /root; {ENVIRONMENT} setsid {argv} >/root/{name}.log 2>&1 </dev/null & echo $!")
    return Command(outer, name, pid)


def wait_for(condition: Callable[[], bool], run: Command, timeout: float = 2400) -> None:
    """Wait until something holds that is seen from outside; the program must not end before."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, run.said()
        assert run.outer.run(["sh", "-c", run.running()]).exit_status == 0, run.said()
        time.sleep(0.5)


def kdmatrix(outer: Outer, *words: str) -> str:
    return outer.must("env", *ENVIRONMENT.split(), "kdmatrix", *words)


def devices(outer: Outer) -> dict[str, dict[str, Any]]:
    return {one["address"]: one for one in json.loads(kdmatrix(outer, "devices", "--json"))["units"]}


def last_attempt(outer: Outer) -> dict[str, Any]:
    """The one attempt of the latest run, as its report has it."""
    report = outer.sh(f"cat $(ls -d {HOME}/runs/*/report | tail -n 1)/results.json")
    (found,) = json.loads(report)["attempts"]
    assert isinstance(found, dict)
    return found


def enumerated(outer: Outer, said: str) -> dict[str, Any]:
    """The last attempt, whose driver has loaded and has the device; what it showed is told where it is not so."""
    attempt = last_attempt(outer)
    seen = {stage["stage"]: stage["outcome"] for stage in attempt["stages"]}
    told = said + json.dumps(attempt, indent=1)
    if seen["boot"] != "PASS":
        told += kdmatrix(outer, "logs", attempt["cell_id"], "console.log")[-4000:]
    assert seen["boot"] == seen["load"] == seen["enumerate"] == "PASS", told
    return attempt


@pytest.fixture(autouse=True)
def timed(request: pytest.FixtureRequest, outer: Outer, clock: Callable[[str, float], None]) -> Iterator[None]:
    started, cpu = time.monotonic(), outer.cpu_seconds
    yield
    clock(f"{request.node.name} ({outer.cpu_seconds - cpu:.0f} s of processor)", time.monotonic() - started)


@pytest.fixture(autouse=True)
def undisturbed(outer: Outer, timed: None) -> Iterator[None]:
    """After each scene nothing runs, and all devices are the host's again."""
    yield
    if outer.run(["pkill", "-KILL", "-f", "[k]dmatrix run"]).exit_status == 0:
        kdmatrix(outer, "clean")  # a scene that failed is not to spoil the others
    outer.until(f"! {RUNS}", 120)
    assert outer.drivers() == DRIVERS
    assert outer.sh(f"cat /sys/bus/pci/devices/{DISPLAY}/driver_override") == "(null)"


def test_the_devices_of_the_host_are_listed_with_their_groups(outer: Outer) -> None:
    found = devices(outer)
    assert set(found) == {DISPLAY, PLUGGED, GPU}
    for address, one in found.items():
        group = outer.sh(f"basename $(readlink /sys/bus/pci/devices/{address}/iommu_group)")
        assert one["group"] == int(group)
    methods = {one["address"]: one["reset_methods"] for one in found[GPU]["functions"]}
    assert set(methods) == {GPU, SOUND}, "one card, one unit"
    assert (methods[GPU][0], methods[SOUND]) == ("flr", [])


def test_a_display_that_shows_something_is_not_taken_unasked(outer: Outer) -> None:
    run = start(outer, "unasked")
    said = run.end()
    assert "the host's only screen" in said
    assert last_attempt(outer)["outcome"] == "MISS"


def test_the_kernels_own_driver_binds_a_lent_device_in_the_guest_and_the_host_gets_it_back(outer: Outer) -> None:
    run = start(outer, "whole", "--force-device", DISPLAY)
    run.until(HAS_DEVICE)
    assert outer.driver(DISPLAY) == "vfio-pci"
    said = run.end(2400)
    attempt = enumerated(outer, said)
    assert attempt["facts"]["device.0000:01:00.0.driver"] == DRIVERS[DISPLAY]
    assert attempt["facts"]["device.functions"] == DISPLAY
    assert attempt["facts"]["device.host_drivers"] == DRIVERS[DISPLAY]


def test_after_kill_9_clean_gives_the_device_back(outer: Outer) -> None:
    run = start(outer, "killed", "--force-device", DISPLAY)
    run.until(HAS_DEVICE)
    outer.sh(f"kill -KILL {run.pid}")
    run.end()
    # libvirt ends the VM of a client that is gone; the device is still where the dead run left it.
    assert outer.driver(DISPLAY) == "vfio-pci"
    said = kdmatrix(outer, "clean")
    assert DISPLAY in said
    assert outer.driver(DISPLAY) == DRIVERS[DISPLAY]


def test_who_wants_a_lent_device_waits_and_gets_it_when_its_holder_is_killed(outer: Outer) -> None:
    first = start(outer, "first", "--force-device", PLUGGED, device=PLUGGED)
    first.until(HAS_DEVICE)
    qemu = outer.sh(f"pgrep -f {QEMU}")
    second = start(outer, "second", "--force-device", PLUGGED, device=PLUGGED)
    second.until("grep -q ' boot$' /root/second.log")
    lease = devices(outer)[PLUGGED]["lease"]
    assert f"pid {first.pid} " in lease["holder"]
    assert cell(PLUGGED) in lease["holder"]
    assert outer.sh(f"pgrep -f {QEMU}") == qemu
    outer.sh(f"kill -KILL {first.pid}")
    second.until(f"[ ! -e /proc/{qemu}/exe ] && {HAS_DEVICE}")
    assert outer.driver(PLUGGED) == "vfio-pci"
    # A VM that dies has not let go of its device in any order.
    outer.sh(END_VM)
    said = second.end()
    attempt = last_attempt(outer)
    assert attempt["outcome"] == "MISS", said
    assert attempt["facts"]["device.reset"] == "bus"
    assert attempt["facts"]["device.health"] == "well"
    assert "device.trouble" not in attempt["facts"]


def test_a_vm_that_is_destroyed_while_its_device_reads_its_memory_leaves_a_device_that_works(
    outer: Outer,
) -> None:
    run = start(outer, "reading", "--force-device", GPU, "--until", "enumerate", device=GPU)
    run.until(HAS_DEVICE)
    before, drawn = outer.reads(SOUND), outer.pictures()
    # More than its driver's first words with the codec: it plays.
    wait_for(lambda: outer.reads(SOUND) > before + 5000 and outer.pictures() > drawn + 10, run)
    outer.sh(FREEZE_VM)
    # No processor of the VM runs any more, and still its memory is read.
    frozen = outer.reads(SOUND)
    wait_for(lambda: outer.reads(SOUND) > frozen + 1000, run)
    outer.sh(END_VM)
    said = run.end()
    attempt = last_attempt(outer)
    facts = attempt["facts"]
    assert attempt["outcome"] == "MISS", said
    assert "the host's trouble" not in attempt["reason"]
    assert facts["device.reset"] == f"the kernel's choice of flr pm bus ({GPU}), bus of {CARD_PORT} ({SOUND})"
    assert facts["device.health"] == "well"
    assert "device.reset_failed" not in facts
    assert "device.trouble" not in facts
    assert "about others" not in facts["device.host_log"]
    quiet = outer.reads(SOUND)
    time.sleep(3)
    assert outer.reads(SOUND) == quiet, "it reads no more"
    assert outer.drivers() == DRIVERS
    assert devices(outer)[GPU]["quarantine"] is None

    again = start(outer, "works", "--force-device", GPU, "--until", "enumerate", device=GPU)
    said = again.end(2400)
    attempt = enumerated(outer, said)
    assert attempt["facts"]["device.functions"] == f"{GPU}, {SOUND}"


def test_a_device_that_fell_off_its_bus_is_removed_and_found_again(outer: Outer) -> None:
    run = start(outer, "fallen", "--force-device", PLUGGED, device=PLUGGED)
    run.until(HAS_DEVICE)
    # The root port passes on what is meant for its bus alone: with another number, nobody answers for the device.
    outer.sh(f"setpci -s {PORT} SECONDARY_BUS=7f")
    outer.sh(END_VM)
    said = run.end()
    facts = last_attempt(outer)["facts"]
    assert facts["device.reset"] == "failed, then removed from the bus and found again", said
    assert facts["device.health"] == "well"
    assert f"{PLUGGED}: Device config space inaccessible" in facts["device.host_log"]


def test_a_device_that_stays_away_is_quarantined_and_its_next_cell_is_missed(outer: Outer) -> None:
    run = start(outer, "lost", "--force-device", PLUGGED, device=PLUGGED)
    run.until(HAS_DEVICE)
    outer.sh(f"setpci -s {PORT} {SLOT_CONTROL}=05c0")
    outer.sh(f"{END_VM} || ! {RUNS}")  # QEMU may have ended by itself
    said = run.end()
    attempt = last_attempt(outer)
    assert attempt["outcome"] == "MISS", said
    assert attempt["facts"]["device.trouble"], said
    outer.sh(f"setpci -s {PORT} {SLOT_CONTROL}=01c0; echo 1 >/sys/bus/pci/rescan")
    assert devices(outer)[PLUGGED]["quarantine"]
    again = start(outer, "again", "--force-device", PLUGGED, device=PLUGGED)
    assert "in quarantine" in again.end(120)  # nobody gives it back, so there is nothing to wait for
    assert last_attempt(outer)["outcome"] == "MISS"
    kdmatrix(outer, "devices", "--lift", PLUGGED)
    kdmatrix(outer, "clean")
