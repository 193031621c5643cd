"""Lends a device to a VM for the length of a block, and takes it back on every way out.

    lease → probe → record → bind → (the VM) → reset → probe → restore → release

A process that is killed leaves a lease with the originals in it. The next one that wants the device, ``clean`` or the
start of any run finishes the way back in its place. What goes wrong before the VM has the device raises, and the device
goes back. What goes wrong on the way back does not raise, as the cell has its result by then: it is said in
:attr:`Borrowed.trouble`, and a device that is not well is put in quarantine, so that no other cell suffers from it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import final

from harness.devices import binding, health, reset
from harness.devices.binding import LeasedUnit
from harness.devices.holders import holders
from harness.devices.hostlog import HostComplaints, watched
from harness.devices.hostwide import lending_directory
from harness.devices.leases import Lease, LeaseLost, Leases
from harness.devices.pci import DEVICES, read_function
from harness.devices.quarantine import Quarantine
from harness.devices.writes import ChildWrites, Stuck, Writes
from harness.errors import InfraError
from harness.journal import Owner, owner_alive
from harness.model.device import PassthroughUnit, PciFunction


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the host may take, in seconds."""

    write: float = 30.0
    """For a driver to take a function or to let it go."""
    reset: float = reset.PATIENCE
    in_use: float = 30.0
    """For QEMU to close the device after its VM ended."""


@final
@dataclass(slots=True)
class Borrowed:
    """A unit that is ours and bound to vfio-pci, for a domain with ``managed='no'``."""

    unit: PassthroughUnit
    """As it was before it was bound."""
    functions: tuple[str, ...]
    """Addresses, in order."""
    token: int
    """Of the lease: larger than that of every earlier one."""
    facts: dict[str, str]
    """What is worth keeping with the cell's result; more comes when the device is back."""
    check: Callable[[], None]
    """Raises InfraError unless the lease is still ours: ask before a VM gets the device."""
    host_complaints: HostComplaints = field(default_factory=lambda: HostComplaints(not_collected="it is still lent"))
    """What the host's kernel said meanwhile; filled when the block has ended."""
    trouble: str = ""
    """What went wrong on the way back; empty when the device is as it was."""

    def hear(self, complaints: HostComplaints) -> None:
        """Note what the host's kernel said."""
        self.host_complaints = complaints
        self.facts["device.host_log"] = complaints.describe()


