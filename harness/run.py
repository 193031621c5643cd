"""One execution of a matrix on this host, from a durable plan to recorded attempts."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness import hostcmd
from harness.clean import undo_orphans
from harness.devices.borrow import Lender
from harness.devices.lending import Desk
from harness.engine.controller import Controller, Listener
from harness.engine.seam import local_engine, place_of
from harness.errors import KdmatrixError, UserError
from harness.images.builder import require_space
from harness.journal import owner_alive
from harness.lab import Lab, builds_at_a_time, host_facts
from harness.ladder.cell import execute, make_parts
from harness.ladder.held import held
from harness.ladder.here import execute_here
from harness.ladder.labbox import execute_on_box
from harness.ladder.workshop import Workshop, emulation_factor
from harness.machines.acceleration import Acceleration, cannot_open, prove
from harness.machines.guest import Guest
from harness.machines.hypervisor import Hypervisor
from harness.model.cell import Cell
from harness.model.machine import LabBox, ThisMachine
from harness.model.matrix import Limits
from harness.model.outcome import Outcome
from harness.model.records import Attempt
from harness.model.stage import LADDER, Stage
from harness.store.run import RunState
from harness.store.store import Store

_SPACE = 6_000_000_000
"""Bytes that the caches of a first run with four kernels need, with room to spare."""
_HOST_RESERVE = 2 << 30


@dataclass(slots=True)
class Interrupt:
    """How a run is told to end: :meth:`request` ends it cleanly."""

    event: threading.Event = field(default_factory=threading.Event)
    actions: list[Callable[[], object]] = field(default_factory=list)

    def request(self) -> None:
        """Have every cell stop at once and give its attempt back to the plan."""
        self.event.set()
        for action in list(self.actions):
            action()


def slots_for(limits: Limits, accelerator: str) -> int:
    """How many VMs run at a time: what the matrix says, else what this host's processors and memory allow."""
    if limits.vms is not None:
        return limits.vms
    cores = len(os.sched_getaffinity(0))
    # Emulation keeps a whole core busy for each virtual one.
    by_cores = cores // limits.vm_cpus if accelerator == "qemu" else cores
    by_memory = (_available_memory() - _HOST_RESERVE) // limits.vm_memory
    return max(1, min(by_cores, by_memory))


