"""``kdmatrix devices``: what a user sees and what a program reads, of recorded machines and of this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from devices.recorded import machine, machine_names

Command = Callable[..., subprocess.CompletedProcess[str]]
UNIT_KEYS = {
    *("address", "name", "vendor", "group", "memory", "may_be_passed", "may_be_forced", "objections", "lease"),
    *("quarantine", "functions"),
}
FUNCTION_KEYS = {
    *("address", "ids", "subsystem", "class", "revision", "name", "vendor", "gpu", "driver", "driver_override"),
    *("reset_methods", "windows", "resizable", "link", "numa_node", "boot_vga", "power_state", "bridges"),
    *("total_virtual_functions", "virtual_functions", "physical_function", "mediated_types"),
}


@pytest.fixture
def kdmatrix(tmp_path: Path) -> Command:
    program = str(Path(sys.executable).parent / "kdmatrix")
    env = {key: value for key, value in os.environ.items() if not key.startswith("KDMATRIX_")}
    env |= {"KDMATRIX_HOME": str(tmp_path / "home"), "KDMATRIX_LEASES": str(tmp_path / "leases"), "COLUMNS": "200"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, "devices", *words], capture_output=True, text=True, env=env, check=False)

    return run


def of(kdmatrix: Command, name: str, root: Path, *words: str) -> str:
    machine(name).unfold(root)
    done = kdmatrix("--root", str(root), *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def read(kdmatrix: Command, name: str, root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(of(kdmatrix, name, root, "--json"))
    return found


def test_a_table_says_of_each_gpu_whether_it_may_be_passed(kdmatrix: Command, tmp_path: Path) -> None:
    lines = of(kdmatrix, "lab-reserved", tmp_path / "root").splitlines()
    assert lines[0] == "IOMMU: on, 8 groups, interrupts are remapped"
    rows = {line.split()[0]: line.rstrip() for line in lines if line.startswith("0000:") and "  " in line}
    assert rows["0000:03:00.0"].endswith("yes")
    assert rows["0000:08:00.0"].endswith("no")
    assert rows["0000:0f:00.0"].endswith("no, unless forced")
    assert "Navi 31 [Radeon RX 7900 XT/7900 XTX]  vfio-pci  16     32GiB   16 GT/s x16" in rows["0000:03:00.0"]


def test_each_refusal_is_followed_by_its_fix(kdmatrix: Command, tmp_path: Path) -> None:
    lines = of(kdmatrix, "desktop-iommu-off", tmp_path / "root").splitlines()
    place = lines.index("  no: the IOMMU is off")
    assert lines[place + 1] == "      fix: add intel_iommu=on iommu=pt to the kernel command line, then reboot"


def test_all_shows_functions_and_notes(kdmatrix: Command, tmp_path: Path) -> None:
    few = of(kdmatrix, "lab-reserved", tmp_path / "a")
    everything = of(kdmatrix, "lab-reserved", tmp_path / "b", "--all")
    assert "0000:03:00.2" not in few
    assert "0000:03:00.2 Navi 31 USB [1002:7446] class 0c03; driver vfio-pci; windows 1MiB" in everything
    assert "note:" not in few
    assert "note: the audio device 0000:0f:00.1" in everything


@pytest.mark.parametrize("name", machine_names())
def test_the_keys_of_the_json_are_the_documented_ones(kdmatrix: Command, tmp_path: Path, name: str) -> None:
    found = read(kdmatrix, name, tmp_path / "root")
    assert found["format"] == "kdmatrix-devices-1"
    assert set(found) == {"format", "iommu", "vfio_pci", "units"}
    assert set(found["iommu"]) == {"on", "groups", "interrupt_remapping", "fix"}
    assert set(found["vfio_pci"]) == {"available", "found", "fix"}
    document = (Path(__file__).parents[2] / "docs/passthrough.md").read_text(encoding="utf-8")
    for unit in found["units"]:
        assert set(unit) == UNIT_KEYS
        for function in unit["functions"]:
            assert set(function) == FUNCTION_KEYS
    for key in (*UNIT_KEYS, *FUNCTION_KEYS):
        assert f"`{key}`" in document


def test_the_json_is_what_the_machine_is(kdmatrix: Command, tmp_path: Path) -> None:
    found = {unit["address"]: unit for unit in read(kdmatrix, "flex170-sriov", tmp_path / "root")["units"]}
    physical, virtual = found["0000:4d:00.0"], found["0000:4d:00.2"]
    assert (physical["may_be_passed"], physical["may_be_forced"]) == (False, False)
    assert physical["objections"][0]["code"] == "virtual-functions"
    assert physical["functions"][0]["virtual_functions"] == ["0000:4d:00.1", "0000:4d:00.2", "0000:4d:00.3"]
    assert physical["functions"][0]["windows"][1] == {"index": 2, "size": 16 << 30, "wide": True, "prefetchable": True}
    assert (virtual["may_be_passed"], virtual["name"]) == (True, "Data Center GPU Flex 170")
    assert virtual["functions"][0]["physical_function"] == "0000:4d:00.0"


def test_text_of_a_device_cannot_steer_the_terminal(kdmatrix: Command, tmp_path: Path) -> None:
    recorded = machine("laptop-hybrid")
    recorded.recording["processes"][1].update(name="\x1b[31mevil")
    recorded.functions["0000:01:00.0"]["name"] = "AD107M \x1b]0;evil\x07"
    recorded.unfold(tmp_path / "root")
    done = kdmatrix("--root", str(tmp_path / "root"), "--all")
    assert done.returncode == 0
    assert "evil" in done.stdout
    assert all(letter.isprintable() or letter == "\n" for letter in done.stdout)


def test_this_host_can_be_looked_at_and_nothing_is_made(kdmatrix: Command, tmp_path: Path) -> None:
    done = kdmatrix("--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["format"] == "kdmatrix-devices-1"
    assert list(tmp_path.iterdir()) == []


def test_a_copy_that_is_not_there_is_an_error_of_the_user(kdmatrix: Command, tmp_path: Path) -> None:
    done = kdmatrix("--root", str(tmp_path / "none"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_lifting_names_what_is_no_address(kdmatrix: Command) -> None:
    assert kdmatrix("--lift", "gpu0").returncode == 2
    assert "is in no quarantine" in kdmatrix("--lift", "0000:01:00.0").stdout
