"""A plan is carried out as parts get ready; what was seen is recorded before it is told, and nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from engine.cells import RUN, attempt_of, cell, on_box
from harness.engine.controller import Controller, Listener
from harness.errors import InfraError
from harness.journal import owner_alive
from harness.ladder.cell import Stopped
from harness.model.cell import Cell
from harness.model.records import Attempt
from harness.store.run import Planned, PlanState
from harness.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "results.sqlite") as opened:
        opened.create_run("version: 1\n", run_id=RUN)
        yield opened


def plan(store: Store, *cells: Cell) -> list[Planned]:
    store.plan(RUN, cells)
    return store.pending(RUN, owner_alive)


@dataclass
class FakeEngine:
    """Threads instead of a cluster."""

    work: Callable[[Cell, int], Attempt]
    slots: int = 1
    order: list[tuple[str, int]] = field(default_factory=list)
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(8))

    def submit(self, cell: Cell, number: int) -> Future[Attempt]:
        self.order.append((cell.kernel.name, number))
        return self.pool.submit(self.work, cell, number)


@dataclass
class Told(Listener):
    """Notes what the store knew at the moment when it was told."""

    store: Store
    seen: list[tuple[str, bool]] = field(default_factory=list)

    def finished(self, attempt: Attempt) -> None:
        stored = self.store.load_run(RUN).attempts
        self.seen.append((attempt.cell_id, attempt in stored))


def states(store: Store) -> dict[tuple[str, int], PlanState]:
    return {(entry.cell_id, entry.number): entry.state for entry in store.load_run(RUN).plan}


def controller(store: Store, prepare: Callable[[Cell], object] = lambda _cell: None, **changes: object) -> Controller:
    return Controller(store, RUN, prepare, changes.pop("listener", Listener()), **changes)  # type: ignore[arg-type]


def test_every_boot_of_the_plan_is_executed_and_recorded_before_it_is_told(store: Store) -> None:
    planned = plan(store, cell("a", boots=2), cell("b"))
    told = Told(store)
    attempts = controller(store, listener=told).carry_out(FakeEngine(attempt_of, slots=2), planned)
    wanted = {(cell("a").id, 1), (cell("a").id, 2), (cell("b").id, 1)}
    assert {(one.cell_id, one.number) for one in attempts} == wanted
    assert {(one.cell_id, one.number) for one in store.load_run(RUN).attempts} == wanted
    assert sorted(told.seen) == sorted((cell_id, True) for cell_id, _ in wanted)
    assert set(states(store).values()) == {PlanState.DONE}


def test_cells_run_when_their_parts_are_ready_and_do_not_wait_for_slower_ones(store: Store) -> None:
    planned = plan(store, cell("slow"), cell("quick", boots=2))
    quick_done = threading.Event()

    def prepare(one: Cell) -> None:
        if one.kernel.name == "slow":
            assert quick_done.wait(30)

    def work(one: Cell, number: int) -> Attempt:
        if (one.kernel.name, number) == ("quick", 2):
            quick_done.set()
        return attempt_of(one, number)

    engine = FakeEngine(work)
    controller(store, prepare, builders=2).carry_out(engine, planned)
    assert engine.order == [("quick", 1), ("quick", 2), ("slow", 1)]


def test_parts_that_cells_share_are_prepared_once(store: Store) -> None:
    planned = plan(store, cell("a", boots=3), cell("a", stack="t"))
    asked: list[str] = []
    controller(store, lambda one: asked.append(one.id)).carry_out(FakeEngine(attempt_of), planned)
    assert sorted(asked) == [cell("a").id, cell("a", stack="t").id]


@pytest.mark.parametrize("error", [InfraError("dead mirror"), ZeroDivisionError("defect")])
def test_parts_that_cannot_be_made_stop_neither_their_own_cell_nor_the_others(store: Store, error: Exception) -> None:
    planned = plan(store, cell("bad"), cell("good"))

    def prepare(one: Cell) -> None:
        if one.kernel.name == "bad":
            raise error

    attempts = controller(store, prepare).carry_out(FakeEngine(attempt_of), planned)
    assert {one.cell_id for one in attempts} == {cell("bad").id, cell("good").id}


def test_never_more_cells_are_handed_over_than_the_engine_has_slots(store: Store) -> None:
    planned = plan(store, *(cell(f"k{index}") for index in range(6)))
    guard, now, most = threading.Lock(), [0], [0]

    def work(one: Cell, number: int) -> Attempt:
        with guard:
            now[0] += 1
            most[0] = max(most[0], now[0])
        threading.Event().wait(0.02)
        with guard:
            now[0] -= 1
        return attempt_of(one, number)

    controller(store).carry_out(FakeEngine(work, slots=2), planned)
    assert most[0] == 2


def test_a_lab_box_executes_one_cell_at_a_time_beside_the_slots(store: Store) -> None:
    # Two names of one box are one box.
    boxes = [on_box("a", "one", "h1"), on_box("b", "one", "h1"), on_box("c", "same", "h1"), on_box("d", "two", "h2")]
    planned = plan(store, *(cell(f"k{index}") for index in range(3)), *boxes)
    guard, running, seen = threading.Lock(), [], set()

    def work(one: Cell, number: int) -> Attempt:
        with guard:
            running.append(one.machine.host if one.machine else "vm")
            seen.add(tuple(sorted(running)))
        threading.Event().wait(0.05)
        with guard:
            running.remove(one.machine.host if one.machine else "vm")
        return attempt_of(one, number)

    attempts = controller(store).carry_out(FakeEngine(work, slots=1), planned)
    assert len(attempts) == len(planned)
    assert ("h1", "h2", "vm") in seen
    assert not any(now.count(place) > 1 for now in seen for place in now)


def test_an_interruption_gives_running_boots_back_and_begins_no_other(store: Store) -> None:
    planned = plan(store, cell("done"), cell("running"), cell("waiting"))
    stop = threading.Event()

    def work(one: Cell, number: int) -> Attempt:
        if one.kernel.name == "running":
            stop.set()
            raise Stopped("interrupted")
        return attempt_of(one, number)

    attempts = controller(store, stop=stop).carry_out(FakeEngine(work), planned)
    assert [one.cell_id for one in attempts] == [cell("done").id]
    assert states(store) == {
        (cell("done").id, 1): PlanState.DONE,
        (cell("running").id, 1): PlanState.PLANNED,
        (cell("waiting").id, 1): PlanState.PLANNED,
    }
    # Resumed, the rest is carried out and nothing twice.
    rest = controller(store).carry_out(FakeEngine(attempt_of), store.pending(RUN, owner_alive))
    assert [one.cell_id for one in rest] == [cell("running").id, cell("waiting").id]


def test_a_boot_that_another_process_took_is_left_to_it(store: Store) -> None:
    planned = plan(store, cell("theirs"), cell("ours"))
    other = controller(store)._owner
    assert store.claim(RUN, cell("theirs").id, 1, other)
    engine = FakeEngine(attempt_of)
    controller(store).carry_out(engine, planned)
    assert engine.order == [("ours", 1)]


def test_a_defect_ends_the_run_and_gives_the_boot_back(store: Store) -> None:
    planned = plan(store, cell("a"))

    def work(_one: Cell, _number: int) -> Attempt:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        controller(store).carry_out(FakeEngine(work), planned)
    assert set(states(store).values()) == {PlanState.PLANNED}


def test_an_engine_that_takes_nothing_leaves_the_boot_in_the_plan(store: Store) -> None:
    planned = plan(store, cell("a"))

    class FakeBrokenEngine(FakeEngine):
        def submit(self, cell: Cell, number: int) -> Future[Attempt]:
            raise InfraError("the cluster is gone")

    with pytest.raises(InfraError, match="cluster is gone"):
        controller(store).carry_out(FakeBrokenEngine(attempt_of), planned)
    assert set(states(store).values()) == {PlanState.PLANNED}
