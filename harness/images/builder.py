"""Makes what a cell boots from, each part once however many cells share it.

The parts and what they depend on::

    base ─► stack user space ────────► root.erofs ┐
    kernel package or tree ─► kernel ► kernel.erofs ├─► stacked read-only by the initramfs, tmpfs on top
    compute tests ───────────► tests ► tests.erofs ┘
    kernel ─► initramfs, vmlinux

Every part has a key made of its inputs. A part that exists under its key is never made again; two processes that want
the same part wait for one another; a failure is remembered for the life of this object, so that a dead mirror is asked
once and not once per cell.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from harness.errors import InfraError, KdmatrixError, UserError
from harness.hostcmd import must
from harness.images.bases import Bases
from harness.images.buildah import Buildah
from harness.images.initramfs import build_initramfs
from harness.images.recipe import Recipes
from harness.kernels.archive import Archive, host_network_settings
from harness.kernels.source import KernelFiles, KernelSource
from harness.kernels.vmlinux import extract_vmlinux
from harness.model.cell import KernelIdentity, KernelSpec
from harness.model.image import BootKernel, Image, Layer
from harness.placing import placed_once, write_atomically

T = TypeVar("T")

_MKFS = ["mkfs.erofs", "--quiet", "-Enoinline_data", "-U", "00000000-0000-0000-0000-000000000000"]
_APT = frozenset({"debian", "ubuntu"})
_NOT_OF_BASE = frozenset({"stacks", "guest.yaml", "Containerfile.build"})
"""What a guest's folder holds beside its base; of the recipe, only how the base is made counts."""
_NOT_OF_ROOT = frozenset({"stack.yaml", "Containerfile.modules"})
"""What says how to use a stack, or how its modules are built; nothing of it goes into the root layer."""
_FORMAT = "1"
"""Goes into every key: raise it when the way in which parts are made changes."""


