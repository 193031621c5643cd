"""What a report is made of: plain data from the model, and nothing that reads a clock, a store or a host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from harness.model.cell import Cell, LeftOut
from harness.model.records import Attempt

ReadEvidence = Callable[[str], bytes]
"""SHA-256 to the uncompressed bytes; raises OSError, LookupError or KdmatrixError where they are not there."""

ReproCommand = Callable[[Attempt], str | None]
"""The one-line command that repeats an attempt, or None where there is none."""


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One run, as its report introduces it."""

    id: str
    started: str
    """UTC, ISO 8601."""
    finished: str
    """UTC, ISO 8601; empty while the run goes on."""
    state: str
    """``finished``, ``running``, ``interrupted`` …: shown as it is."""
    matrix_sha256: str = ""
    matrix_text: str = ""
    """The matrix file as it was read."""
    tool_version: str = ""
    host: Mapping[str, str] = field(default_factory=dict)
    """Facts about the host; ``accelerator`` (``kvm`` or ``tcg``) is named in the summary."""
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReportInput:
    """Everything a report shows, except the bytes of the evidence, which are read one file at a time."""

    run: RunInfo
    cells: tuple[Cell, ...]
    """Every planned cell, whether it ran or not."""
    left_out: tuple[LeftOut, ...] = ()
    attempts: tuple[Attempt, ...] = ()
