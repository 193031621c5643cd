"""Reads the runner's output: bounded, untrusted bytes in, intact records out.

A record is ``@GT1 {json} crc32`` on one line (``gpu_tests/wire.schema.json``). Whatever else is on the console, before,
behind or instead of a record, is noise that is counted and skipped; nothing in it can raise.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

MARK = b"@GT1 "
MAX_LINE = 256 << 10
"""Bytes of one line; a longer one is dropped whole."""
MAX_MARKS = 8
"""Marks on one line; more of them are no accident, and each costs a search."""
MAX_RECORDS = 20_000

_TAIL = re.compile(rb" ([0-9a-f]{8})(?![0-9a-zA-Z])")


@dataclass(frozen=True, slots=True)
class Record:
    """One intact record."""

    ev: str
    data: Mapping[str, Any] = field(default_factory=dict)

    def text(self, key: str, default: str = "", limit: int = 2000) -> str:
        """Return a text member, cut to ``limit`` characters; the default when it is absent or no text."""
        value = self.data.get(key)
        return value[:limit] if isinstance(value, str) else default

    def number(self, key: str) -> float | None:
        """Return a finite number, or None."""
        value = self.data.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value)


@dataclass(frozen=True, slots=True)
class Wire:
    """What was found in the output."""

    records: tuple[Record, ...] = ()
    damaged: int = 0
    """Lines that bear the mark and hold no intact record: cut, overwritten, forged or too long."""
    noise: int = 0
    """Lines without the mark."""
    overflow: bool = False
    """There were more than MAX_RECORDS; the rest was not read."""

    def of(self, ev: str) -> list[Record]:
        """Return the records of one event, in order."""
        return [record for record in self.records if record.ev == ev]


def parse(data: bytes) -> Wire:
    """Read every intact record out of ``data``; never raises for any bytes."""
    records: list[Record] = []
    damaged = noise = 0
    for line in data.replace(b"\r", b"\n").split(b"\n"):
        marks = line.count(MARK)
        if marks == 0:
            noise += bool(line.strip())
            continue
        if len(line) > MAX_LINE or marks > MAX_MARKS:
            damaged += 1
            continue
        # A line may hold several marks: a record cut short by the next one, or a mark inside a text of a record.
        start, found = 0, 0
        while (start := line.find(MARK, start)) >= 0:
            got = _record(line[start + len(MARK) :])
            if got is None:
                start += len(MARK)
                continue
            record, used = got
            if len(records) >= MAX_RECORDS:
                return Wire(tuple(records), damaged, noise, overflow=True)
            records.append(record)
            found += 1
            start += len(MARK) + used
        damaged += found == 0
    return Wire(tuple(records), damaged, noise)


def encode(data: Mapping[str, Any]) -> bytes:
    """Write one record as the runner does, newline included."""
    body = json.dumps(data, separators=(",", ":"), allow_nan=False).encode()
    return MARK + body + b" %08x\n" % zlib.crc32(body)


def _record(text: bytes) -> tuple[Record, int] | None:
    """Read the record at the beginning of ``text``: the record and the bytes it took, or None."""
    if not text.startswith(b"{"):
        return None
    for tries, tail in enumerate(_TAIL.finditer(text)):
        # Hex-like words inside the record's texts are few; a line full of them is not ours.
        if tries >= 16:
            break
        body = text[: tail.start()]
        if zlib.crc32(body) == int(tail.group(1), 16):
            record = _decode(body)
            return None if record is None else (record, tail.end())
    return None


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is no JSON number")


def _finite(word: str) -> float:
    value = float(word)
    if not math.isfinite(value):
        raise ValueError(f"{word} is out of range")
    return value


def _small(word: str) -> int:
    if len(word) > 20:
        raise ValueError("integer out of range")
    return int(word)


def _decode(body: bytes) -> Record | None:
    if body.count(b"[") + body.count(b"{") > 256:
        return None  # nesting is bounded before the decoder recurses
    try:
        data = json.loads(body.decode("utf-8"), parse_constant=_refuse, parse_float=_finite, parse_int=_small)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict) or not isinstance(data.get("ev"), str):
        return None
    return Record(data["ev"], MappingProxyType(data))
