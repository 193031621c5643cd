"""The one directory in which all processes and all users of a host say which device is whose.

A device belongs to the host, not to an installation of this tool: two homes, or root and a user who may talk to
libvirt, must not lend it twice. So there is one directory, and never a second one to fall back to: two places would
be two truths. Its rules make it safe to share:

* It belongs to root (or, named by ``$KDMATRIX_LEASES``, to the user), and is sticky where others may write: nobody
  removes or replaces the file of another.
* A file belongs to the user whose number is in its name, so what it says was said by that user. Links, devices and
  large files are not read.
* The directory is locked while something changes. The kernel drops the lock of a process that dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import pwd
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import InfraError
from harness.store.durable import TEMPORARY, fsync_directory, make_directory, temporary_name

_DEFAULT = Path("/var/lib/kdmatrix/leases")
_GROUP = "libvirt"
"""Who may use the system's libvirt may lend devices; the group has this name on Debian, Ubuntu and Fedora."""
_LARGEST = 1 << 16
_PATIENCE = 30.0
"""Seconds for the directory's lock: it is held for a few files' reading and writing."""
_NAME = re.compile(r"(?P<subject>[0-9a-f:.]{1,32})\.(?P<uid>\d{1,10})\.(?P<kind>[a-z]{1,16})")


def lending_directory() -> Path:
    """``$KDMATRIX_LEASES``, else ``/var/lib/kdmatrix/leases``; on a local disk that outlives a reboot."""
    named = os.environ.get("KDMATRIX_LEASES")
    return Path(named).expanduser().absolute() if named else _DEFAULT


def user_name(uid: int) -> str:
    """The login name of a user, or the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def printable(text: str, most: int = 200) -> str:
    """Text for a record: one line of printable characters, not too long."""
    return "".join(char if char.isprintable() else "?" for char in text)[:most]


@dataclass(frozen=True, slots=True)
class Said:
    """A file of the directory: what one user says about one device."""

    path: Path
    subject: str
    """PCI address."""
    uid: int
    """The user whose file it is."""
    data: bytes | None
    reason: str = ""
    """Why there is no data."""

    @property
    def trusted(self) -> bool:
        """Whether what it says may make this process write to the host's devices: root's word, or our own."""
        return self.uid in (0, os.geteuid())


@dataclass(frozen=True, slots=True)
class HostDirectory:
    """The directory, made on first use by whoever may."""

    path: Path

    def exists(self) -> bool:
        """Whether anything was ever said here."""
        return self.path.is_dir()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the only right to change something, among all processes and threads of this host.

        Raises:
            InfraError: the directory cannot be made or is not safe, or somebody held the lock for half a minute.
        """
        self._make()
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise InfraError(f"the directory of leases cannot be opened: {error}") from error
        try:
            self._check(os.fstat(handle))
            deadline = time.monotonic() + _PATIENCE
            while not lock(handle):
                if time.monotonic() > deadline:
                    raise InfraError(f"another process has held the lock of {self.path} for {_PATIENCE:.0f} s")
                time.sleep(0.02)  # flock(2) waits for ever or not at all
            yield
        finally:
            os.close(handle)

    def read(self, kind: str) -> list[Said]:
        """Return all files of one kind, by name."""
        try:
            names = sorted(path.name for path in self.path.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise InfraError(f"the directory of leases cannot be read: {error}") from error
        found = []
        for name in names:
            match = _NAME.fullmatch(name)
            if match and match["kind"] == kind:
                said = _read(self.path / name, match["subject"], int(match["uid"]))
                found += [said] if said else []
        return found

    def write(self, subject: str, kind: str, data: bytes) -> None:
        """Say something about a device as this user; durable when it returns. Needs the lock."""
        path = self.path / f"{subject}.{os.geteuid()}.{kind}"
        temporary = self.path / temporary_name()
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            with os.fdopen(handle, "wb") as stream:
                os.fchmod(handle, 0o644)  # a strict umask must not hide from others who holds a device
                stream.write(data)
                stream.flush()
                os.fsync(handle)
            temporary.replace(path)
            fsync_directory(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise InfraError(f"{path} cannot be written: {error.strerror}; {self._advice()}") from error

    def remove(self, path: Path) -> None:
        """Remove a file of the directory. Needs the lock.

        Raises:
            InfraError: it is another user's.
        """
        try:
            path.unlink(missing_ok=True)
            fsync_directory(self.path)
        except OSError as error:
            raise InfraError(
                f"{path} cannot be removed: {error.strerror}; it is for root or its owner to do"
            ) from error

    def remove_unfinished(self) -> None:
        """Remove what killed writers left. Needs the lock: who holds it knows that nobody is writing."""
        for path in self.path.glob(f".*{TEMPORARY}"):
            with contextlib.suppress(OSError):
                path.unlink()

    def hold(self, subject: str) -> int | None:
        """Take the lock that a device's holder keeps; None when somebody has it. Needs the directory's lock.

        It goes with the open file, so it lives as long as any process that has the returned descriptor: the holder,
        and a child of it whose write to the device has not come back. Close the descriptor to let go.
        """
        path = self.path / f"{subject}.hold"
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            try:
                handle = os.open(path, flags)
            except FileNotFoundError:
                # Two steps, as fs.protected_regular refuses O_CREAT for what is another's already (proc_sys_fs(5)).
                handle = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o444)
                os.fchmod(handle, 0o444)
        except OSError as error:
            raise InfraError(f"{path} cannot be opened: {error.strerror}; {self._advice()}") from error
        if lock(handle):
            return handle
        os.close(handle)
        return None

    def _make(self) -> None:
        if self.path.is_dir():
            return
        try:
            make_directory(self.path)
            if os.geteuid() == 0:
                with contextlib.suppress(KeyError):
                    os.chown(self.path, 0, grp.getgrnam(_GROUP).gr_gid)
                    self.path.chmod(0o1775)
        except OSError as error:
            raise InfraError(f"{self.path} cannot be made: {error.strerror}; {self._advice()}") from error

    def _check(self, status: os.stat_result) -> None:
        if status.st_uid not in (0, os.geteuid()):
            owner = user_name(status.st_uid)
            raise InfraError(f"{self.path} belongs to {owner}, who could change what root says there; remove it")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX:
            raise InfraError(f"{self.path} may be written by others and is not sticky: chmod +t {self.path}")

    def _advice(self) -> str:
        return (
            f"once as root: install -d -m 1775 -g {_GROUP} {self.path}; then be in that group. Or name a directory "
            "that all who share this host's devices use: KDMATRIX_LEASES"
        )


def lock(handle: int) -> bool:
    """Try to lock an open file or directory against every other opener."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(path: Path, subject: str, uid: int) -> Said | None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:  # withdrawn between the listing and now
        return None
    except OSError as error:
        return Said(path, subject, uid, None, error.strerror or "cannot be opened")
    with os.fdopen(handle, "rb") as stream:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            return Said(path, subject, uid, None, "no plain file")
        if status.st_uid != uid:
            return Said(path, subject, status.st_uid, None, f"belongs to {user_name(status.st_uid)}")
        data = stream.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        return Said(path, subject, uid, None, f"larger than {_LARGEST} bytes")
    return Said(path, subject, uid, data)
