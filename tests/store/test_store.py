from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import random
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import CELLS, attempts_of, make_attempt, make_cell

import harness
from harness.errors import InfraError, UserError
from harness.journal import Owner, owner_alive
from harness.model.cell import LeftOut, Timeouts
from harness.model.outcome import Outcome
from harness.model.records import Evidence
from harness.store.evidence import EvidenceStore
from harness.store.run import PlanState, RunState, new_run_id
from harness.store.store import Store

HERE = Path(__file__).parent
ROOT = Path(harness.__file__).parents[1]
DEAD = Owner(2**22 + 1, 1, "00000000-0000-0000-0000-000000000000", Owner.current().host)
EXAMPLES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_run_ids_sort_by_time_and_are_file_names() -> None:
    early = new_run_id(datetime(2026, 4, 12, 10, 15, 30, 123999, UTC), b"\xff" * 7)
    late = new_run_id(datetime(2026, 4, 12, 10, 15, 30, 124000, UTC), b"\x00" * 7)
    assert early == "20260412t101530123z-zzzzzzzzzz"
    assert late == "20260412t101530124z-0000000000"
    assert new_run_id() != new_run_id()


def test_a_run_comes_back_as_it_was_created(store: Store) -> None:
    now = datetime(2026, 4, 12, tzinfo=UTC)
    run_id = store.create_run("kernels: ü\n", host={"cpus": 2, "kvm": False}, options={"only": ["a"]}, now=now)
    info = store.load_run(run_id).info
    assert (info.id, info.started, info.finished, info.state) == (run_id, now.isoformat(), None, RunState.RUNNING)
    assert (info.matrix_text, info.host, info.options) == ("kernels: ü\n", {"cpus": 2, "kvm": False}, {"only": ["a"]})
    assert info.matrix_sha256 == hashlib.sha256("kernels: ü\n".encode()).hexdigest()
    store.finish_run(run_id, now=now)
    latest = store.latest_run()
    assert latest is not None
    assert (latest.state, latest.finished) == (RunState.FINISHED, now.isoformat())


def test_runs_are_listed_oldest_first(store: Store) -> None:
    assert store.latest_run() is None
    ids = [store.create_run("", now=datetime(2026, 1, day, tzinfo=UTC)) for day in (3, 1, 2)]
    assert [info.id for info in store.runs()] == sorted(ids)
    assert store.latest_run() == store.runs()[-1]


def test_the_plan_keeps_order_boots_and_what_is_left_out(store: Store) -> None:
    run_id = store.create_run("")
    cells = [make_cell("z", boots=2), make_cell("a")]
    left_out = [LeftOut("debian-13/x/rocm/none", "no such firmware"), LeftOut("debian-13/x/rocm/none", "no device")]
    store.plan(run_id, cells, left_out)
    run = store.load_run(run_id)
    assert run.cells == tuple(cells)
    assert run.left_out == tuple(left_out)
    assert [(entry.cell_id, entry.number) for entry in run.plan] == [
        (cells[0].id, 1), (cells[0].id, 2), (cells[1].id, 1),
    ]  # fmt: skip
    assert {entry.state for entry in run.plan} == {PlanState.PLANNED}


def test_a_run_is_planned_once_and_a_cell_in_it_once(store: Store) -> None:
    run_id = store.create_run("")
    with pytest.raises(UserError, match="planned twice"):
        store.plan(run_id, [make_cell(), make_cell()])
    store.plan(run_id, [make_cell()])
    with pytest.raises(UserError, match="has a plan already"):
        store.plan(run_id, [make_cell("other")])
    with pytest.raises(UserError, match="no run"):
        store.plan("nowhere", [make_cell()])
    with pytest.raises(UserError, match="exists already"):
        store.create_run("", run_id=run_id)


def test_an_attempt_is_recorded_once_and_the_first_record_stands(store: Store) -> None:
    run_id = store.create_run("")
    cell = make_cell()
    store.plan(run_id, [cell])
    first = make_attempt(run_id, cell.id)
    assert store.record(first)
    assert not store.record(dataclasses.replace(first, outcome=Outcome.FAIL))
    run = store.load_run(run_id)
    assert run.attempts == (first,)
    assert [entry.state for entry in run.plan] == [PlanState.DONE]
    assert store.attempts(cell.id) == [first]
    assert store.pending(run_id, owner_alive) == []


