"""Devices that are not lent for a while, because they did not come back well.

The record is the host's, as leases are, and outlives a reboot. It ends by itself, as a sick device is often well after
a power cycle and nobody remembers to say so; until then every cell that wants it is told the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal, final

from pydantic import AwareDatetime, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from harness.devices.hostwide import HostDirectory, Said, printable, user_name
from harness.devices.pci import is_address
from harness.errors import UserError

DAY = timedelta(hours=24)
_KIND = "quarantine"
_Line = Annotated[str, Field(max_length=400, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]


@checked_dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class _Stored:
    """The JSON of one record."""

    format: Literal["kdmatrix-quarantine-1"]
    address: _Line
    reason: _Line
    since: AwareDatetime
    until: AwareDatetime


_STORED = TypeAdapter(_Stored)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A device that is not lent."""

    address: str
    reason: str
    since: datetime | None
    until: datetime | None
    """None: until it is lifted, because the record cannot be read."""
    user: str
    """Who put it there."""
    path: Path

    def describe(self) -> str:
        """The whole of it in one line."""
        until = f"until {self.until:%Y-%m-%d %H:%M} UTC" if self.until else "until it is lifted"
        lift = f"kdmatrix devices --lift {self.address}"
        return f"{self.address} is in quarantine {until}: {self.reason}; to end that: {lift}"


def _now() -> datetime:
    return datetime.now(UTC)


@final
class Quarantine:
    """The devices of this host that are not lent."""

    __slots__ = ("_directory", "_now")

    def __init__(self, directory: Path, *, now: Callable[[], datetime] = _now) -> None:
        self._directory = HostDirectory(directory)
        self._now = now

    def add(self, address: str, reason: str, *, length: timedelta = DAY) -> Quarantined:
        """Put a device in quarantine from now on; durable when it returns. A later word replaces an earlier one.

        Raises:
            InfraError: this user may not write in the host's directory.
        """
        since = self._now().replace(microsecond=0)
        stored = _Stored("kdmatrix-quarantine-1", address, printable(reason, 400), since, since + length)
        with self._directory.locked():
            self._directory.write(address, _KIND, _STORED.dump_json(stored, indent=1) + b"\n")
        return next(found for found in self.active() if found.address == address)

    def active(self) -> list[Quarantined]:
        """Return what is in quarantine now, by address."""
        found = (_load(said) for said in self._directory.read(_KIND))
        return [record for record in found if record.until is None or record.until > self._now()]

    def of(self, addresses: tuple[str, ...]) -> Quarantined | None:
        """The first record about one of these functions."""
        return next((record for record in self.active() if record.address in addresses), None)

    def lift(self, address: str) -> list[Quarantined]:
        """End the quarantine of a device; return what was lifted.

        Raises:
            UserError: there is no such address.
            InfraError: it is another user's word, which only root or that user can take back.
        """
        if not is_address(address):
            raise UserError(f"{address} is no PCI address; one looks like 0000:01:00.0")
        if not self._directory.exists():
            return []
        lifted = [record for record in self.active() if record.address == address]
        with self._directory.locked():
            for said in self._directory.read(_KIND):
                if said.subject == address:
                    self._directory.remove(said.path)
        return lifted


def _load(said: Said) -> Quarantined:
    who = user_name(said.uid)
    try:
        if said.data is None:
            return Quarantined(said.subject, f"its record cannot be read: {said.reason}", None, None, who, said.path)
        stored = _STORED.validate_json(said.data)
    except ValidationError as error:
        reason = f"its record cannot be read: {error.errors(include_url=False, include_input=False)[0]['msg']}"
        return Quarantined(said.subject, reason, None, None, who, said.path)
    if stored.address != said.subject:
        return Quarantined(said.subject, "its record is about another device", None, None, who, said.path)
    return Quarantined(stored.address, stored.reason, stored.since, stored.until, who, said.path)
