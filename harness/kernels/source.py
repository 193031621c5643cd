"""What every source of kernels offers, whatever it takes them from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.errors import KdmatrixError
from harness.model.cell import KernelIdentity


class KernelUnavailable(KdmatrixError):
    """The source works, but does not have the kernel that is asked for, or not all of it.

    Neither bad input nor a broken lab: the cells of this kernel are not covered, and the message is the reason shown.
    """


@dataclass(frozen=True, slots=True)
class KernelFiles:
    """A kernel laid out in the cache; read-only for everybody who gets it."""

    release: str
    """What ``uname -r`` must print."""
    vmlinuz: Path
    """The bzImage."""
    config: Path
    """The configuration it was built with (``.config`` format)."""
    modules: Path
    """``root/usr/lib/modules/RELEASE``, with depmod's indices; holds no module where the kernel has none."""
    root: Path
    """A directory in merged-/usr layout (``lib`` is a link to ``usr/lib``) that holds nothing but this kernel."""


@dataclass(frozen=True, slots=True)
class Headers:
    """What external modules are built against; read-only for everybody who gets it."""

    release: str
    root: Path
    """A directory in merged-/usr layout whose files a build root sees at the same places: ``usr/src/…``,
    ``usr/lib/linux-kbuild-…``, and ``usr/lib/modules/RELEASE/build`` (a link or the tree itself). The link of a
    local build tree leads out of the root, to the tree on this host; the one in ``source`` may lead to another one.
    Whoever builds makes those directories visible at the same paths."""
    config: Path
    """The kernel's configuration; it names the compiler (``CONFIG_CC_VERSION_TEXT``)."""


class KernelSource(Protocol):
    """Finds one kernel and brings it into the cache."""

    def resolve(self) -> KernelIdentity:
        """Decide which exact kernel is meant; the same answer for the life of this object.

        Raises:
            KernelUnavailable: the source lacks it, or a part of it.
            UserError: the request itself is wrong.
            InfraError: the source cannot be asked.
        """
        ...

    def fetch(self, into: Path) -> KernelFiles:
        """Lay the resolved kernel out in ``into``, in a directory named by its digest; a second call does nothing."""
        ...

    def headers(self, into: Path) -> Headers:
        """Lay out what modules are built against, in ``into``, in a directory named by the kernel's digest.

        Raises:
            KernelUnavailable: the source has the kernel but no headers of it.
        """
        ...
