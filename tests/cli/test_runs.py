"""What a run says at its end."""

from __future__ import annotations

from dataclasses import replace

import pytest
from engine.cells import attempt_of, cell

from harness.cli.runs import _summary
from harness.store.run import RunInfo, RunState, StoredRun


def test_a_box_that_did_not_come_home_is_told_at_the_end_of_a_run_that_passed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = cell("k")
    attempt = replace(attempt_of(one, 1), facts={"box.trouble": "it did not answer"})
    info = RunInfo("r", "2026-04-12", "2026-04-12", RunState.FINISHED, "", "", "0", {}, {})
    _summary(StoredRun(info, (one,), (), (attempt,)))
    said = capsys.readouterr()
    told = " ".join(said.err.split())
    assert told == f"warning: trouble after {one.id} #1, whose result stands: it did not answer"
    assert "1 PASS" in said.out
