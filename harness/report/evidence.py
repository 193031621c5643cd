"""Copies evidence into a report: the raw file, and a bounded, harmless form of it that a page can show."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.errors import KdmatrixError
from harness.model.records import Attempt, Evidence
from harness.report.data import ReadEvidence
from harness.report.text import page_value, script_json

HEAD_BYTES = 256 << 10
TAIL_BYTES = 768 << 10
"""Together the most that a page loads of one file; a log's end tells more than its beginning."""
HEAD_LINES = 5_000
TAIL_LINES = 15_000
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TEXTUAL = re.compile(r"text/|application/(json|xml|yaml|x-yaml|toml)|.*\+(json|xml)")
_QUOTED = re.compile(r"“([^”]{6,})”|\"([^\"]{6,})\"|`([^`]{6,})`|'([^']{6,})'")

Status = Literal["text", "binary", "not collected", "altered"]


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of one piece of evidence."""

    status: Status
    raw: str = ""
    """The raw file's path within the report; empty where there is none."""
    deciding: tuple[tuple[str, int], ...] = ()
    """(reason, line number from 1) where a line of the file is what the reason quotes."""

    def line_for(self, *reasons: str) -> int | None:
        """Return the line that one of the reasons quotes."""
        lines = dict(self.deciding)
        return next((lines[reason] for reason in reasons if reason in lines), None)


NOT_COLLECTED = Stored("not collected")


def store_evidence(attempts: Iterable[Attempt], read: ReadEvidence, into: Path) -> dict[str, Stored]:
    """Write each file once into the directory ``into`` and return what became of it, by SHA-256.

    A file that cannot be read is ``not collected``; one whose bytes do not have the digest they are filed under is
    ``altered`` and not copied.
    """
    into.mkdir(parents=True, exist_ok=True)
    wanted: dict[str, tuple[Evidence, set[str]]] = {}
    for attempt in attempts:
        for stage in attempt.stages:
            for item in stage.evidence:
                _, reasons = wanted.setdefault(item.sha256, (item, set()))
                reasons |= {stage.reason, attempt.reason} - {""}
    return {sha256: _store(item, sorted(reasons), read, into) for sha256, (item, reasons) in sorted(wanted.items())}


def _store(item: Evidence, reasons: list[str], read: ReadEvidence, into: Path) -> Stored:
    # The digest becomes a file name, and records come from other hosts.
    if not _DIGEST.fullmatch(item.sha256):
        return NOT_COLLECTED
    try:
        content = read(item.sha256)
    except (OSError, LookupError, KdmatrixError):
        return NOT_COLLECTED
    if hashlib.sha256(content).hexdigest() != item.sha256:
        return Stored("altered")
    if not _TEXTUAL.match(item.media_type):
        (into / f"{item.sha256}.bin").write_bytes(content)
        return Stored("binary", f"{into.name}/{item.sha256}.bin")
    # Always .txt: a browser must show it as text, whatever the guest wrote into it.
    (into / f"{item.sha256}.txt").write_bytes(content)
    lines = content.decode("utf-8", errors="replace").split("\n")
    payload = script_json(page_value(excerpt(content)))
    (into / f"{item.sha256}.js").write_text(f'kdmatrixEvidence("{item.sha256}",{payload});\n', encoding="ascii")
    found = tuple((reason, line) for reason in reasons if (line := deciding_line(lines, reason)) is not None)
    return Stored("text", f"{into.name}/{item.sha256}.txt", found)


def excerpt(content: bytes) -> dict[str, object]:
    """Return a log as a page shows it.

    ``head`` and ``tail`` are lists of lines; ``tail_from`` is the number of the tail's first line (0 when nothing was
    cut), ``lines`` the number of all lines. Numbers are those of the raw file, so that they agree with ``grep -n``.
    """
    lines = content.count(b"\n") + (0 if content.endswith(b"\n") or not content else 1)
    head, tail, tail_from = content, b"", 0
    if len(content) > HEAD_BYTES + TAIL_BYTES:
        head, tail = content[:HEAD_BYTES], content[-TAIL_BYTES:]
        tail_from = content[:-TAIL_BYTES].count(b"\n") + 1
    head_lines, tail_lines = _lines(head), _lines(tail)
    if tail_from == 0 and len(head_lines) > HEAD_LINES + TAIL_LINES:
        tail_lines = head_lines[-TAIL_LINES:]
        tail_from = len(head_lines) - TAIL_LINES + 1
        head_lines = head_lines[:HEAD_LINES]
    elif tail_from:
        dropped = max(0, len(tail_lines) - TAIL_LINES)
        tail_from += dropped
        head_lines, tail_lines = head_lines[:HEAD_LINES], tail_lines[dropped:]
    return {"head": head_lines, "tail": tail_lines, "tail_from": tail_from, "lines": lines, "size": len(content)}


def _lines(content: bytes) -> list[str]:
    lines = content.decode("utf-8", errors="replace").split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.rstrip("\r") for line in lines]


def deciding_line(lines: list[str], reason: str) -> int | None:
    """Return the number (from 1) of the first line that contains what a reason quotes, or the reason itself."""
    quoted = [next(filter(None, groups)) for groups in _QUOTED.findall(reason)]
    for phrase in (*quoted, reason, reason.partition(": ")[2]):
        if len(phrase.strip()) >= 6:
            for number, line in enumerate(lines, start=1):
                if phrase.strip() in line:
                    return number
    return None
