"""The images in which kernels are compiled: a guest's base with its distribution's compilers."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError
from harness.images.buildah import Volume
from harness.images.builder import Images, content_key, digest_of_tree

_IMAGE_TIMEOUT = 3600.0


@dataclass(frozen=True, slots=True)
class KernelToolchain:
    """Serves :class:`harness.kernels.sourcebuild.Toolchain` from the image cache."""

    images: Images

    def key(self, guest: str) -> str:
        """See :meth:`Toolchain.key`."""
        return content_key("kernel toolchain", self.images.base_key(guest), digest_of_tree(self._containerfile(guest)))

    def run(
        self,
        guest: str,
        argv: Sequence[str],
        *,
        volumes: Sequence[Volume],
        env: Mapping[str, str],
        timeout: float,
    ) -> subprocess.CompletedProcess[bytes]:
        """See :meth:`Toolchain.run`."""
        return self.images.buildah.run(self._image(guest), argv, volumes=volumes, env=env, timeout=timeout)

    def _image(self, guest: str) -> str:
        key = self.key(guest)
        images = self.images
        reference = images.buildah.reference("kernel-toolchain", key)

        def make() -> str:
            if not images.buildah.exists(reference):
                base = images.base(guest, _IMAGE_TIMEOUT)
                images.begin(f"kernel toolchain {guest}")
                containerfile = self._containerfile(guest)
                context = images.recipes.guest_dir(guest)
                images.build(guest, reference, containerfile, context, {"BASE": base}, _IMAGE_TIMEOUT)
            return reference

        return images.once(f"kernel toolchain {key}", make)

    def _containerfile(self, guest: str) -> Path:
        folder = self.images.recipes.root / "_kernels"
        distribution = self.images.recipes.guest(guest).distribution
        path = folder / f"Containerfile.{distribution}"
        if not path.is_file():
            have = ", ".join(sorted(one.suffix[1:] for one in folder.glob("Containerfile.*"))) or "none"
            raise UserError(f"guest {guest} cannot compile kernels: there is no {path}; distributions that can: {have}")
        return path
