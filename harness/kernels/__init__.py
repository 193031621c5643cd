"""Where a kernel comes from: one module per source, one interface (:class:`KernelSource`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import InfraError
from harness.kernels.archive import Archive
from harness.kernels.debian import DebianSource
from harness.kernels.fetching import Downloads
from harness.kernels.files import FilesSource
from harness.kernels.koji import KojiSource
from harness.kernels.mirror import checked_keyring, find_mirror
from harness.kernels.repositories import find_repository
from harness.kernels.rpm import RpmSource
from harness.kernels.source import Headers, KernelFiles, KernelSource, KernelUnavailable
from harness.kernels.tree import TreeSource
from harness.kernels.ubuntu import MainlineSource, open_ubuntu_archive, suite_source
from harness.model.cell import (
    DebianKernel,
    InstalledKernel,
    KernelSpec,
    KojiKernel,
    PackagesKernel,
    RpmKernel,
    RunningKernel,
    SourceKernel,
    TreeKernel,
    UbuntuKernel,
)

__all__ = ["Headers", "KernelFiles", "KernelSource", "KernelUnavailable", "Places", "open_archive", "source_for"]


MAIN = ("main",)


def open_archive(cache: Path, *, components: tuple[str, ...] = MAIN, refresh: bool = False) -> Archive:
    """The Debian archive of this host's configuration, with its files in ``cache/apt``.

    Kernels come from ``main``. With other ``components`` the files are in a folder of their own below ``cache/apt``,
    so that the indices of one choice are not taken for those of another.

    Raises:
        UserError: no mirror is configured, or the keyring is missing.
    """
    root = cache / "apt" if components == MAIN else cache / "apt" / "with" / "+".join(components)
    return Archive(root, find_mirror(), checked_keyring(), components, refresh=refresh)


@dataclass(frozen=True, slots=True)
class Places:
    """Where sources keep what they download, and read what repositories there are."""

    cache: Path
    data: Path
    """The folder ``_kernels`` of the guests' content."""


def source_for(
    spec: KernelSpec,
    archive: Callable[[], Archive],
    *,
    need_headers: bool = False,
    places: Places | None = None,
    builder: Callable[[SourceKernel], KernelSource] | None = None,
) -> KernelSource:
    """The source that serves ``spec``. ``archive`` is called only when Debian's archive is needed.

    ``need_headers`` takes only kernels that modules can be built for. Give every spec the same archive object: it
    keeps the indices that it has read. Sources that download from elsewhere need ``places``; a build from source
    needs containers, so whoever can make them gives ``builder``.

    Raises:
        UserError: a setting of this host that the source needs is missing.
        InfraError: the caller gives no ``places`` or ``builder`` to a source that needs it.
    """
    origin = spec.source
    match origin:
        case DebianKernel():
            return DebianSource(origin, archive(), need_headers=need_headers)
        case TreeKernel():
            return TreeSource(origin)
        case PackagesKernel():
            return FilesSource(origin, need_headers)
        case SourceKernel():
            if builder is None:
                raise InfraError(f"kernel {spec.name}: nothing here can build a kernel from source")
            return builder(origin)
        case InstalledKernel():
            raise KernelUnavailable(
                f"kernel {spec.name} ({origin.pattern}) is installed on lab boxes; only they have it"
            )
        case RunningKernel():
            raise KernelUnavailable(
                f"kernel {spec.name} is the one that a machine runs; it is nothing to boot a VM with"
            )
    if places is None:
        raise InfraError(f"kernel {spec.name}: there is no place for what is downloaded")
    downloads = Downloads(places.cache / "downloads")
    match origin:
        case RpmKernel():
            return RpmSource(origin, find_repository(origin.repository, places.data), downloads, need_headers)
        case KojiKernel():
            return KojiSource(origin, downloads, need_headers)
        case UbuntuKernel():
            if origin.suite is None:
                return MainlineSource(origin, downloads, need_headers)
            return suite_source(origin, open_ubuntu_archive(places.cache), need_headers=need_headers)
