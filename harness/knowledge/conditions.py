"""What a known issue or a rule speaks of, and whether a cell is that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator

from harness.errors import UserError
from harness.images.recipe import StackRecipe
from harness.kernels.config import Requirement
from harness.knowledge.versions import in_ranges, kernel_version, parse_range
from harness.model.cell import KernelIdentity

Modules = Literal["open", "closed", "external", "in-tree"]
"""How a stack comes by its kernel modules: of a driver in two editions one of them, otherwise built here or not."""


def _kernel_range(text: str) -> str:
    parse_range(text, "kernel")
    return text


def _driver_range(text: str) -> str:
    parse_range(text, "driver")
    return text


def _condition(text: str) -> str:
    try:
        Requirement.parse(text)
    except UserError as error:
        raise ValueError(str(error)) from None
    return text


KernelRange = Annotated[str, AfterValidator(_kernel_range)]
DriverRange = Annotated[str, AfterValidator(_driver_range)]
Condition = Annotated[str, AfterValidator(_condition)]


@dataclass(frozen=True, slots=True)
class Subject:
    """A cell as far as it is known before it runs; ``None`` and empty texts are what is not known."""

    stack: str
    """With its version: ``nvidia@550``."""
    recipe: StackRecipe
    driver: str = ""
    """Version of the stack's driver, with the package's revision where there is one."""
    device: str = "none"
    """``none``, or what is known of the device: its PCI id, the name of its architecture."""
    secure_boot: bool = False
    identity: KernelIdentity | None = None
    config: Mapping[str, str] | None = None
    headers: Path | None = None
    """Root of the kernel's headers, where they are at hand."""
    kernel: str = field(default="")
    """Version of the kernel; that of ``identity`` when not given."""

    def __post_init__(self) -> None:
        if not self.kernel and self.identity is not None:
            object.__setattr__(self, "kernel", kernel_version(self.identity))

    @property
    def modules(self) -> Modules:
        """Where the stack's modules come from, by the build that the recipe asks for."""
        if self.recipe.build is None:
            return "in-tree"
        words = self.stack.partition("@")[0].split("-")
        if "open" in words or any("open" in name.split("-") for name in self.recipe.build.produces):
            return "open"
        return "closed" if words[0] == "nvidia" else "external"


def names(stack: str, globs: Iterable[str]) -> bool:
    """Whether a stack is meant: one glob fits its name, with or without version, and none that begins with ``!``."""
    wanted = [glob for glob in globs if not glob.startswith("!")]
    refused = [glob[1:] for glob in globs if glob.startswith("!")]
    forms = (stack, stack.partition("@")[0])

    def fits(patterns: list[str]) -> bool:
        return any(fnmatchcase(form, pattern) for form in forms for pattern in patterns)

    return fits(wanted) and not fits(refused)


def holds(version: str, ranges: tuple[str, ...], kind: Literal["kernel", "driver"]) -> bool | None:
    """Whether a version is in one of the ranges: True where there is none, None where the version is not known."""
    if not ranges:
        return True
    return in_ranges(version, ranges, kind) if version else None


def configured(config: Mapping[str, str] | None, conditions: tuple[str, ...]) -> bool | None:
    """Whether a kernel's configuration meets all conditions; None where it is not known."""
    if not conditions:
        return True
    if config is None:
        return None
    return all(Requirement.parse(text).met(config) for text in conditions)


def together(*answers: bool | None) -> bool | None:
    """All of them: False as soon as one is, None where one is not known."""
    if any(answer is False for answer in answers):
        return False
    return None if any(answer is None for answer in answers) else True
