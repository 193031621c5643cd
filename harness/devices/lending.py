"""From what a cell asks for to devices that it has: chosen, judged, borrowed together, given back together."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from harness.devices.borrow import Borrowed, Lender
from harness.devices.hostlog import Complaint
from harness.devices.leases import Leased
from harness.devices.matching import choose
from harness.devices.mdev import kind_of, mediated
from harness.devices.safety import HostView
from harness.errors import InfraError, UserError
from harness.journal import Journal
from harness.model.device import DeviceRequest, PassthroughUnit

_AGAIN = 1.0
"""Seconds until the host is looked at again while all devices that fit are lent."""
_HOST_FAULTS = frozenset({"aer", "link", "power", "reset"})
"""Complaints that no driver in a guest can bring about on a sound machine (its DMA may well fault at the IOMMU)."""


@dataclass(slots=True)
class Lent:
    """The devices of one cell."""

    borrowed: list[Borrowed] = field(default_factory=list)
    mediated: list[str] = field(default_factory=list)
    """UUIDs of mediated devices."""
    facts: dict[str, str] = field(default_factory=dict)
    """Kept with the cell's result; more comes when the devices are back."""
    complaints: list[Complaint] = field(default_factory=list)
    """What the host's kernel said of these devices; complete when they are back."""
    display: bool = False
    """Whether the VM is to have an emulated display beside them."""

    @property
    def units(self) -> tuple[PassthroughUnit, ...]:
        """What is passed through whole."""
        return tuple(one.unit for one in self.borrowed)

    @property
    def host_fault(self) -> str:
        """What speaks against the machine instead of the driver; empty when nothing does."""
        return next((one.text for one in self.complaints if one.kind in _HOST_FAULTS), "")

    def check(self) -> None:
        """Raise InfraError unless all leases are still ours."""
        for one in self.borrowed:
            one.check()


