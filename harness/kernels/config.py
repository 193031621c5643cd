"""A kernel's configuration and what a stack requires of it. Source: Documentation/kbuild/kconfig-language.rst."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError

_SET = re.compile(r"^(CONFIG_\w+)=(.*)$")
_UNSET = re.compile(r"^# (CONFIG_\w+) is not set$")
_REQUIREMENT = re.compile(r"^(?:CONFIG_)?(?P<name>[A-Z0-9]\w*)\s*(?:(?P<not>!)?=\s*(?P<values>.+))?$")


def parse_config(text: str) -> dict[str, str]:
    """Map ``CONFIG_X`` to ``y``, ``m``, ``n`` (``is not set``), a number or a string without its quotes."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if match := _SET.match(line):
            value = match[2].strip()
            if len(value) >= 2 and value[0] == value[-1] == '"':
                value = re.sub(r"\\(.)", r"\1", value[1:-1])
            found[match[1]] = value
        elif match := _UNSET.match(line):
            found[match[1]] = "n"
    return found


def read_config(path: Path) -> dict[str, str]:
    """Read a kernel configuration file (``.config``, ``/boot/config-*``)."""
    return parse_config(path.read_text(errors="replace"))


@dataclass(frozen=True, slots=True)
class Requirement:
    """A condition on one option. An option that the file does not name counts as ``n``."""

    option: str
    values: tuple[str, ...]
    negated: bool = False

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """Read ``CONFIG_X=y|m``, ``CONFIG_X!=y`` or just ``CONFIG_X`` (``y`` or ``m``); the prefix may be left out.

        Raises:
            UserError: the text is none of these.
        """
        match = _REQUIREMENT.match(text.strip())
        if match is None:
            raise UserError(f"kernel config requirement {text!r}: want CONFIG_X=y|m, CONFIG_X!=y or CONFIG_X")
        values = tuple(value.strip() for value in (match["values"] or "y|m").split("|"))
        return cls(f"CONFIG_{match['name']}", values, match["not"] is not None)

    def met(self, config: Mapping[str, str]) -> bool:
        """Whether ``config`` satisfies it."""
        return (config.get(self.option, "n") in self.values) is not self.negated

    def __str__(self) -> str:
        return f"{self.option}{'!' if self.negated else ''}={'|'.join(self.values)}"


def unmet(config: Mapping[str, str], requirements: Iterable[str]) -> list[str]:
    """Say for each requirement that ``config`` does not satisfy what is wanted and what is there."""
    wanted = (Requirement.parse(text) for text in requirements)
    return [f"{one} wanted, is {config.get(one.option, 'n')}" for one in wanted if not one.met(config)]
