"""What a cell's devices mean for its result: in its facts, and blamed on the host where the host is to blame."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.devices.borrow import Borrowed, Lender
from harness.devices.hostlog import Complaint
from harness.devices.lending import Desk, Lent
from harness.errors import InfraError
from harness.journal import Journal
from harness.ladder.lending import blame_the_host, in_domain, lend
from harness.model.cell import Cell, KernelSpec, Series, TreeKernel
from harness.model.device import DeviceRequest, PassthroughUnit, PciFunction
from harness.model.outcome import Outcome
from harness.model.records import StageResult
from harness.model.stage import Stage

PASS, FAIL, MISS, SKIP = Outcome.PASS, Outcome.FAIL, Outcome.MISS, Outcome.SKIP
CELL = Cell("debian-13", KernelSpec("k", Series.STABLE, TreeKernel("t")), "nvidia", "card")
WANTING = Cell(CELL.guest, CELL.kernel, CELL.stack, "card", request=DeviceRequest("card", vendor=0x10DE))


class Counter:
    """A desk that lends as it is told."""

    def __init__(self, before: str = "", after: str = "") -> None:
        self.before, self.after = before, after

    @contextlib.contextmanager
    def lend(self, request: DeviceRequest, what: str, wait: float, stop: threading.Event) -> Iterator[Lent]:
        if self.before:
            raise InfraError(self.before)
        lent = Lent(facts={"device.lease": "7", "device.for": what})
        yield lent
        lent.facts["device.reset"] = "flr"
        if self.after:
            raise InfraError(self.after)


def had(cell: Cell, desk: object, facts: dict[str, str]) -> Lent:
    with contextlib.ExitStack() as keeper:
        return lend(keeper, desk, cell, "r1", facts, 1.0, threading.Event())  # type: ignore[arg-type]  # a stand-in


def test_a_cell_that_asks_for_nothing_gets_nothing_and_needs_no_desk() -> None:
    facts: dict[str, str] = {}
    lent = had(CELL, None, facts)
    assert (lent.units, lent.mediated, facts) == ((), [], {})
    assert in_domain(lent, 1 << 30).ports == ()


def test_what_is_known_only_when_the_device_is_back_is_in_the_facts_too() -> None:
    facts: dict[str, str] = {}
    had(WANTING, Counter(), facts)
    assert facts == {
        "device.lease": "7",
        "device.for": "debian-13/k/nvidia/card of run r1",
        "device.reset": "flr",
    }


def test_the_vm_of_lent_devices_has_a_display_of_its_own_only_where_the_cell_asks() -> None:
    unit = PassthroughUnit((PciFunction("0000:01:00.0", 0x10DE, 0x2684, 0x030000),))
    borrowed = [Borrowed(unit, ("0000:01:00.0",), 1, {}, lambda: None)]
    assert not in_domain(Lent(borrowed), 1 << 30).display
    assert in_domain(Lent(borrowed, display=True), 1 << 30).display


def test_a_device_that_cannot_be_had_is_trouble_of_the_lab() -> None:
    with pytest.raises(InfraError, match="quarantine"):
        had(WANTING, Counter(before="it is in quarantine"), {})
    with pytest.raises(InfraError, match="this run lends no devices"):
        had(WANTING, None, {})


def test_trouble_on_the_way_back_is_said_beside_the_result_and_takes_none_away() -> None:
    facts: dict[str, str] = {}
    had(WANTING, Counter(after="amdgpu did not take it back"), facts)
    assert facts["device.trouble"] == "amdgpu did not take it back"


STAGES = [
    StageResult(Stage.BUILD, FAIL, 1.0, "nv.c:1: error"),
    StageResult(Stage.LOAD, PASS, 1.0, ""),
    StageResult(Stage.COMPUTE, FAIL, 1.0, "vecadd: wrong"),
]


@pytest.mark.parametrize("kind", ["aer", "link", "power", "reset"])
def test_a_failure_while_the_hosts_kernel_complained_of_the_hardware_is_nobodys_but_the_hosts(kind: str) -> None:
    lent = Lent(complaints=[Complaint(kind, ("0000:01:00.0",), 1.0, "pcieport: AER: Uncorrected (Fatal) error")])
    build, load, compute = blame_the_host(STAGES, lent)
    assert (build, load) == (STAGES[0], STAGES[1]), "a build needs no device, and what passed did pass"
    assert compute.outcome is MISS
    assert compute.reason == (
        "the host's trouble: pcieport: AER: Uncorrected (Fatal) error (the cell said: vecadd: wrong)"
    )


@pytest.mark.parametrize("kind", ["iommu", "vfio", "xid"])
def test_a_fault_that_a_driver_can_bring_about_leaves_the_failure_with_the_driver(kind: str) -> None:
    lent = Lent(complaints=[Complaint(kind, ("0000:01:00.0",), 1.0, "DMAR: [DMA Write] fault addr 0x0")])
    assert blame_the_host(STAGES, lent) == STAGES


def test_a_desk_says_why_for_each_device_that_it_does_not_lend(tmp_path: Path) -> None:
    desk = Desk(Lender(tmp_path, tmp_path / "leases"), Journal(tmp_path / "journal"), tmp_path)
    request = DeviceRequest("card")
    with (
        pytest.raises(InfraError, match=r"^no device for card: this host has no GPU that could be passed through$"),
        desk.lend(request, "x", 0.0, threading.Event()),
    ):
        pass
    assert desk.capacity(request) == 1, "one cell must come to be told so"
