"""Kernels are compiled in an image of a guest's base, made once for the same contents."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.images.toolchain import KernelToolchain
from images.tiny_lab import TinyLab

pytestmark = pytest.mark.skipif(
    any(shutil.which(program) is None for program in ("buildah", "busybox")),
    reason="buildah or busybox is not installed",
)

BUSYBOX = "FROM scratch\nCOPY busybox /bin/busybox\n"
RECIPE = 'ARG BASE\nFROM ${BASE}\nRUN ["/bin/busybox", "mkdir", "/compilers"]\n'


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[TinyLab]:
    made = TinyLab(tmp_path).write()
    guest = tmp_path / "guests/g"
    shutil.copy2(shutil.which("busybox") or "", guest / "busybox")
    (guest / "Containerfile").write_text(BUSYBOX)
    recipe = tmp_path / "guests/_kernels/Containerfile.x"
    recipe.parent.mkdir()
    recipe.write_text(RECIPE)
    yield made
    made.open().buildah.remove_all()


def test_a_program_runs_among_the_compilers_with_what_is_mounted(lab: TinyLab, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    toolchain = KernelToolchain(lab.open())
    script = '[ -d /compilers ] && echo "$WORD" >/out/said && echo done'
    argv = ["/bin/busybox", "sh", "-c", script]
    done = toolchain.run("g", argv, volumes=[(out, "/out", "rw")], env={"WORD": "hello"}, timeout=120)
    assert (done.returncode, done.stdout) == (0, b"done\n"), done.stderr
    assert (out / "said").read_text() == "hello\n"
    assert lab.parts.count("kernel toolchain g") == 1


def test_the_image_is_made_once_and_again_when_its_recipe_changes(lab: TinyLab, tmp_path: Path) -> None:
    def status() -> int:
        argv = ["/bin/busybox", "test", "-d", "/more"]
        return KernelToolchain(lab.open()).run("g", argv, volumes=[], env={}, timeout=120).returncode

    before = KernelToolchain(lab.open()).key("g")
    assert (status(), status()) == (1, 1)
    assert lab.parts.count("kernel toolchain g") == 1
    (tmp_path / "guests/_kernels/Containerfile.x").write_text(RECIPE.replace("/compilers", "/more"))
    assert KernelToolchain(lab.open()).key("g") != before
    assert status() == 0
    assert lab.parts.count("kernel toolchain g") == 2


def test_a_distribution_without_a_recipe_is_told_which_ones_have_one(lab: TinyLab, tmp_path: Path) -> None:
    (tmp_path / "guests/_kernels/Containerfile.x").rename(tmp_path / "guests/_kernels/Containerfile.debian")
    with pytest.raises(UserError, match=r"guest g cannot compile kernels: .*distributions that can: debian"):
        KernelToolchain(lab.open()).key("g")
