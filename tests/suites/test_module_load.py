"""The test module_load on CPU runtimes: which forms of device code it tries, and what it says of the rest."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from intel_wheels import intel_runtime

from harness.suites.artefacts import build_artefacts
from harness.suites.build import ARTEFACTS
from harness.suites.wire import Wire, parse


@pytest.fixture(scope="session")
def intel(shared_cache: Path) -> Mapping[str, str]:
    """Intel's OpenCL for CPUs: the one runtime that takes SPIR-V without a GPU."""
    return intel_runtime(shared_cache)


@pytest.fixture(scope="session")
def artefacts(sources: Path, shared_cache: Path) -> Path:
    made = build_artefacts(sources, shared_cache / "gpu_tests" / ARTEFACTS, jobs=len(os.sched_getaffinity(0))).directory
    if not (made / "spirv/magic.spv").is_file():
        pytest.skip("the compilers of SPIR-V are not installed (Debian packages: clang-15 llvm-spirv-15 spirv-tools)")
    return made


def run(built: Path, env: Mapping[str, str], *words: str, test: str = "module_load") -> Wire:
    argv = [str(built / "bin/gtrun"), "run", test, "--budget", "0.5", *words]
    done = subprocess.run(argv, env={**os.environ, **env}, capture_output=True, check=False, timeout=120)
    return parse(done.stdout)


def checks(wire: Wire) -> dict[str, bool]:
    return {check.text("name"): check.data["ok"] is True for check in wire.of("check")}


def skipped(wire: Wire) -> dict[str, str]:
    return {part.text("name"): part.text("reason") for part in wire.of("part")}


def said(wire: Wire) -> Any:
    return wire.of("result")[0].data


def test_source_and_the_drivers_own_binary_of_it_are_parts_of_their_own(built: Path, opencl: Mapping[str, str]) -> None:
    wire = run(built, opencl)
    assert said(wire)["status"] == "pass", said(wire)["reason"]
    found = checks(wire)
    assert {"magic_source", "magic_binary_given_back", "magic_after_refusals"} <= found.keys()
    assert {"refuses_damaged_source", "refuses_damaged_binary_given_back"} <= found.keys()
    assert all(found.values())
    assert {metric.text("name") for metric in wire.of("metric")} == {"load_source", "load_given_back"}
    assert skipped(wire)["toolkit"] == "no native target of this device is known"


def test_the_shipped_spirv_computes(built: Path, intel: Mapping[str, str], artefacts: Path) -> None:
    wire = run(built, intel, "--artefacts", str(artefacts))
    assert said(wire)["status"] == "pass", said(wire)["reason"]
    assert said(wire)["code_form"] == "spirv"
    found = checks(wire)
    assert {"magic_spirv", "refuses_damaged_spirv", "magic_source"} <= found.keys()
    assert all(found.values())


def test_a_form_that_did_not_come_along_has_the_reason_of_the_host(
    built: Path, intel: Mapping[str, str], tmp_path: Path
) -> None:
    (tmp_path / "absent.tsv").write_text("sm_90\t*\tnot this\nspirv\tother\tnor this\nspirv\tmagic\tno translator\n")
    wire = run(built, intel, "--artefacts", str(tmp_path))
    assert said(wire)["status"] == "pass", said(wire)["reason"]
    assert said(wire)["code_form"] == "source"
    assert skipped(wire)["spirv"] == "no translator"
    bare = run(built, intel, "--artefacts", str(tmp_path / "nothing"), "--form", "spirv")
    assert said(bare)["status"] == "skip"
    assert skipped(bare)["spirv"] == "no artefact came along for spirv"


def test_a_test_without_any_form_is_skipped_with_the_reason_of_the_host_that_sent_it(
    built: Path, intel: Mapping[str, str], tmp_path: Path
) -> None:
    (tmp_path / "absent.tsv").write_text("*\t*\tnobody built them\n")
    wire = run(built, intel, "--artefacts", str(tmp_path), "--form", "spirv", test="vecadd")
    assert said(wire)["status"] == "skip"
    assert said(wire)["reason"].endswith("none is at hand for this device; artefacts: nobody built them")


def test_a_form_that_the_driver_refuses_fails_although_another_loads(
    built: Path, intel: Mapping[str, str], tmp_path: Path
) -> None:
    (tmp_path / "spirv").mkdir()
    (tmp_path / "spirv/magic.spv").write_bytes(b"no SPIR-V at all, and long enough to be looked at")
    wire = run(built, intel, "--artefacts", str(tmp_path))
    assert said(wire)["status"] == "fail"
    assert said(wire)["reason"].startswith("loads_spirv: 1 of 1 wrong (spirv: clCreateProgramWithIL failed")
    assert checks(wire)["magic_source"]
    assert said(wire)["code_form"] == "source"


def test_code_that_computes_something_else_fails(built: Path, opencl: Mapping[str, str], tmp_path: Path) -> None:
    for name in ("gt_lang.h", "magic.inc"):
        text = (built / "kernels" / name).read_text()
        (tmp_path / name).write_text(text.replace("round * 0x9E3779B9u", "round * 0x9E3779B8u"))
    wire = run(built, opencl, "--kernels", str(tmp_path))
    assert said(wire)["status"] == "fail"
    assert not checks(wire)["magic_source"]
