"""Stanzas of a Debian ``Packages`` index, and the dependencies between them. Pure functions.

Source: Debian policy manual, sections 5.1 (control files) and 7.1 (relationship fields).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from harness.kernels.version import compare_debian, debian_key

_STANZA = re.compile(rb"^Package: linux-", re.MULTILINE)
_SHA256 = re.compile(r"^[0-9a-fA-F]{64}$")
_VERSION = re.compile(r"^[0-9][0-9A-Za-z.+:~-]*$")
_NAME = re.compile(r"^[a-z0-9][a-z0-9+.-]*$")
_RELATION = re.compile(
    r"\s*(?P<name>[a-z0-9][a-z0-9+.-]*)(?::\w+)?\s*(?:\(\s*(?P<op><<|<=|=|>=|>>)\s*(?P<version>[^\s)]+)\s*\))?"
)


@dataclass(frozen=True, slots=True)
class Package:
    """One binary package as the signed index describes it."""

    name: str
    version: str
    architecture: str
    depends: str
    """``Pre-Depends`` and ``Depends``, as written."""
    size: int
    """Bytes of the .deb."""
    sha256: str

    @property
    def filename(self) -> str:
        """The name under which apt saves it: a colon (epoch) cannot stand in a file name."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.architecture}.deb"


@dataclass(frozen=True, slots=True)
class Relation:
    """One alternative of a dependency: a package name and, where given, a version constraint."""

    name: str
    operator: str = ""
    version: str = ""

    def accepts(self, version: str) -> bool:
        """Whether a package of that version satisfies the constraint."""
        if not self.operator:
            return True
        order = compare_debian(version, self.version)
        return {"<<": order < 0, "<=": order <= 0, "=": order == 0, ">=": order >= 0, ">>": order > 0}[self.operator]

    def __str__(self) -> str:
        return f"{self.name} ({self.operator} {self.version})" if self.operator else self.name


def parse_linux_packages(data: bytes) -> Iterator[Package]:
    """Yield the packages named ``linux-*`` of a ``Packages`` file; the other 99 % is never decoded."""
    for match in _STANZA.finditer(data):
        end = data.find(b"\n\n", match.start())
        stanza = data[match.start() : end if end >= 0 else len(data)].decode(errors="replace")
        package = _package(_control_fields(stanza))
        if package is not None:
            yield package


def parse_named_packages(data: bytes, names: Iterable[str]) -> Iterator[Package]:
    """Yield every version of the packages with these names in a ``Packages`` file."""
    wanted = b"|".join(re.escape(name.encode()) for name in names)
    for match in re.finditer(rb"^Package: (?:" + wanted + rb")$", data, re.MULTILINE):
        end = data.find(b"\n\n", match.start())
        stanza = data[match.start() : end if end >= 0 else len(data)].decode(errors="replace")
        package = _package(_control_fields(stanza))
        if package is not None:
            yield package


def names_in(data: bytes) -> Iterator[str]:
    """Yield the name of every package of a ``Packages`` file."""
    for match in re.finditer(rb"^Package: (\S+)$", data, re.MULTILINE):
        yield match[1].decode(errors="replace")


def _control_fields(stanza: str) -> dict[str, str]:
    found: dict[str, str] = {}
    # A line that starts with a blank continues the field above it.
    for line in re.sub(r"\n[ \t]", " ", stanza).split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            found[name] = value.strip()
    return found


def _package(control: Mapping[str, str]) -> Package | None:
    # What cannot be verified cannot be used; the other two become parts of a file name.
    if not (_SHA256.match(control.get("SHA256", "")) and _VERSION.match(control.get("Version", ""))):
        return None
    if not _NAME.match(control["Package"]) or not _NAME.match(control.get("Architecture", "")):
        return None
    return Package(
        name=control["Package"],
        version=control["Version"],
        architecture=control.get("Architecture", ""),
        depends=", ".join(filter(None, (control.get("Pre-Depends", ""), control.get("Depends", "")))),
        size=int(control["Size"]) if control.get("Size", "").isdecimal() else 0,
        sha256=control["SHA256"].lower(),
    )


def parse_depends(text: str) -> tuple[tuple[Relation, ...], ...]:
    """Split a relationship field into its comma-separated groups of alternatives."""
    groups = []
    for group in filter(str.strip, text.split(",")):
        matches = (_RELATION.match(alternative) for alternative in group.split("|"))
        groups.append(tuple(Relation(m["name"], m["op"] or "", m["version"] or "") for m in matches if m))
    return tuple(groups)


class PackageSet:
    """The packages of one index by name."""

    def __init__(self, packages: Iterable[Package]) -> None:
        self._packages = tuple(packages)

    @cached_property
    def _by_name(self) -> dict[str, tuple[Package, ...]]:
        names: dict[str, list[Package]] = {}
        for package in self._packages:
            names.setdefault(package.name, []).append(package)
        return {
            name: tuple(sorted(found, key=lambda package: debian_key(package.version), reverse=True))
            for name, found in names.items()
        }

    def names(self) -> tuple[str, ...]:
        """Every package name, sorted."""
        return tuple(sorted(self._by_name))

    def versions(self, name: str) -> tuple[Package, ...]:
        """Every version of a package, newest first."""
        return self._by_name.get(name, ())

    def satisfying(self, relation: Relation) -> Package | None:
        """The newest package that satisfies one alternative."""
        return next((package for package in self.versions(relation.name) if relation.accepts(package.version)), None)
