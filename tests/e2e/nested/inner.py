"""What the outer machine runs its cells from: a stock kernel, a small guest, and a lab home where both are ready.

Building in the outer machine would take hours, and it has no network. So every part is made here, under the key by
which the program looks for it there.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness.content import content_dir
from harness.images.builder import Images, content_key, digest_of_tree
from harness.images.initramfs import ROOT_MODULES
from harness.images.recipe import Recipes
from harness.kernels import source_for
from harness.kernels.archive import Archive
from harness.kernels.debian import DebianSource
from harness.kernels.modules import closure
from harness.model.cell import DebianKernel, KernelSpec, PackagesKernel, Series
from harness.placing import placed_once

GUEST, KERNEL = "inner", "stock"
DISPLAY_STACK, CARD_STACK = "bochs", "card"
PLACE = Path("/opt/inner")
"""Where content and kernel package lie in the outer machine."""

RECIPE = """
description: the guest of a VM that is a guest itself
distribution: debian
release: "13"
base: {}
"""
STACKS = {
    DISPLAY_STACK: """
description: the kernel's own driver of the display that QEMU emulates
apis: []
backends: []
kind: none
device: required
modules:
  - {name: bochs, driver: bochs-drm}
verify:
  - {run: [cat, /sys/class/drm/card0/device/vendor], match: "^0x1234$", stage: enumerate}
""",
    CARD_STACK: """
description: the kernel's own drivers of a GPU with sound; both read what they show and play from memory
apis: []
backends: []
kind: none
device: required
modules:
  - {name: virtio_gpu, driver: virtio-pci}
  - {name: snd_hda_intel}
  - {name: snd_pcm_oss}
verify:
  - run: [sh, -c, "cat /dev/zero >/dev/dsp & for n in 1 2 3 4; do cat /dev/urandom >/dev/fb0; done; kill $!"]
    stage: enumerate
""",
}
MODULES = ("virtio_rng", "bochs", "virtio_gpu", "snd_hda_intel", "snd_hda_codec_generic", "snd_pcm_oss")
"""What the guest has beside what it boots with."""


@dataclass(frozen=True)
class Inner:
    """The parts of the inner VM, here."""

    content: Path
    """For ``KDMATRIX_CONTENT``."""
    package: Path
    """The kernel's package."""
    images: Images
    spec: KernelSpec


def make_inner(images: Images, shared: Path, runner: Path) -> Inner:
    """Make guest, kernel and their layers; what is cached is not made again.

    ``runner`` is the directory of the compute tests as the outer machine would build it.
    """
    archive = images.archive()
    package = _package(DebianSource(DebianKernel("bookworm"), archive), images, archive, shared)
    content = placed_once(shared / "nested" / f"content-{_content_key(images)}", lambda into: _content(images, into))
    own = Images(
        cache=shared,
        recipes=Recipes(content / "guests"),
        archive=images.archive,
        kernel_source=lambda spec, headers: source_for(spec, images.archive, need_headers=headers),
        tests=lambda: runner,
    )
    spec = KernelSpec(KERNEL, Series.LONGTERM, PackagesKernel((str(package),)))
    for stack in STACKS:
        own.prepare(GUEST, stack, spec, timeout=1800)
    return Inner(content, package, own, spec)


def fill_home(inner: Inner, tree: Path) -> None:
    """Put content, kernel package and a lab home with all parts into the root of the outer machine."""
    images = [inner.images.prepare(GUEST, stack, inner.spec, timeout=1800) for stack in STACKS]
    opt = tree / PLACE.relative_to("/")
    shutil.copytree(inner.content, opt / "content")
    shutil.copy(inner.package, opt)
    cache = tree / "var/lib/kdmatrix/cache"
    kernel = images[0].kernel
    folders = [kernel.initramfs.parent, inner.images.cache / "kernels" / kernel.identity.digest, inner.images.tests()]
    for folder in {*folders, *(layer.path.parent for image in images for layer in image.layers)}:
        shutil.copytree(folder, cache / folder.relative_to(inner.images.cache), symlinks=True)


def _content_key(images: Images) -> str:
    shipped = content_dir("guests")
    parts = (digest_of_tree(shipped / name) for name in ("_boot", "_build", "_kernels", "_knowledge", "known_issues"))
    return content_key("nested content", images.base_key("debian-13"), RECIPE, *STACKS.values(), *parts)[:32]


def _content(images: Images, into: Path) -> None:
    guests = into / "guests"
    for room in ("_boot", "_build", "_kernels", "_knowledge", "known_issues"):
        shutil.copytree(content_dir("guests") / room, guests / room)
    (guests / GUEST).mkdir()
    (guests / GUEST / "guest.yaml").write_text(RECIPE)
    # The shipped guest as it was bootstrapped: nothing in the outer machine has to ask an archive for its state.
    (guests / GUEST / "Containerfile").write_text(f"FROM {images.base('debian-13', 1800)}\n")
    for name, recipe in STACKS.items():
        stack = guests / GUEST / "stacks" / name
        stack.mkdir(parents=True)
        (stack / "stack.yaml").write_text(recipe)
        (stack / "Containerfile").write_text("ARG BASE\nFROM ${BASE}\n")


def _package(source: DebianSource, images: Images, archive: Archive, shared: Path) -> Path:
    """Debian's kernel with the modules that are needed alone, not compressed: unpacking it costs the outer machine."""
    chosen = next(one for one in source.candidates() if one.bootable)
    files = source.fetch(images.cache / "kernels")
    wanted = {path.relative_to(files.modules) for path in closure(files.modules, (*ROOT_MODULES, *MODULES)).paths}
    name = f"linux-image-{chosen.release}_{chosen.version}_amd64.deb"

    def build(into: Path) -> None:
        tree = into / "tree"
        for package in archive.download("bookworm", chosen.image):
            subprocess.run(["dpkg-deb", "-x", package, tree], check=True)
        modules = tree / "lib/modules" / chosen.release
        for path in list((modules / "kernel").rglob("*.ko")):
            if path.relative_to(modules) not in wanted:
                path.unlink()
        (tree / "DEBIAN").mkdir()
        (tree / "DEBIAN/control").write_text(
            f"Package: linux-image-{chosen.release}\nVersion: {chosen.version}\nArchitecture: amd64\n"
            "Maintainer: nobody <root@localhost>\nDescription: Debian's kernel with few modules\n"
        )
        subprocess.run(["dpkg-deb", "-Znone", "--build", tree, into / name], check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(tree)

    key = content_key("nested kernel", source.resolve().digest, *sorted(map(str, wanted)))[:32]
    return placed_once(shared / "nested" / f"kernel-{key}", build) / name
