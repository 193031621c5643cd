"""What is known of a run: its identity, its plan, and everything recorded under it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from harness.journal import Owner
from harness.model.cell import Cell, LeftOut
from harness.model.records import Attempt

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_RANDOM_BITS = 50


class RunState(StrEnum):
    """Where a run stands. One that is ``running`` with a dead owner was killed and can be resumed."""

    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"


class PlanState(StrEnum):
    """Where one planned boot stands."""

    PLANNED = "planned"
    RUNNING = "running"
    DONE = "done"
    LEFT_OUT = "left_out"


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One row of the run table."""

    id: str
    started: str
    """UTC, ISO 8601."""
    finished: str | None
    state: RunState
    matrix_text: str
    """The matrix file as it was read."""
    matrix_sha256: str
    host: dict[str, Any]
    tool_version: str
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Planned:
    """One boot that is still to be made."""

    cell: Cell
    number: int
    """1 … ``boots``; a deliberate re-run goes on counting."""


@dataclass(frozen=True, slots=True)
class PlanEntry:
    """One boot of the plan and where it stands, whether it ran or not."""

    cell_id: str
    number: int
    state: PlanState
    owner: Owner | None
    """Who runs it, or ran it."""


@dataclass(frozen=True, slots=True)
class StoredRun:
    """Everything recorded of one run, as of one moment."""

    info: RunInfo
    cells: tuple[Cell, ...]
    """In the order of the plan, each once."""
    left_out: tuple[LeftOut, ...]
    attempts: tuple[Attempt, ...]
    """In the order in which they were recorded."""
    plan: tuple[PlanEntry, ...] = ()
    """Every boot, in order: it tells which cells never ran, and never got as far as an attempt."""


def new_run_id(now: datetime | None = None, randomness: bytes | None = None) -> str:
    """Return an id such as ``20260412t101530123z-7k3m9q2xwb``: it sorts by time and is safe as a file name.

    ``now`` must know its zone. ``randomness`` is at least 7 bytes, of which 50 bits are used: two runs that start in
    the same millisecond get the same id once in 2**50.
    """
    moment = (now or datetime.now(UTC)).astimezone(UTC)
    number = int.from_bytes((randomness or secrets.token_bytes(7))[:7], "big") >> (56 - _RANDOM_BITS)
    digits = "".join(_CROCKFORD[number >> shift & 31] for shift in range(_RANDOM_BITS - 5, -1, -5))
    return f"{moment:%Y%m%dt%H%M%S}{moment.microsecond // 1000:03d}z-{digits}"
