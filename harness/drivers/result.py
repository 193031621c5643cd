"""What building a stack's modules for a kernel came to, as it is kept in the cache."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import TypeAdapter

from harness.model.outcome import Outcome


@dataclass(frozen=True, slots=True)
class ModuleFile:
    """One built module, as ``modinfo`` reads it from the file. Fields that a module does not state are empty."""

    name: str
    """File name without ``.ko``."""
    sha256: str
    vermagic: str
    version: str = ""
    srcversion: str = ""
    license: str = ""
    signer: str = ""
    depends: str = ""


@dataclass(frozen=True, slots=True)
class CompilerError:
    """The first thing that went wrong in a build, which what follows is mostly a consequence of."""

    message: str
    file: str = ""
    line: int = 0
    symbol: str = ""
    """The kernel's function, member, type or header that the driver wants and that is not there, or not so."""
    kind: str = "compile"
    """``compile``, ``link`` (modpost), ``objtool`` or ``make``."""


@dataclass(frozen=True, slots=True)
class ModuleBuild:
    """The result of one build: the same inputs give the same, so it is made once."""

    outcome: Outcome
    """PASS: every promised module is there and is made for the kernel; FAIL; SKIP: the driver excludes this kernel."""
    reason: str
    release: str
    compiler: str
    """First line of ``COMPILER --version``."""
    sources: tuple[tuple[str, str], ...]
    """(name, version) of each module source, as the build method calls it."""
    modules: tuple[ModuleFile, ...]
    seconds: float
    """Wall time of the build itself, with whatever else ran on the host at that time."""
    cpu_seconds: float
    """Processor time of the build itself, user and system."""
    ccache_hits: int
    ccache_misses: int
    error: CompilerError | None = None
    packages: tuple[tuple[str, str], ...] = field(default=())
    """(file name, sha256) of the packages that the source came from."""

    @property
    def driver_version(self) -> str:
        """Version of the driver's source: that of its first module source."""
        return self.sources[0][1] if self.sources else ""


MODULE_BUILD = TypeAdapter(ModuleBuild)
"""JSON in and out."""
