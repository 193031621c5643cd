"""A cell that is climbed as far as its stack is loaded, and then held there for somebody to use."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from harness.errors import KdmatrixError
from harness.images.recipe import StackRecipe
from harness.ladder.cell import Ladder
from harness.ladder.workshop import Workshop
from harness.machines.guest import Guest
from harness.model.cell import Cell
from harness.model.records import Attempt
from harness.model.stage import Stage


class NotHeld(KdmatrixError):
    """The cell did not come as far as ``load``; :attr:`attempt` is what was seen."""

    def __init__(self, attempt: Attempt) -> None:
        super().__init__(f"{attempt.cell_id}: {attempt.rung} was {attempt.outcome}: {attempt.reason}")
        self.attempt = attempt


@contextmanager
def held(cell: Cell, shop: Workshop) -> Iterator[Guest]:
    """Boot the cell, load its stack, and hand out its guest until the block ends.

    The ladder climbs in a thread of its own, so everything that it acquires (devices, VM, files) is given back by it.

    Raises:
        NotHeld: a rung up to ``load`` did not pass, or the cell is only built and never booted.
    """
    ladder = _Holding(cell, shop)
    climbing = threading.Thread(target=ladder.climb_and_tell, name="held cell", daemon=True)
    climbing.start()
    try:
        came = ladder.reached.get()
        if isinstance(came, Guest):
            yield came
        elif isinstance(came, Attempt):
            raise NotHeld(came)
        else:
            raise came
    finally:
        ladder.leave.set()
        climbing.join()


class _Holding(Ladder):
    def __init__(self, cell: Cell, shop: Workshop) -> None:
        super().__init__(cell, 1, shop)
        self.reached: queue.SimpleQueue[Guest | Attempt | BaseException] = queue.SimpleQueue()
        self.leave = threading.Event()

    def climb_and_tell(self) -> None:
        try:
            self.reached.put(self.climb())
        except BaseException as error:  # whoever waits must not wait for ever
            self.reached.put(error)

    def _climb_in(self, guest: Guest, stack: StackRecipe, packages: tuple[str, ...]) -> None:
        limit = self.cell.timeouts.test * self.shop.scale
        self._rung(Stage.LOAD, lambda: self._load(guest, stack, packages, limit))
        if self._alive:
            self.reached.put(guest)
            self.leave.wait()
