"""Where a kernel comes from: one module per source, one interface (:class:`KernelSource`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.kernels.archive import Archive
from harness.kernels.debian import DebianSource
from harness.kernels.mirror import checked_keyring, find_mirror
from harness.kernels.source import KernelFiles, KernelSource, KernelUnavailable
from harness.kernels.tree import TreeSource
from harness.model.cell import KernelSpec, TreeKernel

__all__ = ["KernelFiles", "KernelSource", "KernelUnavailable", "open_archive", "source_for"]


def open_archive(cache: Path, *, refresh: bool = False) -> Archive:
    """The Debian archive of this host's configuration, with its files in ``cache/apt``.

    Raises:
        UserError: no mirror is configured, or the keyring is missing.
    """
    return Archive(cache / "apt", find_mirror(), checked_keyring(), refresh=refresh)


def source_for(spec: KernelSpec, archive: Callable[[], Archive], *, need_headers: bool = False) -> KernelSource:
    """The source that serves ``spec``. ``archive`` is called only when a package archive is needed.

    ``need_headers`` takes only kernels that modules can be built for. Give every spec the same archive object: it
    keeps the indices that it has read.
    """
    if isinstance(spec.source, TreeKernel):
        return TreeSource(spec.source)
    return DebianSource(spec.source, archive(), need_headers=need_headers)
