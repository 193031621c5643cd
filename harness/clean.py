"""Finds and removes what a killed run left on the host, from the records written before each thing was made."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from harness.devices import mdev
from harness.devices.borrow import Lender
from harness.devices.hostwide import lending_directory
from harness.errors import InfraError, UserError
from harness.hostcmd import run
from harness.journal import Entry
from harness.lab import Lab
from harness.machines.daemon import PrivateDaemon, import_libvirt
from harness.machines.labbox import home


@dataclass(frozen=True, slots=True)
class Undone:
    """One thing that was found."""

    what: str
    state: str
    """``removed``, ``was gone already``, or why it is still there."""


def undo_orphans(lab: Lab) -> list[Undone]:
    """Undo every journal entry whose owner is dead."""
    done: list[Undone] = []
    for entry in lab.journal().orphans():
        state = _undo(entry, lab)
        if state in ("removed", "was gone already"):
            entry.done()
        done.append(Undone(f"{entry.kind} {entry.details.get('name', entry.name)}", state))
    return [*done, *_take_back()]


def _take_back() -> list[Undone]:
    """Take back what dead processes of any home had borrowed: a device belongs to the host, not to a home."""
    directory = lending_directory()
    if not directory.is_dir():
        return []
    try:
        return [Undone("device", line) for line in Lender().reap()]
    except InfraError as error:
        return [Undone("devices", f"left alone: {error}")]


def clean(lab: Lab, *, images: bool = False) -> list[Undone]:
    """Undo orphans, remove half-made files, end the private daemon when nobody uses it, and free images on request."""
    done = undo_orphans(lab)
    alive = lab.journal().entries()
    for unreadable in lab.journal().unreadable():
        if not alive:
            unreadable.path.unlink(missing_ok=True)
            done.append(Undone(f"journal file {unreadable.path.name}", "removed"))
        else:
            done.append(Undone(f"journal file {unreadable.path.name}", f"left alone: {unreadable.reason}"))
    if alive:
        done.append(Undone(f"{len(alive)} records of running processes", "left alone"))
        return done
    left = lab.images.buildah.remove_leftovers() if (lab.home.cache / "oci").is_dir() else 0
    if left:
        done.append(Undone(f"{left} build containers", "removed"))
    for pid in _builders(lab.home.cache):
        done.append(Undone(f"process {pid} of a killed build", "removed"))
    for stale in _half_made(lab):
        _remove(stale)
        done.append(Undone(f"path {stale}", "removed"))
    for stale in lab.evidence.remove_leftovers(0.0) if lab.home.evidence.is_dir() else ():
        done.append(Undone(f"path {stale}", "removed"))
    state = lab.home.root / "libvirt"
    if state.is_dir() and PrivateDaemon(state).stop():
        done.append(Undone("private libvirtd", "removed"))
    if images:
        for name, path, size in list(lab.images.cached()):
            if name == "oci":
                lab.images.buildah.remove_all()
            _remove(path)
            done.append(Undone(f"{name} cache, {size / 1e6:.0f} MB", "removed"))
    return done


def _builders(cache: Path) -> list[int]:
    """End what the programs of a killed build had started; some of it goes on alone, and would go on writing."""
    mark = b"TMPDIR=" + os.fsencode(cache)
    ended = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            inside = (process / "root").readlink().is_relative_to(cache)
            if inside or any(word.startswith(mark) for word in (process / "environ").read_bytes().split(b"\0")):
                os.kill(int(process.name), signal.SIGKILL)
                ended.append(int(process.name))
        except OSError:  # it ended meanwhile, or is another user's
            continue
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(_lives(pid) for pid in ended):
        time.sleep(0.02)
    return ended


def _lives(pid: int) -> bool:
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())  # empty for one that is dead and not yet reaped
    except OSError:
        return False


def _half_made(lab: Lab) -> list[Path]:
    found = [*lab.home.cache.glob("*/.*.tmp-*"), *lab.home.cache.glob("scratch/*")]
    found += [work for work in lab.home.runs.glob("*/work") if work.is_dir()]
    return found


def _undo(entry: Entry, lab: Lab) -> str:
    if entry.kind == "path":
        path = Path(entry.name)
        # Only what really lies below the home is removed, whatever ".." and links make the name look like.
        if path.name == ".." or not path.parent.resolve().is_relative_to(lab.home.root.resolve()):
            return f"left alone: not below {lab.home.root}"
        if not path.exists():
            return "was gone already"
        _remove(path)
        return "removed"
    if entry.kind == "domain":
        return _undo_domain(entry)
    if entry.kind == mdev.KIND:
        try:
            return "removed" if mdev.remove(entry.name) else "was gone already"
        except InfraError as error:
            return f"left alone: {error}"
    if entry.kind == home.KIND:
        try:
            return home.undo(entry)
        except (InfraError, UserError) as error:
            return f"left alone: {error}"
    return f"left alone: nobody knows how to undo a {entry.kind}"


def _undo_domain(entry: Entry) -> str:
    libvirt = import_libvirt()
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    try:
        connection = libvirt.open(entry.details.get("uri", ""))
    except libvirt.libvirtError:
        # A daemon of ours ends only when it has no VM left, so none answering means none running.
        return "was gone already" if "socket=" in entry.details.get("uri", "") else "libvirt does not answer"
    try:
        domain = connection.lookupByUUIDString(entry.name)
        domain.destroy()
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return "was gone already"
        return f"libvirt refuses: {error}"
    finally:
        connection.close()
    return "removed"


def _remove(path: Path) -> None:
    """Remove a file or a tree, but nothing through a mount that something left in it."""
    for mount in _mounts_below(path):
        run(["umount", mount], timeout=30)
    if _mounts_below(path):
        return
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _mounts_below(path: Path) -> list[str]:
    """Mount points at or below ``path``, the innermost first (proc_pid_mountinfo(5) escapes blanks in octal)."""
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    points = [re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), line.split()[4]) for line in lines]
    below = [os.fsdecode(point) for point in points if Path(os.fsdecode(point)).is_relative_to(path.absolute())]
    return sorted(below, reverse=True)