def test_what_was_never_planned_is_not_recorded(store: Store) -> None:
    run_id = store.create_run("")
    store.plan(run_id, [make_cell()], [LeftOut("debian-13/x/y/none", "no")])
    for cell_id, number in ((make_cell().id, 2), ("other", 1), ("debian-13/x/y/none", 0)):
        with pytest.raises(UserError, match="did not plan"):
            store.record(make_attempt(run_id, cell_id, number))
    assert store.load_run(run_id).attempts == ()


def test_a_record_that_fails_half_way_leaves_nothing(store: Store) -> None:
    run_id = store.create_run("")
    cell = make_cell()
    store.plan(run_id, [cell])
    attempt = make_attempt(run_id, cell.id)
    broken = dataclasses.replace(attempt, tests=(dataclasses.replace(attempt.tests[0], seconds=None),))  # type: ignore[arg-type]
    with pytest.raises(InfraError):
        store.record(broken)
    assert store.load_run(run_id).attempts == ()
    assert len(store.pending(run_id, owner_alive)) == 1
    assert store.record(attempt)


def test_an_attempt_whose_evidence_is_missing_is_refused(tmp_path: Path) -> None:
    evidence = EvidenceStore(tmp_path / "evidence")
    with Store.open(tmp_path / "db", evidence) as store:
        run_id = store.create_run("")
        store.plan(run_id, [make_cell()])
        missing = Evidence("console.log", "0" * 64, 3)
        with pytest.raises(InfraError, match=r"console\.log"):
            store.record(make_attempt(run_id, make_cell().id, evidence=(missing,)))
        assert store.record(make_attempt(run_id, make_cell().id, evidence=(evidence.put(b"abc", "console.log"),)))


def test_a_boot_is_claimed_once_and_given_back_by_its_owner_only(store: Store) -> None:
    run_id = store.create_run("")
    cell = make_cell()
    store.plan(run_id, [cell])
    me = Owner.current()
    assert store.claim(run_id, cell.id, 1, me)
    assert not store.claim(run_id, cell.id, 1, DEAD)
    assert store.pending(run_id, owner_alive) == []
    assert not store.release(run_id, cell.id, 1, DEAD)
    assert store.load_run(run_id).plan[0].owner == me
    assert store.release(run_id, cell.id, 1, me)
    assert [planned.number for planned in store.pending(run_id, owner_alive)] == [1]
    assert not store.claim(run_id, cell.id, 7, me)


def test_resuming_takes_over_only_what_the_dead_did_not_finish(store: Store) -> None:
    run_id = store.create_run("")
    cells = [make_cell(name) for name in ("a", "b", "c", "d")]
    store.plan(run_id, cells)
    for cell, owner in zip(cells, (DEAD, DEAD, Owner.current()), strict=False):
        assert store.claim(run_id, cell.id, 1, owner)
    store.record(make_attempt(run_id, cells[0].id))
    assert [planned.cell for planned in store.pending(run_id, owner_alive)] == [cells[1], cells[3]]
    assert store.claim(run_id, cells[1].id, 1, Owner.current())
    assert store.record(make_attempt(run_id, cells[1].id))
    assert not store.record(make_attempt(run_id, cells[1].id)), "the one taken for dead comes late"


def test_a_rerun_goes_on_counting(store: Store) -> None:
    run_id = store.create_run("")
    cell = make_cell(boots=2)
    store.plan(run_id, [cell, make_cell("other")])
    assert [planned.number for planned in store.rerun(run_id, cell.id, 2)] == [3, 4]
    assert [entry.number for entry in store.load_run(run_id).plan] == [1, 2, 1, 3, 4]
    with pytest.raises(UserError, match="no cell"):
        store.rerun(run_id, "nope")


@given(data=st.data())
@EXAMPLES
def test_any_cell_and_attempt_come_back_exactly(store: Store, data: st.DataObject) -> None:
    run_id = store.create_run("")
    cell = data.draw(CELLS)
    store.plan(run_id, [cell])
    attempt = data.draw(attempts_of(run_id, cell.id, data.draw(st.integers(1, cell.boots))))
    assert store.record(attempt)
    run = store.load_run(run_id)
    assert run.cells == (cell,)
    assert type(run.cells[0].kernel.source) is type(cell.kernel.source)
    assert run.attempts == (attempt,)


