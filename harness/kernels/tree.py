"""Kernels from a local build tree, built in place or with ``O=``.

Sources: Documentation/kbuild/kbuild.rst and modules.rst (``modules_install``, ``INSTALL_MOD_PATH``).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import InfraError, UserError
from harness.hostcmd import must, run
from harness.kernels.config import read_config
from harness.kernels.source import Headers, KernelFiles, KernelUnavailable
from harness.model.cell import KernelIdentity, TreeKernel
from harness.placing import digest_of_parts, placed_once, sha256_file

_INSTALL_TIMEOUT = 1200.0
_RELEASE = "include/config/kernel.release"
_IMAGES = ("arch/x86/boot/bzImage", "arch/x86_64/boot/bzImage")
_FOR_HEADERS = ("Module.symvers", "scripts/mod/modpost", "include/generated/autoconf.h")
"""What an external module build needs beyond ``make modules_prepare``."""


@dataclass(frozen=True, slots=True)
class _Tree:
    """The files of a built tree, as found once."""

    path: Path
    release: str
    bzimage: Path
    config: Path
    modules: tuple[Path, ...]
    """The .ko files that modules.order lists; empty for a kernel without modules."""
    has_modules: bool
    has_headers: bool


@dataclass(slots=True)
class TreeSource:
    """A kernel of a local build tree; see :class:`harness.kernels.source.KernelSource`."""

    spec: TreeKernel
    _tree: _Tree | None = field(default=None, init=False, repr=False)
    _identity: KernelIdentity | None = field(default=None, init=False, repr=False)

    def resolve(self) -> KernelIdentity:
        """See :meth:`KernelSource.resolve`. Hashes every module: a rebuilt module alone makes another kernel."""
        if self._identity is None:
            tree = self._tree = open_tree(Path(self.spec.path).expanduser().absolute())
            parts = _parts(tree)
            self._identity = KernelIdentity(
                release=tree.release,
                version=_describe(tree.path) or tree.release,
                source=f"tree {tree.path}",
                digest=digest_of_parts(parts),
                parts=parts,
                has_headers=tree.has_headers,
            )
        return self._identity

    def fetch(self, into: Path) -> KernelFiles:
        """See :meth:`KernelSource.fetch`. Copies, so that the next ``make`` in the tree changes nothing here.

        Raises:
            InfraError: ``make modules_install`` or depmod failed.
        """
        identity = self.resolve()
        tree = self._tree
        assert tree is not None

        def build(folder: Path) -> None:
            _install(tree, folder)
            if _parts(tree) != identity.parts:
                raise InfraError(f"kernel tree {tree.path} changed while it was copied: wait for its make to end")

        root = placed_once(into.absolute() / identity.digest, build)
        modules = root / "usr" / "lib" / "modules" / tree.release
        return KernelFiles(
            release=tree.release,
            vmlinuz=root / "boot" / f"vmlinuz-{tree.release}",
            config=root / "boot" / f"config-{tree.release}",
            modules=modules,
            root=root,
        )

    def headers(self, into: Path) -> Headers:
        """See :meth:`KernelSource.headers`. Nothing is copied: ``build`` and ``source`` lead to the tree itself.

        Raises:
            KernelUnavailable: the tree was built, but not as far as modules need.
        """
        identity = self.resolve()
        tree = self._tree
        assert tree is not None
        if not tree.has_headers:
            lacking = [name for name in _FOR_HEADERS if not (tree.path / name).is_file()]
            why = f"no {', '.join(lacking)}" if lacking else "CONFIG_MODULES is not set"
            raise KernelUnavailable(f"kernel tree {tree.path}: modules cannot be built for it: {why}")

        def build(root: Path) -> None:
            modules = root / "usr" / "lib" / "modules" / tree.release
            modules.mkdir(parents=True)
            (root / "lib").symlink_to("usr/lib")
            (root / "boot").mkdir()
            shutil.copyfile(tree.config, root / "boot" / f"config-{tree.release}")
            (modules / "build").symlink_to(tree.path)
            source = tree.path / "source"  # an O= build links to its sources
            (modules / "source").symlink_to(source.resolve() if source.is_dir() else tree.path)

        # Two equal trees have one identity, but here the link counts: it leads to one of them.
        name = digest_of_parts(((str(tree.path), identity.digest),))
        root = placed_once(into.absolute() / name, build)
        return Headers(tree.release, root, root / "boot" / f"config-{tree.release}")


def open_tree(path: Path) -> _Tree:
    """Find the products of a build in ``path``.

    Raises:
        UserError: it is no kernel build tree, or nothing or not everything has been built in it; says what to run.
    """
    if not path.is_dir():
        raise UserError(f"kernel tree {path}: no such directory")
    config = path / ".config"
    if not config.is_file():
        raise UserError(f"kernel tree {path}: no .config there, so it is not a configured kernel build tree")
    release_file = path / _RELEASE
    image = next((path / name for name in _IMAGES if (path / name).is_file()), None)
    if image is None or not release_file.is_file():
        raise UserError(f"kernel tree {path}: not built yet (no bzImage): run make bzImage modules there")
    release = release_file.read_text(errors="replace").strip()
    if not release or "/" in release or len(release.split()) != 1:
        raise UserError(f"kernel tree {path}: {release_file} names no release")
    has_modules = read_config(config).get("CONFIG_MODULES") == "y"
    return _Tree(
        path=path,
        release=release,
        bzimage=image,
        config=config,
        modules=_built_modules(path) if has_modules else (),
        has_modules=has_modules,
        has_headers=has_modules and all((path / name).is_file() for name in _FOR_HEADERS),
    )


def _built_modules(path: Path) -> tuple[Path, ...]:
    """The module files that modules.order lists (as ``.o`` since 6.3, as ``.ko`` before)."""
    order = path / "modules.order"
    if not order.is_file():
        raise UserError(f"kernel tree {path}: CONFIG_MODULES=y but no modules.order: run make modules there")
    listed = [line.strip() for line in order.read_text(errors="replace").splitlines() if line.strip()]
    modules = tuple((path / line.removeprefix("kernel/")).with_suffix(".ko") for line in listed)
    missing = [module for module in modules if not module.is_file()]
    if missing:
        first = missing[0].relative_to(path)
        raise UserError(
            f"kernel tree {path}: {len(missing)} of {len(modules)} modules not built ({first} …): run make modules"
        )
    return modules


def _parts(tree: _Tree) -> tuple[tuple[str, str], ...]:
    """(name, sha256) of what makes this kernel; one entry stands for all modules, which can be thousands."""
    names = [_RELEASE, ".config", "Module.symvers", "modules.order", str(tree.bzimage.relative_to(tree.path))]
    parts = [(name, sha256_file(tree.path / name)) for name in names if (tree.path / name).is_file()]
    modules = tuple((str(module.relative_to(tree.path)), sha256_file(module)) for module in tree.modules)
    return (*sorted(parts), (f"{len(modules)} modules", digest_of_parts(modules)))


def _describe(path: Path) -> str:
    """``git describe`` of the sources, with ``-dirty`` for uncommitted changes; empty where git cannot say."""
    source = path / "source"  # an O= build links to its sources
    where = source if source.is_dir() else path
    try:
        done = run(["git", "-C", where, "describe", "--tags", "--always", "--dirty"], timeout=120)
    except InfraError:
        return ""  # no git on this host, or a tree so large and cold that it is not worth waiting for
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else ""


def _install(tree: _Tree, root: Path) -> None:
    modules = root / "usr" / "lib" / "modules" / tree.release
    modules.mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")  # modules_install writes to lib/modules
    (root / "boot").mkdir()
    shutil.copyfile(tree.bzimage, root / "boot" / f"vmlinuz-{tree.release}")
    shutil.copyfile(tree.config, root / "boot" / f"config-{tree.release}")
    if tree.has_modules:
        install = [f"INSTALL_MOD_PATH={root}", "INSTALL_MOD_STRIP=1", "DEPMOD=true"]
        must(["make", "-s", "-C", tree.path, "modules_install", *install], timeout=_INSTALL_TIMEOUT)
    for name in ("build", "source"):
        (modules / name).unlink(missing_ok=True)  # links to this host's directories mean nothing in a guest
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        if not (modules / name).exists():
            # depmod warns without them, and modules.builtin tells what an initramfs need not carry.
            source = tree.path / name
            (modules / name).write_bytes(source.read_bytes() if source.is_file() else b"")
    must(["depmod", "-b", root, tree.release], timeout=_INSTALL_TIMEOUT)
