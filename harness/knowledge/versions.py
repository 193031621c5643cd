"""Order of kernel and driver versions, and ranges of them as known issues write them. Pure functions on strings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from harness.kernels.version import candidate, compare_debian, fields
from harness.model.cell import KernelIdentity

Kind = Literal["kernel", "driver"]

_FINAL = 1 << 32
"""Rank of a release that is no candidate: above every ``rcN``."""
_CANDIDATE = re.compile(r"[-~.+]?(?:0\.)?rc\d+")
_LEADING = re.compile(r"^(?:\d+:)?v?(?=\d)")
_NUMBERS = re.compile(r"\d+(?:\.\d+)*")
_TOKEN = re.compile(r"~|[0-9]+|[a-z]+", re.IGNORECASE)
_END = (0, 0, "")
_VERSION = r"(?:[0-9]+:)?v?[0-9]+(?:\.[0-9]+)*(?:[-+~][0-9A-Za-z.+~_-]*)?"
_TERM = re.compile(
    rf"(?P<series>[0-9]+(?:\.[0-9]+)*)\.\*"
    rf"|(?P<low>{_VERSION})\.\.(?P<open><?)(?P<high>{_VERSION})"
    rf"|(?P<op>>=|<=|==|<|>)?\s*(?P<version>{_VERSION})"
)
_SYNTAX = "want >=A, >A, <=A, <A, A, A.*, A..B (both ends belong to it) or A..<B; several in one text must all hold"

Token = tuple[int, int, str]


def compare_kernels(left: str, right: str) -> int:
    """Compare two kernel versions in whatever spelling: negative, zero or positive.

    Upstream's numbers come first, candidates before the release that they lead to; then what packagers add, number by
    number, with ``~`` before the end as dpkg has it. ``7.3~rc7``, ``7.3-rc7`` and ``v7.3-rc7`` are one version.
    """
    a, b = _kernel(left), _kernel(right)
    return _order(a[:2], b[:2]) or _order((*a[2], _END), (*b[2], _END))


def compare_drivers(left: str, right: str) -> int:
    """Compare two driver versions, package revisions included: negative, zero or positive.

    Upstream's part is compared as dpkg does it (``01`` is 1), then the revision after the first dash; a version
    without one is upstream's own and comes before every package of it. An epoch says nothing about the driver.
    """
    (a, a_revision), (b, b_revision) = _driver(left), _driver(right)
    return compare_debian(a, b) or compare_debian(_as_part(a_revision), _as_part(b_revision))


def kernel_version(identity: KernelIdentity) -> str:
    """The version of a kernel that says most about its source.

    Debian's ``uname -r`` (``6.1.0-50-amd64``, ``7.3-amd64``) hides point releases and candidates, which the package's
    version tells; where a package is numbered differently from its kernel, the release counts.
    """
    package, release = _LEADING.sub("", identity.version), identity.release
    same = fields(package)[:2] == fields(release)[:2] and len(fields(package)) > 1
    return package if same else release


@dataclass(frozen=True, slots=True)
class Range:
    """One alternative of a range: terms that must all hold."""

    text: str
    kind: Kind
    terms: tuple[tuple[str, str], ...]
    """(operator, version); the operator ``*`` names a series."""

    def holds(self, version: str) -> bool:
        """Whether a version lies in it."""
        return all(self._term(operator, bound, version) for operator, bound in self.terms)

    def _term(self, operator: str, bound: str, version: str) -> bool:
        if operator == "*":
            wanted = fields(bound)
            return fields(_LEADING.sub("", version))[: len(wanted)] == wanted
        side = _kernel_side(version, bound) if self.kind == "kernel" else _driver_side(version, bound)
        return _HOLDS[operator](side)


_HOLDS: dict[str, Callable[[int], bool]] = {
    ">=": lambda side: side >= 0,
    ">": lambda side: side > 0,
    "<=": lambda side: side <= 0,
    "<": lambda side: side < 0,
    "==": lambda side: side == 0,
}


@lru_cache(maxsize=4096)
def parse_range(text: str, kind: Kind) -> Range:
    """Read one alternative: ``>=7.1``, ``6.12.97..<6.13``, ``>=580 <580.173.02``, ``6.12.*``, ``550.163.01-5.1``.

    Raises:
        ValueError: the text is none of these.
    """
    terms: list[tuple[str, str]] = []
    rest = text.strip()
    while rest:
        match = _TERM.match(rest)
        following = rest[match.end() :] if match else ""
        if match is None or (following and not following[0].isspace()):
            raise ValueError(f"{text!r} is no range of versions: {_SYNTAX}")
        if match["series"]:
            terms.append(("*", match["series"]))
        elif match["high"]:
            terms.append((">=", match["low"]))
            terms.append(("<" if match["open"] else "<=", match["high"]))
        else:
            terms.append((match["op"] or "==", match["version"]))
        rest = following.strip()
    if not terms:
        raise ValueError(f"an empty text is no range of versions: {_SYNTAX}")
    return Range(text, kind, tuple(terms))


def in_ranges(version: str, ranges: Iterable[str], kind: Kind) -> bool:
    """Whether a version lies in one of the alternatives."""
    return any(parse_range(text, kind).holds(version) for text in ranges)


def _kernel(text: str) -> tuple[tuple[int, ...], int, tuple[Token, ...]]:
    """(upstream's numbers without trailing zeros, rank of the candidate, what packagers add)."""
    plain = _LEADING.sub("", text)
    numbers = list(fields(plain))
    while numbers and numbers[-1] == 0:
        numbers.pop()
    match = _NUMBERS.match(plain)
    added = plain[match.end() :] if match else plain
    rc = candidate(added)
    if rc is not None:
        added = _CANDIDATE.sub("", added, count=1)
    return tuple(numbers), _FINAL if rc is None else rc, tuple(map(_token, _TOKEN.findall(added)))


def _token(text: str) -> Token:
    """Rank of a piece: ``~`` below the end, then letters, then numbers."""
    if text == "~":
        return (-1, 0, "")
    return (2, int(text), "") if text.isdigit() else (1, 0, text.lower())


def _driver(text: str) -> tuple[str, str]:
    upstream, _, revision = _LEADING.sub("", text).partition("-")
    return upstream, revision


def _as_part(revision: str) -> str:
    """A revision as an upstream version, so that further dashes in it are compared, too."""
    return f"0.{revision.replace('-', '.')}" if revision else ""


def _kernel_side(version: str, bound: str) -> int:
    """Compare a version with a bound, which stands for everything that it is the beginning of.

    ``6.12.96`` is all packages of 6.12.96, ``6.8.0-44`` all flavours of that build.
    """
    own, limit = _kernel(version), _kernel(bound)
    if side := _order(own[:2], limit[:2]):
        return side
    length = len(limit[2])
    return _order((*own[2], _END)[:length], limit[2])


def _driver_side(version: str, bound: str) -> int:
    """Likewise: ``550.163.01`` is all packages of it; with a revision, the exact package decides."""
    (own, revision), (limit, limit_revision) = _driver(version), _driver(bound)
    if side := compare_debian(own, limit):
        return side
    return compare_debian(_as_part(revision), _as_part(limit_revision)) if limit_revision else 0


def _order(left: tuple[object, ...], right: tuple[object, ...]) -> int:
    if left == right:
        return 0
    return -1 if left < right else 1
