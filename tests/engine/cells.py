"""Cells and attempts for the tests of the engine."""

from __future__ import annotations

from harness.model.cell import Cell, DebianKernel, InstalledKernel, KernelSpec, Series
from harness.model.machine import LabBox
from harness.model.outcome import Outcome
from harness.model.records import Attempt, StageResult
from harness.model.stage import Stage

RUN = "20260412t101530123z-7k3m9q2xwb"


def cell(name: str, boots: int = 1, stack: str = "s") -> Cell:
    """A cell whose kernel, and thus whose parts, follow from ``name``."""
    return Cell("g", KernelSpec(name, Series.LONGTERM, DebianKernel("suite", name)), stack, boots=boots)


def on_box(name: str, box: str, host: str) -> Cell:
    """A cell on a lab box at an address."""
    machine = LabBox(box, "g", host, "kexec", "/key")
    return Cell("g", KernelSpec(name, Series.LONGTERM, InstalledKernel("6.*")), "s", machine=machine)


def attempt_of(one: Cell, number: int, outcome: Outcome = Outcome.PASS, reason: str = "", run: str = RUN) -> Attempt:
    """What an execution of ``one`` would have recorded."""
    stages = (StageResult(Stage.COMPUTE, outcome, 1.0, reason),)
    now = "2026-04-12T10:15:30+00:00"
    return Attempt(run, one.id, number, now, now, outcome, Stage.COMPUTE, reason, stages)