@final
@dataclass(frozen=True, slots=True)
class Desk:
    """Where the cells of a run get their devices."""

    lender: Lender
    journal: Journal
    root: Path = Path("/")
    forced: Collection[str] = ()
    """Addresses that the user wants taken although they are not safe."""

    def capacity(self, request: DeviceRequest) -> int:
        """How many cells with this request could have their devices at a time; at least one, to be told why not."""
        if request.mdev:
            functions = HostView(self.root).functions
            kinds = [kind for one in functions if (kind := kind_of(one, request.mdev)) is not None]
            return max(1, sum(kind.available for kind in kinds) // request.count)
        units, _ = self._fitting(request)
        return max(1, len(units) // request.count)

    @contextlib.contextmanager
    def lend(self, request: DeviceRequest, what: str, wait: float, stop: threading.Event) -> Iterator[Lent]:
        """Have what a request asks for during the block; the VM must have ended when the block does.

        Args:
            request: what is wanted.
            what: what for, told to those who wait.
            wait: seconds to wait while others have all that fits.
            stop: set when the run is to end; waiting then ends, too.

        Raises:
            InfraError: nothing fits or may be lent, with the reason for each device; or all is lent for too long.
        """
        lent = Lent(display=request.display)
        with ExitStack() as keeper:
            if request.mdev:
                self._mediate(request, lent, keeper)
            else:
                self._borrow(request, what, wait, stop, lent, keeper)
            self._describe(lent)
            yield lent
        for one in lent.borrowed:
            lent.complaints += one.host_complaints.unit
        self._describe(lent)

    def _mediate(self, request: DeviceRequest, lent: Lent, keeper: ExitStack) -> None:
        for _ in range(request.count):
            # The GPU stays with its driver and the host, so what speaks against lending it does not count.
            chosen = choose(request, HostView(self.root).survey())
            parents = [gpu for unit in chosen.units for gpu in unit.gpus]
            if not parents:
                raise InfraError(_too_few(request, (), chosen.refused))
            lent.mediated.append(keeper.enter_context(mediated(request.mdev, parents, self.journal, self.root)))

    def _borrow(
        self, request: DeviceRequest, what: str, wait: float, stop: threading.Event, lent: Lent, keeper: ExitStack
    ) -> None:
        deadline = time.monotonic() + wait
        unusable: dict[str, str] = {}
        while True:
            units, refused = self._fitting(request)
            units = tuple(unit for unit in units if unit.address not in unusable)
            if len(units) < request.count:
                raise InfraError(_too_few(request, units, refused | unusable))
            with ExitStack() as attempt:
                taken, busy = self._take(units, request.count, what, attempt, unusable)
                if len(taken) == request.count:
                    lent.borrowed += taken
                    keeper.push(attempt.pop_all())
                    return
            if unusable.keys() & {unit.address for unit in units}:
                continue  # with those that are left
            if time.monotonic() > deadline or stop.wait(_AGAIN):
                raise InfraError(f"all that fits {request.name} is taken: {'; '.join(busy)}")

    def _take(
        self, units: Sequence[PassthroughUnit], count: int, what: str, attempt: ExitStack, unusable: dict[str, str]
    ) -> tuple[list[Borrowed], list[str]]:
        """Take as many as are wanted of those that are free, the best first.

        Those that somebody else has are returned in words; what cannot be had for another reason, which waiting does
        not mend, is added to ``unusable``.
        """
        taken: list[Borrowed] = []
        busy: list[str] = []
        for unit in units:
            if len(taken) < count:
                try:
                    taken.append(attempt.enter_context(self.lender.borrow(unit, what, 0.0)))
                except Leased as error:
                    busy.append(f"{unit.address}: {error}")
                except InfraError as error:
                    unusable[unit.address] = str(error)
        return taken, busy

    def _fitting(self, request: DeviceRequest) -> tuple[tuple[PassthroughUnit, ...], dict[str, str]]:
        """The units that fit and may be lent, the best first, and why the others do not or may not."""
        view = HostView(self.root)
        surveyed = {one.unit.address: one for one in view.survey()}
        chosen = choose(request, tuple(surveyed.values()))
        refused = dict(chosen.refused)
        leased = {record.unit for record in self.lender.leases.held()}
        units = []
        for unit in chosen.units:
            force = request.force or unit.address in self.forced
            if put_aside := self.lender.quarantine.of(tuple(function.address for function in unit.functions)):
                refused[unit.address] = put_aside.describe()
                continue
            # What follows from its being lent by us is no reason against it, but one to wait.
            if found := surveyed[unit.address].refusals(force, leased=unit.address in leased):
                refused[unit.address] = f"{found[0].reason} ({found[0].fix})" if found[0].fix else found[0].reason
            else:
                units.append(unit)
        return tuple(units), refused

    def _describe(self, lent: Lent) -> None:
        for number, one in enumerate(lent.borrowed):
            place = "" if number == 0 else f".{number + 1}"
            lent.facts |= {name.replace("device.", f"device{place}.", 1): text for name, text in one.facts.items()}
            if one.trouble:
                lent.facts[f"device{place}.trouble"] = one.trouble
        if lent.mediated:
            lent.facts["device.mediated"] = ", ".join(lent.mediated)
        if lent.display:
            lent.facts["device.display"] = "emulated, beside it"


def what_force_does(addresses: Collection[str], root: Path = Path("/"), leased: Collection[str] = ()) -> list[str]:
    """Say of each device that the user forces what the host loses with it; of ``leased`` ones, beside being lent.

    Raises:
        UserError: there is no such device, or no force helps.
    """
    surveyed = {one.unit.address: one for one in HostView(root).survey()} if addresses else {}
    said = []
    for address in addresses:
        if address not in surveyed:
            known = ", ".join(surveyed) or "it has none"
            raise UserError(f"--force-device {address}: no GPU of this host has this address; known: {known}")
        one = surveyed[address]
        if never := one.refusals(force=True, leased=address in leased):
            fix = f"; {never[0].fix}" if never[0].fix else ""
            raise UserError(f"--force-device {address}: no force helps: {never[0].reason}{fix}")
        lost = (
            "; ".join(found.reason for found in one.refusals(leased=address in leased)) or "nothing speaks against it"
        )
        functions = ", ".join(function.address for function in one.unit.functions)
        said.append(f"{functions} is taken from the host until its cells have ended: {lost}")
    return said


def _too_few(request: DeviceRequest, units: Sequence[PassthroughUnit], refused: dict[str, str]) -> str:
    wanted = f"{request.count} devices" if request.count > 1 else "no device"
    have = f", and only {', '.join(unit.address for unit in units)} may be lent" if units else ""
    told = "; ".join(f"{address}: {reason}" for address, reason in sorted(refused.items()))
    subject = f"{wanted} for {request.name}{have}" if request.count > 1 else f"no device for {request.name}"
    return f"{subject}: {told or 'this host has no GPU that could be passed through'}"
