"""The ``-k`` expression: which cells of a matrix to run, by parts of their ids.

Grammar, with ``not`` binding closest and ``or`` loosest::

    either = both ("or" both)*
    both   = negated ("and" negated)*
    negated = "not" negated | "(" either ")" | WORD

A word is any run of characters without blanks, brackets and quotes, so that names such as ``lts-6.1`` and
``debian-13/rc`` need no quoting; ``'…'`` or ``"…"`` quotes a word that reads like an operator. A word holds for a cell
whose id contains it, whatever the case.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.errors import UserError
from harness.model.cell import Cell, LeftOut

Predicate = Callable[[str], bool]
"""Takes a lower-case cell id."""

_MAX_LENGTH = 4096
_MAX_DEPTH = 64
_TOKEN = re.compile(r"""\s*(?:(?P<bracket>[()])|(?P<quoted>'[^']*'|"[^"]*")|(?P<word>[^\s()'"]+)|(?P<bad>\S))""")
_OPERATORS = frozenset({"and", "or", "not"})


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    """``word``, ``end``, or the operator or bracket itself."""
    text: str
    at: int


def select(cells: Sequence[Cell], expression: str) -> tuple[tuple[Cell, ...], tuple[LeftOut, ...]]:
    """Split cells into those that the expression keeps, in their order, and the others with the reason.

    Raises UserError for an expression that cannot be read, with a caret under the place, and for one that keeps
    nothing: a run of no cells would look like success.
    """
    holds = parse(expression)
    kept: list[Cell] = []
    left_out: list[LeftOut] = []
    for cell in cells:
        if holds(cell.id.lower()):
            kept.append(cell)
        else:
            left_out.append(LeftOut(cell.id, f"not selected by -k {_visible(expression)}"))
    if cells and not kept:
        raise UserError(
            f"-k {_visible(expression)}: selects none of the {len(cells)} cells; the first one is {cells[0].id}"
        )
    return tuple(kept), tuple(left_out)


def parse(expression: str) -> Predicate:
    """Return the predicate over lower-case cell ids that the expression means; raise UserError if it is none."""
    if len(expression) > _MAX_LENGTH:
        raise UserError(f"-k: the expression has {len(expression)} characters; at most {_MAX_LENGTH} are read")
    return _Parser(expression, _tokens(expression)).whole()


def _tokens(expression: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while match := _TOKEN.match(expression, at):
        kind = match.lastgroup or ""
        text, start, at = match[kind], match.start(kind), match.end()
        if kind == "bad":
            raise _wrong(expression, start, f"the quote {text} is never closed")
        if kind == "bracket":
            tokens.append(_Token(text, text, start))
        elif kind == "quoted":
            if len(text) == 2:
                raise _wrong(expression, start, "an empty word would match every cell")
            tokens.append(_Token("word", text[1:-1], start))
        else:
            lowered = text.lower()
            tokens.append(_Token(lowered if lowered in _OPERATORS else "word", text, start))
    tokens.append(_Token("end", "", len(expression)))
    return tokens


class _Parser:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, expression: str, tokens: list[_Token]) -> None:
        self._expression = expression
        self._tokens = tokens
        self._next = 0

    def whole(self) -> Predicate:
        predicate = self._either(0)
        token = self._peek()
        if token.kind == ")":
            raise self._error(token, "this ) closes nothing")
        if token.kind != "end":
            raise self._error(token, "expected 'and' or 'or' before this")
        return predicate

    def _either(self, depth: int) -> Predicate:
        alternatives = [self._both(depth)]
        while self._accept("or"):
            alternatives.append(self._both(depth))
        return (
            alternatives[0] if len(alternatives) == 1 else lambda cell_id: any(part(cell_id) for part in alternatives)
        )

    def _both(self, depth: int) -> Predicate:
        parts = [self._negated(depth)]
        while self._accept("and"):
            parts.append(self._negated(depth))
        return parts[0] if len(parts) == 1 else lambda cell_id: all(part(cell_id) for part in parts)

    def _negated(self, depth: int) -> Predicate:
        token = self._peek()
        if depth > _MAX_DEPTH:
            raise self._error(token, f"nested deeper than {_MAX_DEPTH} levels")
        if self._accept("not"):
            inner = self._negated(depth + 1)
            return lambda cell_id: not inner(cell_id)
        if self._accept("("):
            predicate = self._either(depth + 1)
            if not self._accept(")"):
                raise self._error(token, "this ( is never closed")
            return predicate
        if token.kind != "word":
            raise self._error(token, "expected a word, 'not' or '(' here")
        self._next += 1
        word = token.text.lower()
        return lambda cell_id: word in cell_id

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _accept(self, kind: str) -> bool:
        if self._peek().kind != kind:
            return False
        self._next += 1
        return True

    def _error(self, token: _Token, message: str) -> UserError:
        return _wrong(self._expression, token.at, message)


def _visible(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


def _wrong(expression: str, at: int, message: str) -> UserError:
    return UserError(f"-k: column {at + 1}: {message}\n  {_visible(expression)}\n  {' ' * at}^")


def pick_cell(cells: Sequence[Cell], wanted: str) -> Cell:
    """Return the cell whose id is ``wanted``, or the only one whose id contains it.

    Raises:
        UserError: there is none, or more than one.
    """
    exact = [cell for cell in cells if cell.id == wanted]
    found = exact or [cell for cell in cells if wanted in cell.id]
    if len(found) == 1:
        return found[0]
    ids = [cell.id for cell in found or cells]
    if found:
        raise UserError(f"{wanted!r} is part of {len(found)} cells: {', '.join(ids[:8])}")
    near = difflib.get_close_matches(wanted, ids, 1, 0.4)
    hint = f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(ids[:8])}"
    raise UserError(f"no cell is called {wanted!r}{hint}")
