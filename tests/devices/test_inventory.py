"""A GPU of any vendor is found by its class, and everything that must go along with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from devices.recorded import machine
from harness.devices.inventory import is_real_group, real_groups, units


def addresses(root: Path) -> dict[str, list[str]]:
    return {unit.address: [function.address for function in unit.functions] for unit in units(root)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("laptop-hybrid", {"0000:00:02.0": ["0"], "0000:01:00.0": ["0", "1"]}),
        (
            "lab-reserved",
            {"0000:03:00.0": ["0", "1", "2", "3"], "0000:08:00.0": ["0", "1", "2", "3"], "0000:0f:00.0": ["0"]},
        ),
        ("desktop-iommu-off", {"0000:00:02.0": ["0"], "0000:01:00.0": ["0", "1"]}),
        ("apu-shared-slot", {"0000:04:00.0": ["0", "1", "2", "3", "6"]}),
    ],
)
def test_functions_of_a_gpu_go_along(tmp_path: Path, name: str, expected: dict[str, list[str]]) -> None:
    found = addresses(machine(name).unfold(tmp_path))
    assert {unit: [address[-1] for address in members] for unit, members in found.items()} == expected


def test_a_group_brings_what_else_is_in_it_but_no_bridge(tmp_path: Path) -> None:
    found = addresses(machine("chipset-slot").unfold(tmp_path))
    assert found["0000:04:00.0"] == ["0000:01:00.0", "0000:01:00.1", "0000:03:00.0", "0000:04:00.0", "0000:04:00.1"]


def test_accelerators_without_a_screen_and_display_controllers_are_gpus(tmp_path: Path) -> None:
    assert list(addresses(machine("mi300x").unfold(tmp_path / "a"))) == [
        "0000:05:00.0",
        "0000:26:00.0",
        "0000:46:00.0",
        "0000:65:00.0",
        "0000:c1:00.0",
    ]
    assert len(addresses(machine("flex170-sriov").unfold(tmp_path / "b"))) == 5


def test_the_memory_of_a_unit_is_the_largest_window_of_its_gpu(tmp_path: Path) -> None:
    found = {unit.address: unit.memory for unit in units(machine("hgx-h100").unfold(tmp_path))}
    assert found["0000:18:00.0"] == 128 << 30


def test_virtual_functions_and_mediated_kinds_are_told(tmp_path: Path) -> None:
    found = {unit.address: unit.gpus[0] for unit in units(machine("flex170-sriov").unfold(tmp_path / "a"))}
    physical = found["0000:4d:00.0"]
    assert (physical.total_vfs, physical.vfs) == (31, ("0000:4d:00.1", "0000:4d:00.2", "0000:4d:00.3"))
    assert found["0000:4d:00.2"].physical == "0000:4d:00.0"
    first = units(machine("vgpu-t4").unfold(tmp_path / "b"))[0].gpus[0]
    assert [(kind.id, kind.name, kind.available) for kind in first.mdev_types] == [
        ("nvidia-222", "GRID T4-1B", 0),
        ("nvidia-230", "GRID T4-1Q", 3),
    ]


def test_a_group_that_stands_for_no_iommu_is_none(tmp_path: Path) -> None:
    root = machine("laptop-hybrid").unfold(tmp_path)
    assert is_real_group(root, 15)
    before = real_groups(root)
    (root / "sys/kernel/iommu_groups/15/name").write_text("vfio-noiommu\n")
    assert not is_real_group(root, 15)
    assert not is_real_group(root, None)
    assert real_groups(root) == before - 1


def test_a_host_without_gpus_has_no_units(tmp_path: Path) -> None:
    assert units(tmp_path) == ()