@final
class Lender:
    """Lends the devices of the host below ``root``.

    Args:
        root: what has ``sys``, ``proc`` and ``dev``.
        directory: of the leases and the quarantine; by default :func:`lending_directory`.
        writes: how the kernel is made to act.
        owner: the process that leases.
        alive: whether the process of an earlier lease still runs.
        now: the clock of the quarantine.
        patience: how long the host may take.
    """

    def __init__(
        self,
        root: Path = Path("/"),
        directory: Path | None = None,
        *,
        writes: Writes | None = None,
        owner: Callable[[], Owner] = Owner.current,
        alive: Callable[[Owner], bool] = owner_alive,
        now: Callable[[], datetime] = _now,
        patience: Patience = Patience(),
    ) -> None:
        directory = directory or lending_directory()
        self.leases = Leases(directory, owner=owner, alive=alive)
        self.quarantine = Quarantine(directory, now=now)
        self._root = root
        self._writes = writes or ChildWrites()
        self._patience = patience

    @contextlib.contextmanager
    def borrow(self, unit: PassthroughUnit, what: str, wait: float) -> Iterator[Borrowed]:
        """Have a unit for the block. The VM must have ended when the block does.

        Who needs several units takes them in the order of their addresses, so that no two wait for each other.

        Args:
            unit: the unit.
            what: what for, told to those who wait: the run and its cell.
            wait: seconds to wait while another holds it.

        Raises:
            InfraError: it is in quarantine, leased by another for longer than ``wait``, not well, or cannot be bound;
                or this user may not bind it.
        """
        self._admit(unit)
        lease = self.leases.acquire(unit, what, wait, self._finish)
        reach = self._reach(lease)
        try:
            self._admit(unit)  # the one before us may have put it in quarantine while we waited
            borrowed = self._lend(reach, unit)
        except BaseException as error:
            trouble = self._return(reach, error)
            if trouble and isinstance(error, Exception):
                raise InfraError(f"{error}; and {trouble}") from error
            raise
        bridges = {bridge for function in borrowed.unit.functions for bridge in function.bridges}
        with contextlib.ExitStack() as after, watched(self._root, borrowed.functions, bridges) as log:
            after.callback(lambda: borrowed.hear(log.complaints))
            try:
                yield borrowed
            finally:
                self._take_back(reach, borrowed)

    def reap(self) -> list[str]:
        """Take back what killed processes had borrowed; a line for each device. Harmless when repeated."""
        return self.leases.reap(self._finish)

    # The way out

    def _admit(self, unit: PassthroughUnit) -> None:
        addresses = tuple(function.address for function in unit.functions)
        if found := self.quarantine.of(addresses):
            raise InfraError(found.describe())
        present = [address for address in addresses if (self._root / DEVICES / address).exists()]
        foreign = [address for address in present if not binding.has_vfio_driver(self._root / DEVICES / address)]
        if foreign and not self._may_bind(foreign):
            raise InfraError(
                f"{foreign[0]} is not bound to {binding.VFIO}, and this user may not bind it: run as root, or have "
                f"root bind it once and for all: driverctl set-override {foreign[0]} {binding.VFIO}"
            )

    def _lend(self, reach: LeasedUnit, unit: PassthroughUnit) -> Borrowed:
        # First what may hang, and in children: from then on the files of the device can be read here.
        originals = binding.read_originals(reach)
        found = PassthroughUnit(tuple(read_function(self._root, address) for address in reach.functions))
        # The number of the group may be another: the kernel gives a new one to what it finds again on the bus.
        for before, now in zip(unit.functions, found.functions, strict=True):
            if before.ids != now.ids or now.group != found.group:
                raise InfraError(f"{now.address} is not the device any more that it was when the run was planned")
        # Looked at before, too, but not since the lease is ours: a program may have opened it meanwhile.
        if users := holders(found, self._root).found:
            raise InfraError(f"{found.address} is in use by {', '.join(map(str, users))}; nothing was changed")
        sick = [word for address in reach.functions for word in health.probe(self._root, address).sick]
        if sick:
            self._quarantine(reach, f"before it was lent: {'; '.join(sick)}")
            raise InfraError("; ".join(sick))
        if self._may_bind(reach.functions):
            reach.lease.touching(originals)
            binding.bind(reach)
        return Borrowed(found, reach.functions, reach.lease.token, self._facts(reach, found), reach.lease.check)

    def _facts(self, reach: LeasedUnit, unit: PassthroughUnit) -> dict[str, str]:
        gpu = unit.gpus[0] if unit.gpus else unit.functions[0]
        facts = {
            "device.functions": ", ".join(reach.functions),
            "device.ids": ", ".join(function.ids for function in unit.functions),
            "device.host_drivers": ", ".join(function.driver or "none" for function in unit.functions),
            "device.vfio": binding.vfio_nodes(reach),
            "device.reset_methods": " ".join(gpu.reset_methods) or reset.NO_METHOD,
            "device.lease": str(reach.lease.token),
        }
        if gpu.link and gpu.link.width:
            facts["device.link"] = health.link_words(gpu.link)
        return facts

    # The way back

    def _take_back(self, reach: LeasedUnit, borrowed: Borrowed) -> None:
        """Reset, look, restore, release. Raises nothing but an interrupt."""
        recorded = {function.address: function for function in borrowed.unit.functions}
        borrowed.trouble = self._end(reach, lambda: self._clear(reach, recorded, borrowed.facts))

    def _return(self, reach: LeasedUnit, error: BaseException) -> str:
        """Undo what was begun; the trouble with that, if any."""
        if isinstance(error, Stuck):
            self._quarantine(reach, str(error))
            self._give_up(reach, str(error))
            return ""
        return self._end(reach, lambda: "")

    def _finish(self, lease: Lease) -> str:
        """Finish the way back of a dead owner. Raises InfraError when the device is not what it was."""
        reach = self._reach(lease)
        try:
            sick = self._clear(reach, {}, {})
            said = binding.restore(reach, lease.record.originals) if lease.record.originals else "freed"
            return f"{said}, and put in quarantine: {sick}" if sick else said
        except Stuck as error:
            self._quarantine(reach, str(error))
            raise

    def _end(self, reach: LeasedUnit, clear: Callable[[], str]) -> str:
        """Clear the unit, restore and release it; the trouble with that, if any."""
        lease = reach.lease
        try:
            trouble = clear()
            if lease.record.originals:
                binding.restore(reach, lease.record.originals)
            lease.release()
        except LeaseLost as error:
            lease.let_go()
            had = ", ".join(f"{one.address} had {one.driver or 'no driver'}" for one in lease.record.originals)
            return f"{error}; nothing was restored: {had or 'nothing was changed'}"
        except _InUse as error:
            return self._give_up(reach, str(error))
        except InfraError as error:
            self._quarantine(reach, str(error))
            return self._give_up(reach, str(error))
        except BaseException as error:
            self._give_up(reach, f"interrupted: {error!r}")
            raise
        return trouble

    def _clear(self, reach: LeasedUnit, recorded: dict[str, PciFunction], facts: dict[str, str]) -> str:
        """Wait until nobody uses the unit, reset it and look at it. What is wrong then puts it in quarantine."""
        for address in filter(reach.present, reach.functions):
            reach.override(address)  # in a child: where this hangs, so would all that is read of it here
        self._wait_unused(reach)
        if not reach.lease.record.originals:
            facts["device.reset"] = "left to vfio-pci, as this user may not write to the device"
            return ""
        report = reset.reset(
            reach,
            lambda address: health.probe(self._root, address, recorded.get(address)).sick,
            self._patience.reset,
        )
        facts["device.reset"] = report.describe()
        if report.failed:
            facts["device.reset_failed"] = "; ".join(report.failed)
        looks = [health.probe(self._root, address, recorded.get(address)) for address in reach.functions]
        sick = "; ".join(report.sick)
        facts["device.health"] = "; ".join([*report.sick, *(note for look in looks for note in look.notes)]) or "well"
        if sick:
            self._quarantine(reach, f"after a cell and a reset ({report.describe()}): {sick}")
        return sick

    def _wait_unused(self, reach: LeasedUnit) -> None:
        """QEMU ends after its VM does; to take a device from it would wait in the kernel until then."""
        deadline = time.monotonic() + self._patience.in_use
        while users := self._users(reach):
            if time.monotonic() > deadline:
                raise _InUse(f"{reach.lease.record.unit} is still in use by {users}")
            time.sleep(0.25)  # the kernel tells nobody that a file was closed

    def _users(self, reach: LeasedUnit) -> str:
        """Who has the unit open through VFIO; the host's own drivers do not have it."""
        bound = tuple(address for address in reach.functions if binding.is_vfio(reach, address))
        unit = PassthroughUnit(tuple(read_function(self._root, address) for address in bound))
        return ", ".join(map(str, holders(unit, self._root).found)) if unit.gpus else ""

    def _give_up(self, reach: LeasedUnit, why: str) -> str:
        """Leave the unit to :meth:`reap`."""
        try:
            reach.lease.abandon(why)
        except InfraError as error:
            return f"{why}; {error}"
        return why

    def _quarantine(self, reach: LeasedUnit, why: str) -> None:
        # Where it cannot be written, the lease that is given up still keeps the device from others.
        with contextlib.suppress(InfraError):
            self.quarantine.add(reach.lease.record.unit, why)

    def _reach(self, lease: Lease) -> LeasedUnit:
        return LeasedUnit(self._root, lease, self._writes, self._patience.write)

    def _may_bind(self, addresses: tuple[str, ...] | list[str]) -> bool:
        """Whether this user may write to sysfs; also root may not, in a container."""
        paths = [self._root / DEVICES / address / "driver_override" for address in addresses]
        return all(os.access(path, os.W_OK) for path in (*paths, self._root / "sys/bus/pci/drivers_probe"))


class _InUse(InfraError):
    """A process still has the device, which says nothing against it."""
