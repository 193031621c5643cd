"""One layout for every kernel, however it was packaged: a root tree after the /usr merge, with depmod's indices.

Sources: hier(7) and file-hierarchy(7) for the merge, depmod(8), kernel-install(8) for images below ``lib/modules``.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.errors import InfraError
from harness.hostcmd import must
from harness.kernels.source import Headers, KernelFiles

_DEPMOD_TIMEOUT = 600.0
_DEPMOD_INPUTS = ("modules.order", "modules.builtin")
"""depmod warns without them, and modules.builtin tells what an initramfs need not carry."""


def merge_usr(root: Path) -> None:
    """Make ``lib`` of a tree a link to ``usr/lib``, with what ``lib`` held moved there.

    Packages from before the /usr merge ship ``lib/modules``; depmod may look for either.
    """
    old = root / "lib"
    if old.is_dir() and not old.is_symlink():
        _merge(old, root / "usr" / "lib")
    if not old.is_symlink():
        (root / "usr" / "lib").mkdir(parents=True, exist_ok=True)
        old.symlink_to("usr/lib")


def _merge(source: Path, target: Path) -> None:
    """Move a folder's content into another one, which may have some of the same subfolders."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
        return
    for entry in source.iterdir():
        there = target / entry.name
        if entry.is_dir() and not entry.is_symlink() and there.is_dir():
            _merge(entry, there)
        else:
            entry.rename(there)
    source.rmdir()


def lay_out(root: Path, release: str) -> None:
    """Bring an unpacked kernel into the one layout and index its modules.

    Raises:
        InfraError: it holds no modules' folder of that release, or depmod fails.
    """
    merge_usr(root)
    modules = root / "usr" / "lib" / "modules" / release
    if not modules.is_dir():
        raise InfraError(f"the packages of {release} hold no usr/lib/modules/{release}")
    shutil.rmtree(root / "usr" / "share", ignore_errors=True)  # documentation
    for link in ("build", "source"):
        if (modules / link).is_symlink():
            (modules / link).unlink()  # leads to headers, which are laid out apart from the kernel
    for name in _DEPMOD_INPUTS:
        if not (modules / name).exists():
            (modules / name).touch()
    must(["depmod", "-b", root, release], timeout=_DEPMOD_TIMEOUT)


def files_in(root: Path, release: str) -> KernelFiles:
    """Find the parts of a kernel laid out at ``root``, wherever its packaging puts them.

    Raises:
        InfraError: one is not there.
    """
    modules = root / "usr" / "lib" / "modules" / release
    found = []
    for what, places in (
        ("kernel image", (root / "boot" / f"vmlinuz-{release}", modules / "vmlinuz")),
        ("configuration", (root / "boot" / f"config-{release}", modules / "config")),
    ):
        place = next((place for place in places if place.is_file()), None)
        if place is None:
            raise InfraError(f"the packages of {release} hold no {what}; delete {root} to try again")
        found.append(place)
    return KernelFiles(release, found[0], found[1], modules, root)


def headers_in(root: Path, release: str) -> Headers:
    """Find what modules are built against in a tree of unpacked header packages.

    Raises:
        InfraError: the packages hold no build folder, or no configuration in it.
    """
    build = inside(root, root / "usr" / "lib" / "modules" / release / "build")
    if not build.is_dir():
        raise InfraError(f"the header packages of {release} hold no usr/lib/modules/{release}/build")
    config = inside(root, build / ".config")
    if not config.is_file():
        raise InfraError(f"the header packages of {release} hold no configuration ({build.name}/.config)")
    return Headers(release, root, config)


def inside(root: Path, path: Path) -> Path:
    """Follow the links of the last step of ``path`` as they read for somebody whose root is ``root``.

    Packages link by absolute paths (``build`` to ``/usr/src/linux-headers-…``), which on this host lead elsewhere.
    """
    for _ in range(8):
        if not path.is_symlink():
            return path
        target = path.readlink()
        path = root / target.relative_to("/") if target.is_absolute() else path.parent / target
    raise InfraError(f"{path}: links without an end")
