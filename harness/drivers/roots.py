"""The images in which modules are built: guest, then the kernel's compiler, then the driver's source."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import InfraError, UserError
from harness.images.builder import Images, content_key, digest_of_tree
from harness.images.recipe import Build, StackRecipe
from harness.kernels.archive import Archive
from harness.kernels.packages import Package


@dataclass(frozen=True, slots=True)
class BuildRoot:
    """An image with a driver's source and the compiler of a kernel in it."""

    reference: str
    key: str
    packages: tuple[tuple[str, str], ...]
    """(file name, sha256) of the packages that the source came from."""


@dataclass(frozen=True, slots=True)
class Roots:
    """Makes build roots, each once."""

    images: Images
    archive: Callable[[], Archive]
    """Debian's archive with all components; called when a recipe names packages."""

    def packages(self, build: Build) -> tuple[Package, ...]:
        """The exact packages that a recipe's source comes from; none where its Containerfile fetches it."""
        return self.archive().packages(build.packages.suite, build.packages.names) if build.packages else ()

    def of(self, guest: str, stack: str, compiler: str, timeout: float) -> BuildRoot:
        """The build root of a stack for kernels that ``compiler`` built; makes it if it is not there.

        Raises:
            BuildFailed: a Containerfile did not build.
            InfraError: the guest has no such compiler, or a mirror failed.
        """
        images = self.images
        recipe = images.recipes.stack(guest, stack)
        packages, key = self._key(guest, stack, recipe, compiler)
        reference = images.buildah.reference("modules", key)

        def make() -> BuildRoot:
            if not images.buildah.exists(reference):
                toolchain = self.toolchain(guest, compiler, timeout)
                images.begin(f"build root {guest} with {stack} and {compiler}")
                self._make(guest, stack, recipe, packages, reference, toolchain, timeout)
            return BuildRoot(reference, key, tuple((one.filename, one.sha256) for one in packages))

        return images.once(f"build root {key}", make)

    def exists(self, guest: str, stack: str, compiler: str) -> bool:
        """Whether a build root is there already."""
        _, key = self._key(guest, stack, self.images.recipes.stack(guest, stack), compiler)
        return self.images.buildah.exists(self.images.buildah.reference("modules", key))

    def toolchain(self, guest: str, compiler: str, timeout: float) -> str:
        """The image of a guest with a compiler and what builds modules, by its reference."""
        images = self.images
        key, suite = self._toolchain_key(guest, compiler)
        reference = images.buildah.reference("toolchain", key)

        def make() -> str:
            if not images.buildah.exists(reference):
                base = images.base(guest, timeout)
                images.begin(f"toolchain {guest} with {compiler}")
                arguments = {"BASE": base, "COMPILER": compiler, "SUITE": suite}
                folder = images.recipes.guest_dir(guest)
                images.build(guest, reference, folder / "Containerfile.build", folder, arguments, timeout)
            return reference

        return images.once(f"toolchain {key}", make)

    def _toolchain_key(self, guest: str, compiler: str) -> tuple[str, str]:
        folder = self.images.recipes.guest_dir(guest)
        containerfile = folder / "Containerfile.build"
        known = self.images.recipes.guest(guest).compilers
        if not containerfile.is_file():
            raise InfraError(f"guest {guest} cannot build modules: it has no Containerfile.build")
        if compiler not in known:
            have = f"`compilers` in {folder / 'guest.yaml'}: {', '.join(known) or 'none'}"
            raise InfraError(f"guest {guest} has no {compiler}, which built the kernel; {have}")
        key = content_key(
            "toolchain", self.images.base_key(guest), digest_of_tree(containerfile), compiler, known[compiler]
        )
        return key, known[compiler]

    def _key(self, guest: str, stack: str, recipe: StackRecipe, compiler: str) -> tuple[tuple[Package, ...], str]:
        build = recipe.build
        assert build is not None, "asked to build a stack without modules"
        packages = self.packages(build)
        folder = self.images.recipes.stack_dir(guest, stack)
        key = content_key(
            "modules",
            self._toolchain_key(guest, compiler)[0],
            # What the root layer is made of has no part in it: only the files that this Containerfile can reach.
            digest_of_tree(folder, leave_out=("stack.yaml", "Containerfile")),
            json.dumps(_heard(folder / build.containerfile, recipe.arguments), sort_keys=True),
            *(f"{one.filename} {one.sha256}" for one in packages),
        )
        return packages, key

    def _make(
        self,
        guest: str,
        stack: str,
        recipe: StackRecipe,
        packages: tuple[Package, ...],
        reference: str,
        toolchain: str,
        timeout: float,
    ) -> None:
        build = recipe.build
        assert build is not None
        with tempfile.TemporaryDirectory(prefix="source-", dir=self.images.scratch()) as scratch:
            context = Path(scratch) / "context"
            shutil.copytree(self.images.recipes.stack_dir(guest, stack), context)
            if build.packages:
                (context / "packages").mkdir()
                for deb in self.archive().download(build.packages.suite, packages):
                    shutil.copy(deb, context / "packages")
            arguments = {**_heard(context / build.containerfile, recipe.arguments), "BASE": toolchain}
            self.images.build(guest, reference, context / build.containerfile, context, arguments, timeout)


def _heard(containerfile: Path, arguments: Mapping[str, str]) -> dict[str, str]:
    """The arguments that a Containerfile declares: the others are for the stack's user space."""
    try:
        declared = set(re.findall(r"^\s*ARG\s+(\w+)", containerfile.read_text(), re.MULTILINE | re.IGNORECASE))
    except FileNotFoundError:
        raise UserError(f"{containerfile}: there is no such file; build.containerfile names it") from None
    return {name: value for name, value in arguments.items() if name in declared}
