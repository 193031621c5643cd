"""This machine as cells: what its drivers offer, and why the rest is left out."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scripted_runner import CPU, GPU, asked, scripted_runner

from harness import here
from harness.errors import UserError
from harness.here import Plan, plan_here, series_here
from harness.home import Home
from harness.lab import Lab
from harness.model.cell import RunningKernel, Series
from harness.model.device import PciFunction
from harness.model.machine import ThisMachine
from harness.store.rows import CELL, dump_cell

RELEASE = platform.release()
CARD = PciFunction("0000:01:00.0", 0x10DE, 0x2330, 0x030200, bridges=("0000:00:01.0",))
SOUND = PciFunction("0000:01:00.1", 0x10DE, 0x2331, 0x040300, bridges=("0000:00:01.0",))
WIFI = PciFunction("0000:05:00.0", 0x8086, 0x2725, 0x028000)


@pytest.fixture
def functions(monkeypatch: pytest.MonkeyPatch) -> list[PciFunction]:
    """What this machine is taken to have on its bus."""
    found: list[PciFunction] = [WIFI]
    monkeypatch.setattr(here, "read_functions", lambda: tuple(found))
    monkeypatch.setattr(here, "find_library", lambda name: None)
    return found


def lab_with(folder: Path, backends: dict[str, dict[str, Any]]) -> Lab:
    lab = Lab(Home(folder / "home"))
    runner = scripted_runner(folder / "runner", backends)
    lab.__dict__["images"] = replace(lab.images, tests=lambda: runner, sycl_tests=lambda: runner)
    return lab


def plan(folder: Path, offered: dict[str, dict[str, Any]], *backends: str, tier: int = 1, names: Any = ()) -> Plan:
    return plan_here(lab_with(folder, offered), backends, tier, names)


def test_every_backend_that_answers_is_a_cell_and_the_others_say_why_they_are_none(
    tmp_path: Path, functions: list[PciFunction]
) -> None:
    made = plan(tmp_path, {"opencl": {"devices": [CPU]}, "cuda": {"absent": "libcuda.so.1 is not there"}, "hip": {}})
    (cell,) = made.cells
    assert cell.id == f"here/{RELEASE}/opencl/none"
    assert cell.kernel.source == RunningKernel(RELEASE)
    assert [(one.cell_id, one.reason) for one in made.left_out] == [
        (f"here/{RELEASE}/cuda/none", "libcuda.so.1 is not there"),
        (f"here/{RELEASE}/hip/none", "the driver offers no device, and this machine has no GPU"),
        (f"here/{RELEASE}/sycl/none", "no libsycl.so among this machine's libraries"),
    ]
    assert "# left out: " in made.text


def test_a_driver_that_offers_nothing_on_a_machine_with_a_gpu_is_tested_all_the_same(
    tmp_path: Path, functions: list[PciFunction]
) -> None:
    functions.append(CARD)
    made = plan(tmp_path, {"cuda": {"reason": "cuInit returned 999"}})
    assert [cell.id for cell in made.cells] == [f"here/{RELEASE}/cuda/none"]


def test_each_gpu_is_a_cell_that_opens_it_and_a_processor_beside_it_is_none(
    tmp_path: Path, functions: list[PciFunction]
) -> None:
    functions += [CARD, SOUND]
    unnamed = GPU | {"bdf": ""}
    made = plan(tmp_path, {"opencl": {"devices": [CPU, GPU, unnamed]}})
    assert [cell.device for cell in made.cells] == ["0000:01:00.0", "gpu2"]
    named, other = (cell.machine for cell in made.cells)
    assert isinstance(named, ThisMachine)
    assert isinstance(other, ThisMachine)
    assert (named.device, other.device) == ("0000:01:00.0", "2")
    assert named.functions == ("0000:01:00.0", "0000:01:00.1", "0000:00:01.0")
    assert other.functions == ("0000:01:00.0", "0000:00:01.0")


def test_a_backend_that_is_named_is_planned_whatever_it_answers(tmp_path: Path, functions: list[PciFunction]) -> None:
    made = plan(tmp_path, {"opencl": {"devices": [CPU]}, "cuda": {"absent": "no library"}}, "cuda")
    assert [cell.id for cell in made.cells] == [f"here/{RELEASE}/cuda/none"]
    assert not any("opencl" in words for words in asked(tmp_path / "runner"))
    with pytest.raises(UserError, match="--backend cud: there is no such backend; known: opencl, cuda"):
        plan(tmp_path, {"opencl": {}, "cuda": {}}, "cud")


def test_sycl_is_asked_for_by_itself_where_its_library_is_and_where_no_runner_is_built_the_reason_is_told(
    tmp_path: Path, functions: list[PciFunction], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(here, "find_library", lambda name: f"lib{name}.so.9")
    assert plan(tmp_path, {"opencl": {"devices": [CPU]}, "sycl": {"devices": [CPU]}}).cells[-1].stack == "sycl"
    lab = lab_with(tmp_path / "without", {"opencl": {"devices": [CPU]}})
    (lab.images.tests_folder(()) / "absent").mkdir()
    (lab.images.tests_folder(()) / "absent/sycl").write_text("install g++\n")
    assert [(one.cell_id, one.reason) for one in plan_here(lab, (), 1, ()).left_out] == [
        (f"here/{RELEASE}/sycl/none", "install g++")
    ]


def test_tests_are_chosen_by_tier_or_by_name(tmp_path: Path, functions: list[PciFunction]) -> None:
    offered = {"opencl": {"devices": [CPU]}}
    tiers = {test.name: test.tier for test in Lab(Home(tmp_path)).tests.values()}
    for tier in (1, 2, 3):
        made = plan(tmp_path, offered, tier=tier)
        assert set(made.cells[0].tests) == {name for name, one in tiers.items() if one <= tier}
    assert plan(tmp_path, offered, names=["vecadd"]).cells[0].tests == ("vecadd",)
    with pytest.raises(UserError, match="did you mean 'vecadd'"):
        plan(tmp_path, offered, names=["vecad"])


def test_a_cell_of_this_machine_survives_the_store(tmp_path: Path, functions: list[PciFunction]) -> None:
    (cell,) = plan(tmp_path, {"opencl": {"devices": [GPU]}}).cells
    assert CELL.validate_json(dump_cell(cell)) == cell


@pytest.mark.parametrize(
    ("release", "series"),
    [
        ("6.12.107+deb13-amd64", Series.LONGTERM),
        ("7.2.5-200.fc44.x86_64", Series.STABLE),
        ("7.3.0-0.rc7.fc45.x86_64", Series.MAINLINE),
        ("7.3.0-rc1", Series.MAINLINE),
        ("7.3.0-rc1-next-20261120", Series.NEXT),
    ],
)
def test_a_running_kernel_stands_for_a_series_by_its_release(tmp_path: Path, release: str, series: Series) -> None:
    assert series_here(Lab(Home(tmp_path)), release) is series
