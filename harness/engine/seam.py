"""The one seam between deciding what to run and running it: submit a cell to a device, get a future.

Dask ``distributed`` is behind it, in this process by default. What it forgets when it dies is no loss: the plan is in
our own store, finished work is gathered at once, and no more cells are handed over than can run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Protocol
from uuid import uuid4

from harness.model.cell import Cell
from harness.model.records import Attempt

Work = Callable[[Cell, int], Attempt]
"""Executes (cell, attempt number) where it runs."""


class Engine(Protocol):
    """Runs cells at the same time, as many as it has slots."""

    @property
    def slots(self) -> int:
        """How many cells run at a time."""
        ...

    def submit(self, cell: Cell, number: int) -> Future[Attempt]:
        """Hand one attempt over."""
        ...


_WORKSHOPS: dict[str, Work] = {}
"""What executes the cells of a run in this process, by the run's name. A task carries the name, never the workshop:
connections and locks do not travel."""


def offer(name: str, work: Work) -> None:
    """Make this process execute the cells submitted under ``name``."""
    _WORKSHOPS[name] = work


def withdraw(name: str) -> None:
    """Undo :func:`offer`."""
    _WORKSHOPS.pop(name, None)


def _execute(name: str, cell: Cell, number: int) -> Attempt:
    return _WORKSHOPS[name](cell, number)


def place_of(cell: Cell) -> str:
    """What a cell takes a share of while it runs: a machine that is there already, or a device of this host's VMs."""
    return cell.machine.place if cell.machine is not None else f"vm:{cell.device}"


class DaskEngine:
    """An engine over a Dask client; each running cell holds one unit of the resource that it takes place on."""

    def __init__(self, client: Any, name: str, slots: int) -> None:
        self._client = client
        self._name = name
        self.slots = slots

    def submit(self, cell: Cell, number: int) -> Future[Attempt]:
        """See :meth:`Engine.submit`. ``retries`` stay 0: every attempt is planned and recorded by us."""
        resource = place_of(cell)
        remote = self._client.submit(
            _execute,
            self._name,
            cell,
            number,
            pure=False,
            retries=0,
            resources={resource: 1},
            # Unique: a key that is still being released would give the former result again.
            key=f"{self._name}/{cell.id}#{number}-{uuid4().hex}",
        )
        local: Future[Attempt] = Future()
        local.set_running_or_notify_cancel()

        def finish(done: Any) -> None:
            # Gather and release at once: a result that stays in a worker's memory is lost with it.
            try:
                local.set_result(done.result())
            except BaseException as error:
                local.set_exception(error)
            finally:
                done.release()

        remote.add_done_callback(finish)
        return local


@contextmanager
def local_engine(
    name: str, work: Work, slots: int, devices: Mapping[str, int] | None = None, boxes: Collection[str] = ()
) -> Iterator[DaskEngine]:
    """An engine in this process: one worker with a thread per slot, and nothing that listens to the network.

    ``devices`` says how many cells of each device may run at a time; those without a device have all slots. ``boxes``
    are the places of lab boxes and of this machine, each of which executes one cell at a time, beside the slots.
    """
    import dask
    from distributed import Client, LocalCluster
    from distributed.comm.inproc import global_manager

    # It names itself after the address that leads to the Internet, and fails where none does and no name resolves.
    global_manager._ip = "127.0.0.1"

    resources = {"vm:none": slots} | {f"vm:{device}": most for device, most in (devices or {}).items()}
    resources |= dict.fromkeys(boxes, 1)
    quiet = {
        "distributed.scheduler.allowed-failures": 0,
        "distributed.admin.log-format": "%(message)s",
        "distributed.logging.distributed": "critical",
        # A cell holds a thread for minutes; nothing is to be concluded from a busy event loop.
        "distributed.admin.tick.limit": "1h",
        "distributed.worker.profile.enabled": False,
        "distributed.diagnostics.nvml": False,
        # Its web servers cannot be switched off. They serve nothing and are put where no other host can reach them;
        # left alone, they listen on all interfaces.
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
    }
    nowhere = "127.0.0.1:0"
    with (
        dask.config.set(quiet),
        LocalCluster(  # type: ignore[no-untyped-call]  # distributed ships no types
            processes=False,
            protocol="inproc",
            n_workers=1,
            threads_per_worker=max(1, slots + len(boxes)),
            resources=resources,
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": nowhere, "dashboard": False},
            worker_dashboard_address=nowhere,
            memory_limit=0,
            silence_logs=50,
        ) as cluster,
        Client(cluster) as client,  # type: ignore[no-untyped-call]  # likewise
    ):
        offer(name, work)
        try:
            yield DaskEngine(client, name, slots)
        finally:
            withdraw(name)