@dataclass(slots=True)
class Images:
    """The cache of guest images of one host."""

    cache: Path
    recipes: Recipes
    archive: Callable[[], Archive]
    """Called when a Debian index is first needed."""
    kernel_source: Callable[[KernelSpec, bool], KernelSource]
    """(spec, whether headers are needed) → where that kernel comes from."""
    tests: Callable[[], Path]
    """The directory of built compute tests, made when first called."""
    sycl_tests: Callable[[], Path] | None = None
    """The same with what only stacks that serve SYCL need."""
    on_part: Callable[[str], None] = lambda _part: None
    """Told of every part that is begun."""
    _made: set[str] = field(default_factory=set)
    _memory: dict[str, object] = field(default_factory=dict)
    _locks: dict[str, threading.Lock] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    @property
    def buildah(self) -> Buildah:
        """The OCI image storage below the cache."""
        return Buildah(self.cache / "oci")

    @property
    def _bases(self) -> Bases:
        return Bases(self.recipes, self.archive, self.buildah, self.cache)

    def prepare(self, guest: str, stack: str, kernel: KernelSpec, *, timeout: float) -> Image:
        """Return everything that a cell boots from; make what is missing.

        Raises:
            KernelUnavailable: the kernel's source lacks it.
            InfraError: a mirror, a tool or the disk failed.
            BuildFailed: a Containerfile did not build.
        """
        boot = self.boot_kernel(kernel)
        layers = (
            Layer("tests", self.tests_layer(self.recipes.stack(guest, stack).backends)),
            Layer("kernel", self.kernel_layer(boot)),
            Layer("root", self.root_layer(guest, stack, timeout)),
        )
        release = boot.identity.release
        parts = (
            f"kernel {release}",
            f"kernel layer {release}",
            f"base {guest}",
            f"root layer {guest} with {stack}",
            "tests layer",
        )
        return Image(boot, layers, tuple(part for part in parts if part in self._made))

    def identity(self, kernel: KernelSpec) -> KernelIdentity:
        """Resolve a kernel to its exact release, without fetching it."""
        return self.once(f"identity {kernel}", lambda: self.kernel_source(kernel, False).resolve())

    def boot_kernel(self, kernel: KernelSpec) -> BootKernel:
        """Fetch a kernel and make its initramfs."""

        def make() -> BootKernel:
            identity = self.identity(kernel)
            if not (self.cache / "kernels" / identity.digest).is_dir():
                self.begin(f"kernel {identity.release}")
            files = self.kernel_source(kernel, False).fetch(self.cache / "kernels")
            return self._boot_files(identity, files)

        return self.once(f"boot {kernel.source}", make)

    def missing(self, guest: str, stack: str, kernel: KernelSpec) -> tuple[str, ...]:
        """The parts of a cell's image that are not in the cache, the compute tests aside; nothing is made.

        Raises:
            KernelUnavailable, InfraError: the kernel cannot be resolved.
        """
        identity = self.identity(kernel)
        wanted = (
            (f"kernel {identity.release}", self.cache / "kernels" / identity.digest),
            (f"kernel layer {identity.release}", self._folder("kernel", self._kernel_key(identity))),
            (f"root layer {guest} with {stack}", self._folder("root", self._root_key(guest, stack))),
        )
        return tuple(name for name, path in wanted if not path.is_dir())

    def kernel_layer(self, boot: BootKernel) -> Path:
        """The modules of a kernel as a read-only file."""
        key = self._kernel_key(boot.identity)

        def build(reference: str) -> None:
            with tempfile.TemporaryDirectory(prefix="kernel-", dir=self.scratch()) as context:
                target = Path(context) / "modules" / boot.identity.release
                target.parent.mkdir()
                shutil.copytree(boot.modules, target, symlinks=True, copy_function=_hard_link)
                containerfile = self.recipes.boot_dir / "Containerfile.kernel"
                self.buildah.build(reference, containerfile, Path(context), timeout=900)

        return self._erofs("kernel", key, f"kernel layer {boot.identity.release}", build)

    def tests_folder(self, backends: Collection[str]) -> Path:
        """The directory of built compute tests for a stack that serves ``backends``."""
        if self.sycl_tests is not None and "sycl" in backends:
            return self.once("tests runner with sycl", self.sycl_tests)
        return self.once("tests runner", self.tests)

    def tests_layer(self, backends: Collection[str] = ()) -> Path:
        """The compute tests as a read-only file."""
        folder = self.tests_folder(backends)

        def make() -> Path:
            key = content_key("tests", digest_of_tree(folder), self._text("_boot/Containerfile.tests"))

            def build(reference: str) -> None:
                self.buildah.build(reference, self.recipes.boot_dir / "Containerfile.tests", folder, timeout=300)

            return self._erofs("tests", key, "tests layer", build)

        return self.once(f"tests {folder}", make)

    def root_layer(self, guest: str, stack: str, timeout: float) -> Path:
        """A guest with a stack's user space as a read-only file."""
        folder = self.recipes.stack_dir(guest, stack)
        key = self._root_key(guest, stack)

        def build(reference: str) -> None:
            arguments = {**self.recipes.stack(guest, stack).arguments, "BASE": self.base(guest, timeout)}
            self.build(guest, reference, folder / "Containerfile", folder, arguments, timeout)

        return self._erofs("root", key, f"root layer {guest} with {stack}", build)

    def layer_of(self, kind: str, key: str, part: str, fill: Callable[[Path], None]) -> Path:
        """A read-only file made of a directory that ``fill`` fills; every file in it belongs to root."""
        folder = self._folder(kind, key)

        def make(into: Path) -> None:
            self.begin(part)
            with tempfile.TemporaryDirectory(prefix=f"{kind}-", dir=self.scratch()) as tree:
                fill(Path(tree))
                must([*_MKFS, "--all-root", into / "layer.erofs", tree], timeout=900)
            (into / "layer.erofs").chmod(0o644)

        self.once(f"erofs {kind} {key}", lambda: placed_once(folder, make))
        return folder / "layer.erofs"

    def build(
        self,
        guest: str,
        reference: str,
        containerfile: Path,
        context: Path,
        arguments: Mapping[str, str],
        timeout: float,
    ) -> None:
        """Build an image on top of a guest; its package manager gets this host's settings of the network."""
        volumes = []
        if self.recipes.guest(guest).distribution in _APT:
            settings = self.cache / "apt-network.conf"
            write_atomically(settings, "".join(f"{line}\n" for line in host_network_settings()).encode())
            volumes.append((settings, "/etc/apt/apt.conf.d/90host-network", "ro"))
        self.buildah.build(reference, containerfile, context, arguments=arguments, volumes=volumes, timeout=timeout)

    def cached(self) -> Iterator[tuple[str, Path, int]]:
        """(what it is, path, bytes on disk) of everything in the cache."""
        for part in sorted(self.cache.glob("*")) if self.cache.is_dir() else ():
            yield part.name, part, disk_usage(part)

    def base(self, guest: str, timeout: float) -> str:
        """The image of a guest without any stack, by its reference."""
        key = self.base_key(guest)
        reference = self.buildah.reference("base", key)

        def make() -> str:
            if not self.buildah.exists(reference):
                self.begin(f"base {guest}")
                self._bases.build(guest, self.recipes.guest(guest), reference, timeout)
            return reference

        return self.once(f"base {key}", make)

    def base_key(self, guest: str) -> str:
        """What the base of a guest is made of, in one digest."""

        def make() -> str:
            recipe = self.recipes.guest(guest)
            state = self._bases.state(recipe)
            own = sorted(path for path in self.recipes.guest_dir(guest).iterdir() if path.name not in _NOT_OF_BASE)
            return content_key("base", recipe.base.model_dump_json(), state, *(digest_of_tree(path) for path in own))

        return self.once(f"base key {guest}", make)

    def _root_key(self, guest: str, stack: str) -> str:
        folder = self.recipes.stack_dir(guest, stack)
        arguments = json.dumps(self.recipes.stack(guest, stack).arguments, sort_keys=True)
        return content_key("root", self.base_key(guest), arguments, digest_of_tree(folder, leave_out=_NOT_OF_ROOT))

    def _kernel_key(self, identity: KernelIdentity) -> str:
        return content_key("kernel", identity.digest, self._text("_boot/Containerfile.kernel"))

    def _folder(self, kind: str, key: str) -> Path:
        return self.cache / "erofs" / f"{kind}-{key[:32]}"

    def _boot_files(self, identity: KernelIdentity, files: KernelFiles) -> BootKernel:
        init = self.recipes.boot_dir / "init"
        folder = self.cache / "boot" / content_key("boot", identity.digest, digest_of_tree(init))

        def build(into: Path) -> None:
            order = build_initramfs(files.modules, init, into / "initramfs.cpio")
            (into / "modules.json").write_text(json.dumps(order))
            extract_vmlinux(files.vmlinuz, into / "vmlinux")

        placed_once(folder, build)
        vmlinux = folder / "vmlinux"
        return BootKernel(
            identity=identity,
            vmlinuz=files.vmlinuz,
            vmlinux=vmlinux if vmlinux.is_file() else None,
            initramfs=folder / "initramfs.cpio",
            config=files.config,
            modules=files.modules,
        )

    def _erofs(self, kind: str, key: str, part: str, build: Callable[[str], None]) -> Path:
        folder = self._folder(kind, key)

        def make(into: Path) -> None:
            self.begin(part)
            reference = self.buildah.reference(kind, key)
            if not self.buildah.exists(reference):
                build(reference)
            self.buildah.mkfs(reference, [*_MKFS, into / "layer.erofs"], timeout=900)
            (into / "layer.erofs").chmod(0o644)

        self.once(f"erofs {kind} {key}", lambda: placed_once(folder, make))
        return folder / "layer.erofs"

    def begin(self, part: str) -> None:
        """Note that a part is being made, and tell who listens."""
        self._made.add(part)
        self.on_part(part)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Run ``make`` once per name; later callers get its result, or its error, at once."""
        with self._guard:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:
            if name not in self._memory:
                try:
                    self._memory[name] = make()
                except KdmatrixError as error:
                    self._memory[name] = error
            result = self._memory[name]
        if isinstance(result, KdmatrixError):
            raise result
        return result  # type: ignore[return-value]  # the name determines the type

    def scratch(self) -> Path:
        """Where what a build needs for its time lies, on the file system of the cache."""
        folder = self.cache / "scratch"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _text(self, name: str) -> str:
        return (self.recipes.root / name).read_text()


def disk_usage(path: Path) -> int:
    """Bytes that a file or a tree occupies on disk."""
    if path.is_file():
        return path.lstat().st_blocks * 512
    return sum(one.lstat().st_blocks * 512 for one in path.rglob("*") if one.is_file() and not one.is_symlink())


def _hard_link(source: str, target: str) -> str:
    try:
        Path(target).hardlink_to(source)
    except OSError:  # another file system
        shutil.copy2(source, target)
    return target


def content_key(*parts: str) -> str:
    """One digest of everything that a part is made of."""
    return hashlib.sha256("\0".join((_FORMAT, *parts)).encode()).hexdigest()


def digest_of_tree(path: Path, leave_out: Collection[str] = ()) -> str:
    """SHA-256 over names, modes and contents of a file or of all files below a directory."""
    digest = hashlib.sha256()
    for one in [path] if path.is_file() else sorted(path.rglob("*")):
        name = one.relative_to(path).as_posix()
        if one.is_file() and name not in leave_out:
            digest.update(f"{name}\0{one.stat().st_mode & 0o777:o}\0".encode())
            digest.update(hashlib.sha256(one.read_bytes()).digest())
    return digest.hexdigest()


def require_space(path: Path, needed: int) -> None:
    """Refuse to begin when the file system of ``path`` has less than ``needed`` bytes free."""
    path.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path).free
    if free < needed:
        raise InfraError(
            f"{path} has {free / 1e9:.1f} GB free and {needed / 1e9:.1f} GB are needed; "
            "`kdmatrix clean --images` frees the image cache"
        )


def check_guest(recipes: Recipes, guest: str, stack: str) -> None:
    """Refuse a stack that a guest has no recipe for, naming those that it has."""
    if stack not in recipes.stacks(guest):
        have = ", ".join(recipes.stacks(guest)) or "none"
        raise UserError(f"guest {guest} has no recipe for stack {stack}; it has: {have}")
