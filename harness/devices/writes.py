"""Acts on the host's kernel that may never return: each in a child of its own, which can be abandoned.

A write to sysfs is a call into a driver. One that waits for a lock or for hardware sleeps where no signal reaches it
(state D of proc_pid_stat(5)), and takes the thread that made it along for good. Reading is no safer: the kernel shows
``driver_override`` under the device's lock, which an unbinding that hangs holds.

The child inherits the lock of the lease. So a write that outlives us keeps the device from everybody until it is over.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, final

from harness.errors import InfraError

_GRACE = 1.0
"""Seconds for a killed child to go; one that waits in the kernel does not."""
_CHILD = """
import os, sys
path, text = sys.argv[1:]
try:
    if text:
        handle = os.open(path, os.O_WRONLY)
        os.write(handle, text.encode())
        data = b""
    else:
        handle = os.open(path, os.O_RDONLY)
        data = os.read(handle, 4096)
except OSError as error:
    data = error.errno
os.write(1, b"%d" % data if isinstance(data, int) else b"=" + data)
"""
"""Answers ``=`` and what was read, or an error number: more of them than an exit status can hold."""

_PROGRAM = (sys.executable, "-I", "-S", "-c", _CHILD)
_LOADER = ("/bin/sh", "-c", 'PATH=$PATH:/usr/sbin:/sbin; modprobe -- "$1" 2>/dev/null && printf = || printf 2', "sh")
"""2 is ENOENT, which is what a module that is not there comes to."""


class Stuck(InfraError):
    """The kernel has not come back in time; what it will do is unknown, and the device must be left alone."""


class Writes(Protocol):
    """How this process makes the kernel act; tests put a simulated kernel here."""

    def write(self, path: Path, text: str, *, timeout: float, hold: int) -> None:
        """Write to a file of sysfs. ``hold`` is the descriptor of the lease's lock.

        Raises:
            OSError: the kernel refused.
            Stuck: it did not come back within ``timeout`` seconds, or an earlier write under the same lock has not.
        """

    def read(self, path: Path, *, timeout: float, hold: int) -> str:
        """Return a file of sysfs without blanks around it, at most 4 KiB. Raises like :meth:`write`."""

    def load(self, module: str, *, timeout: float, hold: int) -> None:
        """Load a kernel module. Raises like :meth:`write`."""


@final
class ChildWrites:
    """The real thing.

    Args:
        program: what reads and writes; it gets a path and a text (empty: read), and answers as ``_CHILD`` does.
        loader: what loads a module; it gets the name, and answers likewise.
    """

    def __init__(self, program: Sequence[str] = _PROGRAM, loader: Sequence[str] = _LOADER) -> None:
        self._program = tuple(program)
        self._loader = tuple(loader)
        self._left: list[tuple[int, str, subprocess.Popen[bytes]]] = []
        """Inode of the lease's lock, what was being done, and the child that had not come back."""

    def write(self, path: Path, text: str, *, timeout: float, hold: int) -> None:
        """See :class:`Writes`. An empty text is written as a line feed, which clears an attribute."""
        self._do(f"write to {path}", [*self._program, str(path), text or "\n"], str(path), timeout, hold)

    def read(self, path: Path, *, timeout: float, hold: int) -> str:
        """See :class:`Writes`."""
        found = self._do(f"read of {path}", [*self._program, str(path), ""], str(path), timeout, hold)
        return found.decode("ascii", "replace").strip()

    def load(self, module: str, *, timeout: float, hold: int) -> None:
        """See :class:`Writes`. Uses modprobe(8), so aliases and the host's settings for the module hold."""
        self._do(f"modprobe {module}", [*self._loader, module], module, timeout, hold)

    def _do(self, what: str, argv: list[str], subject: str, timeout: float, hold: int) -> bytes:
        self._settle(hold, timeout)
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(hold,),
            start_new_session=True,  # Ctrl-C at a terminal must not cut a device's driver in half
        )
        try:
            answer, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            try:
                process.wait(_GRACE)
                state = "was killed then"
            except subprocess.TimeoutExpired:
                self._left.append((os.fstat(hold).st_ino, what, process))
                state = f"waits in the kernel as pid {process.pid}"
            raise Stuck(f"the {what} did not come back for {timeout:g} s and {state}") from None
        except BaseException:
            # An interrupt: the write goes on, and whoever looks at the device before it ends is misled.
            self._left.append((os.fstat(hold).st_ino, what, process))
            raise
        if answer.startswith(b"="):
            return answer[1:]
        number = int(answer) if answer.isdigit() else 0
        if not number:
            raise InfraError(f"the {what} ended without an answer (exit status {process.returncode})")
        raise OSError(number, os.strerror(number), subject)

    def _settle(self, hold: int, timeout: float) -> None:
        """Wait for earlier writes to the same device."""
        deadline = time.monotonic() + timeout
        inode = os.fstat(hold).st_ino
        for entry in [entry for entry in self._left if entry[0] == inode]:
            _, what, process = entry
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise Stuck(f"the {what} still waits in the kernel as pid {process.pid}") from None
            self._left.remove(entry)
            if process.stdout:
                process.stdout.close()
