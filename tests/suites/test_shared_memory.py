"""Tests of memory that several share: where a device or a host has not what they need, they say so and do not begin."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.model.outcome import Outcome
from harness.suites.fakes import build_fake
from harness.suites.manifest import load_tests
from harness.suites.run import run_test

from .conftest import LocalShell


@pytest.mark.parametrize("backend", ["cuda", "hip"])
@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("peer", {"GT_FAKE_FAULT": "missing_device"}, "the driver offers one device, and two are needed"),
        ("ipc", {"GT_FAKE_LACKS": "ipc"}, "the driver shares no memory of this device between processes"),
        (
            "oversubscribe",
            {"GT_FAKE_LACKS": "concurrent_managed"},
            "the device or its driver has no managed memory that is paged on demand",
        ),
        (
            "oversubscribe",
            {"GT_FAKE_MEMORY": str(1 << 26)},
            r"the host may have to hold all of 83886\d{3} MiB, and has \d+ MiB to spare: 9437\d{4} MiB would do",
        ),
    ],
)
def test_what_is_lacking_is_a_skip_with_the_reason(
    backend: str, name: str, settings: dict[str, str], reason: str, sources: Path, built: Path, cache: Path
) -> None:
    shell = LocalShell({"GT_LIBRARY": str(build_fake(backend, sources, cache)), **settings})
    spec = load_tests(sources)[name]
    (result,) = run_test(shell, spec, backend=backend, timeout=60, gpu_tests_dir=str(built))[0]
    assert result.outcome is Outcome.SKIP, result.reason
    assert re.fullmatch(reason, result.reason)
