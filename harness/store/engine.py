"""Opens a database so that a commit that returned survives kill -9 and a power cut."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import ConnectionPoolEntry

from harness.errors import InfraError, UserError
from harness.store.durable import make_directory

BUSY_SECONDS = 30.0
"""How long a SQLite writer waits for another; with 8 writers the longest wait measured was 6 s."""

IMMEDIATE: Mapping[str, Any] = {"kdmatrix_begin": "BEGIN IMMEDIATE"}
"""Execution option of a writing connection: SQLite takes the write lock at once.

A transaction that reads first and then wants to write is refused without waiting when another wrote in between.
"""


def make_engine(location: str | Path) -> sa.Engine:
    """Return an engine for a SQLite file path or a SQLAlchemy URL. Raises UserError for one that is neither.

    A SQLite file must be on a local disk: its write-ahead log does not work on a network file system
    (https://sqlite.org/wal.html).
    """
    url = _url(location)
    if url.get_backend_name() == "sqlite":
        if not url.database or url.database == ":memory:" or url.query:
            raise UserError(f"{location}: the store needs a plain SQLite file that outlives the process: give its path")
        try:
            make_directory(Path(url.database).absolute().parent)
        except OSError as error:
            raise InfraError(f"{url.database}: its directory cannot be made: {error}") from error
        engine = sa.create_engine(url, connect_args={"timeout": BUSY_SECONDS})
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine
    if url.get_backend_name() != "postgresql":
        raise UserError(f"{url.render_as_string()}: not a database for the store: use a SQLite file or postgresql://")
    try:
        return sa.create_engine(url.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    except ImportError:
        raise UserError("PostgreSQL needs its driver: pip install 'kdmatrix[postgres]'") from None


def location_of(engine: sa.Engine) -> str:
    """Return what to call the database in a message; a password is hidden."""
    if engine.dialect.name == "sqlite":
        return str(engine.url.database)
    return engine.url.render_as_string(hide_password=True)


def _url(location: str | Path) -> sa.URL:
    text = str(location)
    if isinstance(location, Path) or "://" not in text:
        return sa.URL.create("sqlite", database=str(Path(location).expanduser()))
    try:
        url = sa.make_url(text)
        url.get_backend_name()
    except (sa.exc.ArgumentError, ValueError):
        raise UserError("the database URL cannot be read: give a file path or postgresql://user@host/name") from None
    return url


def _prepare_sqlite(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    # The driver's own transaction handling commits before DDL; with it off, BEGIN is ours (see _begin_sqlite).
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA synchronous=FULL")


def _begin_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("kdmatrix_begin", "BEGIN"))


def set_write_ahead(engine: sa.Engine) -> None:
    """Put a SQLite file into WAL mode, so that a report can read while a run writes. The mode stays with the file.

    Done only once the file is known to be ours. The switch does not wait for other connections by itself.
    """
    if engine.dialect.name != "sqlite":
        return
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        connection = engine.raw_connection()
        try:
            cursor = connection.cursor()
            if cursor.execute("PRAGMA journal_mode").fetchone() == ("wal",):
                return
            if cursor.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",):
                return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise InfraError(f"{location_of(engine)}: {error}") from error
        finally:
            connection.close()
        if time.monotonic() > deadline:
            raise InfraError(f"{location_of(engine)}: cannot be put into WAL mode: another process holds it")
        time.sleep(0.05)


def at_revision(engine: sa.Engine, revision: str) -> bool:
    """Whether the database is at exactly this revision of the schema (alembic's own table says so)."""
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return False
        found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all()
        return found == [revision]
