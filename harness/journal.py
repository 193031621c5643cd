"""What this host must undo: one small file per resource, written before the resource is made.

A killed process cleans up nothing. What it leaves behind is named by its journal entries, so that ``clean`` and the
next run can find it. An entry therefore exists on disk *before* the domain, process, path or driver binding does, and
disappears only after the resource is known to be gone. Undoing must be idempotent: an entry may stand for something
that was never made.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal, Self, final

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from harness.errors import InfraError
from harness.store.durable import TEMPORARY, fsync_directory, make_directory, write_file

_MAX_ENTRY = 1 << 20
_STRICT = ConfigDict(extra="forbid", strict=True)


@checked_dataclass(frozen=True, slots=True, config=_STRICT)
class Owner:
    """A process, told apart from every other that had or will have its number."""

    pid: Annotated[int, Field(gt=0)]
    start_time: Annotated[int, Field(ge=0)]
    """Clock ticks after boot; field 22 of ``/proc/PID/stat``, proc_pid_stat(5)."""
    boot_id: str
    """``/proc/sys/kernel/random/boot_id``, random(4): another one after each boot."""
    host: str

    @classmethod
    def current(cls) -> Owner:
        """Return the calling process."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> Owner:
        """Return a living process of this host, for a daemon that outlives its starter. Raises InfraError."""
        start_time = _start_time(pid)
        if start_time is None:
            raise InfraError(f"no process {pid} on this host")
        return cls(pid, start_time, _boot_id(), socket.gethostname())


def owner_alive(owner: Owner) -> bool:
    """Whether the process still runs. One on another host counts as alive: it cannot be known from here."""
    if owner.host != socket.gethostname():
        return True
    if owner.boot_id != _boot_id():
        return False
    start_time = _start_time(owner.pid)
    return start_time == owner.start_time if start_time is not None else _hidden(owner.pid)


def _hidden(pid: int) -> bool:
    """Whether the process exists but /proc does not show it to us: mounted with hidepid, proc(5)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False  # ours, so /proc would have shown it: a zombie, or just now started


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError as error:
        raise InfraError(f"the boot id of this host cannot be read: {error}") from error


def _start_time(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError as error:
        raise InfraError(f"process {pid} cannot be looked at: {error}") from error
    # Field 2 is the program's name in parentheses and may itself hold blanks and parentheses.
    fields = stat[stat.rindex(b")") + 2 :].split()
    # A zombie holds no resource any more; its parent has just not asked for its status.
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


@checked_dataclass(frozen=True, slots=True, config=_STRICT)
class _Record:
    """The JSON of one entry."""

    format: Literal["kdmatrix-journal-1"]
    kind: str
    name: str
    details: dict[str, str]
    owner: Owner
    run_id: str
    created: str


_RECORD = TypeAdapter(_Record)


@final
@dataclass(slots=True)
class Entry:
    """One resource that must be undone. As a context manager it goes away when the resource is known to be gone."""

    path: Path
    """The file of this entry."""
    kind: str
    """``domain``, ``process``, ``path``, ``daemon``, …: what knows how to undo it."""
    name: str
    details: dict[str, str]
    owner: Owner
    run_id: str
    created: str
    """UTC, ISO 8601."""
    _undo: ExitStack = field(default_factory=ExitStack, repr=False, compare=False)
    _has_undo: bool = field(default=False, repr=False, compare=False)

    def note(self, **details: str) -> None:
        """Add what became known only when the resource was made (a pid, a port); durable when it returns."""
        self.details = {**self.details, **details}
        self._write()

    def undo(self, clean_up: Callable[..., object], *args: object) -> None:
        """Have the ``with`` block end by calling ``clean_up(*args)``; last come, first called."""
        self._undo.callback(clean_up, *args)
        self._has_undo = True

    def done(self) -> None:
        """Forget the resource: it is gone. Harmless when repeated."""
        try:
            self.path.unlink(missing_ok=True)
            fsync_directory(self.path.parent)
        except FileNotFoundError:
            return
        except OSError as error:
            raise InfraError(f"journal entry cannot be removed: {self.path}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Run the registered clean-ups, then remove the entry, unless that would forget a living resource.

        A clean-up that raises keeps the entry. So does an exception out of a block that registered no clean-up:
        nothing tells whether it came from the body or from a clean-up inside the block. (Call :meth:`done` there.)
        """
        self._undo.close()
        if error is None or self._has_undo:
            self.done()

    def _write(self) -> None:
        record = _Record(
            format="kdmatrix-journal-1",
            kind=self.kind,
            name=self.name,
            details=self.details,
            owner=self.owner,
            run_id=self.run_id,
            created=self.created,
        )
        try:
            make_directory(self.path.parent)
            write_file(self.path, _RECORD.dump_json(record, indent=1) + b"\n")
        except OSError as error:
            raise InfraError(f"journal entry cannot be written: {self.path}: {error}") from error


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file in the journal's directory that is no entry."""

    path: Path
    reason: str


@final
class Journal:
    """The entries of one host, in the directory ``root``; any number of processes may share it."""

    __slots__ = ("root", "run_id")

    def __init__(self, root: Path, run_id: str = "") -> None:
        self.root = root
        self.run_id = run_id

    def entry(self, kind: str, name: str, /, **details: str) -> Entry:
        """Write an entry now, before the resource is made, and return it for use in a ``with`` statement."""
        created = datetime.now(UTC)
        path = self.root / f"{created:%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}.json"
        entry = Entry(path, kind, name, dict(details), Owner.current(), self.run_id, created.isoformat())
        entry._write()
        return entry

    def add(self, kind: str, name: str, /, **details: str) -> Entry:
        """Like :meth:`entry`, for a resource that outlives the function: call ``done()`` when it is gone."""
        return self.entry(kind, name, **details)

    def entries(self) -> list[Entry]:
        """Return all sound entries, oldest first."""
        return [found for found in self._scan() if isinstance(found, Entry)]

    def orphans(self, alive: Callable[[Owner], bool] = owner_alive) -> list[Entry]:
        """Return the entries whose owner is dead, newest first: the order in which to undo them."""
        return [entry for entry in reversed(self.entries()) if not alive(entry.owner)]

    def unreadable(self) -> list[Unreadable]:
        """Return what is no sound entry: torn, foreign, or from another version. Nothing of it is interpreted."""
        return [found for found in self._scan() if isinstance(found, Unreadable)]

    def _scan(self) -> list[Entry | Unreadable]:
        try:
            paths = sorted(self.root.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise InfraError(f"the journal cannot be read: {self.root}: {error}") from error
        return [found for path in paths if (found := _load(path)) is not None]


def _load(path: Path) -> Entry | Unreadable | None:
    if path.name.endswith(TEMPORARY):
        return Unreadable(path, "still being written, or its writer was killed before anything was made")
    if path.suffix != ".json" or path.is_symlink() or (path.exists() and not path.is_file()):
        return Unreadable(path, "not a journal entry")
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_ENTRY + 1)
        if len(data) > _MAX_ENTRY:
            return Unreadable(path, f"larger than {_MAX_ENTRY} bytes")
        record = _RECORD.validate_json(data)
    except FileNotFoundError:  # its owner was done between the listing and now
        return None
    except OSError as error:
        return Unreadable(path, str(error))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        return Unreadable(path, f"{where}: {first['msg']}" if where else str(first["msg"]))
    return Entry(path, record.kind, record.name, record.details, record.owner, record.run_id, record.created)
