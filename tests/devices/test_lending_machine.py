"""Any interleaving of lending, dying, reaping and rebooting: never two owners, never a lost device.

Two tests. In the first, processes are simulated, so that each can die before, after and during each single act, and
hypothesis looks for the order that breaks a rule. In the second they are real, and die by SIGKILL at random moments.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import harness
from devices.host import BRIEF, GPU, UNITS, Host
from devices.simulator import VFIO
from harness.devices.borrow import Borrowed, Lender
from harness.devices.hostwide import HostDirectory
from harness.devices.leases import Lease, LeaseLost, Original
from harness.devices.writes import Stuck
from harness.errors import InfraError
from harness.journal import Owner

ROOT = Path(harness.__file__).parents[1]
ADDRESSES = list(UNITS)


class Killed(BaseException):
    """The process is dead: whatever it still tries has no effect."""


@dataclass(frozen=True)
class Fate:
    """What happens to a process at which of its next acts."""

    how: str
    act: str
    after: int
    """How many acts of that name go well before."""


@dataclass
class Child:
    """A write that the kernel has not come back from; it has the lock of the lease."""

    parent: int
    hold: int
    act: Callable[[], None]

    @property
    def inode(self) -> int:
        return os.fstat(self.hold).st_ino


@dataclass
class Process:
    """A simulated process: what it does to the host goes through :meth:`tick`, which may end it there."""

    host: Host
    owner: Owner
    children: list[Child]
    fate: Fate | None = None
    struck: bool = False
    loans: dict[str, tuple[AbstractContextManager[Borrowed], Borrowed]] = field(default_factory=dict)
    leases: list[Lease] = field(default_factory=list)
    """All that it ever had."""

    @property
    def dead(self) -> bool:
        return self.owner.pid in self.host.dead

    def lender(self) -> Lender:
        lender = Lender(
            self.host.root,
            self.host.directory,
            writes=self,
            owner=lambda: self.owner,
            alive=self.host.alive,
            now=lambda: self.host.now,
            patience=BRIEF,
        )
        lender.leases.directory = MortalDirectory(self.host.directory, self)
        lender.quarantine._directory = MortalDirectory(self.host.directory, self)
        return lender

    def tick(self, name: str, act: Callable[[], Any], hold: int | None = None) -> Any:
        """Do one thing, or die before it, after it, or while a child does it; or be told that it does not come back."""
        if self.dead:
            raise Killed
        how = ""
        if self.fate is not None and self.fate.act == name:
            if self.fate.after:
                self.fate = replace(self.fate, after=self.fate.after - 1)
            elif hold is not None or self.fate.how in ("before", "after"):
                how, self.fate, self.struck = self.fate.how, None, True
        if hold is not None and how in ("during", "stuck"):
            self.children.append(Child(self.owner.pid, os.dup(hold), act))
        if how == "stuck":
            raise Stuck("the simulated kernel did not come back")
        if how in ("before", "during"):
            self.die()
        done = act()
        if how == "after":
            self.die()
        return done

    def die(self) -> None:
        self.host.dead.add(self.owner.pid)
        raise Killed

    # harness.devices.writes.Writes

    def write(self, path: Path, text: str, *, timeout: float, hold: int) -> None:
        mine = [child for child in self.children if child.parent == self.owner.pid]
        if any(child.inode == os.fstat(hold).st_ino for child in mine):
            raise Stuck("an earlier write has not come back")
        # A child has a descriptor of its own for the lock, which outlives this process.
        self.tick(path.name, lambda: self.host.kernel.write(path, text, timeout=timeout, hold=0), hold)

    def read(self, path: Path, *, timeout: float, hold: int) -> str:
        text: str = self.tick("read", lambda: self.host.kernel.read(path, timeout=timeout, hold=hold))
        return text

    def load(self, module: str, *, timeout: float, hold: int) -> None:
        self.tick("load", lambda: self.host.kernel.load(module, timeout=timeout, hold=hold))


class MortalDirectory(HostDirectory):
    """The directory as a process that can die writes to it."""

    def __init__(self, path: Path, process: Process) -> None:
        super().__init__(path)
        object.__setattr__(self, "process", process)

    def write(self, subject: str, kind: str, data: bytes) -> None:
        self.process.tick("record", lambda: super(MortalDirectory, self).write(subject, kind, data))

    def remove(self, path: Path) -> None:
        self.process.tick("record", lambda: super(MortalDirectory, self).remove(path))

    process: Process


@cache
def _place() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


@cache
def _host() -> Host:
    return Host(Path(_place().name))


def empty_host() -> Host:
    """A host without leases, after a boot. One tree is unfolded for all examples, as that is most of their time."""
    host = _host()
    host.kernel.set_up(GPU, "nouveau", "")
    for path in host.directory.iterdir():
        path.unlink()
    host.reboot()
    host.kernel.before = host.kernel.after = lambda _act, _about: None
    return host


units = st.sampled_from(ADDRESSES)
acts = (
    "record",
    "read",
    "driver_override",
    "unbind",
    "drivers_probe",
    "bind",
    "reset_method",
    "reset",
    "remove",
    "rescan",
)
fates = st.builds(
    Fate, st.sampled_from(["before", "after", "during", "stuck"]), st.sampled_from(acts), st.integers(0, 3)
)
picks = st.integers(0, 3)


class Lending(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.host = empty_host()
        self.boot = self.host.kernel.state()
        self.processes: list[Process] = []
        self.children: list[Child] = []
        self.tokens: list[int] = []
        self.sick: set[str] = set()

    # The processes

    def living(self, pick: int) -> Process:
        alive = [process for process in self.processes if not process.dead]
        if pick < len(alive):
            return alive[pick]
        self.processes.append(Process(self.host, self.host.process(), self.children))
        return self.processes[-1]

    def holder(self, address: str) -> Process | None:
        holders = [process for process in self.processes if not process.dead and address in process.loans]
        assert len(holders) <= 1, f"{address} has two owners"
        return holders[0] if holders else None

    def pending(self, address: str) -> bool:
        hold = self.host.directory / f"{address}.hold"
        return hold.exists() and any(child.inode == hold.stat().st_ino for child in self.children)

    def bury(self, process: Process) -> None:
        """The kernel closes what a dead process had open, and runs nothing of it."""
        self.host.dead.add(process.owner.pid)
        for lending, _ in process.loans.values():
            with contextlib.suppress(Killed):
                lending.gen.close()  # type: ignore[attr-defined]
        process.loans.clear()

    @rule(pick=picks, address=units)
    def borrow(self, pick: int, address: str) -> None:
        self.try_to_borrow(pick, address, None)

    @rule(pick=picks, address=units, fate=fates)
    def borrow_with_a_fate(self, pick: int, address: str, fate: Fate) -> None:
        self.try_to_borrow(pick, address, fate)

    def try_to_borrow(self, pick: int, address: str, fate: Fate | None) -> None:
        process = self.living(pick)
        holder = self.holder(address)
        quarantined = self.host.lender().quarantine.of(UNITS[address])
        free = not (holder or quarantined or self.pending(address) or address in self.sick)
        process.fate, process.struck = fate, False
        lending = process.lender().borrow(self.host.units[address], "cell", 0)
        refused = None
        try:
            borrowed = lending.__enter__()
        except Killed:
            return self.bury(process)
        except InfraError as error:
            refused = str(error)
        finally:
            process.fate = None
        if refused is not None:
            assert process.struck or not free, f"{address} was to be had, and {refused}"
            assert not holder or quarantined or f"pid {holder.owner.pid} of" in refused, "the holder is named"
            return None
        assert holder is None, f"{address} has two owners"
        assert not quarantined
        assert not self.pending(address), "it was lent while a write to it was under way"
        process.loans[address] = (lending, borrowed)
        process.leases.append(borrowed.check.__self__)  # type: ignore[attr-defined]
        assert all(borrowed.token > token for token in self.tokens), "a token did not grow"
        self.tokens.append(borrowed.token)
        return None

    def loans(self) -> list[tuple[Process, str]]:
        return [(process, address) for process in self.processes if not process.dead for address in process.loans]

    @precondition(loans)
    @rule(data=st.data(), interrupted=st.booleans())
    def give_back(self, data: st.DataObject, interrupted: bool) -> None:
        self.try_to_give_back(*data.draw(st.sampled_from(self.loans())), None, interrupted)

    @precondition(loans)
    @rule(data=st.data(), fate=fates, sick=st.booleans())
    def give_back_with_a_fate(self, data: st.DataObject, fate: Fate, sick: bool) -> None:
        process, address = data.draw(st.sampled_from(self.loans()))
        if sick:
            self.health(address, well=False)
        self.try_to_give_back(process, address, fate, False)

    def try_to_give_back(self, process: Process, address: str, fate: Fate | None, interrupted: bool) -> None:
        lending, borrowed = process.loans.pop(address)
        process.fate, process.struck = fate, False
        error = KeyboardInterrupt() if interrupted else None
        try:
            with contextlib.suppress(KeyboardInterrupt):
                lending.__exit__(type(error) if error else None, error, None)
        except Killed:
            return self.bury(process)
        finally:
            process.fate = None
        if not process.struck and address not in self.sick:
            assert borrowed.trouble == ""
            assert {function: self.host.kernel.state()[function] for function in UNITS[address]} == {
                function: self.boot[function] for function in UNITS[address]
            }
            assert address not in [record.unit for record in self.host.lender().leases.held()]
        if address in self.sick:
            assert borrowed.trouble
        return None

    @precondition(lambda self: any(not process.dead for process in self.processes))
    @rule(pick=picks)
    def kill(self, pick: int) -> None:
        self.bury(self.living(pick))

    @rule(pick=picks, fate=st.none() | fates)
    def reap(self, pick: int, fate: Fate | None) -> None:
        process = self.living(pick)
        process.fate, process.struck = fate, False
        try:
            process.lender().reap()
        except Killed:
            return self.bury(process)
        finally:
            process.fate = None
        if not process.struck and not self.children:
            living = [one.owner for one in self.processes if not one.dead]
            assert all(record.owner in living for record in self.host.lender().leases.held())
        return None

    @rule()
    def use_leases_that_are_over(self) -> None:
        before = self.host.lender().leases.held()
        for process in self.processes:
            current = [borrowed.token for _, borrowed in process.loans.values()]
            for lease in process.leases:
                if lease.token not in current and not process.dead:
                    with pytest.raises(LeaseLost):
                        lease.check()
                    with pytest.raises(LeaseLost):
                        lease.touching((Original(lease.record.unit, "wrong", "wrong"),))
                    with pytest.raises(LeaseLost):
                        lease.release()
        assert self.host.lender().leases.held() == before

    # The host

    @precondition(lambda self: bool(self.children))
    @rule(done=st.booleans())
    def the_kernel_comes_back(self, done: bool) -> None:
        child = self.children.pop(0)
        if done:
            with contextlib.suppress(OSError):
                child.act()
        os.close(child.hold)

    @rule(reserved=st.booleans())
    def reboot(self, reserved: bool) -> None:
        """The administrator may have changed which driver gets the GPU at boot."""
        for process in self.processes:
            self.bury(process)
        self.drop_children()
        self.host.kernel.set_up(GPU, *((VFIO, VFIO) if reserved else ("nouveau", "")))
        self.host.reboot()
        self.boot = self.host.kernel.state()
        self.sick.clear()

    @rule(address=units, act=st.sampled_from(["add", "lift", "wait a day"]))
    def quarantine(self, address: str, act: str) -> None:
        quarantine = self.host.lender().quarantine
        if act == "add":
            quarantine.add(address, "test")
        elif act == "lift":
            quarantine.lift(address)
        else:
            self.host.pass_time(timedelta(days=1))

    @rule(address=units, well=st.booleans())
    def health(self, address: str, well: bool) -> None:
        if self.host.kernel.device(address).exists():
            (self.host.kernel.recover if well else self.host.kernel.fall_off)(address)
            (self.sick.discard if well else self.sick.add)(address)

    # What must always hold

    @invariant()
    def whoever_holds_a_device_has_it(self) -> None:
        for address, functions in UNITS.items():
            holder = self.holder(address)
            if holder is not None:
                holder.loans[address][1].check()
                assert {self.host.kernel.driver(function) for function in functions} == {VFIO}

    @invariant()
    def no_device_is_lost(self) -> None:
        state = self.host.kernel.state()
        records = self.host.lender().leases.held()
        for function, original in self.boot.items():
            if state.get(function) == original:
                continue
            owned = [record for record in records if function in record.functions]
            assert len(owned) == 1, f"{function} is {state.get(function)}, was {original}, and nobody has it"
            recorded = {one.address: (one.driver, one.override, one.reset_method) for one in owned[0].originals}
            assert recorded.get(function) == original, f"the way back of {function} is forgotten"

    def drop_children(self) -> None:
        while self.children:
            os.close(self.children.pop().hold)

    def teardown(self) -> None:
        """Whatever happened: when all is quiet, one reaping brings every device back."""
        try:
            while self.children:
                self.the_kernel_comes_back(done=True)
            for address in ADDRESSES:
                self.health(address, well=True)
            for process in self.processes:
                self.bury(process)
            self.host.lender().reap()
            for address in ADDRESSES:
                self.health(address, well=True)
            assert self.host.kernel.state() == self.boot
            assert self.host.lender().leases.held() == []
        finally:
            self.drop_children()


Lending.TestCase.settings = settings(
    max_examples=200, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLending = Lending.TestCase


# Real processes, real signals

WORKER = """
import json, os, random, sys, time
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests"]
from devices.host import UNITS, unit_at
from harness.devices.borrow import Lender, Patience
from harness.devices.writes import ChildWrites
from harness.errors import InfraError
from harness.model.device import PassthroughUnit, PciFunction
base = Path(sys.argv[2])
root, directory, diary = base / "root", base / "leases", base / "diary"
simulator = Path(sys.argv[1], "tests/devices/simulator.py")
lender = Lender(root, directory, writes=ChildWrites((sys.executable, str(simulator), str(root))),
                patience=Patience(30, 30, 0))
