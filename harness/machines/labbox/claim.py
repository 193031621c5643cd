"""The right to use a lab box: one cell at a time, whoever asks, from whichever host.

Two locks hold it. A file of this lab, locked with flock(2), keeps the processes and threads of one installation apart,
and works while the box is down. A directory on the box keeps installations and hosts apart; it is made and taken in one
step each (mkdir(2), rename(2)), outlives the box' reboots, and says who has the box and which kernel is its default.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import InfraError
from harness.journal import Owner, owner_alive
from harness.machines.labbox.remote import Remote
from harness.model.machine import LabBox

FOLDER = "/var/lib/kdmatrix-claim"
"""On the box; not below /run, which a reboot empties."""
_POLL = 2.0

_TAKE = f"""
umask 022
mkdir -p /var/lib
new={FOLDER}.$1
mkdir "$new" || exit 1
cat >"$new/owner"
if [ ! -e {FOLDER} ] && mv -T "$new" {FOLDER} 2>/dev/null; then sync; echo taken; exit; fi
rm -r "$new"
cat {FOLDER}/owner
"""
"""rename(2) replaces no directory that holds something, so of two that come at once only one gets it."""
_BREAK = f"mv -T {FOLDER} {FOLDER}.old.$1 && rm -r {FOLDER}.old.$1"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a box, as the box itself says."""

    owner: Owner
    default: str
    """``uname -r`` of the kernel that the box runs when nobody uses it."""
    boot_id: str
    """The boot in which it was taken."""
    since: str
    run_id: str

    def dump(self) -> bytes:
        """As it is written on the box."""
        return json.dumps(asdict(self), indent=1).encode() + b"\n"

    @classmethod
    def load(cls, text: str) -> Holder:
        """Read what :meth:`dump` wrote. Raises ValueError."""
        try:
            said = json.loads(text)
            return cls(owner=Owner(**said.pop("owner")), **{key: str(value) for key, value in said.items()})
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(str(error)) from None

    def __str__(self) -> str:
        return f"process {self.owner.pid} on {self.owner.host}, run {self.run_id}, since {self.since}"


@contextlib.contextmanager
def alone(folder: Path, box: LabBox, timeout: float, stopping: Callable[[], bool]) -> Iterator[None]:
    """Keep every other process and thread of this installation from the box.

    Raises:
        InfraError: another one has had it for ``timeout`` seconds, or the run is to end.
    """
    # By its address: two names of a matrix may mean the same box.
    path = folder / (re.sub(r"[^A-Za-z0-9.-]", "_", f"{box.host}-{box.port}") + ".lock")
    deadline = time.monotonic() + timeout
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if stopping() or time.monotonic() > deadline:
                        raise InfraError(f"{box}: another cell of this lab has it (locked by {path})") from None
                    time.sleep(0.2)
            yield
    except OSError as error:
        raise InfraError(f"{path}: the lab box cannot be locked there: {error.strerror}") from error


def take(
    remote: Remote, default: str, boot_id: str, run_id: str, timeout: float, stopping: Callable[[], bool]
) -> tuple[Holder, Holder | None]:
    """Take a box for this process, and wait while another has it.

    Returns what now stands on the box, and who had it before and died without giving it back, if anybody did: then the
    box may be in any state, and its default kernel is the one that is told there.

    Raises:
        InfraError: somebody else has had it for ``timeout`` seconds.
    """
    started = time.monotonic()
    dead: Holder | None = None
    while True:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        mine = Holder(Owner.current(), dead.default if dead else default, boot_id, since, run_id)
        said = remote.script(_TAKE, f"{os.getpid()}-{time.monotonic_ns()}", stdin=mine.dump())
        if said.strip() == "taken":
            return mine, dead
        try:
            holder = Holder.load(said)
        except ValueError:
            raise InfraError(f"{remote.box}: {FOLDER} on the box says nothing that can be read; remove it") from None
        # What this very process left there belongs to nobody any more: only one cell at a time comes here.
        if holder.owner == Owner.current() or not owner_alive(holder.owner):
            dead = holder
            remote.script(_BREAK, str(time.monotonic_ns()))
            continue
        if stopping() or time.monotonic() - started > timeout:
            raise InfraError(f"{remote.box} is in use by {holder}; if that has ended, remove {FOLDER} on the box")
        time.sleep(_POLL)


def give_back(remote: Remote) -> None:
    """Let others have the box. Raises InfraError."""
    remote.script(_BREAK, str(time.monotonic_ns()))


def held_by(remote: Remote, owner: Owner) -> bool:
    """Whether the box says that this process has it. Raises InfraError."""
    said = remote.script(f"if [ -e {FOLDER} ]; then cat {FOLDER}/owner; fi")
    try:
        return Holder.load(said).owner == owner
    except ValueError:
        return False
