"""A host's content, caches and results open together, and combinations that cannot be cells are told why."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.home import Home
from harness.lab import Lab, host_facts
from harness.model.cell import Cell, DebianKernel, InstalledKernel, KernelSpec, Series
from harness.model.device import DeviceRequest
from harness.model.machine import LabBox


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(Home(tmp_path / "home"))


def cell(guest: str = "debian-13", stack: str = "cpu-opencl", device: str = "none") -> Cell:
    return Cell(guest, KernelSpec("k", Series.LONGTERM, DebianKernel("trixie")), stack, device)


def test_opening_a_lab_writes_nothing_and_its_store_is_made_when_asked_for(lab: Lab) -> None:
    assert {"debian-13"} <= lab.known().guests
    assert {"cpu-opencl", "intree"} <= lab.known().stacks
    assert lab.known().tests == frozenset(lab.tests)
    assert not lab.home.root.exists()
    with lab.store() as store:
        assert store.runs() == []
    assert lab.home.database.is_file()


def test_tests_of_the_users_own_stand_beside_the_shipped_ones(lab: Lab) -> None:
    folder = lab.home.own_tests / "mine"
    folder.mkdir(parents=True)
    (folder / "test.yaml").write_text("{schema: 1, name: mine, title: Mine, stage: compute, run: ['true'], timeout: 9}")
    assert {"mine", "enumerate"} <= set(lab.tests)
    assert "mine" in lab.known().tests


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (cell(), None),
        (cell(stack="intree"), None),
        (cell(stack="nope"), "guest debian-13 has no recipe for nope"),
        (cell(guest="haiku"), "guest haiku has no recipe for cpu-opencl"),
        (cell(device="0000:01:00.0"), "cpu-opencl computes on the CPU and takes no device"),
    ],
)
def test_a_combination_that_cannot_be_has_its_reason(lab: Lab, one: Cell, reason: str | None) -> None:
    assert lab.unfit(one) == reason


def test_a_stack_that_needs_a_device_gets_one_or_is_no_cell(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "content/guests/g/stacks/rocm"
    folder.mkdir(parents=True)
    (folder / "stack.yaml").write_text("description: x\n")
    monkeypatch.setenv("KDMATRIX_CONTENT", str(tmp_path / "content"))
    assert lab.unfit(cell("g", "rocm")) == "rocm needs a device"
    assert lab.unfit(cell("g", "rocm", device="card")) is None


BOX = LabBox("box", "debian-13", "box.example", "grub", "/key")
INSTALLED = KernelSpec("mine", Series.LONGTERM, InstalledKernel("6.12.*"))


def test_boxes_boot_what_they_have_installed_and_vms_what_can_be_had(lab: Lab) -> None:
    assert lab.unfit(Cell("debian-13", INSTALLED, "intree", machine=BOX)) is None
    assert lab.unfit(Cell("debian-13", INSTALLED, "intree")) == (
        "mine is installed on lab boxes, and debian-13 runs in a VM"
    )
    fetched = Cell("debian-13", KernelSpec("k", Series.LONGTERM, DebianKernel("trixie")), "intree", machine=BOX)
    assert lab.unfit(fetched) == "box boots only kernels that are installed on it"


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (DeviceRequest("gpu", vendor=0x10DE), None),
        (DeviceRequest("gpu", address="0000:01:00.0"), None),
        (DeviceRequest("gpu", model="H100"), "a device of box is asked for by address, vendor or id only"),
        (DeviceRequest("gpu", nvlink=True), "a device of box is asked for by address, vendor or id only"),
        (DeviceRequest("gpu", virtual=True), "virtual devices are made on this host only"),
        (DeviceRequest("gpu", vendor=0x10DE, display=True), "box is no VM that could have an emulated display"),
    ],
)
def test_a_device_of_a_box_is_asked_for_by_what_the_box_itself_says(
    lab: Lab, request_: DeviceRequest, reason: str | None
) -> None:
    assert lab.unfit(Cell("debian-13", INSTALLED, "intree", "gpu", request=request_, machine=BOX)) == reason


def test_the_host_is_described_without_its_name() -> None:
    facts = host_facts()
    assert {"host.kernel", "host.machine", "host.python"} <= set(facts)
    assert all(facts.values())
    assert Path("/etc/hostname").read_text().strip() not in facts.values()
