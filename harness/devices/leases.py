"""Leases: one device, one owner. A unit (all functions that go together) is one lease.

A lease is a record in the host's directory: who holds which functions for what, since when, with a *token* that is
larger than any before it, and, from the moment before the first write to the device, the *originals*: what driver and
``driver_override`` each function had. What somebody was killed with is put back from them.

Who holds a unit also keeps a lock of the kernel on it, and hands the open file to the children that write to the
device. So a unit is free only when its holder *and* every write that it had begun are gone, in whatever process or
container they run. A record says which process that was; a lease is never taken from one that lives.

The record of another user is replaced by one's own with a larger token: the largest token is the truth.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, final

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from harness.devices.hostwide import HostDirectory, Said, printable, user_name
from harness.errors import InfraError
from harness.journal import Owner, owner_alive
from harness.model.device import PassthroughUnit

_KIND = "lease"
_POLL = 0.5
"""Seconds between two looks at a unit that another holds."""
_STRICT = ConfigDict(extra="forbid", strict=True)
_Address = Annotated[str, Field(pattern=r"^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$")]
_Name = Annotated[str, Field(pattern=r"^[^/\x00-\x1f\x7f]{0,64}$")]
"""Of a driver; it becomes part of a path."""
_Line = Annotated[str, Field(max_length=400, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]


class Leased(InfraError):
    """Another holds it, or a write of a dead holder is still under way: it may be free later."""


class LeaseLost(InfraError):
    """The lease is not ours any more: nothing may be written to its device."""


class Phase(StrEnum):
    """How far a lease has come."""

    LEASED = "leased"
    """Nothing of the device was touched."""
    TOUCHED = "touched"
    """Its functions may have other drivers than the originals."""
    ABANDONED = "abandoned"
    """Its owner could not put the originals back and gave up; whoever can may try."""
    RELEASED = "released"
    """Free. The record stays, so that tokens keep growing."""


@checked_dataclass(frozen=True, slots=True, config=_STRICT)
class Original:
    """What a function was like before it was lent."""

    address: _Address
    driver: _Name
    """Empty when it had none."""
    override: _Name
    """``driver_override``; empty when unset."""
    reset_method: _Line = ""
    """Text of the file of that name; empty when there is none."""


@checked_dataclass(frozen=True, slots=True, config=_STRICT)
class LeaseRecord:
    """What the host's directory says about a unit."""

    format: Literal["kdmatrix-lease-1"]
    unit: _Address
    functions: Annotated[tuple[_Address, ...], Field(min_length=1, max_length=256)]
    token: Annotated[int, Field(gt=0)]
    phase: Phase
    owner: Owner
    uid: int
    what: _Line
    """What it is leased for: a run and its cell."""
    since: _Line
    """UTC, ISO 8601."""
    originals: Annotated[tuple[Original, ...], Field(max_length=256)] = ()
    note: _Line = ""
    """Why it was abandoned."""

    def holder(self) -> str:
        """Who holds it, in words."""
        return f"pid {self.owner.pid} of {user_name(self.uid)} for {self.what}, since {self.since[:19]} UTC"


_RECORD = TypeAdapter(LeaseRecord)


@final
@dataclass(slots=True)
class Lease:
    """The right to a unit, held by this process."""

    leases: Leases
    record: LeaseRecord
    hold: int
    """Descriptor of the kernel's lock: children that write to the device inherit it. -1 after the end."""

    @property
    def token(self) -> int:
        """Larger than that of every lease before it."""
        return self.record.token

    def check(self) -> None:
        """Make sure that the lease is still ours: before each write to the device, and before a VM gets it.

        Raises:
            LeaseLost: it was released, or another has a larger token.
        """
        with self.leases.directory.locked():
            self._check()
        if self.hold < 0:
            raise LeaseLost(f"lease {self.token} of {self.record.unit} is not valid any more: it was let go")

    def touching(self, originals: tuple[Original, ...]) -> None:
        """Record what the functions are like; durable when it returns, and only then may they be changed."""
        self._become(replace(self.record, phase=Phase.TOUCHED, originals=originals))

    def release(self) -> None:
        """Give the unit back: it is as it was.

        Raises:
            LeaseLost: the lease is not ours any more; nothing was changed.
        """
        try:
            self._become(replace(self.record, phase=Phase.RELEASED, originals=()))
        finally:
            self.let_go()

    def abandon(self, why: str) -> None:
        """Give up: the unit is not as it was. Its record stays for whoever can put it back, this process included."""
        try:
            self._become(replace(self.record, phase=Phase.ABANDONED, note=printable(why, 400)))
        finally:
            self.let_go()

    def let_go(self) -> None:
        """Close the kernel's lock; children that still write keep it."""
        if self.hold >= 0:
            os.close(self.hold)
            self.hold = -1

    def _become(self, record: LeaseRecord) -> None:
        with self.leases.directory.locked():
            self._check()
            self.leases._write(record)
            self.record = record

    def _check(self) -> None:
        current = self.leases._current().get(self.record.unit)
        if current is None:
            raise LeaseLost(f"lease {self.token} of {self.record.unit} is gone: its record was removed")
        mine = (current.token, current.owner) == (self.token, self.record.owner)
        if not mine or current.phase in (Phase.RELEASED, Phase.ABANDONED):
            now = f"token {current.token} is {current.phase}"
            raise LeaseLost(f"lease {self.token} of {self.record.unit} is not valid any more: {now}")


