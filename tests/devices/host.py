"""A host to lend from: an unfolded machine, the simulated kernel on it, and processes that can die."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from devices.recorded import RecordedMachine
from devices.simulator import MACHINE, SimulatedKernel
from harness.devices.binding import LeasedUnit
from harness.devices.borrow import Lender, Patience
from harness.devices.pci import read_function
from harness.journal import Owner
from harness.model.device import PassthroughUnit

GPU, SOUND = "0000:01:00.0", "0000:01:00.1"
"""nouveau and snd_hda_intel; one unit."""
ADMINS = "0000:02:00.0"
"""Given to vfio-pci by the administrator, with its sound."""
BARE = "0000:03:00.0"
"""Has no driver and no reset method."""
UNITS = {GPU: (GPU, SOUND), ADMINS: (ADMINS, "0000:02:00.1"), BARE: (BARE,)}
BRIEF = Patience(write=1.0, reset=1.0, in_use=0.0)


def unit_at(root: Path, address: str) -> PassthroughUnit:
    """The unit with that GPU, read now."""
    return PassthroughUnit(tuple(read_function(root, function) for function in UNITS[address]))


@dataclass
class Host:
    """One simulated host. Its processes share the leases; only :attr:`dead` ones do not count as alive."""

    base: Path
    root: Path = field(init=False)
    directory: Path = field(init=False)
    kernel: SimulatedKernel = field(init=False)
    boot: int = 1
    dead: set[int] = field(default_factory=set)
    now: datetime = datetime(2025, 3, 1, 12, tzinfo=UTC)
    _pids: itertools.count[int] = field(default_factory=lambda: itertools.count(1000))

    def __post_init__(self) -> None:
        recording = self.base / "machine.yaml"
        recording.write_text(MACHINE, encoding="utf-8")
        self.root = RecordedMachine(recording).unfold(self.base / "root")
        self.directory = self.base / "leases"
        self.directory.mkdir()
        self.kernel = SimulatedKernel(self.root)
        self.units = {address: unit_at(self.root, address) for address in UNITS}

    def process(self) -> Owner:
        """A process that was just started."""
        return Owner(next(self._pids), self.boot, f"boot-{self.boot}", "host")

    def alive(self, owner: Owner) -> bool:
        return owner.pid not in self.dead

    def lender(self, owner: Owner | None = None, patience: Patience = BRIEF) -> Lender:
        """What a process lends with."""
        owner = owner or self.process()
        return Lender(
            self.root,
            self.directory,
            writes=self.kernel,
            owner=lambda: owner,
            alive=self.alive,
            now=lambda: self.now,
            patience=patience,
        )

    def pass_time(self, length: timedelta) -> None:
        self.now += length

    def reboot(self) -> None:
        """All processes die, and all bindings are as after a boot."""
        self.boot += 1
        self.dead.update(range(1000, next(self._pids)))
        self.kernel.reboot()


def leased(host: Host, address: str) -> LeasedUnit:
    """A unit with a new lease."""
    lease = host.lender().leases.acquire(host.units[address], "test", 0)
    return LeasedUnit(host.root, lease, host.kernel, 1.0)
