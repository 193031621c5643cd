"""``kdmatrix kernels`` and the warning in ``plan``, with sources that lie beside the matrix file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernels.rpmrepo import RpmRepo

MATRIX = """version: 1
kernels:
  - {name: lts, series: longterm, rpm: {repository: ./repo, package: kernel-longterm}}
  - {name: new, series: stable, rpm: ./repo}
  - {name: built, series: stable, koji: kernel-7.3.4-200.fc44}
guests: [debian-13]
stacks: [cpu-opencl]
"""
ENDED = "read: 2026-01-01\nsource: a test\nseries: {'6.18': {end: 2020-12}, '6.12': {end: 2999-12}}\n"
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = RpmRepo(tmp_path_factory.mktemp("rpms") / "repo")
    made.add_kernel("7.3.4", "200.fc44")
    made.add_kernel("6.18.40", "200.fc44", name="kernel-longterm")
    made.publish()
    return made.root


@pytest.fixture
def kdmatrix(tmp_path: Path, repo: Path) -> Command:
    program = str(Path(sys.executable).parent / "kdmatrix")
    shutil.copytree(repo, tmp_path / "repo")
    (tmp_path / "matrix.yaml").write_text(MATRIX)
    (tmp_path / "home").mkdir()
    env = {key: value for key, value in os.environ.items() if not key.startswith("KDMATRIX_")}
    env |= {"KDMATRIX_HOME": str(tmp_path / "home"), "COLUMNS": "200"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *words], capture_output=True, text=True, env=env, cwd=tmp_path, check=False)

    return run


def test_series_and_resolved_kernels_are_listed(kdmatrix: Command) -> None:
    done = kdmatrix("kernels", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {one["series"] for one in found["longterm"]} >= {"6.18", "6.12", "6.1"}
    lts, new, built = found["kernels"]
    assert lts["release"] == "6.18.40-200.fc44.x86_64"
    assert (new["version"], new["warning"]) == ("7.3.4-200.fc44", "")
    assert "set KDMATRIX_KOJI_PACKAGES" in built["problem"]
    assert "fedora-{release}-updates" in found["repositories"]
    text = kdmatrix("kernels")
    assert text.returncode == 0
    assert "days left" in text.stdout
    assert "7.3.4-200.fc44.x86_64" in text.stdout


def test_a_longterm_kernel_past_its_end_is_warned_of(kdmatrix: Command, tmp_path: Path) -> None:
    (tmp_path / "home/longterm.yaml").write_text(ENDED)
    warning = "lts: longterm series 6.18 is past its end of life since 2020-12-31"
    assert f"warning: {warning}" in kdmatrix("kernels").stdout
    planned = kdmatrix("plan", "--json")
    assert planned.returncode == 0, planned.stderr
    assert json.loads(planned.stdout)["warnings"] == [warning]
    assert f"warning: {warning}" in kdmatrix("plan").stderr


def test_a_refresh_goes_into_the_lab(kdmatrix: Command, tmp_path: Path) -> None:
    releases = [{"moniker": "longterm", "version": "6.18.41", "iseol": False}]
    (tmp_path / "releases.json").write_text(json.dumps({"releases": releases}))
    done = kdmatrix("kernels", "--refresh", "releases.json")
    assert done.returncode == 0, done.stderr
    assert "6.18.41" in done.stdout
    assert "6.18.41" in (tmp_path / "home/longterm.yaml").read_text()


def test_a_list_out_of_reach_is_one_line_and_a_gap(kdmatrix: Command, tmp_path: Path) -> None:
    done = kdmatrix("kernels", "--refresh", "http://127.0.0.1:9/releases.json")
    assert done.returncode == 4
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "home/longterm.yaml").exists()
