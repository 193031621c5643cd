"""What is wrong with a matrix file, and how it is shown: where, what, what would be right, and the line itself."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.errors import UserError

_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
"""The line breaks of YAML 1.1, which is what the parser counts lines by."""
_FRAME_WIDTH = 100
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Span:
    """A place in the text: 1-based line and column in characters, and how many characters to underline."""

    line: int
    column: int
    width: int = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    span: Span
    where: str
    """Dotted path of keys and indices (``kernels.0.series``); empty for the file as a whole."""
    message: str
    hint: str = ""
    """What would be right."""

    @property
    def text(self) -> str:
        """The problem in one line, without its place in the file."""
        prefix = f"{visible(self.where)}: " if self.where else ""
        return prefix + self.message + (f"; {self.hint}" if self.hint else "")


class MatrixError(UserError):
    """A matrix file that cannot be used: every problem found in it, in the order of the file."""

    def __init__(self, file: str, problems: Sequence[Problem], text: str = "") -> None:
        """``file`` is the path as the user gave it, ``text`` the file's content for the frames."""
        self.file = file
        self.problems = tuple(sorted(set(problems), key=lambda problem: (problem.span.line, problem.span.column)))
        self._text = text
        super().__init__(render(file, self.problems, text))

    def __reduce__(self) -> tuple[type[MatrixError], tuple[str, tuple[Problem, ...], str]]:
        return type(self), (self.file, self.problems, self._text)

    def as_json(self) -> list[dict[str, str | int]]:
        """The problems as plain data: file, line, column, where, message, hint."""
        return [
            {
                "file": self.file,
                "line": problem.span.line,
                "column": problem.span.column,
                "where": problem.where,
                "message": problem.message,
                "hint": problem.hint,
            }
            for problem in self.problems
        ]


def render(file: str, problems: Sequence[Problem], text: str) -> str:
    """Return the problems as text; the first line of each is ``file:line:column: where: what; what would be right``."""
    lines = _LINE_BREAK.split(text)
    blocks = [
        f"{visible(file)}:{p.span.line}:{p.span.column}: {p.text}{frame(lines, p.span)}" for p in problems[:_SHOWN]
    ]
    if len(problems) > _SHOWN:
        blocks.append(f"{visible(file)}: and {len(problems) - _SHOWN} more problems")
    return "\n".join(blocks)


def frame(lines: Sequence[str], span: Span) -> str:
    """Return the line of the span and a caret below it, each with a leading newline; empty past the end of the text."""
    if not 1 <= span.line <= len(lines) or not lines[span.line - 1].strip():
        return ""
    line = lines[span.line - 1]
    start = min(span.column - 1, len(line))
    # A long line is cut around the place, so that the caret stays on screen.
    first = max(0, start - _FRAME_WIDTH // 2) if len(line) > _FRAME_WIDTH else 0
    shown = line[first : first + _FRAME_WIDTH]
    before, under = line[first:start], line[start : min(start + span.width, first + _FRAME_WIDTH)]
    carets = "^" + "~" * (max(1, _cells(under)) - 1)
    number = f"{span.line:>5}"
    return f"\n{number} | {visible(shown)}\n{' ' * len(number)} | {' ' * _cells(before)}{carets}"


def visible(text: str) -> str:
    """Return the text with everything that a terminal could obey or hide replaced (tabs by one space)."""
    return "".join(c if c.isprintable() else " " if c == "\t" else "\ufffd" for c in text)


def quoted(text: str) -> str:
    """Return untrusted text, bounded, for use within a message."""
    return f"'{visible(text if len(text) <= 60 else text[:57] + '…')}'"


def closest(word: str, candidates: Iterable[str]) -> list[str]:
    """Return the candidate that the word is likely a misspelling of, or nothing."""
    folded = {name.lower(): name for name in sorted(candidates)}
    return [folded[match] for match in difflib.get_close_matches(word.lower()[:80], folded, n=1, cutoff=0.6)]


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` for the closest candidate, else an enumeration of them if it is short, else ''."""
    names = sorted(set(candidates))
    if close := closest(word, names):
        return f"did you mean {quoted(close[0])}?"
    if 0 < len(names) <= 12:
        return "known: " + ", ".join(names)
    return ""


def _cells(text: str) -> int:
    """Columns that a terminal needs for the text as :func:`visible` shows it."""
    shown = visible(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in shown)
