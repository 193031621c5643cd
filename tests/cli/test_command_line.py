"""The installed command: what it says about bad input, what programs can read of it, and how it ends."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness import __version__
from harness.cli.main import app

ROOT = Path(__file__).resolve().parents[2]

MATRIX = """version: 1
kernels: [{name: lts, series: longterm, debian: trixie}]
guests: [debian-13]
stacks: [cpu-opencl, intree]
devices: [none, "0000:01:00.0"]
presets:
  quick: {stacks: [intree], devices: [none]}
"""

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def kdmatrix(tmp_path: Path) -> Command:
    """The command with a home and a working directory of its own."""
    beside = Path(sys.executable).parent / "kdmatrix"
    program = str(beside) if beside.is_file() else shutil.which("kdmatrix")
    assert program, "kdmatrix is not installed"
    here = tmp_path / "here"
    here.mkdir()
    (here / "matrix.yaml").write_text(MATRIX)
    env = {key: value for key, value in os.environ.items() if not key.startswith("KDMATRIX_")}
    env |= {"KDMATRIX_HOME": str(tmp_path / "home"), "COLUMNS": "200"}

    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *words], capture_output=True, text=True, env={**env, **more}, cwd=here)

    return run


def one_message(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Bad input: exit status 2, nothing on standard output, one message without a traceback."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_the_version_is_the_packages(kdmatrix: Command) -> None:
    done = kdmatrix("--version")
    assert (done.returncode, done.stdout) == (0, f"kdmatrix {__version__}\n")


def test_help_lists_every_command_and_the_exit_codes(kdmatrix: Command) -> None:
    done = kdmatrix("--help")
    assert done.returncode == 0
    for name in (
        "run",
        "plan",
        "validate",
        "runs",
        "report",
        "logs",
        "shell",
        "repro",
        "doctor",
        "clean",
        "schema",
        "kernels",
    ):
        assert f" {name} " in done.stdout
        assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0
    assert "1 findings" in done.stdout


def test_an_unknown_command_or_option_is_bad_usage(kdmatrix: Command) -> None:
    one_message(kdmatrix("rnu"), "No such command 'rnu'")
    one_message(kdmatrix("run", "--vm", "2"), "No such option")
    one_message(kdmatrix("run", "--vms", "0"), "--vms")


@pytest.mark.parametrize("command", ["run", "plan", "validate"])
def test_an_unknown_preset_is_named_with_a_likely_one(kdmatrix: Command, command: str) -> None:
    done = kdmatrix(command, "--preset", "quik")
    one_message(done, "quik", "did you mean", "quick")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("expression", ["lts and", "(lts", "lts or or x", "not"])
def test_a_broken_k_expression_is_shown_with_its_place(kdmatrix: Command, expression: str) -> None:
    one_message(kdmatrix("run", "-k", expression), "-k")


def test_an_expression_that_matches_nothing_runs_nothing(kdmatrix: Command) -> None:
    done = kdmatrix("run", "-k", "nvidia")
    assert done.returncode in (2, 3)
    assert "Traceback" not in done.stderr
    assert kdmatrix("runs", "--json").stdout.strip() == "[]"


def test_a_broken_matrix_is_told_with_line_and_column(kdmatrix: Command, tmp_path: Path) -> None:
    (tmp_path / "here" / "matrix.yaml").write_text(
        MATRIX.replace("longterm", "longtrem").replace("intree]", "intre]", 1)
    )
    done = kdmatrix("run")
    one_message(done, "matrix.yaml:2:", "did you mean 'longterm'?", "matrix.yaml:4:", "did you mean 'intree'?")
    checked = kdmatrix("validate", "--json")
    answer = json.loads(checked.stdout)
    assert checked.returncode == 2
    assert answer["ok"] is False
    assert [error["line"] for error in answer["errors"]][:2] == [2, 4]


def test_a_matrix_that_is_not_there_or_not_text_is_bad_input(kdmatrix: Command, tmp_path: Path) -> None:
    one_message(kdmatrix("run", "nowhere.yaml"), "nowhere.yaml")
    (tmp_path / "here" / "binary.yaml").write_bytes(b"\x00\xff\xfe" * 100)
    one_message(kdmatrix("run", "binary.yaml"), "binary.yaml")
    one_message(kdmatrix("run", "."))


def test_a_valid_matrix_is_counted(kdmatrix: Command) -> None:
    assert json.loads(kdmatrix("validate", "--json").stdout) == {"ok": True, "cells": 3, "left_out": 1}
    done = kdmatrix("validate", "--preset", "quick")
    assert (done.returncode, done.stdout) == (0, "matrix.yaml: valid: 1 cells, 0 left out\n")


def test_the_schema_is_the_documented_one(kdmatrix: Command) -> None:
    assert json.loads(kdmatrix("schema").stdout) == json.loads((ROOT / "docs" / "matrix.schema.json").read_text())


@pytest.mark.parametrize(
    "words", [("logs", "lts"), ("repro", "lts"), ("report",), ("run", "--resume"), ("report", "20260101t000000000z-x")]
)
def test_without_a_run_there_is_a_plain_answer(kdmatrix: Command, words: tuple[str, ...]) -> None:
    done = kdmatrix(*words)
    one_message(done, "run")
    assert len(done.stderr.splitlines()) == 1


def test_an_unknown_cell_is_answered_with_those_that_exist(kdmatrix: Command) -> None:
    done = kdmatrix("shell", "debian-13/lts/cpu-opncl/none")
    one_message(done, "no cell is called", "did you mean debian-13/lts/cpu-opencl/none?")
    one_message(kdmatrix("shell", "lts"), "'lts' is part of 3 cells")


def test_resuming_takes_no_matrix(kdmatrix: Command) -> None:
    one_message(kdmatrix("run", "--resume", "-k", "lts"), "--resume")
    one_message(kdmatrix("run", "matrix.yaml", "--resume"), "--resume")


def test_no_run_yet_is_no_error_for_a_list(kdmatrix: Command) -> None:
    assert kdmatrix("runs").stdout == "no run yet: kdmatrix run\n"
    assert json.loads(kdmatrix("runs", "--json").stdout) == []
    assert kdmatrix("clean").stdout == "nothing to clean\n"


def test_a_plan_shows_what_cannot_be_had_and_makes_nothing(kdmatrix: Command, tmp_path: Path) -> None:
    nowhere = {"KDMATRIX_DEBIAN_MIRROR": f"file:{tmp_path}/no-archive"}
    done = kdmatrix("plan", "--json", **nowhere)
    answer = json.loads(done.stdout)
    assert done.returncode == 0
    assert [cell["id"] for cell in answer["cells"]] == [
        "debian-13/lts/cpu-opencl/none",
        "debian-13/lts/intree/none",
        "debian-13/lts/intree/0000:01:00.0",
    ]
    assert all(cell["release"] == "" and "no-archive" in cell["problem"] for cell in answer["cells"])
    assert {one["reason"] for one in answer["left_out"]} == {
        "cpu-opencl computes on the CPU and takes no device",
    }
    dry = kdmatrix("run", "--dry-run", **nowhere)
    assert dry.returncode == 0
    assert "not known" in dry.stdout
    assert json.loads(kdmatrix("runs", "--json").stdout) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--force-device", "gpu"], "--force-device: 'gpu' is not a device"),
        (["--force-device", "none"], "--force-device: none is no device; name the address of one"),
        (["--force-device", "0fff:01:00.0"], "no GPU of this host has this address"),
        (["--resume", "--force-device", "0000:01:00.0"], "leave matrix, --preset, -k and --force-device out"),
    ],
)
def test_what_cannot_be_forced_is_bad_input(kdmatrix: Command, words: list[str], told: str) -> None:
    done = kdmatrix("run", *words)
    assert done.returncode == 2
    assert told in done.stderr
    assert json.loads(kdmatrix("runs", "--json").stdout) == []


def test_a_reader_that_goes_away_is_no_error(kdmatrix: Command, tmp_path: Path) -> None:
    beside = Path(sys.executable).parent / "kdmatrix"
    env = {**os.environ, "KDMATRIX_HOME": str(tmp_path / "home")}
    for words in (["schema"], ["validate", "--json"], ["--help"]):
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(
            [str(beside), *words], stdout=write, stderr=subprocess.PIPE, text=True, env=env, cwd=tmp_path / "here"
        )
        os.close(write)
        assert "Traceback" not in done.stderr, words
        assert "Error" not in done.stderr, words


def test_an_odd_home_is_refused_in_one_line(kdmatrix: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    done = kdmatrix("runs", KDMATRIX_HOME=str(tmp_path / "file"))
    one_message(done, "KDMATRIX_HOME")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--here", "matrix.yaml"], "leave a matrix file out"),
        (["--here", "--preset", "quick"], "leave --preset out"),
        (["--here", "--resume"], "leave --resume out"),
        (["--here", "--vms", "2"], "leave --vms out"),
        (["--here", "--force-device", "0000:01:00.0"], "leave --force-device out"),
        (["--here", "--test", "vecadd", "--tier", "2"], "leave --tier out"),
        (["--here", "--test", "vecad"], "did you mean 'vecadd'"),
        (["--backend", "opencl"], "--backend goes with --here"),
        (["--tier", "2"], "--tier goes with --here"),
        (["--test", "vecadd"], "--test goes with --here"),
    ],
)
def test_what_does_not_go_with_this_machine_is_bad_usage(kdmatrix: Command, words: list[str], told: str) -> None:
    one_message(kdmatrix("run", *words), told)
