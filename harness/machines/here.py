"""This very machine as a machine: commands run as children of this process, and nothing outlives its command."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from harness.machines.console import Console
from harness.model.outcome import Outcome
from harness.model.shell import Completed

_CHUNK = 64 << 10
_POLL = 0.1
_SETPRIV = shutil.which("setpriv")
_DRAIN = 1.0
"""Seconds in which what a command has left running may still write, once the command itself has ended."""


class LocalShell:
    """Implements :class:`harness.model.shell.Shell` on this machine, as the user who runs this process.

    A command is the leader of a session of its own: a Ctrl-C on the terminal is ours to answer, and at the command's
    end, its time-out or the end of the run everything in that session is killed. A command dies with this process.
    """

    alive = True

    def __init__(self, stop: threading.Event | None = None) -> None:
        self._stop = stop or threading.Event()

    def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"", limit: int = 4 << 20) -> Completed:
        """See :meth:`harness.model.shell.Shell.run`; ``lost`` when the run ends before the command does."""
        started = time.monotonic()
        words = [_SETPRIV, "--pdeathsig", "KILL", *argv] if _SETPRIV else [*argv]
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
        except OSError as error:
            return Completed(127, b"", f"{argv[0]}: {error.strerror}".encode(), time.monotonic() - started)
        with process:
            feeder = threading.Thread(target=_feed, args=(process.stdin, stdin), daemon=True)
            feeder.start()
            try:
                streams, timed_out, lost = self._watch(process, started + timeout, limit)
            finally:
                _kill_session(process)
                process.wait()
                feeder.join()
        ended = not (timed_out or lost)
        return Completed(
            exit_status=process.returncode if ended else None,
            stdout=bytes(streams[0].kept),
            stderr=bytes(streams[1].kept),
            seconds=time.monotonic() - started,
            timed_out=timed_out,
            lost=lost,
            truncated=any(stream.cut for stream in streams),
        )

    def _watch(
        self, process: subprocess.Popen[bytes], deadline: float, limit: int
    ) -> tuple[tuple[_Stream, _Stream], bool, bool]:
        """Read both streams until the command has ended: (streams, whether it timed out, whether the run ended)."""
        streams = (_Stream(process.stdout, limit), _Stream(process.stderr, limit))
        ended = 0.0
        with selectors.DefaultSelector() as selector:
            for stream in streams:
                selector.register(stream.file, selectors.EVENT_READ, stream)
            while selector.get_map() or not ended:
                # A pipe that is at its end is no longer looked at; the command's own end has no descriptor.
                for key, _ in selector.select(_POLL) if selector.get_map() else ():
                    if not key.data.read():
                        selector.unregister(key.fileobj)
                now = time.monotonic()
                if not ended and _over(process):
                    ended = now
                if ended and now > ended + _DRAIN:
                    break
                if not ended and self._stop.is_set():
                    return streams, False, True
                if not ended and now > deadline:
                    return streams, True, False
                if not ended and not selector.get_map():
                    time.sleep(_POLL)
        return streams, False, False


class ThisMachine:
    """Implements :class:`harness.machines.guest.Machine`: if it dies, nobody is left to say so."""

    gone = "this machine does not answer itself"

    def __init__(self, stop: threading.Event | None = None) -> None:
        self.shell = LocalShell(stop)
        self.console = Console()

    def reconnect(self, timeout: float) -> LocalShell:
        """There is nothing that could have broken."""
        return self.shell

    def death(self) -> tuple[Outcome, str] | None:
        """None: it lives while this is asked."""
        return None

    def unanswered(self, seen: str) -> tuple[Outcome, str]:
        """There is no other way to ask its kernel."""
        return Outcome.MISS, seen


class _Stream:
    """One stream of a command, kept up to a limit and read to its end."""

    def __init__(self, file: IO[bytes] | None, limit: int) -> None:
        assert file is not None
        self.file = file
        self.kept = bytearray()
        self.cut = False
        self._limit = limit

    def read(self) -> bool:
        """Take what is there; False at the end."""
        data = os.read(self.file.fileno(), _CHUNK)
        room = self._limit - len(self.kept)
        self.cut |= len(data) > room
        self.kept += data[: max(0, room)]
        return bool(data)


def _feed(stream: IO[bytes] | None, data: bytes) -> None:
    assert stream is not None
    with contextlib.suppress(OSError):  # it ended without reading it all
        stream.write(data)
    with contextlib.suppress(OSError):
        stream.close()


def _over(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has ended; it is not reaped, so that its number stays its own while its session is looked for."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    """Kill the command and whatever it started, unless that has left its session."""
    for pid in _session(process.pid):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        process.kill()


def _session(leader: int) -> list[int]:
    """The processes of a session; the sixth field of ``/proc/PID/stat`` is its number (``proc(5)``)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if len(fields) > 3 and int(fields[3]) == leader:
            found.append(int(folder.name))
    return found
