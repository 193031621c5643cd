"""Known issues: what they say, how they are read, and which of them explains a failure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from harness.errors import UserError
from harness.knowledge.conditions import (
    Condition,
    DriverRange,
    KernelRange,
    Modules,
    configured,
    holds,
    names,
    together,
)
from harness.knowledge.reading import Strict, read_file
from harness.model.prediction import Grade, IssueMatch
from harness.model.stage import LADDER, Stage

TEXT_LIMIT = 8 << 20
"""Characters of one log that signatures are looked for in."""
_EXCERPT = 300
_KNOWN_DEVICE = re.compile(r"[0-9a-fA-F]{4}:[0-9a-fA-F]{4}$|[a-z]+[0-9]+$")
"""A vendor and device id, or an architecture; an address on the host's bus says nothing about what is there."""


def _compiled(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return pattern


class Interface(Strict):
    """The kernel's interface behind an issue, as its headers show it: cheaper and more exact than version ranges."""

    header: str
    """Below the headers' root of the source: ``include/linux/pci.h``."""
    when: Literal["missing", "has", "lacks"]
    """The driver breaks when the header is missing, when ``pattern`` is in it, or when it is not."""
    pattern: str = ""

    _pattern_compiles = field_validator("pattern")(_compiled)

    @model_validator(mode="after")
    def _pattern_is_there(self) -> Self:
        if (self.when == "missing") is bool(self.pattern):
            raise ValueError("a pattern goes with has and lacks, and only with these")
        return self


class KnownIssue(Strict):
    """One entry of ``guests/known_issues/*.yaml``; docs/known-issues.md explains every setting."""

    id: str = Field(pattern=r"^ki-[0-9]{3}[a-z]?(-[a-z0-9]+)+$")
    title: str = Field(min_length=8)
    stack: tuple[str, ...] = Field(min_length=1)
    modules: tuple[Modules, ...] = ()
    driver: tuple[DriverRange, ...] = ()
    kernel: tuple[KernelRange, ...] = ()
    config: tuple[Condition, ...] = ()
    device: tuple[str, ...] = ()
    rung: Stage
    signature: str = ""
    samples: tuple[str, ...] = ()
    interface: Interface | None = None
    cause: str = Field(min_length=8)
    fixed_in: str = ""
    workaround: str = ""
    fault: Literal["driver", "kernel", "firmware", "packaging", "host"]
    infrastructure: bool = False
    """Its signature means that nothing is known about the product: the rung becomes MISS."""
    sometimes: bool = False
    """It shows in some boots only, so nothing is predicted from it."""
    sources: tuple[str, ...] = Field(min_length=1)
    confidence: Literal["high", "medium", "low"]

    _signature_compiles = field_validator("signature")(_compiled)

    @model_validator(mode="after")
    def _samples_match(self) -> Self:
        if bool(self.signature) is not bool(self.samples):
            raise ValueError("a signature needs at least one text that it matches in samples, and the other way round")
        for text in self.samples:
            if re.search(self.signature, text, re.MULTILINE) is None:
                raise ValueError(f"the signature does not match its sample {text[:80]!r}")
        if self.infrastructure and not self.signature:
            raise ValueError("only a signature can tell that the lab is at fault")
        return self

    @property
    def needs_device(self) -> bool:
        """Whether it can only show with a device."""
        return bool(self.device) or LADDER.index(self.rung) > LADDER.index(Stage.LOAD)

    def in_range(
        self, stack: str, driver: str, kernel: str, config: Mapping[str, str] | None, modules: str = ""
    ) -> bool | None:
        """Whether it speaks of these versions; None where what is not known would decide. Needs some range at all."""
        if not names(stack, self.stack) or (modules and self.modules and modules not in self.modules):
            return False
        if not (self.driver or self.kernel or self.config):
            return None
        return together(
            holds(driver, self.driver, "driver"), holds(kernel, self.kernel, "kernel"), configured(config, self.config)
        )

    def on_device(self, device: str) -> bool:
        """Whether a device is one of those that it was seen on."""
        return not self.device or any(fnmatchcase(device.lower(), one.lower()) for one in self.device)


class _IssueFile(Strict):
    issues: tuple[KnownIssue, ...]


@dataclass(frozen=True, slots=True)
class KnownIssues:
    """All known issues of one folder."""

    issues: tuple[KnownIssue, ...] = ()

    @classmethod
    def load(cls, folder: Path) -> KnownIssues:
        """Read every ``*.yaml`` of a folder; one that is not there holds none.

        Raises:
            UserError: a file is wrong, or two issues have one id.
        """
        found: dict[str, tuple[KnownIssue, Path]] = {}
        for path in sorted(folder.glob("*.yaml")):
            for issue in read_file(path, _IssueFile).issues:
                if issue.id in found:
                    raise UserError(f"{path}: the id {issue.id} is taken by {found[issue.id][1]}; choose another")
                found[issue.id] = (issue, path)
        return cls(tuple(issue for issue, _ in found.values()))

    def __iter__(self) -> Iterator[KnownIssue]:
        return iter(self.issues)

    def get(self, issue_id: str) -> KnownIssue | None:
        """The issue of that id."""
        return next((issue for issue in self.issues if issue.id == issue_id), None)

    def match(
        self,
        *,
        stack: str,
        driver: str = "",
        kernel: str = "",
        config: Mapping[str, str] | None = None,
        modules: str = "",
        device: str = "none",
        stage: Stage,
        text: str = "",
    ) -> tuple[IssueMatch, ...]:
        """What may explain that a rung failed, best first.

        A signature in the text with the versions in range is *identified*; a signature alone *resembles*; versions
        alone make a *candidate*. An issue of another rung, stack or edition of the modules is none, nor is one that
        has a range and a signature where the text denies both.
        """
        found: list[IssueMatch] = []
        for issue in self.issues:
            fits = names(stack, issue.stack) and not (modules and issue.modules and modules not in issue.modules)
            if issue.rung is not stage or not fits or (_KNOWN_DEVICE.match(device) and not issue.on_device(device)):
                continue
            within = issue.in_range(stack, driver, kernel, config, modules)
            line = _seen(issue.signature, text)
            if line:
                unbound = not (issue.driver or issue.kernel or issue.config)
                grade = Grade.IDENTIFIED if within or unbound else Grade.RESEMBLES
                found.append(_as_match(issue, grade, line))
            elif within and not issue.infrastructure:
                found.append(_as_match(issue, Grade.CANDIDATE, ""))
        order, sure = list(Grade), ("high", "medium", "low")
        return tuple(sorted(found, key=lambda one: (order.index(one.grade), sure.index(one.confidence))))


def _as_match(issue: KnownIssue, grade: Grade, line: str) -> IssueMatch:
    return IssueMatch(
        issue=issue.id,
        title=issue.title,
        stage=issue.rung,
        grade=grade,
        cause=issue.cause,
        fixed_in=issue.fixed_in,
        workaround=issue.workaround,
        fault=issue.fault,
        confidence=issue.confidence,
        sources=issue.sources,
        excerpt=line,
    )


def _seen(signature: str, text: str) -> str:
    """The line in which a signature begins; empty where it is not in the text."""
    match = _pattern(signature).search(text[:TEXT_LIMIT]) if signature else None
    if match is None:
        return ""
    start = text.rfind("\n", 0, match.start()) + 1
    end = text.find("\n", match.start())
    line = text[start : end if end >= 0 else len(text)].strip()
    return (line or match[0])[:_EXCERPT]


@lru_cache(maxsize=1024)
def _pattern(signature: str) -> re.Pattern[str]:
    return re.compile(signature, re.MULTILINE)