Restore = Callable[[Lease], str]
"""Puts back the originals of a lease's record (there may be none), and says what it did. Raises InfraError."""


@final
class Leases:
    """The leases of this host."""

    __slots__ = ("_alive", "_owner", "directory")

    def __init__(
        self,
        directory: Path,
        *,
        owner: Callable[[], Owner] = Owner.current,
        alive: Callable[[Owner], bool] = owner_alive,
    ) -> None:
        self.directory = HostDirectory(directory)
        self._owner = owner
        self._alive = alive

    def acquire(self, unit: PassthroughUnit, what: str, wait: float, restore: Restore | None = None) -> Lease:
        """Lease a unit, waiting up to ``wait`` seconds while another holds it or one of its functions.

        What a dead holder left is put back with ``restore`` first.

        Raises:
            Leased: who holds it.
            InfraError: why what a dead holder left cannot be undone.
        """
        deadline = time.monotonic() + wait
        functions = tuple(function.address for function in unit.functions)
        while True:
            orphan = None
            with self.directory.locked():
                blocker = self._blocker(functions)
                if blocker is None:
                    hold = self.directory.hold(unit.address)
                    if hold is not None:
                        return self._take(unit.address, functions, what, hold)
                    trouble = f"{unit.address} has no lease, yet a process keeps its lock"
                elif self._gone(blocker):
                    orphan = self._take_over(blocker)
                    trouble = (
                        f"{blocker.unit} was left by {blocker.holder()}, and a write of it to the device has not "
                        "come back from the kernel"
                    )
                else:
                    trouble = f"{blocker.unit} is leased: {blocker.holder()}"
            if orphan is not None:
                self._undo(orphan, restore)
            elif time.monotonic() >= deadline:
                raise Leased(trouble + (f"; waited {wait:.0f} s" if wait else ""))
            else:
                # A holder that is killed cannot wake anybody.
                time.sleep(max(0.0, min(_POLL, deadline - time.monotonic())))

    def held(self) -> list[LeaseRecord]:
        """Return what is not free, by address; also what a dead process holds, until it is reaped."""
        if not self.directory.exists():
            return []
        found = (record for _, record in sorted(self._current().items()))
        return [record for record in found if record.phase is not Phase.RELEASED]

    def gone(self, record: LeaseRecord) -> bool:
        """Whether nobody will give a held unit back: its owner is dead, or from before the reboot, or gave up."""
        return self._gone(record)

    def reap(self, restore: Restore) -> list[str]:
        """Put back and free what dead owners hold; return a line for each. Harmless when repeated."""
        if not self.directory.exists():
            return []
        done: list[str] = []
        with self.directory.locked():
            self.directory.remove_unfinished()
            done += self._discard_unreadable()
        for record in self.held():
            line = self._reap(record, restore)
            done += [line] if line else []
        return done

    def _reap(self, record: LeaseRecord, restore: Restore) -> str:
        try:
            with self.directory.locked():
                current = self._current().get(record.unit)
                if current is None or current.phase is Phase.RELEASED or not self._gone(current):
                    return ""
                orphan = self._take_over(current)
            if orphan is None:
                return f"{record.unit}: left alone: a write of {record.holder()} has not come back from the kernel"
            return f"{record.unit}: {self._undo(orphan, restore)} (left by {record.holder()})"
        except InfraError as error:
            return f"{record.unit}: left alone: {error}"

    def _undo(self, orphan: Lease, restore: Restore | None) -> str:
        """Put back what a dead owner left, then free it."""
        try:
            if restore is not None:
                said = restore(orphan)
            elif orphan.record.originals:
                raise InfraError(f"{orphan.record.unit} was left half-lent by a killed run: run kdmatrix clean")
            else:
                said = "freed"
        except InfraError as error:
            orphan.abandon(str(error))
            raise
        except BaseException:
            orphan.let_go()  # the record names this process: whoever comes after it goes on
            raise
        orphan.release()
        return said

    def _take(self, unit: str, functions: tuple[str, ...], what: str, hold: int) -> Lease:
        try:
            record = LeaseRecord(
                format="kdmatrix-lease-1",
                unit=unit,
                functions=functions,
                token=self._next_token(),
                phase=Phase.LEASED,
                owner=self._owner(),
                uid=os.geteuid(),
                what=printable(what),
                since=datetime.now(UTC).isoformat(timespec="seconds"),
            )
            self._write(record)
        except BaseException:
            os.close(hold)
            raise
        return Lease(self, record, hold)

    def _take_over(self, record: LeaseRecord) -> Lease | None:
        """Become the owner of what a dead one left, its originals included; None while a write of it is under way."""
        # No binding outlives a reboot, so there is nothing to put back, and what is bound now is what was set up.
        touched = bool(record.originals) and record.owner.boot_id == self._owner().boot_id
        if touched and record.uid != os.geteuid():
            who = user_name(record.uid)
            if os.geteuid() != 0:
                raise InfraError(f"{record.unit} was left half-lent by {who}: run kdmatrix clean as root")
            if record.uid != 0:
                raise InfraError(
                    f"{record.unit} was left half-lent by {who}, and root does not write to devices what others "
                    f"say: have {who} run kdmatrix clean"
                )
        hold = self.directory.hold(record.unit)
        if hold is None:
            return None
        try:
            mine = replace(
                record,
                token=self._next_token(),
                phase=Phase.TOUCHED if touched else Phase.LEASED,
                owner=self._owner(),
                uid=os.geteuid(),
                originals=record.originals if touched else (),
            )
            self._write(mine)
        except BaseException:
            os.close(hold)
            raise
        return Lease(self, mine, hold)

    def _gone(self, record: LeaseRecord) -> bool:
        if record.phase is Phase.ABANDONED:
            return True
        # The directory is of this host, whatever its name was then: another boot id is an earlier boot.
        return record.owner.boot_id != self._owner().boot_id or not self._alive(record.owner)

    def _blocker(self, functions: tuple[str, ...]) -> LeaseRecord | None:
        for said, record in self._all():
            if isinstance(record, str) and said.subject in functions:
                who = user_name(said.uid)
                raise InfraError(f"what {who} says about {said.subject} cannot be read: {said.path}: {record}")
        held = (record for record in self._current().values() if record.phase is not Phase.RELEASED)
        return next((record for record in held if not set(functions).isdisjoint(record.functions)), None)

    def _current(self) -> dict[str, LeaseRecord]:
        current: dict[str, LeaseRecord] = {}
        for _, record in self._all():
            if not isinstance(record, str) and record.token > (
                current[record.unit].token if record.unit in current else 0
            ):
                current[record.unit] = record
        return current

    def _all(self) -> list[tuple[Said, LeaseRecord | str]]:
        """Every record of the directory, or why it is none."""
        return [(said, _load(said)) for said in self.directory.read(_KIND)]

    def _next_token(self) -> int:
        return 1 + max((record.token for _, record in self._all() if not isinstance(record, str)), default=0)

    def _discard_unreadable(self) -> list[str]:
        """Remove what a user wrote that is no record; one of root's may be a newer version's and is left."""
        done = []
        for said, record in self._all():
            if isinstance(record, str) and said.uid != 0:
                with contextlib.suppress(InfraError):
                    self.directory.remove(said.path)
                    done.append(f"{said.subject}: removed {said.path.name}: {record}")
        return done

    def _write(self, record: LeaseRecord) -> None:
        self.directory.write(record.unit, _KIND, _RECORD.dump_json(record, indent=1) + b"\n")


def _load(said: Said) -> LeaseRecord | str:
    if said.data is None:
        return said.reason
    try:
        record = _RECORD.validate_json(said.data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    if (record.unit, record.uid) != (said.subject, said.uid):
        return "it is about another device, or of another user, than its name says"
    return record
