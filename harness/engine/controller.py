"""Carries a plan out: parts made ahead, cells handed over when ready, results durable before they count."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from harness.engine.seam import Engine, place_of
from harness.errors import KdmatrixError
from harness.journal import Owner
from harness.ladder.cell import Stopped
from harness.model.cell import Cell
from harness.model.records import Attempt
from harness.store.run import Planned
from harness.store.store import Store


class Listener:
    """Told what happens; the terminal view overrides what it shows."""

    def part(self, name: str) -> None:
        """A part of an image is being made."""

    def rung(self, cell_id: str, number: int, rung: str) -> None:
        """A cell begins a rung."""

    def finished(self, attempt: Attempt) -> None:
        """An attempt was recorded."""


@dataclass(slots=True)
class Controller:
    """One run's loop; ``stop`` ends it after what runs has been given back."""

    store: Store
    run_id: str
    prepare: Callable[[Cell], object]
    """Makes all parts of a cell's image; errors are left for the cell to meet and report."""
    listener: Listener
    builders: int = 2
    stop: threading.Event = field(default_factory=threading.Event)
    _owner: Owner = field(default_factory=Owner.current)

    def carry_out(self, engine: Engine, planned: Sequence[Planned]) -> list[Attempt]:
        """Execute ``planned`` and return the recorded attempts; those interrupted go back to the plan."""
        attempts: list[Attempt] = []
        running: dict[Future[Attempt], Planned] = {}
        with ThreadPoolExecutor(self.builders, thread_name_prefix="images") as pool:
            parts = {_parts_of(item.cell): item.cell for item in planned}
            building: dict[Future[None], tuple[str, str, object]] = {
                pool.submit(self._prepare, cell): key for key, cell in parts.items()
            }
            ready: set[tuple[str, str, object]] = set()
            waiting = list(planned)
            try:
                while (waiting and not self.stop.is_set()) or running:
                    while not self.stop.is_set():
                        item = _take(waiting, ready, [item.cell for item in running.values()], engine.slots)
                        if item is None:
                            break
                        if self.store.claim(self.run_id, item.cell.id, item.number, self._owner):
                            running[self._submit(engine, item)] = item
                    everything: list[Future[Any]] = [*running, *building]
                    wait(everything, timeout=0.5, return_when=FIRST_COMPLETED)
                    for built in [future for future in building if future.done()]:
                        ready.add(building.pop(built))
                    for future in [future for future in running if future.done()]:
                        self._gather(future, running.pop(future), attempts)
            finally:
                if running:
                    self.stop.set()
                for future, item in list(running.items()):
                    self._gather(future, item, attempts)
                pool.shutdown(wait=True, cancel_futures=True)
        return attempts

    def _prepare(self, cell: Cell) -> None:
        if self.stop.is_set():
            return
        try:
            self.prepare(cell)
        except KdmatrixError:
            return  # remembered by the image cache; the cell's image rung reports it with its reason

    def _submit(self, engine: Engine, item: Planned) -> Future[Attempt]:
        try:
            return engine.submit(item.cell, item.number)
        except BaseException:
            self.store.release(self.run_id, item.cell.id, item.number, self._owner)
            raise

    def _gather(self, future: Future[Attempt], item: Planned, attempts: list[Attempt]) -> None:
        try:
            attempt = future.result()
        except Stopped:
            self.store.release(self.run_id, item.cell.id, item.number, self._owner)
            return
        except BaseException:
            self.store.release(self.run_id, item.cell.id, item.number, self._owner)
            raise
        if self.store.record(attempt):
            attempts.append(attempt)
            self.listener.finished(attempt)


def _parts_of(cell: Cell) -> tuple[str, str, object]:
    return cell.guest, cell.stack, cell.kernel.source


def _take(
    waiting: list[Planned], ready: Iterable[tuple[str, str, object]], running: Sequence[Cell], slots: int
) -> Planned | None:
    """Remove and return the first item whose parts are made and that there is room for."""
    made = set(ready)
    busy = {place_of(cell) for cell in running if cell.machine is not None}
    full = sum(cell.machine is None for cell in running) >= slots
    for index, item in enumerate(waiting):
        room = not full if item.cell.machine is None else place_of(item.cell) not in busy
        if room and _parts_of(item.cell) in made:
            return waiting.pop(index)
    return None
