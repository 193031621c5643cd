"""The runner itself, on this host's OpenCL."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from harness.content import content_dir
from harness.model.outcome import Outcome
from harness.suites.manifest import load_tests
from harness.suites.run import RUNNERS, run_test
from harness.suites.wire import parse

from .conftest import LocalShell


@pytest.fixture(scope="session")
def validator(sources: Path) -> Any:
    schema = json.loads((sources / "wire.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


SHIPPED = load_tests(content_dir("gpu_tests"))
ON_OPENCL = [test.name for test in SHIPPED.values() if "opencl" in test.backends and test.tier == 1]


@pytest.mark.parametrize("name", ON_OPENCL)
def test_a_test_passes_on_a_working_device_and_keeps_to_the_schema(
    name: str, sources: Path, built: Path, opencl: Mapping[str, str], validator: Any
) -> None:
    spec = dataclasses.replace(load_tests(sources)[name], budget=0.5)
    results, raw = run_test(LocalShell(opencl), spec, backend="opencl", timeout=60, gpu_tests_dir=str(built))
    (result,) = results
    assert result.outcome is Outcome.PASS, result.reason
    assert result.kind in ("gpu", "cpu-runtime")
    assert result.details["device.0.name"]
    reported = [metric.name for metric in result.metrics]
    assert [metric.name for metric in spec.metrics if not metric.optional or metric.name in reported] == reported
    wire = parse(raw)
    assert wire.damaged == 0
    assert [wire.records[0].ev, wire.records[-1].ev] == ["hello", "result"]
    for record in wire.records:
        validator.validate(dict(record.data))


def test_the_bandwidth_has_enough_samples_to_be_a_distribution(
    sources: Path, built: Path, opencl: Mapping[str, str]
) -> None:
    spec = dataclasses.replace(load_tests(sources)["triad"], budget=0.5)
    (result,) = run_test(LocalShell(opencl), spec, backend="opencl", timeout=60, gpu_tests_dir=str(built))[0]
    (metric,) = result.metrics
    assert metric.n == len(metric.samples) >= 20
    assert metric.minimum is not None
    assert metric.p95 is not None
    assert metric.maximum is not None
    assert 0 < metric.minimum <= metric.value <= metric.p95 <= metric.maximum
    assert metric.roofline is None


def test_an_absent_library_is_a_skip(sources: Path, built: Path) -> None:
    shell = LocalShell({"GT_LIBRARY": "libNoSuchOpenCL.so.7"})
    spec = load_tests(sources)["vecadd"]
    (result,) = run_test(shell, spec, backend="opencl", timeout=20, gpu_tests_dir=str(built))[0]
    assert result.outcome is Outcome.SKIP
    assert "libNoSuchOpenCL.so.7" in result.reason


def test_an_unregistered_driver_is_a_failure_not_a_skip(
    sources: Path, built: Path, opencl: Mapping[str, str], tmp_path: Path
) -> None:
    shell = LocalShell({**opencl, "OCL_ICD_VENDORS": str(tmp_path)})
    for name in ("enumerate", "vecadd"):
        spec = load_tests(sources)[name]
        (result,) = run_test(shell, spec, backend="opencl", timeout=20, gpu_tests_dir=str(built))[0]
        assert result.outcome is Outcome.FAIL


def test_a_missing_kernel_file_is_our_own_error(built: Path, opencl: Mapping[str, str], tmp_path: Path) -> None:
    argv = [str(built / "bin/gtrun"), "run", "vecadd", "--kernels", str(tmp_path)]
    done = LocalShell(opencl).run(argv, timeout=20)
    assert done.exit_status == 2
    assert parse(done.stdout).of("result")[0].text("status") == "error"


@pytest.mark.parametrize(
    "arguments",
    [[], ["run"], ["run", "triad", "--budget"], ["run", "triad", "--budget", "fast"], ["run", "triad", "--bogus", "1"]],
)
def test_wrong_usage_is_exit_2_with_one_line(built: Path, arguments: list[str]) -> None:
    done = LocalShell().run([str(built / "bin/gtrun"), *arguments], timeout=20)
    assert done.exit_status == 2
    assert done.stderr.startswith(b"gtrun: ")
    assert done.stderr.count(b"\n") == 1


def test_the_runner_has_every_test_that_a_manifest_names(sources: Path, built: Path) -> None:
    done = LocalShell().run([str(built / "bin/gtrun"), "list"], timeout=20)
    known = done.stdout.decode().split("\n")
    for spec in load_tests(sources).values():
        assert f"test {spec.argv[1]}" in known
        for backend in set(spec.backends) - RUNNERS.keys():
            assert f"backend {backend}" in known


def test_a_runner_that_nobody_waits_for_ends_itself(built: Path, fake_opencl: Path, opencl: Mapping[str, str]) -> None:
    shell = LocalShell({**opencl, "GT_LIBRARY": str(fake_opencl), "GT_FAKE_FAULT": "hang"})
    done = shell.run([str(built / "bin/gtrun"), "run", "vecadd", "--deadline", "1"], timeout=20)
    assert done.exit_status == 124
    beats = parse(done.stdout).of("heartbeat")
    assert beats[-1].text("phase") == "compute"


def test_what_a_driver_prints_does_not_reach_the_records(built: Path, opencl: Mapping[str, str]) -> None:
    done = LocalShell({**opencl, "POCL_DEBUG": "all"}).run([str(built / "bin/gtrun"), "run", "enumerate"], timeout=20)
    wire = parse(done.stdout)
    assert done.exit_status == 0
    assert (wire.noise, wire.damaged) == (0, 0)
