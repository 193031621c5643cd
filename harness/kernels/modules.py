"""Which module files have to be loaded, in which order, to get the modules that are asked for.

Reads depmod's text indices (``modules.dep(5)``, ``modprobe.d(5)`` for softdep and alias). Soft dependencies count: an
erofs of 6.1 needs a crc32c provider that is named in ``modules.softdep`` only.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

_SUFFIX = re.compile(r"\.ko(?:\.(?:gz|xz|zst))?$")
_WILD = re.compile(r"[*?[]")


def module_name(text: str) -> str:
    """The name that the kernel uses: ``drivers/gpu/nova-core.ko.xz`` and ``nova-core`` are ``nova_core``."""
    return _SUFFIX.sub("", text.rpartition("/")[2]).replace("-", "_")


def parse_dep(text: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Read ``modules.dep``: module name to (its path, the names that it depends on), paths relative to its folder."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for line in text.splitlines():
        path, colon, dependencies = line.partition(":")
        if colon:
            # The last one listed is the first one to load.
            needed = tuple(module_name(dependency) for dependency in reversed(dependencies.split()))
            found[module_name(path)] = (path, needed)
    return found


def parse_builtin(text: str) -> frozenset[str]:
    """Read ``modules.builtin``: names of what would be modules but is part of the kernel image."""
    return frozenset(module_name(line.strip()) for line in text.splitlines() if line.strip())


def parse_softdep(text: str) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Read ``modules.softdep``: module name to (load before, load after)."""
    found: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 3 or words[0] != "softdep":
            continue
        lists: dict[str, list[str]] = {"pre:": [], "post:": []}
        current: list[str] | None = None
        for word in words[2:]:
            if word in lists:
                current = lists[word]
            elif current is not None:
                current.append(word)
        name = module_name(words[1])
        before, after = found.get(name, ((), ()))
        found[name] = (before + tuple(lists["pre:"]), after + tuple(lists["post:"]))
    return found


def parse_alias(text: str) -> tuple[tuple[str, str], ...]:
    """Read ``modules.alias``: (pattern, module name) in file order."""
    rows = (line.split() for line in text.splitlines() if line.startswith("alias "))
    return tuple((words[1], module_name(words[2])) for words in rows if len(words) == 3)


def parse_builtin_modinfo(data: bytes) -> tuple[tuple[str, str], ...]:
    """Read ``modules.builtin.modinfo``: (alias pattern, name) of what is built in; entries end in a NUL byte."""
    rows = []
    for entry in data.decode(errors="replace").split("\0"):
        key, equals, value = entry.partition("=")
        name, dot, what = key.partition(".")
        if equals and dot and what == "alias":
            rows.append((value, module_name(name)))
    return tuple(rows)


@dataclass(frozen=True, slots=True)
class Closure:
    """What to load for a set of names."""

    paths: tuple[Path, ...]
    """Module files in load order: everything comes after what it depends on."""
    soft: frozenset[Path] = frozenset()
    """Those of :attr:`paths` wanted only softly: one may fail to load (no such CPU feature) and nothing is lost."""
    builtin: tuple[str, ...] = ()
    """Names asked for that are part of the kernel image."""
    unknown: tuple[str, ...] = ()
    """Names asked for that this kernel has neither as a module, nor built in, nor as an alias of one."""


def closure(modules: Path, names: Iterable[str]) -> Closure:
    """Resolve ``names`` (modules or aliases) with all that they need in ``modules`` (``…/lib/modules/RELEASE``)."""
    return _Walk(ModuleIndex(modules)).run(names)


