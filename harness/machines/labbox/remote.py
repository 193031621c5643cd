"""Commands of ours on a lab box: as root, bounded, and told by the box' name when they fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import InfraError
from harness.machines.ssh import SshShell
from harness.model.machine import LabBox
from harness.model.shell import Completed

_PATIENCE = 60.0
"""Seconds for what takes a healthy box a fraction of one."""
_LARGEST = 8 << 20


@dataclass(frozen=True, slots=True)
class Remote:
    """A connection to a box; implements :class:`harness.model.shell.Shell`."""

    box: LabBox
    shell: SshShell

    @property
    def alive(self) -> bool:
        """Whether the connection still stands, as far as this side knows."""
        return self.shell.alive

    def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"", limit: int = 4 << 20) -> Completed:
        """Run ``argv`` as root."""
        prefix = () if self.box.user == "root" else ("sudo", "-n", "--")
        return self.shell.run([*prefix, *argv], timeout=timeout, stdin=stdin, limit=limit)

    def ask(self, argv: Sequence[str], *, timeout: float = _PATIENCE, stdin: bytes = b"") -> str:
        """Run a command that works on any healthy box, and return what it prints.

        Raises:
            InfraError: it failed, or the box does not answer.
        """
        done = self.run(argv, timeout=timeout, stdin=stdin, limit=_LARGEST)
        if done.ok:
            return done.stdout.decode("utf-8", "replace")
        lines = [line.strip() for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
        if done.lost:
            said = "the connection broke"
        elif done.timed_out:
            said = f"no end within {timeout:.0f} s"
        else:
            said = f"status {done.exit_status}: {lines[-1][:300] if lines else 'no error output'}"
        raise InfraError(f"{self.box}: {' '.join(argv)[:100]}: {said}")

    def script(self, text: str, *words: str, timeout: float = _PATIENCE, stdin: bytes = b"") -> str:
        """Run a shell script of ours with ``words`` as its arguments; what a box or a user said is never part of it."""
        return self.ask(["sh", "-c", text, "sh", *words], timeout=timeout, stdin=stdin)

    def close(self) -> None:
        """Close the connection."""
        self.shell.close()
