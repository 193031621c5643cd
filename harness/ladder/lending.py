"""The devices of a cell: had before its VM starts, given back after it ended, and what the host saw meanwhile."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import replace

from harness.devices.lending import Desk, Lent
from harness.errors import InfraError
from harness.machines.passthrough import Passthrough, passthrough_of, place
from harness.model.cell import Cell
from harness.model.outcome import Outcome
from harness.model.records import StageResult
from harness.model.stage import Stage

_BLAMED = frozenset({Stage.BOOT, Stage.LOAD, Stage.ENUMERATE, Stage.COMPUTE, Stage.THROUGHPUT, Stage.UNLOAD})


def lend(
    keeper: contextlib.ExitStack,
    desk: Desk | None,
    cell: Cell,
    run_id: str,
    facts: MutableMapping[str, str],
    wait: float,
    stop: threading.Event,
) -> Lent:
    """Get what the cell asks for, until ``keeper`` closes; nothing where it asks for nothing.

    Raises:
        InfraError: it cannot be had.
    """
    if cell.request is None:
        return Lent()
    if desk is None:
        raise InfraError(f"{cell.device} cannot be passed through: this run lends no devices")
    return keeper.enter_context(_kept(desk, cell, run_id, facts, wait, stop))


@contextlib.contextmanager
def _kept(
    desk: Desk, cell: Cell, run_id: str, facts: MutableMapping[str, str], wait: float, stop: threading.Event
) -> Iterator[Lent]:
    assert cell.request is not None
    lent: Lent | None = None
    try:
        with desk.lend(cell.request, f"{cell.id} of run {run_id}", wait, stop) as lent:
            yield lent
    except InfraError as error:
        if lent is None:
            raise
        # The cell has its result by now: what went wrong on the way back is said beside it.
        lent.facts["device.trouble"] = str(error)
    finally:
        if lent is not None:
            facts.update(lent.facts)


def in_domain(lent: Lent, memory: int) -> Passthrough:
    """What the devices add to the domain of a VM with ``memory`` bytes."""
    if not lent.units and not lent.mediated:
        return Passthrough()
    return passthrough_of(lent.units, lent.mediated, place(lent.units, memory), display=lent.display)


def blame_the_host(stages: Sequence[StageResult], lent: Lent) -> list[StageResult]:
    """Turn a failure during which the host's own kernel complained of the device's hardware into MISS."""
    fault = lent.host_fault
    if not fault:
        return list(stages)
    return [
        replace(stage, outcome=Outcome.MISS, reason=f"the host's trouble: {fault} (the cell said: {stage.reason})")
        if stage.outcome is Outcome.FAIL and stage.stage in _BLAMED
        else stage
        for stage in stages
    ]
