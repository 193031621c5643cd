"""What only the whole file can tell: names that must be known, unique or defined, and rules that must match.

The checks read the positioned tree rather than validated models, so that they speak even where the shape of some
other part is wrong and a user sees everything at once. What has the wrong shape is passed over: the schema says so.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from harness.matrix import units
from harness.matrix.frame import Problem, did_you_mean, quoted
from harness.matrix.origins import SOURCES
from harness.matrix.schema import ALL
from harness.matrix.yamlpos import Items, Node, Path, Scalar, Table, dotted, walk
from harness.model.matrix import is_glob

AXES = ("guest", "kernel", "stack", "device")
_LISTS = ("kernels", "guests", "stacks", "devices", "tests")
_CHANGES = ("tests", "boots", "timeouts")


@dataclass(frozen=True, slots=True)
class Known:
    """The names that exist outside the matrix file: guests, stacks that they define, compute tests."""

    guests: Collection[str]
    stacks: Collection[str]
    tests: Collection[str]
    repositories: Collection[str] = ()
    """Names of RPM repositories, with ``{release}`` and ``{series}`` where a number stands; empty when not known."""
    tiers: Mapping[str, int] = field(default_factory=dict)
    """The tier of each compute test that is not of tier 1."""

    def up_to_tier(self, tier: int) -> tuple[str, ...]:
        """The compute tests of this tier and of those below it, in the order of their names."""
        return tuple(sorted(name for name in self.tests if self.tiers.get(name, 1) <= tier))

    def of(self, axis: str) -> Collection[str] | None:
        """Return the known names of an axis (``guest``, ``stack``, ``test``), None where any name will do."""
        return {"guest": self.guests, "stack": self.stacks, "test": self.tests}.get(axis)


def check(root: Node, known: Known) -> list[Problem]:
    """Return every problem with names and rules, in no particular order."""
    if not isinstance(root, Table):
        return []
    checker = _Checker(root, known)
    checker.whole()
    return checker.problems


@dataclass(slots=True)
class _Checker:
    root: Table
    known: Known
    problems: list[Problem] = field(default_factory=list)

    def whole(self) -> None:
        for path, node in walk(self.root):
            if isinstance(node, Scalar) and node.is_null:
                # Whoever meant the text has to say so; a key left empty by accident is more likely.
                self._note(node, path, "has no value (YAML reads null)", "give a value, or leave the key out")
        self._kernels()
        self._machines()
        kernels = set(self._kernel_names())
        self._axes(self.root, (), kernels)
        presets = self.root.get("presets")
        for key, preset in presets.entries if isinstance(presets, Table) else ():
            if isinstance(preset, Table):
                self._axes(preset, ("presets", key.value), kernels)
        universe = {axis: self._universe(axis) for axis in AXES}
        for section in ("exclude", "include"):
            for path, rule in self._entries(section):
                self._rule(rule, path, universe, adds=section == "include")

    def _kernels(self) -> None:
        names: list[tuple[Scalar, Path]] = []
        for path, kernel in self._entries("kernels"):
            name = kernel.get("name")
            if isinstance(name, Scalar):
                names.append((name, (*path, "name")))
            sources = [key for key, _ in kernel.entries if key.value in SOURCES]
            if not sources:
                others = ", ".join(key for key in SOURCES if key not in ("debian", "tree"))
                self._note(
                    kernel, path, "has no source", f"add `debian: SUITE` or `tree: DIRECTORY`, or one of {others}"
                )
            elif len(sources) > 1:
                both = f"{sources[0].value} and {sources[1].value}"
                self._note(sources[1], path, f"has two sources, {both}", "keep one of them")
            self._origin(kernel, path)
        self._duplicates(names)

    def _origin(self, kernel: Table, path: Path) -> None:
        """Check the names within a kernel's source that must be known."""
        rpm = kernel.get("rpm")
        where: Path = (*path, "rpm")
        if isinstance(rpm, Table):
            rpm, where = rpm.get("repository"), (*where, "repository")
        known = self.known.repositories
        named = isinstance(rpm, Scalar) and not rpm.is_null and "/" not in rpm.value
        if isinstance(rpm, Scalar) and named and known and not any(_fits(pattern, rpm.value) for pattern in known):
            message = f"there is no RPM repository {quoted(rpm.value)}"
            self._note(rpm, where, message, self._suggest(rpm.value, known))
        source = kernel.get("source")
        guest = source.get("guest") if isinstance(source, Table) else None
        if isinstance(guest, Scalar) and not guest.is_null:
            self._must_be([(guest, (*path, "source", "guest"))], "guest", self.known.guests)

    def _machines(self) -> None:
        """Check what a lab box is called and what it is said to be like."""
        for key, machine in self._boxes():
            path: Path = ("machines", key.value)
            if key.value in self.known.guests:
                message = f"{quoted(key.value)} is the name of a guest, too, and both stand on the guests axis"
                self._note(key, path, message, f"give the machine another name, such as {key.value}-box")
            guest = machine.get("guest") if isinstance(machine, Table) else None
            if isinstance(guest, Scalar) and not guest.is_null:
                self._must_be([(guest, (*path, "guest"))], "guest", self.known.guests)

    def _boxes(self) -> list[tuple[Scalar, Node]]:
        machines = self.root.get("machines")
        return list(machines.entries) if isinstance(machines, Table) else []

    def _known(self, axis: str) -> Collection[str] | None:
        """The names that may stand on an axis; None where any name will do."""
        names = self.known.of(axis)
        return [*names, *(key.value for key, _ in self._boxes())] if axis == "guest" and names is not None else names

    def _axes(self, table: Table, path: Path, kernels: set[str]) -> None:
        """Check the lists of names of the file itself or of a preset."""
        for key in _LISTS:
            if key == "kernels" and not path:
                continue  # entries, not names
            entries = _names if key == "devices" else _texts
            texts = list(entries(table.get(key), (*path, key)))
            self._duplicates(texts)
            if key == "kernels":
                self._must_be(texts, "kernel", kernels)
            elif key == "devices" and path:
                for node, where in texts:
                    self._device(node, where)
            elif (names := self._known(key[:-1])) is not None:
                self._must_be(texts, key[:-1], [*names, ALL] if key == "tests" and len(texts) == 1 else names)

    def _rule(self, rule: Table, path: Path, universe: dict[str, set[str]], *, adds: bool) -> None:
        if not any(rule.get(axis) for axis in AXES):
            self._note(rule, path, "names no axis, so it would match everything", "name " + ", ".join(AXES[:-1]) + " …")
        new = False
        for axis in AXES:
            names = self._known(axis)
            for node, where in _texts(rule.get(axis), (*path, axis)):
                literal = not is_glob(node.value)
                if adds and literal and names is not None:
                    self._must_be([(node, where)], axis, names)
                elif adds and literal and axis == "device":
                    self._device(node, where)
                elif node.value not in universe[axis] and not any(
                    fnmatchcase(name, node.value) for name in universe[axis] if not literal
                ):
                    message = f"{quoted(node.value)} matches no {axis} of this file"
                    self._note(node, where, message, self._suggest(node.value, universe[axis]))
                new |= adds and literal and axis != "kernel" and node.value not in self._axis(axis)
        if adds:
            self._must_be(list(_texts(rule.get("tests"), (*path, "tests"))), "test", [*self.known.tests, ALL])
            if not new and not any(rule.get(key) for key in _CHANGES):
                message = "changes nothing: every entry it names is on the axes already"
                self._note(rule, path, message, "set tests, boots or timeouts, or remove the rule")

    def _device(self, node: Scalar, path: Path) -> None:
        """A device that a rule or a preset names: a request of the file, an address, or none."""
        requests = self._axis("device")
        if node.value in requests:
            return
        try:
            units.device(node.value)
        except ValueError as error:
            message, _, hint = str(error).partition("; ")
            self._note(node, path, message, did_you_mean(node.value, requests) if ":" not in node.value else hint)

    def _universe(self, axis: str) -> set[str]:
        """Return every entry of an axis that the file can bring about, presets and includes counted."""
        if axis == "kernel":
            return set(self._kernel_names())
        names = self._axis(axis)
        presets = self.root.get("presets")
        for _, preset in presets.entries if isinstance(presets, Table) else ():
            if isinstance(preset, Table):
                names |= {node.value for node, _ in _texts(preset.get(axis + "s"), ())}
        for _, rule in self._entries("include"):
            names |= {node.value for node, _ in _texts(rule.get(axis), ()) if not is_glob(node.value)}
        return names

    def _axis(self, axis: str) -> set[str]:
        node = self.root.get(axis + "s")
        if node is None and axis == "device":
            return {"none"}
        return {text.value for text, _ in (_names(node, ()) if axis == "device" else _texts(node, ()))}

    def _kernel_names(self) -> list[str]:
        names = (kernel.get("name") for _, kernel in self._entries("kernels"))
        return [name.value for name in names if isinstance(name, Scalar)]

    def _entries(self, section: str) -> Iterator[tuple[Path, Table]]:
        node = self.root.get(section)
        for index, item in enumerate(node.items if isinstance(node, Items) else ()):
            if isinstance(item, Table):
                yield (section, index), item

    def _must_be(self, texts: Iterable[tuple[Scalar, Path]], what: str, names: Collection[str]) -> None:
        for node, path in texts:
            if node.value not in names:
                self._note(node, path, f"there is no {what} {quoted(node.value)}", self._suggest(node.value, names))

    def _suggest(self, word: str, names: Collection[str]) -> str:
        """Comparing spellings is slow, and nobody reads the thousandth suggestion."""
        return did_you_mean(word, names) if len(self.problems) < 100 and len(names) <= 2000 else ""

    def _duplicates(self, texts: Iterable[tuple[Scalar, Path]]) -> None:
        seen: dict[str, int] = {}
        for node, path in texts:
            if node.value in seen:
                message = f"{quoted(node.value)} stands twice, first at line {seen[node.value]}"
                self._note(node, path, message, "keep one of the two")
            seen.setdefault(node.value, node.span.line)

    def _note(self, node: Node, path: Path, message: str, hint: str) -> None:
        self.problems.append(Problem(node.span, dotted(path), message, hint))


def _fits(pattern: str, name: str) -> bool:
    """Whether a name is the one that a pattern with ``{release}`` or ``{series}`` describes."""
    regex = re.escape(pattern).replace(r"\{release\}", "[0-9]{1,3}").replace(r"\{series\}", r"[0-9]+\.[0-9]+")
    return re.fullmatch(regex, name) is not None


def _names(node: Node | None, path: Path) -> Iterator[tuple[Scalar, Path]]:
    """Yield what the entries of the devices axis are called: themselves, their name, or their address."""
    for index, item in enumerate(node.items if isinstance(node, Items) else ()):
        inner = item.get("name") or item.get("address") if isinstance(item, Table) else item
        if isinstance(inner, Scalar) and not inner.is_null:
            yield inner, (*path, index)


def _texts(node: Node | None, path: Path) -> Iterator[tuple[Scalar, Path]]:
    """Yield the scalars of a list, or the one that stands in place of a list; null is reported elsewhere."""
    if isinstance(node, Scalar) and not node.is_null:
        yield node, path
    elif isinstance(node, Items):
        for index, item in enumerate(node.items):
            if isinstance(item, Scalar) and not item.is_null:
                yield item, (*path, index)
