"""Finds and removes what a killed run left on the host, from the records written before each thing was made."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from harness.journal import Entry
from harness.lab import Lab
from harness.machines.daemon import PrivateDaemon, import_libvirt


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
    return done


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


def _half_made(lab: Lab) -> list[Path]:
    found = [*lab.home.cache.glob("*/.*.tmp-*"), *lab.home.cache.glob("scratch/*")]
    for run in lab.home.runs.glob("*"):
        found += [run / "work"] if (run / "work").is_dir() else []
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
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
