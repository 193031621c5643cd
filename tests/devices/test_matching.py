"""A request finds the units that fit it, and says of each other one why it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from devices.recorded import machine
from harness.devices.matching import Choice, choose, in_bytes
from harness.devices.safety import survey
from harness.model.device import DeviceRequest


def ask(root: Path, name: str, **criteria: object) -> Choice:
    request = DeviceRequest(name="wanted", **criteria)  # type: ignore[arg-type]
    return choose(request, survey(machine(name).unfold(root)))


def fitting(choice: Choice) -> list[str]:
    return [unit.address for unit in choice.units]


def test_an_address_names_one_unit(tmp_path: Path) -> None:
    choice = ask(tmp_path, "laptop-hybrid", address="0000:01:00.0")
    assert fitting(choice) == ["0000:01:00.0"]
    assert choice.refused == {"0000:00:02.0": "another address"}


def test_the_address_of_a_companion_is_told_whose_it_is(tmp_path: Path) -> None:
    choice = ask(tmp_path, "laptop-hybrid", address="0000:01:00.1")
    assert fitting(choice) == []
    assert choice.refused["0000:01:00.0"] == "0000:01:00.1 belongs to it and only goes along; ask for 0000:01:00.0"


@pytest.mark.parametrize(
    ("machine_name", "criteria", "expected"),
    [
        ("laptop-hybrid", {"vendor": 0x10DE}, ["0000:01:00.0"]),
        ("laptop-hybrid", {"vendor": 0x1002}, []),
        ("mi300x", {"vendor": 0x1002, "device": 0x74A1}, 4),
        ("hgx-h100", {"model": "h100"}, 8),
        ("hgx-h100", {"model": "H100", "memory": 64 << 30}, 8),
        ("hgx-h100", {"model": "H100", "memory": 129 << 30}, []),
        ("workstation-shared-group", {"architecture": "navi 21"}, ["0000:05:00.0"]),
        ("workstation-shared-group", {"architecture": "RX 6800"}, []),
        ("workstation-shared-group", {"model": "Navi"}, []),
        ("lab-reserved", {"model": "raphael"}, ["0000:0f:00.0"]),
        ("flex170-sriov", {"vendor": 0x8086}, ["0000:4d:00.0"]),
        ("flex170-sriov", {"vendor": 0x8086, "virtual": True}, 3),
        ("flex170-sriov", {"address": "0000:4d:00.2"}, ["0000:4d:00.2"]),
        ("vgpu-t4", {"mdev": "nvidia-222"}, ["0000:d8:00.0"]),
        ("vgpu-t4", {"mdev": "grid t4-1q"}, ["0000:3b:00.0", "0000:d8:00.0"]),
    ],
)
def test_every_criterion_must_hold(
    tmp_path: Path, machine_name: str, criteria: dict[str, object], expected: list[str] | int
) -> None:
    found = fitting(ask(tmp_path, machine_name, **criteria))
    assert (len(found) if isinstance(expected, int) else found) == expected


@pytest.mark.parametrize(
    ("machine_name", "criteria", "unit", "reason"),
    [
        ("laptop-hybrid", {"vendor": 0x1002}, "0000:00:02.0", "its vendor is Intel Corporation"),
        ("x58-no-remapping", {"vendor": 0x1002}, "0000:02:00.0", "its vendor is 10de"),
        ("mi300x", {"device": 0x744C}, "0000:05:00.0", "it is 1002:74a1"),
        ("mi300x", {"model": "H100"}, "0000:05:00.0", "it is Aqua Vanjaram [Instinct MI300X]"),
        ("mi300x", {"architecture": "GH100"}, "0000:05:00.0", "its chip is Aqua Vanjaram"),
        (
            "desktop-iommu-off",
            {"memory": 16 << 30},
            "0000:01:00.0",
            "its largest window shows 256MiB, not 16GiB; its window can be made larger: turn on Resizable BAR in the "
            "firmware's setup",
        ),
        (
            "flex170-sriov",
            {"vendor": 0x8086},
            "0000:4d:00.1",
            "a virtual function of 0000:4d:00.0; ask for virtual: true",
        ),
        ("flex170-sriov", {"virtual": True}, "0000:4d:00.0", "it is the physical function of virtual ones"),
        ("hgx-h100", {"virtual": True}, "0000:18:00.0", "it is no virtual function; it could have 32: sriov_numvfs"),
        ("vgpu-t4", {"mdev": "nvidia-222"}, "0000:3b:00.0", "it can make no more nvidia-222 (GRID T4-1B) now"),
        ("vgpu-t4", {"mdev": "nvidia-999"}, "0000:3b:00.0", "nvidia-222 (GRID T4-1B), nvidia-230 (GRID T4-1Q)"),
        ("mi300x", {"mdev": "nvidia-222"}, "0000:05:00.0", "it makes no mediated devices"),
    ],
)
def test_what_does_not_fit_is_told(
    tmp_path: Path, machine_name: str, criteria: dict[str, object], unit: str, reason: str
) -> None:
    assert reason in ask(tmp_path, machine_name, **criteria).refused[unit]


def test_nvlink_is_had_only_where_somebody_can_set_the_fabric_up_for_a_guest(tmp_path: Path) -> None:
    root = machine("hgx-h100").unfold(tmp_path)
    linked = DeviceRequest("linked", vendor=0x10DE, nvlink=True)
    choice = choose(linked, survey(root))
    assert choice.units == ()
    assert choice.refused["0000:3a:00.0"] == (
        "its NVLink fabric (4 NVSwitches, 0000:05:00.0, …) stays with the host, where no Fabric Manager runs that "
        "could set it up for a guest (start nvidia-fabricmanager with FABRIC_MODE=1 and activate a partition)"
    )
    (root / "proc/3400").mkdir()
    (root / "proc/3400/comm").write_text("nv-fabricmanage\n")
    choice = choose(linked, survey(root))
    assert len(choice.units) == 8
    assert list(choice.refused) == ["0000:03:00.0"], "the BMC's screen is on no fabric"


@pytest.mark.parametrize("name", ["vgpu-t4", "laptop-hybrid", "mi300x"])
def test_a_gpu_without_nvswitch_is_on_no_fabric_whoever_runs(tmp_path: Path, name: str) -> None:
    root = machine(name).unfold(tmp_path)
    (root / "proc/3400").mkdir(exist_ok=True)
    (root / "proc/3400/comm").write_text("nv-fabricmanage\n")
    choice = choose(DeviceRequest("linked", nvlink=True), survey(root))
    assert choice.units == ()
    assert set(choice.refused.values()) == {"it is on no NVLink fabric, as no NVSwitch of this host belongs to it"}


def test_a_model_cannot_be_told_without_a_list_of_names(tmp_path: Path) -> None:
    choice = ask(tmp_path, "x58-no-remapping", model="GTX 1060")
    assert fitting(choice) == []
    assert "package pci.ids" in choice.refused["0000:02:00.0"]


def test_each_unit_is_either_fitting_or_refused(tmp_path: Path) -> None:
    choice = ask(tmp_path, "hgx-h100", model="H100")
    assert len(choice.units) + len(choice.refused) == 9
    assert not set(fitting(choice)) & set(choice.refused)


def test_what_needs_no_other_driver_comes_first_and_several_gpus_last(tmp_path: Path) -> None:
    recorded = machine("mi300x")
    recorded.functions["0000:05:00.0"].update(driver="amdgpu")
    recorded.functions["0000:26:00.0"].update(group="33")  # together with 65:00.0
    choice = choose(DeviceRequest(name="wanted", vendor=0x1002), survey(recorded.unfold(tmp_path)))
    assert fitting(choice) == ["0000:05:00.0", "0000:46:00.0", "0000:26:00.0"]
    recorded.functions["0000:46:00.0"].update(driver="vfio-pci")
    choice = choose(DeviceRequest(name="wanted", vendor=0x1002), survey(recorded.unfold(tmp_path / "again")))
    assert fitting(choice) == ["0000:46:00.0", "0000:05:00.0", "0000:26:00.0"]


def test_a_unit_of_several_gpus_says_of_each_why_it_does_not_fit(tmp_path: Path) -> None:
    recorded = machine("mi300x")
    recorded.functions["0000:26:00.0"].update(group="33")
    choice = choose(DeviceRequest(name="wanted", device=1), survey(recorded.unfold(tmp_path)))
    assert choice.refused["0000:26:00.0"] == "0000:26:00.0: it is 1002:74a1; 0000:65:00.0: it is 1002:74a1"


def test_sizes_are_written_as_in_the_matrix() -> None:
    assert [in_bytes(size) for size in (1 << 30, 3 << 20, 1536 << 20, 4096, 100)] == [
        "1GiB",
        "3MiB",
        "1536MiB",
        "4KiB",
        "100B",
    ]
