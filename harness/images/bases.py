"""Makes the first layer of a guest: what its Containerfile starts from, and what decides that layer's content.

A distribution's packages come from where this host is told to take them: a setting that is missing, or a mirror that
does not answer, is this lab's trouble and said in one line.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import InfraError, UserError
from harness.hostcmd import must
from harness.images.buildah import Buildah
from harness.images.dnf import DnfRoot, guest_repositories
from harness.images.recipe import Base, Dnf, GuestRecipe, Mmdebstrap, Recipes
from harness.kernels.archive import Archive
from harness.kernels.mirror import checked_mirror
from harness.kernels.repositories import Repository, expand_settings, find_repository
from harness.placing import digest_of_parts, sha256_file

_ALONE = ("unshare", "--pid", "--mount-proc", "--fork", "--kill-child", "--")
"""Has a program die with all that it started and mounted, as mmdebstrap run by root does not; unshare(1)."""

_PINNED = re.compile(r"@sha256:[0-9a-f]{64}$")
_LOCAL = re.compile(r"^(oci|oci-archive|docker-archive|dir):(/[^:]+)")


@dataclass(frozen=True, slots=True)
class Bases:
    """Where guests' first layers come from on this host."""

    recipes: Recipes
    archive: Callable[[], Archive]
    """Called when a Debian index is first needed."""
    buildah: Buildah
    cache: Path

    def state(self, recipe: GuestRecipe) -> str:
        """What decides the content beside the recipe's own files: it changes when the distribution's archive does.

        Raises:
            InfraError: the archive does not answer.
            UserError: a setting of this host is missing, or the recipe asks for what cannot be.
        """
        base = recipe.base
        if base.mmdebstrap:
            # The same recipe gives other packages after the archive's next point release.
            archive = self._archive(base.mmdebstrap)
            return " ".join(archive.state(suite) for suite in (base.mmdebstrap.suite, *base.mmdebstrap.updates))
        if base.dnf:
            return DnfRoot(self.cache).state(base.dnf.release, self._repositories(base.dnf))
        return _image_state(expand_settings(base.image, "base.image")) if base.image else ""

    def build(self, guest: str, recipe: GuestRecipe, reference: str, timeout: float) -> None:
        """Make the base of ``guest`` and store it as ``reference``."""
        with tempfile.TemporaryDirectory(prefix="base-", dir=self._scratch()) as context:
            folder = Path(context)
            shutil.copytree(
                self.recipes.guest_dir(guest), folder, ignore=shutil.ignore_patterns("stacks"), dirs_exist_ok=True
            )
            self._bootstrap(recipe.base, folder / "base.tar", timeout)
            arguments = {"BASE": expand_settings(recipe.base.image, "base.image")} if recipe.base.image else {}
            self.buildah.build(reference, folder / "Containerfile", folder, arguments=arguments, timeout=timeout)

    def _bootstrap(self, base: Base, into: Path, timeout: float) -> None:
        if base.mmdebstrap:
            self._mmdebstrap(base.mmdebstrap, into, timeout)
        if base.dnf:
            wanted = base.dnf
            repositories = self._repositories(wanted)
            into.with_suffix(".repo").write_text(guest_repositories(repositories))
            DnfRoot(self.cache).install(wanted.release, repositories, wanted.include, wanted.exclude, into, timeout)

    def _mmdebstrap(self, wanted: Mmdebstrap, into: Path, timeout: float) -> None:
        archive = self._archive(wanted)
        suites = (wanted.suite, *wanted.updates)
        for suite in suites:
            archive.index(suite)  # a dead mirror or a bad signature is told in one line here
        components = " ".join(wanted.components)
        signed = f"deb [signed-by={archive.keyring}] {archive.mirror}"
        argv: list[str | Path] = [
            *_ALONE[: None if os.geteuid() == 0 else 0],
            "mmdebstrap",
            "--quiet",
            f"--variant={wanted.variant}",
            "--format=tar",
            "--architectures=amd64",
            '--aptopt=APT::Install-Recommends "false"',
            # The image is thrown away on failure, so dpkg need not sync every file.
            "--dpkgopt=force-unsafe-io",
            *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info")),
            f"--include={','.join(wanted.include)}",
            wanted.suite,
            into,
            *(f"{signed} {suite} {components}" for suite in suites),
        ]
        must(argv, timeout=timeout, env={"TMPDIR": str(self._scratch())})

    def _archive(self, wanted: Mmdebstrap) -> Archive:
        """Debian's archive, or the one that a recipe names, with indices of its own."""
        if not wanted.mirror:
            return self.archive()
        keyring = Path(expand_settings(wanted.keyring, "base.mmdebstrap.keyring"))
        if not keyring.is_file():
            raise InfraError(f"keyring {keyring} is missing, so no signature of {wanted.suite} can be checked")
        mirror = checked_mirror(expand_settings(wanted.mirror, "base.mmdebstrap.mirror"), where=wanted.mirror)
        own = digest_of_parts(((mirror, str(keyring)),))[:16]
        return Archive(self.cache / "apt" / "other" / own, mirror, keyring, wanted.components)

    def _repositories(self, wanted: Dnf) -> tuple[Repository, ...]:
        found = []
        for name in wanted.repositories:
            one = find_repository(name, self.recipes.root / "_kernels")
            if one.signed == "nothing" and not wanted.unsigned:
                raise UserError(
                    f"base.dnf: nothing is signed in repository {name}; name one with a key, "
                    'or say `unsigned: "yes"` to take its packages as they are'
                )
            found.append(one)
        return tuple(found)

    def _scratch(self) -> Path:
        folder = self.cache / "scratch"
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def _image_state(reference: str) -> str:
    """What an image reference stands for; a tag alone does not say.

    Raises:
        UserError: the reference is not pinned.
        InfraError: a local image is not there.
    """
    local = _LOCAL.match(reference)
    if local:
        path = Path(local[2])
        decisive = {"oci": path / "index.json", "dir": path / "manifest.json"}.get(local[1], path)
        if not decisive.is_file():
            raise InfraError(f"{reference}: there is no such image on this host")
        return f"{reference} {sha256_file(decisive)}"
    if not _PINNED.search(reference):
        raise UserError(f"{reference}: what is behind a tag changes; pin the image by its digest (NAME@sha256:…)")
    return reference
