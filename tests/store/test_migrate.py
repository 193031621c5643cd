from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from samples import make_attempt, make_cell

import harness
from harness.errors import InfraError, UserError
from harness.store.engine import make_engine
from harness.store.migrate import MIGRATIONS, migrate, upgrade
from harness.store.schema import METADATA, REVISION
from harness.store.store import Store

ROOT = Path(harness.__file__).parents[1]
REVISIONS = [script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()]

NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{head}"


def upgrade():
    with op.batch_alter_table("run") as batch:  # rebuilds a table that others refer to
        batch.add_column(sa.Column("note", sa.Text, nullable=False, server_default="none"))
        batch.alter_column("tool_version", nullable=True)
    {then}
"""


def future(tmp_path: Path, then: str = "") -> Path:
    """The migrations of some later kdmatrix."""
    migrations = tmp_path / "future"
    shutil.copytree(MIGRATIONS, migrations, ignore=shutil.ignore_patterns("__pycache__"))
    (migrations / "versions" / "v9999_next.py").write_text(NEXT.format(head=REVISIONS[0], then=then))
    return migrations


def differences(location: str) -> list[object]:
    engine = make_engine(location)
    with engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection), METADATA)
    engine.dispose()
    return found


def fill(location: str) -> str:
    with Store.open(location) as store:
        run_id = store.create_run("kernels: []")
        store.plan(run_id, [make_cell(boots=2)])
        store.record(make_attempt(run_id, make_cell().id))
    return run_id


def test_an_empty_database_gets_the_schema_of_the_code(location: str) -> None:
    with Store.open(location) as store:
        assert store.backup is None
    assert differences(location) == []
    engine = make_engine(location)
    with engine.connect() as connection:
        inspector = sa.inspect(connection)
        for table in METADATA.sorted_tables:
            assert inspector.get_check_constraints(table.name) or not [
                found for found in table.constraints if isinstance(found, sa.CheckConstraint)
            ]
            named = {index.name for index in table.indexes}
            assert named == {index["name"] for index in inspector.get_indexes(table.name)} - {
                found.name for found in table.constraints if isinstance(found, sa.UniqueConstraint)
            }
    engine.dispose()


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_older_revision_is_upgraded(location: str, revision: str) -> None:
    engine = make_engine(location)
    with engine.begin() as connection:
        upgrade(connection, revision)
    engine.dispose()
    with Store.open(location) as store:
        assert store.runs() == []
    assert differences(location) == []


def test_revisions_form_one_line_from_an_empty_database() -> None:
    scripts = ScriptDirectory(str(MIGRATIONS))
    assert len(scripts.get_heads()) == len(scripts.get_bases()) == 1


def test_opening_again_changes_nothing(location: str) -> None:
    run_id = fill(location)
    with Store.open(location) as store:
        assert store.backup is None
        assert len(store.load_run(run_id).attempts) == 1


def test_data_survives_an_upgrade_and_sqlite_is_copied_first(location: str, tmp_path: Path) -> None:
    run_id = fill(location)
    engine = make_engine(location)
    backup = migrate(engine, future(tmp_path))
    with engine.connect() as connection:
        counts = [connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar() for name in ("plan", "attempt")]
        assert counts == [2, 1], "rebuilding the run table deleted what refers to it"
        assert connection.exec_driver_sql("SELECT note FROM run").scalar() == "none"
        if engine.dialect.name == "sqlite":
            assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    engine.dispose()
    if "://" in location:
        assert backup is None
        return
    assert backup is not None
    assert backup.name.startswith(f"results.sqlite.{REVISIONS[0]}.")
    with Store.open(backup) as old:
        assert [attempt.number for attempt in old.load_run(run_id).attempts] == [1]


def test_a_newer_database_is_refused_in_one_line_and_left_alone(location: str, tmp_path: Path) -> None:
    fill(location)
    engine = make_engine(location)
    migrate(engine, future(tmp_path))
    engine.dispose()
    with pytest.raises(UserError, match=r"newer kdmatrix \(schema 9999, this one knows up to") as caught:
        Store.open(location)
    assert "\n" not in str(caught.value)


def test_an_upgrade_that_fails_leaves_the_database_as_it_was(location: str, tmp_path: Path) -> None:
    run_id = fill(location)
    engine = make_engine(location)
    with pytest.raises(ZeroDivisionError):
        migrate(engine, future(tmp_path, then="1 / 0"))
    engine.dispose()
    with Store.open(location) as store:
        assert len(store.load_run(run_id).attempts) == 1
    assert differences(location) == []


def test_an_upgrade_that_would_break_rows_is_not_done(tmp_path: Path) -> None:
    location = str(tmp_path / "results.sqlite")
    run_id = fill(location)
    engine = make_engine(location)
    with pytest.raises(InfraError, match="would break"):
        migrate(engine, future(tmp_path, then="op.execute('DELETE FROM run')"))
    engine.dispose()
    with Store.open(location) as store:
        assert len(store.load_run(run_id).attempts) == 1


def test_a_damaged_file_is_not_upgraded(tmp_path: Path) -> None:
    location = tmp_path / "results.sqlite"
    fill(str(location))
    with sqlite3.connect(location) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = raw.execute("SELECT rootpage FROM sqlite_master WHERE name='ix_evidence_sha256'").fetchone()
        (size,) = raw.execute("PRAGMA page_size").fetchone()
    raw.close()
    data = bytearray(location.read_bytes())
    data[(page - 1) * size : page * size] = b"\xff" * size
    location.write_bytes(data)
    engine = make_engine(location)
    with pytest.raises(InfraError, match="damaged"):
        migrate(engine, future(tmp_path))
    engine.dispose()


def test_processes_that_open_a_new_database_at_once_all_succeed(location: str) -> None:
    command = [
        sys.executable, "-c",
        "import sys; from harness.store.store import Store; Store.open(sys.argv[1]).create_run('')", location,
    ]  # fmt: skip
    openers = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) for _ in range(4)]
    errors = [opener.communicate(timeout=90)[1].decode() for opener in openers]
    assert [opener.returncode for opener in openers] == [0] * 4, errors
    with Store.open(location) as store:
        assert len(store.runs()) == 4


def test_the_schema_names_the_newest_revision() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == REVISION