def test_infinite_limits_survive(store: Store) -> None:
    run_id = store.create_run("")
    cell = dataclasses.replace(make_cell(), timeouts=Timeouts(boot=math.inf))
    store.plan(run_id, [cell])
    assert store.load_run(run_id).cells == (cell,)


def test_hostile_guest_text_and_numbers_cost_no_attempt(store: Store) -> None:
    run_id = store.create_run("")
    cell = make_cell()
    store.plan(run_id, [cell])
    attempt = make_attempt(run_id, cell.id, reason="a\0b\ud800c")
    metric = dataclasses.replace(attempt.tests[0].metrics[0], value=math.nan, samples=(math.nan, math.inf))
    test = dataclasses.replace(attempt.tests[0], metrics=(metric,), details={"\0": "\ud800"})
    assert store.record(dataclasses.replace(attempt, tests=(test,), facts={"qemu": "\0\udfff"}))
    (found,) = store.load_run(run_id).attempts
    assert found.reason.startswith("a\u2400b\ufffd")
    assert found.facts == {"qemu": "\0\udfff"}
    assert found.tests[0].details == {"\0": "\ud800"}
    assert math.isnan(found.tests[0].metrics[0].value)
    assert found.tests[0].metrics[0].samples[1] == math.inf


CLAIMER = """
import sys
from harness.journal import Owner
from harness.store.store import Store
with Store.open(sys.argv[1]) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(1, 41):
        if store.claim(sys.argv[2], sys.argv[3], number, Owner.current()):
            print(number, flush=True)
"""


def test_of_two_processes_that_claim_one_wins(location: str, store: Store) -> None:
    run_id = store.create_run("")
    cell = make_cell(boots=40)
    store.plan(run_id, [cell])
    command = [sys.executable, "-c", CLAIMER, location, run_id, cell.id]
    claimers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) for _ in range(2)]
    for claimer in claimers:
        assert claimer.stdout is not None
        assert claimer.stdout.readline() == b"ready\n"
    for claimer in claimers:
        assert claimer.stdin is not None
        claimer.stdin.write(b"go\n")
        claimer.stdin.flush()
    won = [[int(line) for line in claimer.communicate(timeout=60)[0].split()] for claimer in claimers]
    assert [claimer.returncode for claimer in claimers] == [0, 0]
    assert sorted(won[0] + won[1]) == list(range(1, 41)), "each boot went to exactly one"


WRITER = """
import sys
from pathlib import Path
from harness.journal import Owner, owner_alive
from harness.store.evidence import EvidenceStore
from harness.store.store import Store
sys.path.insert(0, sys.argv[4])
from samples import make_attempt
location, run_id, root = sys.argv[1:4]
evidence = EvidenceStore(Path(root))
with Store.open(location, evidence) as store:
    print("ready", flush=True)
    for planned in store.pending(run_id, owner_alive):
        key = run_id, planned.cell.id, planned.number
        if not store.claim(*key, Owner.current()):
            continue
        log = evidence.put(f"console of {key}".encode() * 50, "console.log")
        store.record(make_attempt(*key, evidence=(log,)))
        print("ack", planned.number, flush=True)
"""


def test_kill_9_loses_no_acknowledged_attempt_and_doubles_none(location: str, store: Store, tmp_path: Path) -> None:
    boots = 4000
    evidence = EvidenceStore(tmp_path / "evidence")
    run_id = store.create_run("")
    cell = make_cell(boots=boots)
    store.plan(run_id, [cell])
    dice = random.Random()
    acknowledged: list[int] = []
    for _ in range(6):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, location, run_id, str(evidence.root), str(HERE)],
            stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(dice.uniform(0.02, 0.7))
        writer.kill()
        lines = writer.communicate(timeout=60)[0].split("\n")[:-1]  # what follows the last newline is no ack
        acknowledged += [int(line.split()[1]) for line in lines]
    assert 0 < len(acknowledged) < boots, "the writers were killed neither before nor after their work"
    run = store.load_run(run_id)
    recorded = [attempt.number for attempt in run.attempts]
    assert len(set(acknowledged)) == len(acknowledged), "no boot was made twice"
    assert len(set(recorded)) == len(recorded), "none doubled"
    assert set(acknowledged) <= set(recorded), "none lost"
    assert len(recorded) - len(acknowledged) <= 6, "one per kill may be recorded and not yet acknowledged"
    assert {entry.number for entry in run.plan if entry.state is PlanState.DONE} == set(recorded)
    for attempt in run.attempts:
        (file,) = attempt.stages[0].evidence
        assert attempt == make_attempt(run_id, cell.id, attempt.number, evidence=(file,)), "all of it"
        assert str((run_id, cell.id, attempt.number)).encode() in evidence.read(file.sha256, file.size)
    assert evidence.verify() == []
    waiting = {planned.number for planned in store.pending(run_id, owner_alive)}
    assert waiting == set(range(1, boots + 1)) - set(recorded), "every other boot can be resumed"
    if "://" not in location:
        with sqlite3.connect(location) as raw:
            assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert raw.execute("PRAGMA foreign_key_check").fetchall() == []


