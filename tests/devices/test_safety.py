"""Every unit of every recorded machine is judged as its owner would, and no odd file hides a judgement."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.recorded import RecordedMachine, machine, machine_names
from harness.devices.inventory import units
from harness.devices.objection import Code, Examined, Level
from harness.devices.safety import examine, survey

VERDICTS: dict[str, dict[str, set[str]]] = {
    "apu-shared-slot": {"0000:04:00.0": {"in-use!", "group-shared", "usb-devices", "screen"}},
    "arc-only-screen": {"0000:03:00.0": {"screen"}},
    "chipset-slot": {"0000:04:00.0": {"disk!", "usb-devices", "network"}, "0000:06:00.0": {"screen"}},
    "desktop-iommu-off": {"0000:00:02.0": {"iommu-off!", "screen"}, "0000:01:00.0": {"iommu-off!"}},
    "dual-gpu-card": {"0000:06:00.0": {"several-gpus?"}},
    "flex170-sriov": {
        "0000:4d:00.0": {"virtual-functions!"},
        "0000:4d:00.1": {"lent-to-a-vm!"},
        "0000:4d:00.2": set(),
        "0000:4d:00.3": set(),
        "0000:c1:00.0": {"screen", "no-reset?"},
    },
    "hgx-h100": {
        "0000:03:00.0": {"screen"},
        "0000:18:00.0": {"in-use!", "nvlink-fabric?"},
        "0000:2a:00.0": {"in-use!", "nvlink-fabric?"},
        **{f"0000:{bus}:00.0": {"nvlink-fabric?"} for bus in ("3a", "5d", "9a", "ab", "ba", "db")},
    },
    "kernel-without-vfio": {"0000:01:00.0": {"no-vfio-pci!"}},
    "lab-reserved": {
        "0000:03:00.0": set(),
        "0000:08:00.0": {"lent-to-a-vm!"},
        "0000:0f:00.0": {"screen", "functions-apart?", "no-reset?"},
    },
    "laptop-hybrid": {"0000:00:02.0": {"in-use!", "screen"}, "0000:01:00.0": set()},
    "mi300x": {
        "0000:05:00.0": set(),
        "0000:26:00.0": {"gone!"},
        "0000:46:00.0": {"in-use!"},
        "0000:65:00.0": set(),
        "0000:c1:00.0": {"screen", "no-reset?"},
    },
    "vgpu-t4": {"0000:3b:00.0": {"mediated-devices!", "holders-unknown"}, "0000:d8:00.0": {"holders-unknown"}},
    "workstation-shared-group": {
        "0000:01:00.0": {"network!"},
        "0000:05:00.0": {"in-use!", "screen", "functions-apart?", "no-reset?"},
    },
    "x58-no-remapping": {"0000:02:00.0": {"no-interrupt-remapping!", "holders-unknown"}},
}
"""Codes of what speaks against each unit; ``!`` is never, ``?`` a note, and the rest may be forced."""
MARKS = {Level.NEVER: "!", Level.REFUSED: "", Level.NOTE: "?"}


def judged(recorded: RecordedMachine, root: Path) -> dict[str, Examined]:
    return {one.unit.address: one for one in survey(recorded.unfold(root))}


def codes(one: Examined) -> set[str]:
    return {f"{found.code}{MARKS[found.level]}" for found in one.objections}


@pytest.mark.parametrize("name", machine_names())
def test_each_unit_is_refused_for_what_speaks_against_it_and_nothing_else(name: str, tmp_path: Path) -> None:
    assert {address: codes(one) for address, one in judged(machine(name), tmp_path).items()} == VERDICTS[name]


@pytest.mark.parametrize("name", machine_names())
def test_each_refusal_has_a_reason_and_a_fix_in_one_line(name: str, tmp_path: Path) -> None:
    for one in judged(machine(name), tmp_path).values():
        for found in one.objections:
            assert found.reason
            assert found.fix or found.level is Level.NOTE
            assert (found.reason + found.fix).isprintable()
            assert "allow_unsafe_interrupts" not in found.fix


@pytest.mark.parametrize("name", machine_names())
def test_judging_changes_nothing(name: str, tmp_path: Path) -> None:
    root = machine(name).unfold(tmp_path)

    def state() -> list[tuple[str, bytes]]:
        files = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
        return sorted((str(path), path.read_bytes()) for path in files)

    before = state()
    survey(root)
    assert state() == before


def test_force_helps_against_what_the_owner_may_give_and_nothing_else(tmp_path: Path) -> None:
    found = judged(machine("apu-shared-slot"), tmp_path)["0000:04:00.0"]
    assert [one.code for one in found.refusals(force=True)] == [Code.IN_USE, Code.IN_USE]
    assert all(one.forceable for one in found.refusals()[2:])
    assert found.refusals()[0].level is Level.NEVER, "the heaviest first"


def test_a_lease_explains_that_a_vm_has_it_but_not_that_a_disk_is_in_its_group(tmp_path: Path) -> None:
    lent = judged(machine("lab-reserved"), tmp_path / "a")["0000:08:00.0"]
    assert [one.code for one in lent.refusals()] == [Code.LENT]
    assert lent.refusals(leased=True) == ()
    shared = judged(machine("chipset-slot"), tmp_path / "b")["0000:04:00.0"]
    assert Code.DISK in {one.code for one in shared.refusals(force=True, leased=True)}


def test_one_unit_is_judged_as_in_the_survey(tmp_path: Path) -> None:
    found = judged(machine("workstation-shared-group"), tmp_path)
    for unit in units(tmp_path):
        assert examine(unit, tmp_path) == found[unit.address].objections


def test_a_card_that_is_down_may_be_forced_away_and_one_that_is_up_may_not(tmp_path: Path) -> None:
    recorded = machine("workstation-shared-group")
    recorded.functions["0000:02:00.0"]["net"] = {"enp2s0": "down"}
    recorded.recording["default_routes"] = []
    assert codes(judged(recorded, tmp_path)["0000:01:00.0"]) == {"network"}


def test_a_card_that_is_up_stays_even_if_the_world_is_reached_otherwise(tmp_path: Path) -> None:
    recorded = machine("workstation-shared-group")
    recorded.recording["default_routes"] = []
    found = judged(recorded, tmp_path)["0000:01:00.0"]
    assert codes(found) == {"network!"}
    assert found.refusals()[0].fix.endswith("or if nothing needs it: sudo ip link set enp2s0 down")


def test_what_the_host_has_given_away_itself_is_no_objection(tmp_path: Path) -> None:
    recorded = machine("workstation-shared-group")
    recorded.functions["0000:02:00.0"].update(driver="vfio-pci", net={})
    recorded.functions["0000:05:00.0"].update(driver="vfio-pci", drm={})
    del recorded.functions["0000:05:00.0"]["fb"]
    found = judged(recorded, tmp_path)
    assert codes(found["0000:01:00.0"]) == set()
    assert codes(found["0000:05:00.0"]) == {"functions-apart?", "no-reset?"}


def test_firmwares_framebuffer_keeps_a_reserved_gpu(tmp_path: Path) -> None:
    recorded = machine("workstation-shared-group")
    recorded.functions["0000:05:00.0"].update(driver="vfio-pci", drm={})
    assert "screen" in codes(judged(recorded, tmp_path)["0000:05:00.0"])


def test_a_bridge_stays_but_an_endpoint_with_a_driver_makes_the_group_unfit(tmp_path: Path) -> None:
    recorded = machine("laptop-hybrid")
    recorded.functions["0000:00:00.0"].update(group="15", driver="skl_uncore")
    recorded.functions["0000:00:01.0"]["group"] = "15"
    found = judged(recorded, tmp_path)["0000:01:00.0"]
    assert codes(found) == {"group-shared!"}
    assert "0000:00:00.0 (skl_uncore)" in found.refusals()[0].reason


def test_a_bridge_like_endpoint_without_a_driver_is_harmless(tmp_path: Path) -> None:
    recorded = machine("laptop-hybrid")
    recorded.functions["0000:00:00.0"]["group"] = "15"
    assert codes(judged(recorded, tmp_path)["0000:01:00.0"]) == set()


def test_two_gpus_of_one_group_are_told_to_go_together(tmp_path: Path) -> None:
    recorded = machine("mi300x")
    recorded.functions["0000:65:00.0"]["group"] = "30"
    found = judged(recorded, tmp_path)
    assert codes(found["0000:05:00.0"]) == {"several-gpus?"}
    assert "0000:65:00.0" not in found


def test_a_physical_function_in_one_group_with_its_virtual_ones_is_never_lent(tmp_path: Path) -> None:
    recorded = machine("flex170-sriov")
    for number in ("1", "2", "3"):
        recorded.functions[f"0000:4d:00.{number}"]["group"] = "41"
    assert "virtual-functions!" in codes(judged(recorded, tmp_path)["0000:4d:00.0"])


def test_a_group_that_stands_for_no_iommu_is_as_none(tmp_path: Path) -> None:
    root = machine("laptop-hybrid").unfold(tmp_path)
    for group in (root / "sys/kernel/iommu_groups").iterdir():
        (group / "name").write_text("vfio-noiommu\n")
    assert {one.unit.address for one in survey(root) if Code.IOMMU_OFF in {o.code for o in one.objections}} == {
        "0000:00:02.0",
        "0000:01:00.0",
    }


def test_a_device_that_its_iommu_left_out_is_told_apart_from_an_iommu_that_is_off(tmp_path: Path) -> None:
    recorded = machine("laptop-hybrid")
    for number in ("0", "1"):
        del recorded.functions[f"0000:01:00.{number}"]["group"]
    found = judged(recorded, tmp_path)["0000:01:00.0"]
    assert found.refusals()[0].reason == "it is in no IOMMU group, although the IOMMU is on"


def test_a_gpu_without_driver_has_no_holders_to_be_unsure_of(tmp_path: Path) -> None:
    recorded = machine("vgpu-t4")
    del recorded.functions["0000:d8:00.0"]["driver"]
    assert codes(judged(recorded, tmp_path)["0000:d8:00.0"]) == set()


def test_an_unknown_device_is_named_by_its_numbers(tmp_path: Path) -> None:
    found = judged(machine("x58-no-remapping"), tmp_path / "a")["0000:02:00.0"]
    assert found.label("0000:02:00.0") == "[10de:1c03]"
    assert judged(machine("lab-reserved"), tmp_path / "b")["0000:0f:00.0"].label("0000:0f:00.0") == "Raphael"


@settings(max_examples=25, deadline=None)
@given(name=st.sampled_from(machine_names()), seed=st.integers(0, 2**32), content=st.binary(max_size=80))
def test_no_odd_file_breaks_the_survey(
    tmp_path_factory: pytest.TempPathFactory, name: str, seed: int, content: bytes
) -> None:
    root = machine(name).unfold(tmp_path_factory.mktemp("odd"))
    choose = random.Random(seed)
    paths = sorted(path for top in ("sys", "proc", "usr") for path in (root / top).rglob("*"))
    for path in choose.sample(paths, k=len(paths) // 8):
        if not (path.is_symlink() or path.is_file()):
            continue
        path.unlink()
        how = choose.randrange(6)
        if how == 0:
            path.write_bytes(content)
        elif how == 1:
            path.write_bytes(content * 200)
        elif how == 2:
            path.symlink_to(path.name)
        elif how == 3:
            path.symlink_to(os.fsdecode(content.replace(b"\0", b"") or b"x"))
        elif how == 4:
            path.mkdir()
    for one in survey(root):
        assert all((found.reason + found.fix).isprintable() for found in one.objections)
    shutil.rmtree(root)
