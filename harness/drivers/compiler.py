"""Which compiler built a kernel: its modules must be built with the same one.

Source: ``CONFIG_CC_VERSION_TEXT``, the first line of ``$(CC) --version`` (init/Kconfig).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.errors import InfraError

_NAMED = re.compile(r"(?:^|[-/])(?P<name>gcc|clang)-(?P<major>\d+)\b")
_GCC = re.compile(r"\bgcc\b.*?\s(?P<major>\d+)\.\d+(?:\.\d+)?")
_CLANG = re.compile(r"\bclang version (?P<major>\d+)\.")


@dataclass(frozen=True, slots=True)
class Compiler:
    """A compiler as distributions name its package."""

    package: str
    """``gcc-14``, ``clang-19``."""
    text: str
    """What the kernel's configuration says of it."""


def compiler_of(config: str) -> Compiler:
    """Read the compiler's name from a kernel configuration (``.config`` format).

    Raises:
        InfraError: the configuration does not say, as those before 5.8 did not.
    """
    match = re.search(r'^CONFIG_CC_VERSION_TEXT="(.*)"$', config, re.MULTILINE)
    text = match[1] if match else ""
    if named := _NAMED.search(text):
        return Compiler(f"{named['name']}-{named['major']}", text)
    for name, pattern in (("clang", _CLANG), ("gcc", _GCC)):
        if found := pattern.search(text):
            return Compiler(f"{name}-{found['major']}", text)
    raise InfraError(f"the kernel's configuration does not name its compiler (CONFIG_CC_VERSION_TEXT={text!r})")
