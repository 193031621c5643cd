"""The databases that the tests of the store run on."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from harness.store.store import Store

sys.path.insert(0, str(Path(__file__).parent))  # for samples.py, also in the processes that tests start


def _programs() -> Path | None:
    if found := shutil.which("postgres"):
        return Path(found).resolve().parent
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return debian[-1].parent if debian else None


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The directory of the socket of a PostgreSQL server of our own; the server never runs as root."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL's server is not installed")
    user = "postgres"
    as_user: dict[str, object] = {}
    directory = Path(tempfile.mkdtemp(prefix="kdm-pg-", dir="/tmp"))  # a socket's path is at most 107 bytes long
    if os.geteuid() == 0:
        names = [entry.pw_name for entry in pwd.getpwall()]
        account = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
        as_user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        os.chown(directory, account.pw_uid, account.pw_gid)
    data = str(directory / "data")
    server = None
    try:
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", user, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
            check=True, capture_output=True, cwd=directory, timeout=120, **as_user,
        )  # fmt: skip
        with (directory / "log").open("wb") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, "-k", directory, "-c", "listen_addresses=", "-c", "fsync=off"],
                stdout=log, stderr=log, cwd=directory, **as_user,
            )  # fmt: skip
        _wait_for(f"postgresql+psycopg://{user}@/postgres?host={directory}", server, directory / "log")
        yield str(directory)
    finally:
        if server is not None:
            server.terminate()
            server.wait(30)
        shutil.rmtree(directory, ignore_errors=True)


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with sa.create_engine(url).connect():
                return
        except sa.exc.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"PostgreSQL does not start: {log.read_text()}")
            time.sleep(0.1)


@pytest.fixture
def postgres(postgres_server: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database."""
    base = f"postgresql://postgres@/%s?host={postgres_server}"
    admin = sa.create_engine(
        (base % "postgres").replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE kdm")
    yield base % "kdm"
    with admin.connect() as connection:
        connection.exec_driver_sql("DROP DATABASE kdm WITH (FORCE)")
    admin.dispose()


@pytest.fixture(params=["sqlite", "postgres"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a database can be made: each test that asks for it runs on both kinds."""
    if request.param == "sqlite":
        return str(tmp_path / "results.sqlite")
    return str(request.getfixturevalue("postgres"))


@pytest.fixture
def store(location: str) -> Iterator[Store]:
    with Store.open(location) as opened:
        yield opened
