"""Rules about kernels and stacks, as data: ``guests/_knowledge/*.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import Field

from harness.kernels.config import Requirement
from harness.knowledge.conditions import (
    Condition,
    DriverRange,
    KernelRange,
    Modules,
    Subject,
    configured,
    holds,
    names,
    together,
)
from harness.knowledge.reading import Strict, read_file
from harness.model.outcome import Outcome
from harness.model.stage import Stage


class Rule(Strict):
    """When all that it names holds for a cell, its rung is expected to come to its outcome."""

    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    stack: tuple[str, ...] = ("*",)
    modules: tuple[Modules, ...] = ()
    driver: tuple[DriverRange, ...] = ()
    kernel: tuple[KernelRange, ...] = ()
    config: tuple[Condition, ...] = ()
    sign: tuple[Literal["none", "lab", "stranger"], ...] = ()
    """Whose key signs the modules that the stack builds."""
    secure_boot: bool | None = None
    device: bool | None = None
    """Whether the cell has a device."""
    rung: Stage
    outcome: Literal[Outcome.FAIL, Outcome.SKIP, Outcome.MISS]
    reason: str = Field(min_length=8)

    def speaks_of(self, subject: Subject) -> bool:
        """Whether everything that it names is known to hold."""
        if not names(subject.stack, self.stack) or (self.modules and subject.modules not in self.modules):
            return False
        build = subject.recipe.build
        if self.sign and (build is None or build.sign not in self.sign):
            return False
        if self.secure_boot not in (None, subject.secure_boot):
            return False
        if self.device not in (None, subject.device != "none"):
            return False
        return bool(
            together(
                holds(subject.driver, self.driver, "driver"),
                holds(subject.kernel, self.kernel, "kernel"),
                configured(subject.config, self.config),
            )
        )


class DebugOption(Strict):
    """An option that makes a kernel's speed say nothing about the kernel."""

    config: Condition
    why: str = Field(min_length=4)


class CudaRelease(Strict):
    """A CUDA toolkit and the drivers that it needs on Linux."""

    toolkit: str = Field(pattern=r"^[0-9]+\.[0-9]+(\.[0-9]+)?$")
    """``12.4``; an update is a third number: ``12.4.1``."""
    shipped: str
    """The driver that came with it."""
    floor: str
    """The oldest one that its applications run on by minor version compatibility."""


class _Rules(Strict):
    rules: tuple[Rule, ...]


class _Debug(Strict):
    debug: tuple[DebugOption, ...]


class _Cuda(Strict):
    cuda: tuple[CudaRelease, ...]


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules of one folder."""

    rules: tuple[Rule, ...] = ()
    debug: tuple[DebugOption, ...] = ()
    cuda: Mapping[str, CudaRelease] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Rules:
        """Read ``rules.yaml``, ``debug.yaml`` and ``cuda.yaml`` of a folder; a file that is not there says nothing.

        Raises:
            UserError: a file is wrong.
        """
        rules, debug, cuda = (folder / name for name in ("rules.yaml", "debug.yaml", "cuda.yaml"))
        releases = read_file(cuda, _Cuda).cuda if cuda.exists() else ()
        return cls(
            read_file(rules, _Rules).rules if rules.exists() else (),
            read_file(debug, _Debug).debug if debug.exists() else (),
            {release.toolkit: release for release in releases},
        )

    def debugging(self, config: Mapping[str, str] | None) -> str:
        """Why a kernel's speed must not be measured; empty where nothing speaks against it."""
        if config is None:
            return ""
        found = [option for option in self.debug if Requirement.parse(option.config).met(config)]
        return "debug kernel: " + ", ".join(f"{one.config} ({one.why})" for one in found) if found else ""