class ModuleIndex:
    """The indices of one kernel's modules, each read when first needed; a missing file counts as empty."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def dep(self) -> Mapping[str, tuple[str, tuple[str, ...]]]:
        """See :func:`parse_dep`."""
        return parse_dep(self._text("modules.dep"))

    @cached_property
    def builtin(self) -> frozenset[str]:
        """See :func:`parse_builtin`."""
        return parse_builtin(self._text("modules.builtin"))

    @cached_property
    def softdep(self) -> Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]:
        """See :func:`parse_softdep`."""
        return parse_softdep(self._text("modules.softdep"))

    def matching(self, alias: str) -> tuple[str, ...]:
        """Modules of which ``alias`` is an alias, in modprobe's order."""
        plain, wild = self._aliases
        wanted = alias.replace("-", "_")
        matches = [*plain.get(wanted, ())]
        # The literal start first: there are tens of thousands of patterns, and compiling one costs more than this.
        matches += [
            name for start, pattern, name in wild if alias.startswith(start) and fnmatch.fnmatchcase(alias, pattern)
        ]
        return tuple(dict.fromkeys(name for name in matches if name in self.dep))

    def builtin_matching(self, alias: str) -> bool:
        """Whether something built in has that alias."""
        wanted = alias.replace("-", "_")
        return any(
            pattern.replace("-", "_") == wanted
            or (_WILD.search(pattern) is not None and fnmatch.fnmatchcase(alias, pattern))
            for pattern, _ in self._builtin_aliases
        )

    @cached_property
    def _aliases(self) -> tuple[dict[str, list[str]], list[tuple[str, str, str]]]:
        plain: dict[str, list[str]] = {}
        wild: list[tuple[str, str, str]] = []
        for pattern, name in parse_alias(self._text("modules.alias")):
            if start := _WILD.search(pattern):
                wild.append((pattern[: start.start()], pattern, name))
            else:
                plain.setdefault(pattern.replace("-", "_"), []).append(name)
        return plain, wild

    @cached_property
    def _builtin_aliases(self) -> tuple[tuple[str, str], ...]:
        try:
            return parse_builtin_modinfo((self.folder / "modules.builtin.modinfo").read_bytes())
        except FileNotFoundError:
            return ()

    def _text(self, name: str) -> str:
        try:
            return (self.folder / name).read_text(errors="replace")
        except FileNotFoundError:
            return ""


@dataclass(slots=True)
class _Walk:
    index: ModuleIndex
    order: dict[str, bool] = field(default_factory=dict)
    """Module name to whether it is needed hard, in load order."""
    active: set[tuple[str, bool]] = field(default_factory=set)
    """Visits that have begun: soft dependencies may form circles."""

    def run(self, names: Iterable[str]) -> Closure:
        builtin: list[str] = []
        unknown: list[str] = []
        for name in names:
            modules = self.resolve(name)
            if modules is None:
                unknown.append(name)
            elif not modules:
                builtin.append(name)
            # Of several providers of one alias, each may refuse this machine.
            for module in modules or ():
                self.visit(module, hard=len(modules or ()) == 1)
        paths = {name: self.index.folder / self.index.dep[name][0] for name in self.order}
        return Closure(
            paths=tuple(paths.values()),
            soft=frozenset(paths[name] for name, hard in self.order.items() if not hard),
            builtin=tuple(builtin),
            unknown=tuple(unknown),
        )

    def resolve(self, name: str) -> tuple[str, ...] | None:
        """Modules that ``name`` stands for; empty when it is built in, None when it is unknown."""
        module = module_name(name)
        if module in self.index.dep:
            return (module,)
        if module in self.index.builtin:
            return ()
        found = self.index.matching(name)
        if found or self.index.builtin_matching(name):
            return found
        return None

    def visit(self, module: str, *, hard: bool) -> None:
        if (module, hard) in self.active or (module, True) in self.active:
            return
        self.active.add((module, hard))
        before, after = self.index.softdep.get(module, ((), ()))
        for name in before:
            self.visit_soft(name)
        for name in self.index.dep[module][1]:
            if name in self.index.dep:
                self.visit(name, hard=hard)
        self.order[module] = self.order.get(module, False) or hard
        for name in after:
            self.visit_soft(name)

    def visit_soft(self, name: str) -> None:
        for module in self.resolve(name) or ():
            self.visit(module, hard=False)
