"""Order of kernel releases and of Debian and RPM package versions. Pure functions on strings."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

_UPSTREAM = re.compile(r"(\d+(?:\.\d+)*)")
_CANDIDATE = re.compile(r"(?:^|[-~.+])rc(\d+)")
_TOKEN = re.compile(r"\d+|[a-z]+", re.IGNORECASE)
_FINAL = 1 << 32
"""Rank of a release that is no candidate: above every ``rcN``."""

ReleaseKey = tuple[tuple[int, ...], int, tuple[tuple[int, int, str], ...], str]


def fields(release: str) -> tuple[int, ...]:
    """The leading dotted numbers: ``6.12.107+deb13-amd64`` gives ``(6, 12, 107)``; empty where there are none."""
    match = _UPSTREAM.match(release)
    return tuple(int(field) for field in match[1].split(".")) if match else ()


def candidate(release: str) -> int | None:
    """The N of ``-rcN``, ``~rcN`` or Fedora's ``-0.rcN``; None for a release that is no candidate."""
    match = _CANDIDATE.search(release)
    return int(match[1]) if match else None


def release_key(release: str) -> ReleaseKey:
    """Sort key of a kernel release: numeric per field, candidates before the release that they lead to.

    ``6.9 < 6.10``, ``7.3-rc7 < 7.3 < 7.3.1``, ``6.1.0-9-amd64 < 6.1.0-50-amd64``. Trailing zero fields say nothing
    (``6.14`` and ``6.14.0`` are one upstream release), so they only break ties. A string that does not start with a
    number sorts before all that do.
    """
    upstream = _UPSTREAM.match(release)
    rest = release[upstream.end() :] if upstream else release
    rc = candidate(rest)
    numbers = list(fields(release))
    while numbers and numbers[-1] == 0:
        numbers.pop()
    tokens = tuple((1, int(t), "") if t.isdigit() else (0, 0, t.lower()) for t in _ascii_tokens(rest))
    return tuple(numbers), _FINAL if rc is None else rc, tokens, release


def _ascii_tokens(text: str) -> list[str]:
    return [token for token in _TOKEN.findall(text) if token.isascii()]


def in_series(version: str, series: str) -> bool:
    """Whether ``version`` belongs to ``series``: ``6.12.107-1`` to ``6.12`` and to ``6``, not to ``6.1``.

    A series that names a candidate (``7.3-rc7`` or ``7.3~rc7``) matches that candidate alone.
    """
    wanted = fields(series)
    if not wanted or fields(version)[: len(wanted)] != wanted:
        return False
    rc = candidate(series)
    return rc is None or (candidate(version) == rc and fields(version) == wanted)


def series_of(release: str) -> str:
    """The first two fields of a release: the series that kernel.org maintains (``6.12``)."""
    return ".".join(str(field) for field in fields(release)[:2])


def compare_debian(left: str, right: str) -> int:
    """Compare two package versions as dpkg does: negative, zero or positive.

    Source: Debian policy manual, section 5.6.12 (``[epoch:]upstream[-revision]``, ``~`` before the end of a part,
    letters before other characters, digit runs as numbers).
    """
    left_parts, right_parts = _split_debian(left), _split_debian(right)
    if left_parts[0] != right_parts[0]:
        return -1 if left_parts[0] < right_parts[0] else 1
    return _compare_part(left_parts[1], right_parts[1]) or _compare_part(left_parts[2], right_parts[2])


debian_key: Callable[[str], Any] = functools.cmp_to_key(compare_debian)
"""Sort key of a Debian package version."""


_RPM_PIECE = re.compile(r"[0-9]+|[A-Za-z]+|~|\^")


def compare_rpm(left: str, right: str) -> int:
    """Compare two versions, or two releases, of RPM packages as rpm does: negative, zero or positive.

    Source: rpm-version(7). Digits and letters form pieces, everything else only separates; digits are newer than
    letters; ``~`` is older than the end, ``^`` newer than the end but older than any further piece.
    """
    ours, theirs = _RPM_PIECE.findall(left), _RPM_PIECE.findall(right)
    for mine, other in zip(ours, theirs, strict=False):
        if mine != other and (order := _compare_rpm_piece(mine, other)):
            return order
    if len(ours) == len(theirs):
        return 0
    longer = 1 if len(ours) > len(theirs) else -1
    further = (ours if longer > 0 else theirs)[min(len(ours), len(theirs))]
    return -longer if further == "~" else longer


def _compare_rpm_piece(mine: str, other: str) -> int:
    for mark in ("~", "^"):  # both are older than any piece of digits or letters
        if mark in (mine, other):
            return -1 if mine == mark else 1
    if mine.isdigit() and other.isdigit():
        return int(mine) - int(other)
    if mine.isdigit() or other.isdigit():
        return 1 if mine.isdigit() else -1
    return (mine > other) - (mine < other)


def compare_evr(left: tuple[str, str, str], right: tuple[str, str, str]) -> int:
    """Compare (epoch, version, release) of two RPM packages; no epoch is epoch 0."""
    return int(left[0] or 0) - int(right[0] or 0) or compare_rpm(left[1], right[1]) or compare_rpm(left[2], right[2])


evr_key: Callable[[tuple[str, str, str]], Any] = functools.cmp_to_key(compare_evr)
"""Sort key of (epoch, version, release)."""
_SNAPSHOT = re.compile(r"\b\d{8}g(?:it|t)?([0-9a-f]{7,40})\b")


def commit_in(version: str) -> str:
    """The commit that a snapshot's version names (``0.rc5.20250306gt848e0763.345``); empty where it names none."""
    match = _SNAPSHOT.search(version)
    return match[1] if match else ""


def upstream_of(version: str) -> str:
    """The upstream part of a package version: ``1:7.3~rc7-1~exp1`` gives ``7.3~rc7``."""
    return _split_debian(version)[1]


def _split_debian(version: str) -> tuple[int, str, str]:
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, dash, revision = rest.rpartition("-")
    if not dash:
        upstream, revision = rest, ""
    return int(epoch) if epoch.isdecimal() else 0, upstream, revision


def _compare_part(left: str, right: str) -> int:
    i = j = 0
    while i < len(left) or j < len(right):
        while (i < len(left) and not _digit(left[i])) or (j < len(right) and not _digit(right[j])):
            a = _weight(left[i]) if i < len(left) else 0
            b = _weight(right[j]) if j < len(right) else 0
            if a != b:
                return -1 if a < b else 1
            i, j = i + 1, j + 1
        i, a = _number(left, i)
        j, b = _number(right, j)
        if a != b:
            return -1 if a < b else 1
    return 0


def _digit(char: str) -> bool:
    return "0" <= char <= "9"


def _weight(char: str) -> int:
    """Rank of a character: ``~`` below the end (0, as are digits), letters, then everything else."""
    if char == "~":
        return -1
    if _digit(char):
        return 0
    return ord(char) if char.isalpha() else ord(char) + 256


def _number(text: str, start: int) -> tuple[int, int]:
    end = start
    while end < len(text) and _digit(text[end]):
        end += 1
    return end, int(text[start:end] or "0")
