"""The enumeration against planted trees of sysfs: what the kernel knows, a driver must offer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.model.outcome import Outcome
from harness.model.records import TestResult
from harness.suites.fakes import build_fake
from harness.suites.manifest import load_tests
from harness.suites.run import run_test
from harness.suites.wire import parse

from .conftest import LocalShell

OFFERED = "0000:f1:00.0"
"""The address that the fake driver's device has beside a planted tree."""


def plant(
    root: Path,
    address: str,
    *,
    vendor: str = "0x10de",
    driver: str = "nvidia",
    version: str = "",
    now: str = "16.0 GT/s PCIe",
    most: str = "16.0 GT/s PCIe",
) -> Path:
    """Add one display controller to the tree of sysfs under ``root``."""
    device = root / "bus/pci/devices" / address
    module = root / "module" / driver
    device.mkdir(parents=True)
    module.mkdir(parents=True, exist_ok=True)
    bound = root / "bus/pci/drivers" / driver
    bound.mkdir(parents=True, exist_ok=True)
    if not (bound / "module").exists():
        (bound / "module").symlink_to(module)
    (device / "driver").symlink_to(bound)
    if version:
        (module / "version").write_text(version + "\n")
    for name, text in {
        "class": "0x030200",
        "vendor": vendor,
        "current_link_speed": now,
        "current_link_width": "16",
        "max_link_speed": most,
        "max_link_width": "16",
    }.items():
        (device / name).write_text(text + "\n")
    return root


def _enumerate(
    tree: Path, sources: Path, built: Path, fake: Path, opencl: Mapping[str, str]
) -> tuple[TestResult, list[dict[str, object]]]:
    shell = LocalShell({**opencl, "GT_LIBRARY": str(fake), "GT_FAKE_FAULT": "", "GT_SYSFS": str(tree)})
    test = load_tests(sources)["enumerate"]
    results, raw = run_test(shell, test, backend="opencl", timeout=60, gpu_tests_dir=str(built))
    return results[0], [dict(record.data) for record in parse(raw).records]


def test_the_gpu_that_the_kernel_knows_is_offered(
    tmp_path: Path, sources: Path, built: Path, fake_opencl: Path, opencl: Mapping[str, str]
) -> None:
    result, records = _enumerate(plant(tmp_path, OFFERED), sources, built, fake_opencl, opencl)
    assert result.outcome is Outcome.PASS, result.reason
    names = {record["name"] for record in records if record["ev"] == "check"}
    assert {"offered_devices_are_on_pci", "bound_devices_are_offered"} <= names
    assert not [record for record in records if record["ev"] == "part"]


def test_a_second_gpu_that_is_not_offered_is_missed(
    tmp_path: Path, sources: Path, built: Path, fake_opencl: Path, opencl: Mapping[str, str]
) -> None:
    tree = plant(plant(tmp_path, OFFERED), "0000:f2:00.0")
    result, _ = _enumerate(tree, sources, built, fake_opencl, opencl)
    assert result.outcome is Outcome.FAIL
    assert "bound_devices_are_offered: 1 of 2 wrong (0000:f2:00.0)" in result.reason


def test_a_gpu_of_another_driver_need_not_be_offered(
    tmp_path: Path, sources: Path, built: Path, fake_opencl: Path, opencl: Mapping[str, str]
) -> None:
    tree = plant(plant(tmp_path, OFFERED), "0000:f2:00.0", driver="vfio-pci")
    assert _enumerate(tree, sources, built, fake_opencl, opencl)[0].outcome is Outcome.PASS


def test_an_address_that_is_no_devices_is_wrong(
    tmp_path: Path, sources: Path, built: Path, fake_opencl: Path, opencl: Mapping[str, str]
) -> None:
    result, _ = _enumerate(plant(tmp_path, "0000:01:00.0"), sources, built, fake_opencl, opencl)
    assert result.outcome is Outcome.FAIL
    assert f"offered_devices_are_on_pci: 1 of 1 wrong ({OFFERED})" in result.reason


def test_a_link_below_what_both_its_ends_can_do_is_told(
    tmp_path: Path, sources: Path, built: Path, fake_opencl: Path, opencl: Mapping[str, str]
) -> None:
    tree = plant(tmp_path, OFFERED, now="2.5 GT/s PCIe")
    result, records = _enumerate(tree, sources, built, fake_opencl, opencl)
    assert result.outcome is Outcome.PASS
    (part,) = [record for record in records if record["ev"] == "part"]
    assert part["name"] == "full_link"
    assert part["reason"] == f"{OFFERED} runs at 2.5 GT/s x16 now, both ends of its link can do 16 GT/s x16"


def test_hip_without_a_gpu_offers_no_device_whichever_error_its_release_has_for_that(
    sources: Path, cache: Path, built: Path
) -> None:
    library = build_fake("hip", sources, cache)
    shell = LocalShell({"GT_LIBRARY": str(library), "GT_FAKE_FAULT": "no_device"})
    test = load_tests(sources)["enumerate"]
    (result,) = run_test(shell, test, backend="hip", timeout=60, gpu_tests_dir=str(built))[0]
    assert (result.outcome, result.reason) == (Outcome.FAIL, "devices_found: 1 of 1 wrong (0 devices)")