STEPPER = """
import os, signal, sys
import sqlalchemy as sa
from harness.store.store import Store
sys.path.insert(0, sys.argv[4])
from samples import make_attempt

def step(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

for number in range(1, 41):
    if os.fork() == 0:
        store = Store.open(sys.argv[1])
        left = number
        for event in ("begin", "before_cursor_execute", "commit"):
            sa.event.listen(store._engine, event, step)
        store.record(make_attempt(sys.argv[2], sys.argv[3], number))
        os._exit(0)
    status = os.wait()[1]
    print(number, status, flush=True)
    if status == 0:
        break
"""


def test_a_record_killed_at_any_of_its_steps_happened_or_did_not(location: str, store: Store) -> None:
    run_id = store.create_run("")
    cell = make_cell(boots=40)
    store.plan(run_id, [cell])
    command = [sys.executable, "-c", STEPPER, location, run_id, cell.id, str(HERE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=True)
    statuses = [int(line.split()[1]) for line in done.stdout.splitlines()]
    assert len(statuses) > 6, "begin, look, four tables, mark, commit"
    assert statuses == [signal.SIGKILL] * (len(statuses) - 1) + [0]
    last = len(statuses)
    run = store.load_run(run_id)
    assert run.attempts == (make_attempt(run_id, cell.id, last),)
    assert [entry.number for entry in run.plan if entry.state is PlanState.DONE] == [last]
    for number in range(1, last):
        assert store.record(make_attempt(run_id, cell.id, number)), "what was cut short can be done again"


def test_a_reader_sees_one_moment_while_a_writer_goes_on(location: str, store: Store) -> None:
    run_id = store.create_run("")
    cell = make_cell(boots=2)
    store.plan(run_id, [cell])
    store.record(make_attempt(run_id, cell.id, 1))
    with store._reading() as connection:
        before = connection.exec_driver_sql("SELECT count(*) FROM attempt").scalar_one()
        with Store.open(location) as other:
            other.record(make_attempt(run_id, cell.id, 2))
        assert connection.exec_driver_sql("SELECT count(*) FROM attempt").scalar_one() == before == 1
    assert len(store.load_run(run_id).attempts) == 2


def test_sqlite_is_opened_durably(tmp_path: Path) -> None:
    with Store.open(tmp_path / "deep" / "er" / "db") as store, store._reading() as connection:
        pragma = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragma == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30000}


def test_what_cannot_be_a_store_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, only text " * 100)
    with sqlite3.connect(tmp_path / "foreign") as raw:
        raw.execute("CREATE TABLE bookmarks (url TEXT)")
    before = (tmp_path / "foreign").read_bytes()
    bad = [tmp_path / "text", tmp_path / "foreign", "mysql://host/db", "sqlite://", "odd+://x", "://"]
    for location in bad:
        with pytest.raises(UserError) as caught:
            Store.open(location)
        assert "\n" not in str(caught.value)
    assert (tmp_path / "foreign").read_bytes() == before
    with pytest.raises(InfraError):
        Store.open(tmp_path)


def test_a_server_that_is_not_there_is_trouble_and_its_password_stays_secret() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(InfraError) as caught:
        Store.open("postgresql://me:hunter2@/db?host=/nonexistent")
    assert "hunter2" not in str(caught.value)


def test_stored_json_is_plain(tmp_path: Path) -> None:
    with Store.open(tmp_path / "db") as store:
        run_id = store.create_run("")
        store.plan(run_id, [make_cell()])
    with sqlite3.connect(tmp_path / "db") as raw:
        (spec,) = raw.execute("SELECT cell FROM plan").fetchone()
    assert json.loads(spec)["kernel"]["source"] == {
        "suite": "trixie", "version": "6.12", "release": "latest", "flavour": "amd64",
    }  # fmt: skip
