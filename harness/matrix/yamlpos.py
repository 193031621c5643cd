"""YAML with positions: a bounded tree of text nodes, each of which knows where it stands.

Every scalar stays the text that was written (kernel ``6.10`` is not 6.1, the address ``0000:01:00.0`` is no base-60
number, ``no`` is not False). The tree is built from the parser's events rather than by PyYAML's composer, so that
depth, size and aliases are bounded before anything is expanded, and duplicate keys are seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from harness.matrix.frame import Problem, Span, quoted

MAX_DEPTH = 32
MAX_NODES = 50_000
"""Nodes of the tree with every alias counted as what it stands for."""

# PyYAML built without libyaml has only the slower pure-Python parser; both give the same events.
_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})

Plain = str | list["Plain"] | dict[str, "Plain"]
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Scalar:
    """A text, a number, anything that is not a collection: always text here."""

    span: Span
    value: str
    plain: bool = False
    """Written without quotes."""
    weight: int = 1

    @property
    def is_null(self) -> bool:
        """Whether YAML reads it as null: nothing, ``~`` or ``null`` without quotes."""
        return self.plain and self.value in _NULLS


@dataclass(frozen=True, slots=True)
class Items:
    """A sequence."""

    span: Span
    items: tuple[Node, ...]
    weight: int


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping; of duplicate keys the first stays."""

    span: Span
    entries: tuple[tuple[Scalar, Node], ...]
    weight: int

    def get(self, key: str) -> Node | None:
        """Return the value of a key, or None."""
        return next((node for name, node in self.entries if name.value == key), None)


Node = Scalar | Items | Table


class YamlProblem(Exception):
    """The text is no usable YAML: one problem, after which nothing more can be read."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def parse(text: str) -> tuple[Node, list[Problem]]:
    """Return the tree of the only document of ``text``, and the problems that did not stop the reading.

    Raises YamlProblem for a syntax error, several documents, no document at all, or a tree that is too deep or large.
    """
    if found := _UNPRINTABLE.search(text):
        line = text.count("\n", 0, found.start()) + 1
        column = found.start() - (text.rfind("\n", 0, found.start()) + 1) + 1
        raise _stop(Span(line, column), f"holds the control character U+{ord(found[0]):04X}", "remove it")
    try:
        builder = _Builder(yaml.parse(text, Loader=_LOADER))
        return builder.document(), builder.problems
    except yaml.MarkedYAMLError as error:
        raise YamlProblem(_syntax(error, text)) from None
    except yaml.YAMLError as error:
        raise _stop(Span(1, 1), f"is not YAML: {quoted(str(error))}") from None


def plain(node: Node) -> Plain:
    """Return the node as text, lists and dicts."""
    match node:
        case Scalar():
            return node.value
        case Items():
            return [plain(item) for item in node.items]
        case Table():
            return {key.value: plain(value) for key, value in node.entries}


def locate(root: Node, path: Path) -> tuple[Node, Scalar | None]:
    """Follow a path as far as it goes; return the last node reached and, in a mapping, the key that led to it."""
    node, key = root, None
    for step in path:
        if isinstance(node, Table) and isinstance(step, str):
            pair = next(((name, value) for name, value in node.entries if name.value == step), None)
            if pair is None:
                break
            key, node = pair
        elif isinstance(node, Items) and isinstance(step, int) and step < len(node.items):
            key, node = None, node.items[step]
        else:
            break
    return node, key


def walk(node: Node, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """Yield every node with its path, parents first."""
    yield path, node
    if isinstance(node, Items):
        for index, item in enumerate(node.items):
            yield from walk(item, (*path, index))
    elif isinstance(node, Table):
        for key, value in node.entries:
            yield from walk(value, (*path, key.value))


def dotted(path: Path) -> str:
    """Return the path as users read it: ``kernels.0.series``."""
    return ".".join(str(step) for step in path)


@dataclass(slots=True)
class _Builder:
    events: Iterator[yaml.Event]
    problems: list[Problem] = field(default_factory=list)
    _anchors: dict[str, Node | None] = field(default_factory=dict)
    """None while the anchor's own node is still being read."""
    _count: int = 0

    def document(self) -> Node:
        root: Node | None = None
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise _stop(_span(event), "a second document starts here", "a matrix file is one document")
                root = self._node(next(self.events), ())
        if root is None or (isinstance(root, Scalar) and root.is_null):
            raise _stop(Span(1, 1), "the file is empty", "it needs at least version, kernels, guests and stacks")
        return root

    def _node(self, event: yaml.Event, path: Path) -> Node:
        span = _span(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path)
        if len(path) > MAX_DEPTH:
            raise _stop(span, f"nested deeper than {MAX_DEPTH} levels")
        tag, anchor = getattr(event, "tag", None), getattr(event, "anchor", None)
        if tag is not None:
            self._note(span, path, f"has the tag {quoted(tag)}", "remove it: tags are not read")
        if anchor is not None:
            self._anchors[anchor] = None
        self._grow(span, 1)
        node: Node
        if isinstance(event, yaml.SequenceStartEvent):
            node = self._items(span, path)
        elif isinstance(event, yaml.MappingStartEvent):
            node = self._table(span, path)
        else:
            assert isinstance(event, yaml.ScalarEvent)  # what remains of the grammar of YAML events
            # libyaml calls the plain style "", the pure-Python parser None.
            node = Scalar(span, event.value, plain=not event.style)
        if anchor is not None:
            self._anchors[anchor] = node
        return node

    def _items(self, span: Span, path: Path) -> Items:
        items: list[Node] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self._node(event, (*path, len(items))))
        return Items(span, tuple(items), 1 + sum(item.weight for item in items))

    def _table(self, span: Span, path: Path) -> Table:
        entries: list[tuple[Scalar, Node]] = []
        seen: dict[str, Span] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self._node(event, (*path, "?"))
            value = self._node(next(self.events), (*path, key.value if isinstance(key, Scalar) else "?"))
            if not isinstance(key, Scalar):
                self._note(
                    key.span, path, "a list or mapping stands as a key", "quote the text if it starts with { or ["
                )
            elif key.value == "<<" and key.plain:
                self._note(key.span, path, "merge keys (<<) are not read", "write the keys out, or use include rules")
            elif key.value in seen:
                first = seen[key.value].line
                self._note(
                    key.span, (*path, key.value), f"duplicate key, first given at line {first}", "keep one of the two"
                )
            else:
                seen[key.value] = key.span
                entries.append((key, value))
        return Table(span, tuple(entries), 1 + sum(1 + value.weight for _, value in entries))

    def _alias(self, event: yaml.AliasEvent, path: Path) -> Node:
        span = _span(event)
        name = event.anchor
        if name not in self._anchors:
            raise _stop(
                span, f"the alias *{name} has no anchor above it", f"write &{name} where the value first stands"
            )
        node = self._anchors[name]
        if node is None:
            raise _stop(span, f"the alias *{name} stands within its own anchor")
        if len(path) + _height(node) > MAX_DEPTH:
            raise _stop(span, f"nested deeper than {MAX_DEPTH} levels")
        self._grow(span, node.weight)
        return node

    def _grow(self, span: Span, weight: int) -> None:
        self._count += weight
        if self._count > MAX_NODES:
            raise _stop(span, f"the file has more than {MAX_NODES} values, counting what aliases stand for")

    def _note(self, span: Span, path: Path, message: str, hint: str) -> None:
        self.problems.append(Problem(span, dotted(path), message, hint))


