"""The serial console of a lab box, printed by a command of the user's: kept whole, judged from the tested kernel."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence

from harness.errors import InfraError
from harness.hostcmd import start
from harness.machines.console import Console, Trouble
from harness.model.outcome import Outcome

_LINE_LIMIT = 4096
_SILENCE = 60.0
"""Seconds without a byte on the console after which a kernel that does not answer is taken to hang."""


class BoxConsole:
    """Takes what the box prints. What the kernels before and after the tested one say does not speak against it."""

    def __init__(self, release: str) -> None:
        self.record = Console()
        """Everything, for the evidence."""
        self.judged = Console()
        """What the tested kernel printed."""
        self.attached = False
        self._release = release
        self._line = b""
        self._before: deque[bytes] = deque(maxlen=20)
        self._begun = self._over = False

    @property
    def begun(self) -> bool:
        """Whether the tested kernel printed its first line."""
        return self._begun

    @property
    def silent(self) -> float:
        """Seconds since the last byte."""
        return time.monotonic() - self.record.last_byte

    @property
    def asks_for_login(self) -> bool:
        """Whether the system came up so far that it wants somebody to log in."""
        return b"login:" in self.judged.content()[-20_000:]

    def feed(self, data: bytes) -> None:
        """Take bytes as they come."""
        self.record.feed(data)
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self._take(line + b"\n")
        if len(self._line) > _LINE_LIMIT or b"login:" in self._line:
            self._take(self._line)
            self._line = b""

    def _take(self, line: bytes) -> None:
        if b"Linux version " in line:
            # A second kernel that begins is the next boot, even where it is of the same release.
            self._over = self._begun
            self._begun = self._begun or f"Linux version {self._release} ".encode() in line
        elif not self._begun and f" {self._release} #".encode() in line:
            # A quiet kernel keeps its first line to itself; the trace of what goes wrong in it names it, too.
            self._begun = True
            for one in self._before:
                self.judged.feed(one)
        if self._begun and not self._over:
            self.judged.feed(line)
        self._before.append(line)


def judge_silence(serial: BoxConsole, silent: float, *, answers_now: bool) -> tuple[Outcome, str]:
    """What it means that a box did not answer: only its console can tell a hang from trouble on the network.

    ``silent`` is for how many seconds it had printed nothing when it was given up; ``answers_now`` says whether its
    default kernel answers on the same network since then.
    """
    if not serial.attached:
        return Outcome.MISS, "without a console, a hang cannot be told from trouble on the network"
    seen = serial.judged.worst(Trouble.OOPS, Trouble.SOFT_LOCKUP, Trouble.HARD_LOCKUP, Trouble.RCU_STALL)
    if seen is not None:
        return Outcome.FAIL, f"{seen.trouble}: {seen.text}"
    if not serial.begun:
        return Outcome.MISS, "the kernel's first line never came to the console"
    if serial.asks_for_login:
        return Outcome.MISS, "the console asks for a login: the box came up, and only its network does not work"
    if silent < _SILENCE:
        return Outcome.MISS, f"the console was at work until {silent:.0f} s before the end: slow, or without network"
    if not answers_now:
        return Outcome.MISS, "its default kernel does not answer, either: the box or the network is at fault"
    return (
        Outcome.FAIL,
        f"hang: the console was silent for {silent:.0f} s, and the default kernel answers on the same network",
    )


@contextlib.contextmanager
def attached(argv: Sequence[str], console: BoxConsole) -> Iterator[None]:
    """Run the user's command and feed what it prints, until the block ends.

    Raises:
        InfraError: it cannot be started.
    """
    if not argv:
        yield
        return
    process = start(argv)
    reader = threading.Thread(target=_pump, args=(process, console), daemon=True, name="console of a lab box")
    reader.start()
    console.attached = True
    try:
        time.sleep(0.2)  # a command that is not what it should be ends at once
        if process.poll() is not None:
            raise InfraError(f"the console's command {argv[0]} ended at once with status {process.returncode}")
        yield
    finally:
        process.kill()
        process.wait()
        reader.join(5.0)


def _pump(process: subprocess.Popen[bytes], console: BoxConsole) -> None:
    assert process.stdout is not None
    with process.stdout as stream:
        while data := stream.read1(32 << 10):  # type: ignore[attr-defined]  # a pipe of Popen is a BufferedReader
            console.feed(data)
