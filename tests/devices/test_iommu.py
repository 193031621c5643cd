"""The IOMMU, interrupt remapping and vfio-pci: what is off is told with what to change, by processor and firmware."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from devices.recorded import machine
from harness.devices.iommu import read_iommu, read_vfio


def advice(root: Path, **changes: str) -> str:
    recorded = machine("desktop-iommu-off")
    recorded.recording.update(changes)
    return read_iommu(recorded.unfold(root)).fix


def test_an_iommu_that_is_on_needs_nothing(tmp_path: Path) -> None:
    found = read_iommu(machine("laptop-hybrid").unfold(tmp_path))
    assert (found.on, found.groups, found.remapping, found.unsafe, found.fix) == (True, 6, True, False, "")


@pytest.mark.parametrize(
    ("changes", "fix"),
    [
        ({}, "add intel_iommu=on iommu=pt to the kernel command line, then reboot"),
        (
            {"cmdline": "quiet intel_iommu=off"},
            "remove intel_iommu=off from the kernel command line and add intel_iommu=on",
        ),
        ({"table": "no"}, "turn on VT-d .* in the firmware's setup; add intel_iommu=on iommu=pt"),
        ({"table": "no", "cmdline": "intel_iommu=on"}, "turn on VT-d .* in the firmware's setup$"),
        ({"cpu": "AuthenticAMD", "cmdline": "iommu=off"}, "remove iommu=off from the kernel command line, then reboot"),
        ({"cpu": "AuthenticAMD", "table": "no"}, r"turn on the IOMMU \(AMD-Vi\) in the firmware's setup"),
        ({"cpu": "AuthenticAMD"}, "CONFIG_AMD_IOMMU"),
        ({"cpu": "unknown"}, "SMMU"),
    ],
)
def test_the_fix_for_one_that_is_off(tmp_path: Path, changes: dict[str, str], fix: str) -> None:
    assert re.search(fix, advice(tmp_path, **changes))


@pytest.mark.parametrize(("cpu", "device"), [("GenuineIntel", "intel-iommu"), ("AuthenticAMD", "amd-iommu")])
def test_a_host_that_is_a_vm_is_given_an_iommu_from_outside(tmp_path: Path, cpu: str, device: str) -> None:
    recorded = machine("desktop-iommu-off")
    root = recorded.unfold(tmp_path)
    (root / "proc/cpuinfo").write_text(f"vendor_id\t: {cpu}\nflags\t\t: fpu hypervisor lahf_lm\n")
    assert f"-device {device},intremap=on" in read_iommu(root).fix


@pytest.mark.parametrize("word", ["intremap=off", "nointremap"])
def test_remapping_that_was_turned_off_is_turned_on_again(tmp_path: Path, word: str) -> None:
    recorded = machine("x58-no-remapping")
    recorded.recording["cmdline"] = f"intel_iommu=on {word}"
    found = read_iommu(recorded.unfold(tmp_path))
    assert (found.on, found.remapping) == (True, False)
    assert found.fix == f"remove {word} from the kernel command line, then reboot"


def test_remapping_is_unknown_where_no_interrupt_tells(tmp_path: Path) -> None:
    root = machine("laptop-hybrid").unfold(tmp_path)
    for path in (root / "sys/kernel/irq").glob("*/chip_name"):
        path.write_text("GIC-0\n")
    assert read_iommu(root).remapping is None


def test_unsafe_interrupts_are_noticed(tmp_path: Path) -> None:
    root = machine("laptop-hybrid").unfold(tmp_path)
    parameter = root / "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"
    parameter.parent.mkdir(parents=True)
    parameter.write_text("N\n")
    assert not read_iommu(root).unsafe
    parameter.write_text("Y\n")
    assert read_iommu(root).unsafe


def test_vfio_may_be_loaded_installed_or_built_in(tmp_path: Path) -> None:
    assert read_vfio(machine("lab-reserved").unfold(tmp_path / "a")).found == "loaded"
    installed = machine("laptop-hybrid").unfold(tmp_path / "b")
    assert read_vfio(installed).found == "installed, loaded when needed"
    (installed / "lib/modules/6.12.43+deb13-amd64/modules.dep").write_text("")
    assert not read_vfio(installed).there
    (installed / "lib/modules/6.12.43+deb13-amd64/modules.builtin").write_text("kernel/drivers/vfio/pci/vfio-pci.ko\n")
    assert read_vfio(installed).found == "built into the kernel"


def test_vfio_pci_core_alone_is_not_vfio_pci(tmp_path: Path) -> None:
    root = machine("laptop-hybrid").unfold(tmp_path)
    core = "kernel/drivers/vfio/pci/vfio-pci-core.ko.xz: kernel/drivers/vfio/vfio.ko.xz\n"
    (root / "lib/modules/6.12.43+deb13-amd64/modules.dep").write_text(core)
    assert not read_vfio(root).there


def test_a_kernel_that_was_replaced_under_the_running_one_is_told(tmp_path: Path) -> None:
    root = machine("laptop-hybrid").unfold(tmp_path)
    (root / "proc/sys/kernel/osrelease").write_text("6.12.41+deb13-amd64\n")
    found = read_vfio(root)
    assert (found.there, found.fix) == (False, "reboot into the kernel that is installed")


def test_an_empty_host_breaks_nothing(tmp_path: Path) -> None:
    assert not read_iommu(tmp_path).on
    assert not read_vfio(tmp_path).there