def _height(node: Node) -> int:
    match node:
        case Scalar():
            return 0
        case Items():
            return 1 + max((_height(item) for item in node.items), default=0)
        case Table():
            return 1 + max((_height(value) for _, value in node.entries), default=0)


def _span(event: yaml.Event) -> Span:
    start, end = event.start_mark, event.end_mark
    assert start is not None  # None only for events that a program makes up
    assert end is not None
    width = end.column - start.column if end.line == start.line else 1
    return Span(start.line + 1, start.column + 1, max(1, width))


def _stop(span: Span, message: str, hint: str = "") -> YamlProblem:
    return YamlProblem(Problem(span, "", message, hint))


_HINTS = (
    ("mapping values are not allowed", "check the indentation, and quote a text that holds ': '"),
    ("could not find expected ':'", "every line of a mapping is `key: value`"),
    ("did not find expected key", "check the indentation and that every quote is closed"),
    ("did not find expected '-' indicator", "the entries of a list start with `- ` in one column"),
    ("block sequence entries are not allowed", "start the list on a line of its own"),
    ("did not find expected ',' or ']'", "close the list with ] and separate its entries by commas"),
    ("did not find expected ',' or '}'", "close the mapping with } and separate its entries by commas"),
    ("found unexpected end of stream", "close the quote"),
    ("found unknown escape character", "use single quotes for a text with backslashes"),
)


def _syntax(error: yaml.MarkedYAMLError, text: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    problem = error.problem or "is not YAML"
    if error.context_mark is not None and "end of stream" in problem:
        mark = error.context_mark  # where the quote was opened tells more than where the file ends
    span = Span(mark.line + 1, mark.column + 1) if mark is not None else Span(1, 1)
    at = mark.index if mark is not None else 0
    if "cannot start any token" in problem:
        character = text[at : at + 1]
        if character == "\t":
            return Problem(span, "", "a tab stands in the indentation", "YAML indents with spaces only")
        return Problem(span, "", f"a value cannot start with {quoted(character)}", "quote the text")
    hint = next((advice for phrase, advice in _HINTS if phrase in problem), "")
    opened = error.context_mark
    if opened is not None and opened.line + 1 != span.line and error.context:
        problem += f" ({error.context} that starts at line {opened.line + 1})"
    return Problem(span, "", f"not valid YAML: {problem}", hint)
