"""Brings a database to the schema of this code, or says why it cannot."""

from __future__ import annotations

import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from harness.errors import InfraError, UserError
from harness.store.durable import fsync_directory, temporary_name
from harness.store.engine import IMMEDIATE, location_of

MIGRATIONS = Path(__file__).parent / "migrations"

_LOCK = 0x6B646D6174726978  # "kdmatrix": serialises migrations of a PostgreSQL database


def migrate(engine: sa.Engine, migrations: Path = MIGRATIONS) -> Path | None:
    """Upgrade the database to the newest revision in one transaction; any number of processes may call this at once.

    A SQLite file that has runs at an older revision is copied beside itself first; the path of the copy is returned.
    Raises UserError when the database is newer than this code, or is not one of ours.
    """
    scripts = ScriptDirectory(str(migrations))
    head = scripts.get_current_head()
    with engine.connect() as connection:
        if _revision(connection) == head:
            return None
    with engine.connect().execution_options(**IMMEDIATE) as connection:
        if engine.dialect.name == "sqlite":
            # A batch operation drops and renames whole tables, which enforced foreign keys would turn into deletions.
            # The pragma has no effect inside a transaction, so it goes to the driver before one begins.
            _driver(connection).execute("PRAGMA foreign_keys=OFF")
        try:
            with connection.begin():
                return _migrate_locked(connection, scripts, migrations)
        finally:
            connection.invalidate()  # never back to the pool with foreign keys off


def upgrade(connection: sa.Connection, revision: str = "head", migrations: Path = MIGRATIONS) -> None:
    """Run the revisions up to ``revision`` inside the transaction of ``connection``."""
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _migrate_locked(connection: sa.Connection, scripts: ScriptDirectory, migrations: Path) -> Path | None:
    sqlite = connection.dialect.name == "sqlite"
    if not sqlite:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
    revision = _revision(connection)
    known = [script.revision for script in scripts.walk_revisions()]
    if revision == scripts.get_current_head():  # another process did it while this one waited
        return None
    if revision is not None and revision not in known:
        raise UserError(
            f"{location_of(connection.engine)}: written by a newer kdmatrix (schema {revision}, this one knows up to"
            f" {scripts.get_current_head()}): upgrade kdmatrix, or name another database"
        )
    tables = sa.inspect(connection).get_table_names()
    if revision is None and tables:
        raise UserError(f"{location_of(connection.engine)}: is no kdmatrix database: name another file or database")
    backup = None
    if sqlite and "run" in tables and connection.execute(sa.text("SELECT 1 FROM run LIMIT 1")).first():
        backup = _back_up(Path(str(connection.engine.url.database)), str(revision))
    upgrade(connection, "head", migrations)
    if sqlite and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").all()):
        raise InfraError(f"{location_of(connection.engine)}: the upgrade would break {len(broken)} rows; not done")
    return backup


def _revision(connection: sa.Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _driver(connection: sa.Connection) -> sqlite3.Connection:
    raw = connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)
    return raw


def _back_up(database: Path, revision: str) -> Path:
    """Copy what is committed; the caller holds the write lock, so nothing is committed meanwhile."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    backup = database.with_name(f"{database.name}.{revision}.{stamp}.bak")
    temporary = database.with_name(temporary_name())
    try:
        source, target = sqlite3.connect(database), sqlite3.connect(temporary)
        try:
            source.backup(target)
            if (found := target.execute("PRAGMA quick_check").fetchone()) != ("ok",):
                raise InfraError(f"{database}: damaged, so it is not upgraded: {found[0]}")
            # A copy of a WAL database is one too; as a single file it can be moved and opened read-only.
            target.execute("PRAGMA journal_mode=DELETE")
        finally:
            source.close()
            target.close()
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.rename(backup)
        fsync_directory(backup.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return backup
