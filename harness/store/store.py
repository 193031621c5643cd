"""The one writer and every reader of results. Each call is one transaction: after a crash it happened or it did not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, final

import sqlalchemy as sa

import harness
from harness.errors import InfraError, UserError
from harness.journal import Owner
from harness.model.cell import Cell, LeftOut
from harness.model.records import Attempt
from harness.store.engine import IMMEDIATE, at_revision, location_of, make_engine, set_write_ahead
from harness.store.evidence import EvidenceStore
from harness.store.rows import CELL, dump_cell, insert_attempt, load_attempts
from harness.store.run import PlanEntry, Planned, PlanState, RunInfo, RunState, StoredRun, new_run_id
from harness.store.schema import ATTEMPT, PLAN, REVISION, RUN


@final
class Store:
    """Runs, plans and attempts in SQLite or PostgreSQL. Safe between threads and between processes."""

    __slots__ = ("_engine", "_evidence", "backup")

    def __init__(self, engine: sa.Engine, evidence: EvidenceStore | None = None, backup: Path | None = None) -> None:
        self._engine = engine
        self._evidence = evidence
        self.backup = backup
        """The copy made of the database before it was upgraded, if it had to be."""

    @classmethod
    def open(cls, location: str | Path, evidence: EvidenceStore | None = None) -> Store:
        """Open, and where needed create or upgrade, a SQLite file or a database named by a SQLAlchemy URL.

        With ``evidence``, :meth:`record` refuses an attempt whose evidence files are not there. Raises UserError for
        a database that is not ours or is newer than this code, InfraError for one that cannot be reached.
        """
        engine = make_engine(location)
        try:
            backup = None
            if not at_revision(engine, REVISION):
                # Imported only when there is something to do: alembic takes 11 MB of an orchestrator's memory.
                from harness.store.migrate import migrate

                backup = migrate(engine)
            set_write_ahead(engine)
        except sa.exc.DBAPIError as error:
            engine.dispose()
            if "not a database" in str(error.orig):
                raise UserError(f"{location_of(engine)}: is no database: name another file") from None
            raise _trouble(engine, error) from error
        except BaseException:
            engine.dispose()
            raise
        return cls(engine, evidence, backup)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def create_run(
        self,
        matrix_text: str,
        *,
        host: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        now: datetime | None = None,
        run_id: str | None = None,
        tool_version: str = harness.__version__,
    ) -> str:
        """Record that a run begins and return its id. ``host`` and ``options`` are plain JSON values."""
        moment = (now or datetime.now(UTC)).astimezone(UTC)
        run_id = run_id or new_run_id(moment)
        with self._writing() as connection:
            if connection.execute(sa.select(RUN.c.id).where(RUN.c.id == run_id)).first():
                raise UserError(f"run {run_id} exists already: leave its id to the tool")
            connection.execute(
                RUN.insert().values(
                    id=run_id,
                    started=moment.isoformat(),
                    state=RunState.RUNNING.value,
                    matrix_text=matrix_text,
                    matrix_sha256=hashlib.sha256(matrix_text.encode("utf-8", "surrogatepass")).hexdigest(),
                    host=dict(host or {}),
                    tool_version=tool_version,
                    options=dict(options or {}),
                )
            )
        return run_id

    def plan(self, run_id: str, cells: Iterable[Cell], left_out: Iterable[LeftOut] = ()) -> None:
        """Write down everything the run will do, before it does any of it: each cell ``boots`` times.

        Raises UserError when the run has a plan already, or names a cell twice.
        """
        rows: list[dict[str, Any]] = []
        seen: set[str] = set()
        for cell in cells:
            if cell.id in seen:
                raise UserError(f"cell {cell.id} is planned twice: give the entries of an axis different names")
            seen.add(cell.id)
            rows += _plan_rows(run_id, cell, range(1, cell.boots + 1), len(rows))
        repeats: dict[str, int] = {}
        for entry in left_out:
            # Below 1, where no attempt can ever be; two reasons for one combination are two rows.
            number = repeats[entry.cell_id] = repeats.get(entry.cell_id, 1) - 1
            rows.append(
                {
                    "run_id": run_id,
                    "cell_id": entry.cell_id,
                    "number": number,
                    "position": len(rows),
                    "cell": None,
                    "state": PlanState.LEFT_OUT.value,
                    "reason": entry.reason,
                }
            )
        with self._writing() as connection:
            _lock_run(connection, run_id)
            if connection.execute(sa.select(PLAN.c.number).where(PLAN.c.run_id == run_id).limit(1)).first():
                raise UserError(f"run {run_id} has a plan already: resume it, or start another run")
            if rows:
                connection.execute(PLAN.insert(), rows)

    def rerun(self, run_id: str, cell_id: str, boots: int = 1) -> list[Planned]:
        """Plan further boots of a cell of the run; their numbers go on from the highest."""
        with self._writing() as connection:
            _lock_run(connection, run_id)
            here = sa.and_(PLAN.c.run_id == run_id, PLAN.c.cell_id == cell_id, PLAN.c.number > 0)
            row = connection.execute(
                sa.select(PLAN.c.cell, PLAN.c.number).where(here).order_by(PLAN.c.number.desc()).limit(1)
            ).first()
            if row is None:
                raise UserError(f"run {run_id} has no cell {cell_id}: name one that it lists")
            position = connection.execute(sa.select(sa.func.max(PLAN.c.position)).where(PLAN.c.run_id == run_id))
            cell = CELL.validate_json(row.cell)
            numbers = range(row.number + 1, row.number + 1 + boots)
            connection.execute(PLAN.insert(), _plan_rows(run_id, cell, numbers, position.scalar_one() + 1))
        return [Planned(cell, number) for number in numbers]

    def claim(self, run_id: str, cell_id: str, number: int, owner: Owner) -> bool:
        """Take one planned boot; False when it is not (or no longer) there to be taken. One claimant wins."""
        return self._step(
            run_id, cell_id, number, PlanState.PLANNED, {"state": PlanState.RUNNING.value, "owner": asdict(owner)}
        )

    def release(self, run_id: str, cell_id: str, number: int, owner: Owner) -> bool:
        """Give back a boot that ``owner`` claimed and does not finish; False when it is not its."""
        return self._step(
            run_id, cell_id, number, PlanState.RUNNING, {"state": PlanState.PLANNED.value, "owner": None}, owner
        )

    def record(self, attempt: Attempt) -> bool:
        """Keep a finished attempt with all its rows and mark its boot done, in one transaction.

        False, and nothing is changed, when the same (run, cell, number) is there already: the first record stands.
        Raises UserError when the boot was never planned, InfraError when an evidence file is missing.
        """
        if self._evidence is not None:
            for file in (file for stage in attempt.stages for file in stage.evidence):
                if not self._evidence.has(file.sha256):
                    raise InfraError(f"{attempt.cell_id}: evidence {file.name} is not in {self._evidence.root}")
        key = sa.and_(
            PLAN.c.run_id == attempt.run_id, PLAN.c.cell_id == attempt.cell_id, PLAN.c.number == attempt.number
        )
        with self._writing() as connection:
            # PostgreSQL: whoever else records this key waits here. SQLite holds the only write lock already.
            row = connection.execute(sa.select(PLAN.c.state).where(key).with_for_update()).first()
            if row is None or attempt.number < 1:
                raise UserError(f"run {attempt.run_id} did not plan boot {attempt.number} of {attempt.cell_id}")
            if row.state == PlanState.DONE.value:
                return False
            insert_attempt(connection, attempt)
            connection.execute(PLAN.update().where(key).values(state=PlanState.DONE.value))
        return True

    def pending(self, run_id: str, alive: Callable[[Owner], bool]) -> list[Planned]:
        """Return the boots that are to be made, in order, after giving back those whose owner is dead."""
        with self._writing() as connection:
            of_run = PLAN.c.run_id == run_id
            running = connection.execute(
                PLAN.select().where(of_run, PLAN.c.state == PlanState.RUNNING.value).with_for_update()
            ).all()
            for row in running:
                if not alive(Owner(**row.owner)):
                    same = sa.and_(of_run, PLAN.c.cell_id == row.cell_id, PLAN.c.number == row.number)
                    connection.execute(PLAN.update().where(same).values(state=PlanState.PLANNED.value, owner=None))
            rows = connection.execute(
                sa.select(PLAN.c.cell, PLAN.c.number)
                .where(of_run, PLAN.c.state == PlanState.PLANNED.value)
                .order_by(PLAN.c.position)
            )
            return [Planned(CELL.validate_json(row.cell), row.number) for row in rows]

    def finish_run(self, run_id: str, state: RunState = RunState.FINISHED, now: datetime | None = None) -> None:
        """Record that the run ended, or (``RunState.RUNNING``) that it goes on after all."""
        ended = None if state is RunState.RUNNING else (now or datetime.now(UTC)).astimezone(UTC).isoformat()
        with self._writing() as connection:
            _lock_run(connection, run_id)
            connection.execute(RUN.update().where(RUN.c.id == run_id).values(state=state.value, finished=ended))

    def runs(self) -> list[RunInfo]:
        """Return all runs, oldest first."""
        with self._reading() as connection:
            return [_run_info(row) for row in connection.execute(RUN.select().order_by(RUN.c.id))]

    def latest_run(self) -> RunInfo | None:
        """Return the run that began last; None when there is none."""
        with self._reading() as connection:
            row = connection.execute(RUN.select().order_by(RUN.c.id.desc()).limit(1)).first()
            return None if row is None else _run_info(row)

    def load_run(self, run_id: str) -> StoredRun:
        """Return everything recorded of a run, as of one moment. Raises UserError when there is no such run."""
        with self._reading() as connection:
            info = connection.execute(RUN.select().where(RUN.c.id == run_id)).first()
            if info is None:
                raise UserError(f"no run {run_id}: name one that is listed")
            rows = connection.execute(PLAN.select().where(PLAN.c.run_id == run_id).order_by(PLAN.c.position)).all()
            attempts = load_attempts(connection, ATTEMPT.c.run_id == run_id)
        first = {row.cell_id: row.cell for row in reversed(rows) if row.cell is not None}
        order = dict.fromkeys(row.cell_id for row in rows if row.cell is not None)
        return StoredRun(
            info=_run_info(info),
            cells=tuple(CELL.validate_json(first[cell_id]) for cell_id in order),
            left_out=tuple(LeftOut(row.cell_id, row.reason) for row in rows if row.cell is None),
            attempts=tuple(attempts),
            plan=tuple(
                PlanEntry(row.cell_id, row.number, PlanState(row.state), Owner(**row.owner) if row.owner else None)
                for row in rows
                if row.cell is not None
            ),
        )

    def attempts(self, cell_id: str) -> list[Attempt]:
        """Return every attempt of a cell over all runs, oldest run first."""
        with self._reading() as connection:
            return load_attempts(connection, ATTEMPT.c.cell_id == cell_id)

    def _step(
        self,
        run_id: str,
        cell_id: str,
        number: int,
        state: PlanState,
        change: dict[str, Any],
        owner: Owner | None = None,
    ) -> bool:
        key = [PLAN.c.run_id == run_id, PLAN.c.cell_id == cell_id, PLAN.c.number == number]
        if owner is not None:
            key.append(PLAN.c.owner == asdict(owner))  # as canonical JSON text
        with self._writing() as connection:
            done = connection.execute(PLAN.update().where(*key, PLAN.c.state == state.value).values(**change))
            return done.rowcount == 1

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect().execution_options(**IMMEDIATE) as connection, connection.begin():
                yield connection
        except sa.exc.DBAPIError as error:
            raise _trouble(self._engine, error) from error

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        # A deferred SQLite transaction sees one moment by itself; PostgreSQL has to be asked.
        options = {} if self._engine.dialect.name == "sqlite" else {"isolation_level": "REPEATABLE READ"}
        try:
            with self._engine.connect().execution_options(**options) as connection, connection.begin():
                yield connection
        except sa.exc.DBAPIError as error:
            raise _trouble(self._engine, error) from error


def _plan_rows(run_id: str, cell: Cell, numbers: Iterable[int], position: int) -> list[dict[str, Any]]:
    spec = dump_cell(cell)
    return [
        {
            "run_id": run_id,
            "cell_id": cell.id,
            "number": number,
            "position": position + offset,
            "cell": spec,
            "state": PlanState.PLANNED.value,
            "reason": "",
        }
        for offset, number in enumerate(numbers)
    ]


def _lock_run(connection: sa.Connection, run_id: str) -> None:
    if connection.execute(sa.select(RUN.c.id).where(RUN.c.id == run_id).with_for_update()).first() is None:
        raise UserError(f"no run {run_id}: name one that is listed")


def _run_info(row: sa.Row[Any]) -> RunInfo:
    return RunInfo(
        id=row.id,
        started=row.started,
        finished=row.finished,
        state=RunState(row.state),
        matrix_text=row.matrix_text,
        matrix_sha256=row.matrix_sha256,
        host=row.host,
        tool_version=row.tool_version,
        options=row.options,
    )


def _trouble(engine: sa.Engine, error: sa.exc.DBAPIError) -> InfraError:
    first_line = str(error.orig).strip().partition("\n")[0]
    return InfraError(f"{location_of(engine)}: {first_line}")