units = {address: PassthroughUnit(tuple(PciFunction(**one) for one in functions))
         for address, functions in json.loads((base / "units.json").read_text()).items()}
def note(**words):
    handle = os.open(diary, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(handle, json.dumps(words).encode() + b"\\n")
    os.close(handle)
while True:
    address = random.choice(sorted(units))
    try:
        with lender.borrow(units[address], f"worker {os.getpid()}", 20) as borrowed:
            note(unit=address, token=borrowed.token)
            inside = base / f"inside-{address}"
            try:
                os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                other = inside.read_text()
                if other and Path("/proc", other).exists():
                    note(error=f"{os.getpid()} found {other} in {address}")
            inside.write_text(str(os.getpid()))
            time.sleep(random.random() / 20)
            for function in UNITS[address]:
                driver = os.readlink(root / "sys/bus/pci/devices" / function / "driver").rpartition("/")[2]
                if driver != "vfio-pci":
                    note(error=f"{function} has {driver} while {os.getpid()} has it")
            inside.unlink()
        if borrowed.trouble:
            note(error=borrowed.trouble)
    except InfraError as error:
        note(refused=str(error))
    except Exception as error:
        note(error=repr(error))
        raise
"""


@pytest.fixture
def contended(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    plain = {
        address: [
            {name: getattr(one, name) for name in ("address", "vendor", "device", "class_code", "group")}
            for one in unit.functions
        ]
        for address, unit in host.units.items()
        if address != ADDRESSES[1]  # two units, so that most wait
    }
    (tmp_path / "units.json").write_text(json.dumps(plain))
    return host


def test_processes_that_are_killed_at_random_share_devices_without_harm(contended: Host) -> None:
    host = contended
    before = host.kernel.state()
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", WORKER, str(ROOT), str(host.base)])

    workers = [start() for _ in range(4)]
    killed = 0
    deadline = time.monotonic() + 25
    try:
        while not (host.base / "diary").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            time.sleep(chance.uniform(0.1, 0.7))
            victim = chance.randrange(len(workers))
            assert workers[victim].poll() is None, f"a worker ended by itself (seed {seed})"
            workers[victim].send_signal(signal.SIGKILL)
            workers[victim].wait()
            workers[victim] = start()
            killed += 1
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    last = Lender(host.root, host.directory, writes=host.kernel, patience=BRIEF)
    while lines := [line for line in last.reap() if "left alone" in line]:
        assert all("has not come back from the kernel" in line for line in lines), lines
        assert time.monotonic() < deadline + 60
        time.sleep(0.2)
    diary = [json.loads(line) for line in (host.base / "diary").read_text().splitlines()]
    assert [entry for entry in diary if "error" in entry] == [], f"seed {seed}"
    tokens: dict[str, list[int]] = {}
    for entry in diary:
        if "token" in entry:
            tokens.setdefault(entry["unit"], []).append(entry["token"])
    assert all(found == sorted(set(found)) for found in tokens.values()), f"tokens did not grow (seed {seed})"
    assert killed >= 8
    assert sum(map(len, tokens.values())) >= 4, "too little happened to prove anything"
    assert host.kernel.state() == before
    assert host.lender().leases.held() == []
