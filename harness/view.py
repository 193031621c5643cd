"""What a run shows while it goes on: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.engine.controller import Listener
from harness.model.outcome import Outcome
from harness.model.records import Attempt

SYMBOLS: Mapping[Outcome, tuple[str, str]] = {
    Outcome.PASS: ("✓", "green"),
    Outcome.FAIL: ("✗", "bold red"),
    Outcome.ERROR: ("!", "magenta"),
    Outcome.MISS: ("?", "yellow"),
    Outcome.SKIP: ("–", "dim"),
    Outcome.DONE: ("=", "cyan"),
}
"""Outcome to (symbol, style): a word always stands beside them."""


class RunView(Listener):
    """Keeps what is running and tells it, either live or line by line."""

    def __init__(self, console: Console, total: int, usual: Mapping[str, float]) -> None:
        self._console = console
        self._total = total
        self._usual = usual
        self._guard = threading.Lock()
        self._running: dict[tuple[str, int], tuple[str, float]] = {}
        self._seconds: list[float] = []
        self._done: Counter[Outcome] = Counter()
        self._part = ""
        self._began = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str, style: str = "") -> None:
        """Print one line above the live view."""
        self._console.print(Text(text, style=style), soft_wrap=True, highlight=False)

    def part(self, name: str) -> None:
        """See :class:`Listener`."""
        with self._guard:
            self._part = name
        if self._live is None:
            self.say(f"{self._clock()} making {name}")

    def rung(self, cell_id: str, number: int, rung: str) -> None:
        """See :class:`Listener`."""
        with self._guard:
            _, since = self._running.get((cell_id, number), ("", time.monotonic()))
            self._running[cell_id, number] = (rung, since)
        if self._live is None and rung in ("boot", "load", "compute"):
            self.say(f"{self._clock()} {cell_id} {rung}")

    def finished(self, attempt: Attempt) -> None:
        """See :class:`Listener`."""
        with self._guard:
            _, since = self._running.pop((attempt.cell_id, attempt.number), ("", time.monotonic()))
            self._seconds.append(time.monotonic() - since)
            self._done[attempt.outcome] += 1
            count = sum(self._done.values())
        symbol, style = SYMBOLS[attempt.outcome]
        boot = f" #{attempt.number}" if attempt.number > 1 else ""
        why = f": {attempt.reason}" if attempt.reason else ""
        line = f"{self._clock()} [{count}/{self._total}] {symbol} {attempt.outcome} {attempt.cell_id}{boot}"
        self.say(f"{line} ({attempt.rung}){why}", style)
        for trouble in attempt.trouble:
            self.say(f"{self._clock()} trouble after {attempt.cell_id}{boot}: {trouble}", "yellow")

    def estimate(self) -> float | None:
        """Seconds until the run is over, from this run's cells and earlier runs'; None while nothing is known."""
        with self._guard:
            done, running = sum(self._done.values()), len(self._running)
            known = self._seconds or list(self._usual.values())
            if not known:
                return None
            left = max(0, self._total - done)
            spent = sum(time.monotonic() - since for _, since in self._running.values())
            return max(0.0, (left * sum(known) / len(known) - spent) / max(1, running))

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self._began)
        return f"{seconds // 60:3d}:{seconds % 60:02d}"

    def _render(self) -> RenderableType:
        left = self.estimate()
        with self._guard:
            table = Table.grid(padding=(0, 2))
            for (cell_id, number), (rung, since) in sorted(self._running.items()):
                seconds = time.monotonic() - since
                boot = f" #{number}" if number > 1 else ""
                table.add_row(Text(f"{cell_id}{boot}"), Text(rung, style="cyan"), f"{seconds:4.0f} s")
            done = sum(self._done.values())
            counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self._done.items()))
            part = self._part if done < self._total and len(self._running) < 2 else ""
        head = Table.grid(padding=(0, 2))
        ahead = f"about {left / 60:.0f} min left" if left is not None and left > 90 else ""
        if left is not None and not ahead:
            ahead = f"about {left:.0f} s left"
        bar = ProgressBar(total=max(1, self._total), completed=done, width=30)
        head.add_row(bar, Text(f"{done}/{self._total}"), Text(counts), Text(ahead))
        rows: list[RenderableType] = [head, table]
        if part:
            rows.append(Text(f"making {part}", style="dim"))
        return Group(*rows)