def carry_out(
    lab: Lab,
    store: Store,
    run_id: str,
    limits: Limits,
    listener: Listener,
    interrupt: Interrupt,
    warn: Callable[[str], None],
    until: Stage = LADDER[-1],
    forced: Collection[str] = (),
) -> list[Attempt]:
    """Execute whatever of the run's plan has no result yet; return what was recorded now.

    ``until`` is the last rung of every cell; before ``boot``, nothing is booted and neither libvirt nor QEMU is needed.
    ``forced`` are addresses of devices that are taken although they are not safe.

    Raises:
        InfraError: this host cannot run VMs at all (no libvirt, no QEMU, no disk space).
    """
    emulation_factor()  # a bad setting is told before anything is made
    planned = store.pending(run_id, owner_alive)
    if not planned:
        store.finish_run(run_id)
        return []
    in_vms = [item for item in planned if item.cell.machine is None]
    if in_vms:
        require_space(lab.home.root, _SPACE if not (lab.home.cache / "erofs").is_dir() else _SPACE // 4)
    undo_orphans(lab)
    lab.images.on_part = listener.part
    with ExitStack() as stack:
        shop = _workshop(lab, run_id, limits, listener, interrupt, until)
        if LADDER.index(until) < LADDER.index(Stage.BOOT):
            slots = min(builds_at_a_time(), len(planned))
        elif in_vms:
            _open_hypervisor(shop, stack, lab, [item.cell for item in in_vms], interrupt, warn)
            slots = min(slots_for(limits, shop.accelerator), len(in_vms))
        else:
            slots = 0
        shop.desk = desk = Desk(Lender(), shop.journal, forced=forced)
        requests = {item.cell.device: item.cell.request for item in in_vms if item.cell.request is not None}
        devices = {name: desk.capacity(request) for name, request in requests.items()}
        boxes = {place_of(item.cell) for item in planned if item.cell.machine is not None}
        engine = stack.enter_context(local_engine(run_id, _executor(shop), slots, devices, boxes))
        interrupt.actions += [hostcmd.kill_all]
        controller = Controller(
            store=store,
            run_id=run_id,
            prepare=lambda cell: make_parts(cell, shop),
            listener=listener,
            builders=builds_at_a_time(),
            stop=interrupt.event,
        )
        attempts = controller.carry_out(engine, planned)
    _remove_empty(lab.home.runs / run_id / "work")
    state = RunState.INTERRUPTED if interrupt.event.is_set() else RunState.FINISHED
    store.finish_run(run_id, state)
    return attempts


@contextmanager
def hold(lab: Lab, cell: Cell, limits: Limits, warn: Callable[[str], None]) -> Iterator[tuple[Guest, float]]:
    """Boot one cell outside of any run, load its stack, and hand out its guest until the block ends; nothing is stored.

    With the guest comes the factor on every time-out in it.

    Raises:
        NotHeld: a rung up to ``load`` did not pass.
        UserError: the cell is one of a lab box.
        InfraError: this host cannot run VMs at all.
    """
    if cell.machine is not None:
        raise UserError(f"{cell.id}: a lab box is not held for tests; name a cell of a VM")
    undo_orphans(lab)
    run_id, interrupt = "held", Interrupt()
    with ExitStack() as stack:
        stack.callback(_remove_empty, lab.home.runs / run_id / "work")
        shop = _workshop(lab, run_id, limits, Listener(), interrupt, Stage.LOAD)
        _open_hypervisor(shop, stack, lab, [cell], interrupt, warn)
        shop.desk = Desk(Lender(), shop.journal)
        yield stack.enter_context(held(cell, shop)), shop.scale


def _executor(shop: Workshop) -> Callable[[Cell, int], Attempt]:
    """What executes a cell: in a VM of this host, on its lab box, or on this host itself."""

    def work(cell: Cell, number: int) -> Attempt:
        match cell.machine:
            case None:
                return execute(cell, number, shop)
            case LabBox():
                return execute_on_box(cell, number, shop)
            case ThisMachine():
                return execute_here(cell, number, shop)

    return work


def _workshop(
    lab: Lab, run_id: str, limits: Limits, listener: Listener, interrupt: Interrupt, until: Stage
) -> Workshop:
    return Workshop(
        run_id=run_id,
        images=lab.images,
        recipes=lab.recipes,
        hypervisor=None,
        journal=lab.journal(run_id),
        evidence=lab.evidence,
        tests=lab.tests,
        knowledge=lab.knowledge,
        drivers=lab.drivers,
        work=lab.home.runs / run_id / "work",
        memory=limits.vm_memory,
        vcpus=limits.vm_cpus,
        host_facts=host_facts(),
        on_rung=_tell(listener),
        stop=interrupt.event,
        until=until,
    )


def _open_hypervisor(
    shop: Workshop,
    stack: ExitStack,
    lab: Lab,
    cells: Sequence[Cell],
    interrupt: Interrupt,
    warn: Callable[[str], None],
) -> None:
    hypervisor = shop.hypervisor = stack.enter_context(Hypervisor.connect(lab.home.root / "libvirt"))
    interrupt.actions.append(hypervisor.destroy_all_of_this_process)
    acceleration = _acceleration(lab, cells)
    if acceleration.accelerator == "qemu":
        warn(f"no hardware acceleration ({acceleration.reason}): VMs are emulated, which is slow but complete")
    shop.accelerator = acceleration.accelerator
    shop.host_facts = {**shop.host_facts, **hypervisor.versions, "host.acceleration": acceleration.reason}


def _acceleration(lab: Lab, cells: Sequence[Cell]) -> Acceleration:
    """Prove KVM with the first kernel of the plan that can be had; without any, nothing will boot anyway."""
    unusable = cannot_open()
    if unusable and not os.environ.get("KDMATRIX_ACCELERATOR"):
        return Acceleration("qemu", unusable)
    for cell in {cell.kernel: cell for cell in cells}.values():
        try:
            kernel = lab.images.boot_kernel(cell.kernel)
        except KdmatrixError:
            continue
        return prove(kernel.vmlinuz, kernel.initramfs, lab.home.cache)
    return Acceleration("qemu", "no kernel of the plan could be fetched to prove KVM with")


def _tell(listener: Listener) -> Callable[[str, int, Stage], None]:
    return lambda cell_id, number, stage: listener.rung(cell_id, number, stage.value)


def _available_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return _HOST_RESERVE


def _remove_empty(folder: Path) -> None:
    for one in (folder, folder.parent):
        try:
            one.rmdir()
        except OSError:
            return


def exit_code(attempts: Sequence[Attempt], cells: Sequence[Cell], planned: Mapping[str, int]) -> int:
    """Return 0 all pass, 1 findings, 3 nothing ran, 4 infrastructure trouble or cells without a result left gaps.

    A finding outweighs a gap: what failed is known whatever else is missing. A device or lab box that did not come back
    well is trouble, too, although the cell that had it keeps its result.
    """
    outcomes = [attempt.outcome for attempt in attempts]
    if any(outcome in (Outcome.FAIL, Outcome.ERROR) for outcome in outcomes):
        return 1
    done: dict[str, int] = {}
    for attempt in attempts:
        done[attempt.cell_id] = done.get(attempt.cell_id, 0) + 1
    gaps = any(done.get(cell.id, 0) < planned.get(cell.id, cell.boots) for cell in cells)
    if any(outcome is Outcome.MISS for outcome in outcomes) or (gaps and outcomes):
        return 4
    if any(attempt.trouble for attempt in attempts):
        return 4
    if not outcomes or all(outcome is Outcome.SKIP for outcome in outcomes):
        return 3
    return 0
