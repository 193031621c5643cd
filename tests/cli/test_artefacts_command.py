"""``kdmatrix artefacts``, with a compiler that takes no time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SPEC = """compilers:
  upper:
    programs: {sh: {package: dash, command: sh}}
    source: kernel.c
    output: out
    steps: [["{sh}", -c, "tr a-z A-Z <kernel.c >out"]]
targets:
  - {name: one, arch: o, form: binary, extension: bin, compiler: upper, format: f, hardware: h}
gaps:
  - {targets: [three], why: nobody knows it}
"""
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def tests(tmp_path: Path) -> Path:
    root = tmp_path / "content/gpu_tests"
    (root / "kernels").mkdir(parents=True)
    (root / "kernels/gt_lang.h").write_text("words\n")
    (root / "kernels/sum.inc").write_text("sum\n")
    (root / "artefacts.yaml").write_text(SPEC)
    return root


@pytest.fixture
def kdmatrix(tmp_path: Path, tests: Path) -> Command:
    program = str(Path(sys.executable).parent / "kdmatrix")
    environment = {**os.environ, "KDMATRIX_HOME": str(tmp_path / "home"), "KDMATRIX_CONTENT": str(tests.parent)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *words], env=environment, capture_output=True, text=True, check=False)

    return run


def test_unlisted_code_is_a_finding_until_it_is_listed(kdmatrix: Command) -> None:
    first = kdmatrix("artefacts")
    assert first.returncode == 1, first.stderr
    assert "one/sum.bin: not listed" in first.stdout
    assert "gap: three: nobody knows it" in first.stdout
    listing = kdmatrix("artefacts", "--update")
    assert listing.returncode == 0, listing.stderr
    assert "listed anew: sum" in listing.stdout
    again = kdmatrix("artefacts")
    assert again.returncode == 0, again.stderr
    assert "1 of 1 artefacts are as listed" in again.stdout


def test_changed_code_is_a_finding(kdmatrix: Command, tests: Path) -> None:
    kdmatrix("artefacts", "--update")
    (tests / "kernels/sum.inc").write_text("other\n")
    changed = kdmatrix("artefacts")
    assert changed.returncode == 1
    assert "one/sum.bin: differs: made " in changed.stdout


def test_a_missing_compiler_is_a_gap_with_its_reason(kdmatrix: Command, tests: Path) -> None:
    (tests / "artefacts.yaml").write_text(SPEC.replace("command: sh", "command: no-such-compiler"))
    found = kdmatrix("artefacts")
    assert found.returncode == 4
    assert "upper: 1 artefacts not built: no-such-compiler is not installed (Debian package dash)" in found.stdout


def test_a_wrong_file_is_bad_input(kdmatrix: Command, tests: Path) -> None:
    (tests / "artefacts.yaml").write_text(SPEC.replace("form: binary", "form: asm"))
    found = kdmatrix("artefacts")
    assert found.returncode == 2
    assert "artefacts.yaml:8:" in found.stderr
