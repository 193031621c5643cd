"""The one thing that tests and stacks need from a machine: run a command in it, bounded and with a deadline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Completed:
    """What a command in a guest left. Output is untrusted bytes, bounded by the caller's limit."""

    exit_status: int | None
    """128 + n (or -n) after signal n; None when no status is known: timed out, or the connection was lost."""
    stdout: bytes
    stderr: bytes
    seconds: float
    timed_out: bool = False
    lost: bool = False
    """The connection broke before the status arrived: nothing is known about the command."""
    truncated: bool = False
    """Output beyond the limit was read and thrown away."""

    @property
    def ok(self) -> bool:
        """The command ran to its end and returned 0."""
        return self.exit_status == 0


class Shell(Protocol):
    """Runs argument vectors (never shell lines) in a machine."""

    def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"", limit: int = 4 << 20) -> Completed:
        """Run ``argv``; drain stdout and stderr together; never raise for what the guest does.

        ``timeout`` is in seconds; ``limit`` bounds each of stdout and stderr, in bytes. A broken connection is
        reported as ``lost``, not raised.
        """
        ...
