"""The vendors' BLAS in the test of matrix products: over the simulated libraries, and without one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from harness.model.outcome import Outcome
from harness.model.records import TestResult
from harness.suites import fakes
from harness.suites.fakes import build_fake
from harness.suites.manifest import load_tests
from harness.suites.run import run_test

from .conftest import LocalShell

FORMATS = {
    "cuda": {"bf16", "fp16", "tf32", "int8", "fp32", "fp64"},
    "hip": {"bf16", "fp16", "int8", "fp32", "fp64"},
}
"""What each library multiplies."""


def multiply(backend: str, library: Path, sources: Path, built: Path, fault: str = "") -> TestResult:
    spec = dataclasses.replace(load_tests(sources)["gemm"], budget=0.4)
    shell = LocalShell({"GT_LIBRARY": str(library), "GT_FAKE_FAULT": fault})
    return run_test(shell, spec, backend=backend, timeout=90.0, gpu_tests_dir=str(built))[0][0]


@pytest.mark.parametrize("backend", sorted(FORMATS))
def test_each_format_of_the_vendors_library_is_checked_and_timed(
    backend: str, sources: Path, built: Path, cache: Path
) -> None:
    result = multiply(backend, build_fake(backend, sources, cache), sources, built)
    assert result.outcome is Outcome.PASS, result.reason
    timed = {metric.name for metric in result.metrics if metric.name.endswith("_blas")}
    assert timed == {f"gemm_{name}_blas" for name in FORMATS[backend]}


@pytest.mark.parametrize("backend", sorted(FORMATS))
@pytest.mark.parametrize(
    ("fault", "check"), [("blas_low_precision", "bf16_blas_large_sums"), ("blas_transposed", "bf16_blas_integers")]
)
def test_a_wrong_product_of_the_vendors_library_fails_by_the_check_that_is_made_for_it(
    fault: str, check: str, backend: str, sources: Path, built: Path, cache: Path
) -> None:
    result = multiply(backend, build_fake(backend, sources, cache), sources, built, fault)
    assert result.outcome is Outcome.FAIL
    assert check in result.reason


@pytest.mark.parametrize("backend", sorted(FORMATS))
def test_without_the_library_its_part_is_left_out_with_the_reason(
    backend: str, sources: Path, built: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tuple(unit for unit in fakes._UNITS[backend] if "blas" not in unit)
    monkeypatch.setitem(fakes._UNITS, backend, bare)
    result = multiply(backend, build_fake(backend, sources, cache), sources, built)
    assert result.outcome is Outcome.PASS, result.reason
    assert not [metric.name for metric in result.metrics if metric.name.endswith("_blas")]
    library = {"cuda": "cuBLAS", "hip": "rocBLAS"}[backend]
    assert f"the fake driver has no {library}" in str(result.details)
