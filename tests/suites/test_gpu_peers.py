"""The command that measures a GPU and its peer in one call, over the fake driver."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from harness.suites.manifest import load_tests

from .test_level_zero import needs_ocloc

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def peers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_peers", ROOT / "benchmarks" / "gpu_peers.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_peers"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_numbers_are_held_to_their_roof_and_to_the_peer(peers: ModuleType) -> None:
    metrics = {"copy_bw": {"value": 3.0e12, "roof": 3.352e12}, "triad_bw": {"value": 2.9e12, "roof": 3.352e12}}
    rows = peers.judge(metrics, {"copy_bw": 2.95e12})
    verdicts = {(row["metric"], row["against"]): row["verdict"] for row in rows}
    assert verdicts["copy_bw", "roof"] == "MISSED"
    assert verdicts["copy_bw", "copy_bw"] == "met"
    assert verdicts["triad_bw", "copy_bw"] == "MISSED"
    assert verdicts["fp32_peak", "roof"] == "not measured"
    text = peers.table(rows)
    assert "0.895" in text
    assert "not measured" in text


def test_without_a_roof_or_a_peer_nothing_is_called_met(peers: ModuleType) -> None:
    rows = peers.judge({"copy_bw": {"value": 1e9}, "gemm_bf16_blas": {"value": 1e12}}, {})
    assert {row["verdict"] for row in rows} == {"no roof known", "no peer", "not measured"}


def test_nothing_destructive_is_run(peers: ModuleType, sources: Path) -> None:
    for backend in ("cuda", "opencl"):
        for test in peers.chosen(load_tests(sources), backend):
            assert test.tier == 1 or test.name in peers.SAFE_TIER_2


@pytest.fixture
def python_with(tmp_path: Path) -> Callable[[str], str]:
    """An interpreter that finds a module ``torch`` with this text, and no other."""

    def make(text: str) -> str:
        (tmp_path / "torch.py").write_text(text)
        interpreter = tmp_path / "python"
        interpreter.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} -B "$@"\n')
        interpreter.chmod(0o755)
        return str(interpreter)

    return make


def test_a_peer_that_is_not_installed_is_named_as_absent(peers: ModuleType, python_with: Callable[[str], str]) -> None:
    python = python_with("raise ModuleNotFoundError(\"No module named 'torch'\")")
    assert peers.peer_numbers(python, ["cpu"], 60)["absent"] == "ModuleNotFoundError: No module named 'torch'"
    assert "no-such-python" in peers.peer_numbers("/no-such-python", ["cpu"], 60)["absent"]


def test_the_peer_runs_in_the_interpreter_that_is_named(peers: ModuleType, python_with: Callable[[str], str]) -> None:
    python = python_with('print(\'{"samples": {"copy_bw": [1.0]}}\'); raise SystemExit')
    assert peers.peer_numbers(python, ["cpu"], 60) == {"samples": {"copy_bw": [1.0]}}


def test_pytorch_measures_every_number_that_a_target_names(peers: ModuleType) -> None:
    pytest.importorskip("torch")
    told = peers.peer_numbers(sys.executable, peers.DRY_PEER, 120)
    assert {target.against for target in peers.TARGETS} - {"roof"} <= set(told["samples"])
    assert all(sample > 0 for samples in told["samples"].values() for sample in samples)


@pytest.mark.parametrize("backend", ["cuda", "hip", pytest.param("level-zero", marks=needs_ocloc)])
def test_a_dry_run_goes_all_the_way_over_the_fake_driver(
    peers: ModuleType,
    backend: str,
    built: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GT_LIBRARY", "")  # so that what the command sets is undone
    arguments = ["--dry-run", "--backend", backend, "--budget", "0.4", "--only", "triad", "gemm", "--cache", str(cache)]
    assert peers.main([*arguments, "--results", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("gpu_peers-dry-*.json")
    record = json.loads(path.read_text())
    assert record["dry_run"] is True
    assert record["device"]["kind"] == "fake"
    assert {one["test"]: one["outcome"] for one in record["tests"]} == {"triad": "PASS", "gemm": "PASS"}
    assert record["metrics"]["gemm_fp32"]["kind"] == "fake"
    assert len(record["targets"]) == len(peers.TARGETS)
    assert "verdict" in capsys.readouterr().out.splitlines()[-len(peers.TARGETS) - 1]
