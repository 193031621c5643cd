"""The state of a device beside each number, as NVIDIA's management library tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.suites.fakes import build_fake
from harness.suites.wire import parse

from .conftest import LocalShell


@pytest.fixture(scope="session")
def fake_nvml(sources: Path, cache: Path) -> Path:
    return build_fake("nvml", sources, cache)


def _metric(built: Path, fake_cuda: Path, fake_nvml: Path, *, fault: str = "", device: str = "0") -> dict[str, object]:
    shell = LocalShell({"GT_LIBRARY": str(fake_cuda), "GT_NVML": str(fake_nvml), "GT_FAKE_FAULT": fault})
    argv = [f"{built}/bin/gtrun", "run", "triad", "--backend", "cuda", "--budget", "0.3", "--device", device]
    records = parse(shell.run(argv, timeout=60).stdout).records
    return next(dict(record.data) for record in records if record.ev == "metric")


def test_clocks_temperature_power_and_link_stand_beside_a_number(built: Path, fake_cuda: Path, fake_nvml: Path) -> None:
    metric = _metric(built, fake_cuda, fake_nvml)
    assert (metric["sm_hz"], metric["mem_hz"]) == (1980e6, 2619e6)
    assert (metric["temp_c"], metric["power_w"]) == (41, 312.5)
    assert (metric["link_width"], metric["link_gts"]) == (32, 64)
    assert metric["bar_bytes"] == pytest.approx(128 << 30)
    assert metric["throttle"] == "none"


def test_what_holds_the_clock_back_is_named(built: Path, fake_cuda: Path, fake_nvml: Path) -> None:
    metric = _metric(built, fake_cuda, fake_nvml, fault="throttled")
    assert metric["throttle"] == "hw_slowdown,hw_thermal"
    assert metric["sm_hz"] == 345e6


def test_a_device_that_the_library_does_not_know_has_no_state(built: Path, fake_cuda: Path, fake_nvml: Path) -> None:
    metric = _metric(built, fake_cuda, fake_nvml, device="1")
    assert "sm_hz" not in metric
    assert "throttle" not in metric
