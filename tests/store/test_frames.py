from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from samples import make_attempt, make_cell

import harness
from harness.journal import Owner
from harness.model.cell import LeftOut
from harness.model.outcome import Outcome
from harness.store import frames
from harness.store.run import StoredRun
from harness.store.store import Store

ALL = [
    (frames.cells_frame, frames.CELLS),
    (frames.attempts_frame, frames.ATTEMPTS),
    (frames.stages_frame, frames.STAGES),
    (frames.tests_frame, frames.TESTS),
    (frames.measurements_frame, frames.MEASUREMENTS),
    (frames.predictions_frame, frames.PREDICTIONS),
    (frames.issues_frame, frames.ISSUES),
]


@pytest.fixture
def run(tmp_path: Path) -> StoredRun:
    with Store.open(tmp_path / "db") as store:
        run_id = store.create_run("")
        cells = [make_cell("flaky", boots=3), make_cell("busy"), make_cell("waiting")]
        store.plan(run_id, cells, [LeftOut("debian-13/lts/rocm/none", "no device")])
        for number, outcome in enumerate((Outcome.PASS, Outcome.FAIL, Outcome.PASS), 1):
            store.record(make_attempt(run_id, cells[0].id, number, outcome, reason=f"boot {number}"))
        store.claim(run_id, cells[1].id, 1, Owner.current())
        return store.load_run(run_id)


def test_cells_say_what_ran_what_did_not_and_why(run: StoredRun) -> None:
    frame = frames.cells_frame(run)
    assert list(frame["state"]) == ["done", "running", "planned", "left_out"]
    assert list(frame["attempts"]) == [3, 0, 0, 0]
    assert list(frame["boots"]) == [3, 1, 1, 0]
    assert frame["outcome"].isna().tolist() == [False, True, True, True], "silence is never a pass"
    assert (frame["outcome"][0], frame["reason"][0], frame["rung"][0]) == ("FAIL", "boot 2", "compute")
    assert frame["reason"][3] == "no device"
    assert frame["uname_release"][0] == "6.12.1-amd64"
    assert frame["kernel"].tolist()[:3] == ["flaky", "busy", "waiting"]


def test_attempts_stages_tests_and_measurements_have_a_row_each(run: StoredRun) -> None:
    attempts = frames.attempts_frame(run)
    assert attempts["outcome"].tolist() == ["PASS", "FAIL", "PASS"]
    assert attempts["seconds"].tolist() == [30.5] * 3
    assert attempts["started"][0] == pd.Timestamp("2026-04-12T10:15:30Z")
    stages = frames.stages_frame(run)
    assert stages["stage"].tolist() == ["boot", "compute"] * 3
    assert stages["outcome"].min() == "FAIL", "ordered from the most telling"
    assert frames.tests_frame(run)["test"].tolist() == ["copy"] * 3
    row = frames.measurements_frame(run).iloc[0]
    assert (row["metric"], row["p50"], row["n"], row["samples"]) == ("bandwidth", 2e9, 3, (1e9, 2e9, 3e9))
    assert pd.isna(row["of_roofline"])


@pytest.mark.parametrize(("make", "columns"), ALL)
@pytest.mark.parametrize("filled", [True, False])
def test_columns_and_dtypes_never_change(
    run: StoredRun, make: Callable[[StoredRun], pd.DataFrame], columns: dict[str, str], filled: bool
) -> None:
    if not filled:
        run = dataclasses.replace(run, cells=(), left_out=(), attempts=(), plan=())
    frame = make(run)
    assert len(frame) == 0 or filled
    names = {"outcome": "category", "stage": "category", "time": "datetime64[ns, UTC]"}
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == {
        name: names.get(dtype, dtype) for name, dtype in columns.items()
    }


def test_a_time_that_is_none_becomes_nat(run: StoredRun) -> None:
    odd = dataclasses.replace(run.attempts[0], started="yesterday")
    frame = frames.attempts_frame(dataclasses.replace(run, attempts=(odd,)))
    assert frame["started"].isna().all()
    assert frame["seconds"].isna().all()


def test_the_store_itself_does_not_import_pandas() -> None:
    code = "import sys, harness.store.store, harness.store.frames; sys.exit('pandas' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(harness.__file__).parents[1])
