"""Kernel configurations as they are asked for: a base, fragments over it, and whether what they ask for survived.

``make olddefconfig`` drops without a word what a kernel does not know or whose dependencies are not met. Sources:
scripts/kconfig/merge_config.sh, Documentation/kbuild/kconfig-language.rst.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError
from harness.kernels.config import parse_config

_START = re.compile(r"\A# starts from: (\w+)\s*$", re.MULTILINE)
_LINE = re.compile(r"^(?:CONFIG_\w+=(?:[ymn]|-?\d+|0x[0-9a-fA-F]+|\".*\")|# CONFIG_\w+ is not set|#.*|)$")
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")


@dataclass(frozen=True, slots=True)
class Fragment:
    """One configuration file, whole or in part."""

    name: str
    text: str

    @property
    def start(self) -> str:
        """The kernel's own target that it adds to (``tinyconfig``); empty for a configuration that stands alone."""
        match = _START.match(self.text)
        return match[1] if match else ""

    @property
    def digest(self) -> str:
        """SHA-256 of its content."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def read_fragments(folder: Path, base: str, names: Iterable[str]) -> tuple[Fragment, ...]:
    """Read the base and the fragments, in the order in which they are merged.

    Each is the name of a file ``NAME.config`` in ``folder``, or a path.

    Raises:
        UserError: one is not there, or a line of it is not of a configuration.
    """
    return tuple(_read(folder, name) for name in (base, *names))


def _read(folder: Path, name: str) -> Fragment:
    shipped = _NAME.match(name) is not None and not name.endswith(".config")
    path = folder / f"{name}.config" if shipped else Path(name).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        have = ", ".join(sorted(one.stem for one in folder.glob("*.config"))) or "none"
        raise UserError(f"kernel configuration {name}: there is no {path}; shipped ones are: {have}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"kernel configuration {path}: not readable: {error}") from None
    for number, line in enumerate(text.splitlines(), 1):
        if not _LINE.match(line.strip()):
            wanted = "want CONFIG_X=y, CONFIG_X=m, CONFIG_X=n, a number or a quoted text"
            raise UserError(f"{path}:{number}:1: {line.strip()[:80]!r} is no line of a kernel configuration; {wanted}")
    return Fragment(path.stem, text)


def requested(fragments: Iterable[Fragment]) -> dict[str, str]:
    """What must be in the final configuration, the later fragment deciding.

    A base that stands alone is somebody's whole configuration, for another release perhaps. It is carried over as far
    as it goes, as ``make olddefconfig`` does for everybody; only what is laid over it is insisted on.
    """
    base, *over = fragments
    found = parse_config(base.text) if base.start else {}
    for fragment in over:
        found |= parse_config(fragment.text)
    return found


def lost(wanted: Mapping[str, str], got: Mapping[str, str]) -> tuple[str, ...]:
    """Say for each symbol that did not survive what was wanted and what is there."""
    return tuple(
        f"{name}: wanted {value}, got {got.get(name, 'n')}"
        for name, value in sorted(wanted.items())
        if got.get(name, "n") != value
    )
