"""Which device code is compiled ahead of time, for what and by which compiler: ``gpu_tests/artefacts.yaml``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from pydantic import Field

from harness.errors import UserError
from harness.knowledge.reading import Strict, read_file

FILE = "artefacts.yaml"
LANGUAGE = "gt_lang.h"
"""What every kernel file is concatenated to."""


class Program(Strict):
    """One program or library of a compiler: out of a pinned wheel, or of a package that the host has installed."""

    wheel: str = ""
    """``name==version`` on PyPI; nothing of it is installed, it is unpacked into a cache."""
    sha256: str = ""
    file: str = ""
    """Path inside the wheel."""
    package: str = ""
    """Debian package; its installed version is part of the compiler's."""
    command: str = ""
    """What the package brings to PATH; empty for a library that only counts with its version."""


class CompilerSpec(Strict):
    """How one compiler turns a source into an artefact."""

    programs: dict[str, Program]
    source: str
    """Name of the source in the working directory; its suffix tells the language."""
    output: str
    """Name of what the last step leaves there."""
    steps: tuple[tuple[str, ...], ...]
    """argv lists. ``{name}`` is a program, ``{arch}`` the target's, ``{flags}`` its flags, ``{nvrtc_child}`` the
    program that calls NVRTC."""


class Target(Strict):
    """One kind of hardware or driver that artefacts are made for: a folder of them."""

    name: str
    arch: str
    form: Literal["binary", "ptx", "spirv"]
    extension: str
    compiler: str
    flags: tuple[str, ...] = ()
    format: str
    """Version of the format: the PTX ISA, the code object's, SPIR-V's."""
    hardware: str
    only_named: bool = False
    """Only kernels that name this target are compiled for it."""


class NotFor(Strict):
    """Targets that a kernel is not compiled for, and why."""

    targets: tuple[str, ...]
    why: str


class KernelSpec(Strict):
    """A kernel file that is not for every target. Patterns are those of a shell."""

    only: tuple[str, ...] = ("*",)
    also: tuple[str, ...] = ()
    """Targets of the kind ``only_named``."""
    not_for: tuple[NotFor, ...] = ()


class Gap(Strict):
    """Hardware that no compiler at hand makes code for."""

    targets: tuple[str, ...]
    why: str


class ArtefactSpec(Strict):
    """The whole file."""

    compilers: dict[str, CompilerSpec]
    targets: tuple[Target, ...]
    kernels: dict[str, KernelSpec] = Field(default_factory=dict)
    gaps: tuple[Gap, ...] = ()


@dataclass(frozen=True, slots=True)
class Artefact:
    """One file to be made."""

    kernel: str
    target: Target

    @property
    def path(self) -> str:
        """Relative to the folder of artefacts: ``sm_90/triad.cubin``."""
        return f"{self.target.name}/{self.kernel}.{self.target.extension}"


def load_spec(sources: Path) -> ArtefactSpec:
    """Read the file of a ``gpu_tests`` directory.

    Raises:
        UserError: it is wrong; the message names the file and what would be right.
    """
    path = sources / FILE
    spec = read_file(path, ArtefactSpec)
    names = [target.name for target in spec.targets]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path}: two targets are called {name!r}")
    for target in spec.targets:
        if target.compiler not in spec.compilers:
            known = ", ".join(sorted(spec.compilers))
            raise UserError(f"{path}: target {target.name!r}: there is no compiler {target.compiler!r}; known: {known}")
    there = set(kernel_names(sources))
    for kernel, rule in spec.kernels.items():
        if kernel not in there:
            raise UserError(f"{path}: kernels.{kernel}: there is no kernels/{kernel}.inc")
        patterns = [*rule.only, *rule.also, *(pattern for one in rule.not_for for pattern in one.targets)]
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise UserError(f"{path}: kernels.{kernel}: {pattern!r} fits no target")
    return spec


def kernel_names(sources: Path) -> list[str]:
    """The kernel files of a ``gpu_tests`` directory, without suffix, sorted."""
    return sorted(path.stem for path in (sources / "kernels").glob("*.inc"))


def device_source(sources: Path, kernel: str) -> bytes:
    """What a compiler is handed: the language header, then the kernel file."""
    folder = sources / "kernels"
    return (folder / LANGUAGE).read_bytes() + b"\n" + (folder / f"{kernel}.inc").read_bytes()


def artefacts_of(spec: ArtefactSpec, kernel: str) -> Iterator[Artefact]:
    """The artefacts of one kernel file, in the order of the targets."""
    rule = spec.kernels.get(kernel, KernelSpec())
    excluded = [pattern for one in rule.not_for for pattern in one.targets]
    for target in spec.targets:
        wanted = rule.also if target.only_named else rule.only
        if _fits(target.name, wanted) and not _fits(target.name, excluded):
            yield Artefact(kernel, target)


def _fits(name: str, patterns: tuple[str, ...] | list[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
