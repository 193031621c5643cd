"""A machine whose programs run on this host, and of whose kernel there is only the log that fake drivers write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.machines.console import Console
from harness.machines.guest import LOOK, Guest
from harness.model.outcome import Outcome
from harness.model.shell import Completed, Shell


@dataclass
class SimulatedShell:
    """Passes commands on, but for the look at the kernel."""

    shell: Shell
    log: Path
    """What the drivers' modules said, a line each: the file that ``GT_FAKE_KMSG`` names."""
    alive: bool = True

    def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"", limit: int = 4 << 20) -> Completed:
        if tuple(argv) != LOOK:
            return self.shell.run(argv, timeout=timeout, stdin=stdin, limit=limit)
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        records = "".join(f"4,{number},{number},-;{line}\n" for number, line in enumerate(lines))
        return Completed(1, f"0\n@modules\n@disk\n@blocked\n@log\n{records}".encode(), b"", 0.0)


@dataclass
class SimulatedMachine:
    """Never dies."""

    shell: SimulatedShell
    console: Console = field(default_factory=Console)
    gone: str = "this host is gone"

    def reconnect(self, timeout: float) -> SimulatedShell:
        return self.shell

    def death(self) -> tuple[Outcome, str] | None:
        return None


def simulated_guest(shell: Shell, log: Path) -> Guest:
    """A guest whose commands ``shell`` runs and whose kernel's log is the file ``log``."""
    return Guest(SimulatedMachine(SimulatedShell(shell, log)))
