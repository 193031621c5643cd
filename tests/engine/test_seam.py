"""The local engine runs as many cells as it has slots, hands results and errors back, and opens no port."""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import replace

import psutil
import pytest

from engine.cells import attempt_of, cell, on_box
from harness.engine.seam import local_engine, place_of
from harness.ladder.cell import Stopped
from harness.model.cell import Cell
from harness.model.records import Attempt


class Gauge:
    """Counts how many are inside at the same time, and the most there ever were."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self.now = self.most = 0

    def __enter__(self) -> None:
        with self._guard:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self._guard:
            self.now -= 1


@pytest.mark.parametrize("slots", [1, 3])
def test_no_more_cells_run_at_a_time_than_there_are_slots(slots: int) -> None:
    gauge = Gauge()
    full = threading.Barrier(slots)

    def work(one: Cell, number: int) -> Attempt:
        with gauge:
            full.wait(30)  # all slots are in use at once, or this breaks
            time.sleep(0.05)
            return attempt_of(one, number)

    with local_engine("run", work, slots) as engine:
        assert engine.slots == slots
        futures = [engine.submit(cell(f"k{index}"), index + 1) for index in range(2 * slots)]
        done = [future.result(60) for future in futures]
    assert gauge.most == slots
    assert [(one.cell_id, one.number) for one in done] == [(cell(f"k{i}").id, i + 1) for i in range(2 * slots)]


@pytest.mark.parametrize("error", [Stopped("interrupted"), ZeroDivisionError("defect"), KeyError("x")])
def test_an_error_in_a_cell_reaches_its_future_and_no_other(error: Exception) -> None:
    def work(one: Cell, number: int) -> Attempt:
        if one.kernel.name == "bad":
            raise error
        return attempt_of(one, number)

    with local_engine("run", work, 2) as engine:
        bad, good = engine.submit(cell("bad"), 1), engine.submit(cell("good"), 1)
        with pytest.raises(type(error), match=str(error.args[0])):
            bad.result(60)
        assert good.result(60).cell_id == cell("good").id


def test_no_process_is_started_and_what_listens_serves_this_host_only_and_nothing() -> None:
    process = psutil.Process()

    def listening() -> set[tuple[str, int]]:
        found = [process, *process.children(recursive=True)]
        return {tuple(c.laddr) for one in found for c in one.net_connections("inet") if c.status == psutil.CONN_LISTEN}

    before, children = listening(), set(process.children(recursive=True))
    with local_engine("run", attempt_of, 1) as engine:
        engine.submit(cell("k"), 1).result(60)
        # Dask's web servers cannot be switched off; they have no page.
        opened = listening() - before
        assert {host for host, _port in opened} <= {"127.0.0.1"}
        for _host, port in opened:
            for path in ("/", "/status", "/json/counts.json", "/info/main/workers.html", "/metrics"):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
                connection.request("GET", path)
                assert connection.getresponse().status == 404
                connection.close()
        assert set(process.children(recursive=True)) <= children
    assert listening() <= before


def test_cells_of_one_device_wait_for_each_other_and_hold_up_nobody_else() -> None:
    alone, others = Gauge(), threading.Event()

    def work(one: Cell, number: int) -> Attempt:
        if one.device == "none":
            others.set()
            return attempt_of(one, number)
        with alone:
            assert others.wait(30), "a cell without a device was kept waiting by those with one"
            time.sleep(0.05)
            return attempt_of(one, number)

    cells = [replace(cell(f"k{index}"), device="card") for index in range(3)] + [cell("free")]
    with local_engine("run", work, 4, {"card": 1}) as engine:
        for future in [engine.submit(one, index + 1) for index, one in enumerate(cells)]:
            future.result(60)
    assert alone.most == 1


def test_lab_boxes_have_room_where_no_vm_has_any() -> None:
    first, second = on_box("a", "one", "h1"), on_box("b", "two", "h2")
    both = threading.Barrier(2)

    def work(one: Cell, number: int) -> Attempt:
        both.wait(30)
        return attempt_of(one, number)

    with local_engine("run", work, 0, boxes={place_of(first), place_of(second)}) as engine:
        done = [future.result(60) for future in [engine.submit(first, 1), engine.submit(second, 1)]]
    assert [one.cell_id for one in done] == [first.id, second.id]


def test_the_engine_asks_nobody_for_this_hosts_address() -> None:
    with local_engine("run", attempt_of, 1) as engine:
        assert engine._client.scheduler.address.startswith("inproc://127.0.0.1/")


def test_two_runs_in_one_process_do_not_meet() -> None:
    def named(name: str) -> object:
        return lambda one, number: attempt_of(one, number, reason=name)

    with local_engine("a", named("a"), 1) as first, local_engine("b", named("b"), 1) as second:  # type: ignore[arg-type]
        assert first.submit(cell("k"), 1).result(60).reason == "a"
        assert second.submit(cell("k"), 1).result(60).reason == "b"


def test_the_same_boot_is_executed_again_when_it_is_submitted_again() -> None:
    count: list[int] = []

    def work(one: Cell, number: int) -> Attempt:
        count.append(number)
        return attempt_of(one, number)

    with local_engine("run", work, 1) as engine:
        for _ in range(2):
            engine.submit(cell("k"), 1).result(60)
    assert count == [1, 1]
