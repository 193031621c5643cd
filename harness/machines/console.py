"""The serial console of a guest: recorded from the first byte, bounded, and watched while it arrives."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from harness.model.outcome import Outcome

HEAD_LIMIT = 4 << 20
TAIL_LIMIT = 4 << 20
"""A console is kept whole up to the sum of both; of a longer one the head and the tail."""


class Trouble(StrEnum):
    """What a console line says about the kernel, from the worst down."""

    PANIC = "kernel panic"
    OOPS = "oops"
    SOFT_LOCKUP = "soft lockup"
    HARD_LOCKUP = "hard lockup"
    RCU_STALL = "RCU stall"
    HUNG_TASK = "hung task"
    HARNESS = "harness"


_PATTERNS: tuple[tuple[Trouble, re.Pattern[str]], ...] = (
    (Trouble.PANIC, re.compile(r"Kernel panic - not syncing: (.*)")),
    (Trouble.HARD_LOCKUP, re.compile(r"(Watchdog detected hard LOCKUP.*)", re.IGNORECASE)),
    (Trouble.SOFT_LOCKUP, re.compile(r"watchdog: BUG: (soft lockup - CPU#\d+ stuck for \d+s.*)")),
    (
        Trouble.OOPS,
        re.compile(
            # A user program's fault is told as "traps: name[pid] general protection fault ip:…".
            r"((?:BUG: (?:unable to handle|kernel NULL pointer)|Oops: |general protection fault[,:]|kernel BUG at "
            r"|Unable to handle kernel |stack segment: |invalid opcode: \d).*)"
        ),
    ),
    (Trouble.RCU_STALL, re.compile(r"(rcu: INFO: \S+ (?:self-)?detected (?:expedited )?stall.*)")),
    (Trouble.HUNG_TASK, re.compile(r"INFO: (task .{1,64}? blocked (?:in I/O wait )?for more than \d+ seconds.*)")),
    (Trouble.HARNESS, re.compile(r"kdmatrix-initramfs: ((?:cannot|no disk|no tmpfs).*)")),
    # MdeModulePkg/Library/UefiBootManagerLib and shim.c, when a program's signer is not trusted.
    (Trouble.HARNESS, re.compile(r"(BdsDxe: failed to (?:load|start) .*|Verification failed: .*Security Violation)")),
)
"""Wordings of the kernel's own messages (kernel/panic.c, kernel/watchdog.c, kernel/rcu/tree_stall.h)."""

_PHASES: tuple[tuple[str, str], ...] = (
    ("Linux version ", "kernel"),
    ("kdmatrix-initramfs: start", "initramfs"),
    ("kdmatrix-initramfs: handing over", "guest init"),
    ("kdmatrix-guest: starting sshd", "SSH server"),
)

_LINE_LIMIT = 4096
_DRAWN = re.compile(rb"(?<=[\r\n])|(?=\x1b)")


@dataclass(frozen=True, slots=True)
class Sighting:
    """One line that matters."""

    trouble: Trouble
    text: str
    line: int
    """1-based line of the recorded console."""


class Console:
    """Takes bytes from any thread, keeps them within bounds, and knows what the guest has come to."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._dropped = 0
        self._line = bytearray()
        self._lines = 0
        self.sightings: list[Sighting] = []
        self.phase = "firmware"
        self.last_byte = clock()
        self.panicked = threading.Event()
        self.ssh_begun = threading.Event()

    def feed(self, data: bytes) -> None:
        """Record ``data`` and look at every line that it completes."""
        with self._guard:
            self.last_byte = self._clock()
            self._keep(data)
            # Firmware draws its dialogs: each text of theirs begins with a move of the cursor and none ends a line.
            for part in _DRAWN.split(data) if self.phase == "firmware" else data.splitlines(keepends=True):
                if part.startswith(b"\x1b") and self.phase == "firmware":
                    self._look(self._line.decode("utf-8", "replace").strip())
                    self._line.clear()
                self._line += part[: max(0, _LINE_LIMIT - len(self._line))]
                if part.endswith((b"\n", b"\r")):
                    self._look(self._line.decode("utf-8", "replace").strip())
                    self._line.clear()
                    # Counted after the look: a line's \r and \n may arrive apart.
                    self._lines += part.endswith(b"\n")

    def content(self) -> bytes:
        """What was recorded; a marker line stands where the middle was dropped."""
        with self._guard:
            if not self._dropped:
                return bytes(self._head) + b"".join(self._tail)
            marker = f"\n[... {self._dropped} bytes not kept ...]\n".encode()
            return bytes(self._head) + marker + b"".join(self._tail)

    @property
    def received(self) -> int:
        """How many bytes came in, kept or not."""
        with self._guard:
            return len(self._head) + self._dropped + self._tail_size

    def since(self, received: int) -> bytes:
        """What came after the first ``received`` bytes, as far as it was kept."""
        with self._guard:
            tail, begins = b"".join(self._tail), len(self._head) + self._dropped
            if received >= begins:
                return tail[received - begins :]
            return bytes(self._head[received:]) + tail

    @property
    def truncated(self) -> bool:
        """Whether bytes were dropped."""
        return self._dropped > 0

    def worst(self, *troubles: Trouble) -> Sighting | None:
        """The first sighting of the worst kind among ``troubles`` (all kinds when none is named)."""
        wanted = troubles or tuple(Trouble)
        for trouble in wanted:
            for sighting in self.sightings:
                if sighting.trouble is trouble:
                    return sighting
        return None

    def _keep(self, data: bytes) -> None:
        room = HEAD_LIMIT - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if data:
            self._tail.append(data)
            self._tail_size += len(data)
            while (excess := self._tail_size - TAIL_LIMIT) > 0:
                old = self._tail.popleft()
                if len(old) > excess:
                    self._tail.appendleft(old[excess:])
                cut = min(len(old), excess)
                self._tail_size -= cut
                self._dropped += cut

    def _look(self, text: str) -> None:
        for needle, phase in _PHASES:
            if needle in text:
                self.phase = phase
                if phase == "SSH server":
                    self.ssh_begun.set()
        for trouble, pattern in _PATTERNS:
            match = pattern.search(text)
            if match:
                # However much a guest prints, the first of each kind is kept.
                if len(self.sightings) < 200 or self.worst(trouble) is None:
                    self.sightings.append(Sighting(trouble, match.group(1)[:300], self._lines + 1))
                if trouble is Trouble.PANIC:
                    self.panicked.set()
                break


def judge_panic(text: str, phase: str, oopsed: bool) -> tuple[Outcome, str]:
    """A kernel without a usable initramfs or init panics, too, but then our files are at fault and not the kernel."""
    ours = ("Unable to mount root fs", "No working init found", "Requested init ", "Attempted to kill init")
    if any(needle in text for needle in ours) and not oopsed:
        if phase in ("firmware", "kernel", "initramfs"):
            return Outcome.MISS, f"the initramfs is not usable: {text}"
        return Outcome.MISS, f"the guest's init ended: {text}"
    return Outcome.FAIL, f"kernel panic: {text}"
