"""What a guest starts from: settings that each host makes, archives that move on, images that are pinned."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.content import content_dir
from harness.errors import KdmatrixError, UserError
from harness.images.bases import Bases
from harness.images.buildah import Buildah
from harness.images.recipe import Recipes
from images.tiny_lab import no_archive

SETTINGS: tuple[str, ...] = ("KDMATRIX_FEDORA_MIRROR", "KDMATRIX_FEDORA_KEYS", "KDMATRIX_FEDORA_BOOTC")
SETTINGS += ("KDMATRIX_UBUNTU_MIRROR", "KDMATRIX_UBUNTU_KEYRING", "KDMATRIX_REPOSITORIES")
PINNED = "name.invalid/bootc@sha256:" + "0" * 64


@pytest.fixture(autouse=True)
def bare_host(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def bases(tmp_path: Path) -> Iterator[Bases]:
    recipes = Recipes(tmp_path / "guests")
    (recipes.root / "_kernels").mkdir(parents=True)
    (recipes.root / "_kernels" / "repositories.yaml").write_text("{}\n")
    buildah = Buildah(tmp_path / "cache" / "oci")
    yield Bases(recipes, no_archive, buildah, tmp_path / "cache")
    if (tmp_path / "cache" / "oci").exists():
        buildah.remove_all()


def write(bases: Bases, base: str, containerfile: str = "ARG BASE\nFROM ${BASE}\n") -> None:
    folder = bases.recipes.guest_dir("g")
    folder.mkdir(exist_ok=True)
    (folder / "guest.yaml").write_text(f"description: d\ndistribution: x\nrelease: '1'\nbase: {base}\n")
    (folder / "Containerfile").write_text(containerfile)


def state(bases: Bases) -> str:
    return bases.state(bases.recipes.guest("g"))


@pytest.mark.parametrize(
    ("guest", "setting"),
    [
        ("fedora-44", "KDMATRIX_FEDORA_MIRROR"),
        ("ubuntu-24.04", "KDMATRIX_UBUNTU_KEYRING"),
        ("fedora-atomic-clean", "KDMATRIX_FEDORA_BOOTC"),
        ("fedora-atomic-cuda-runtime", "KDMATRIX_FEDORA_BOOTC"),
        ("fedora-atomic-cuda-toolkit", "KDMATRIX_FEDORA_BOOTC"),
    ],
)
def test_a_shipped_guest_names_the_setting_that_this_host_lacks(guest: str, setting: str, tmp_path: Path) -> None:
    recipes = Recipes(content_dir("guests"))
    shipped = Bases(recipes, no_archive, Buildah(tmp_path / "oci"), tmp_path)
    with pytest.raises(KdmatrixError, match=setting) as caught:
        shipped.state(recipes.guest(guest))
    assert "\n" not in str(caught.value)


def test_every_shipped_guest_can_be_read_with_all_its_stacks() -> None:
    recipes = Recipes(content_dir("guests"))
    assert {"debian-12", "debian-13", "ubuntu-24.04", "fedora-44", "fedora-atomic-clean"} <= set(recipes.guests())
    for guest in recipes.guests():
        assert {"cpu-opencl", "intree"} <= set(recipes.stacks(guest))
        assert (recipes.guest_dir(guest) / "Containerfile").is_file()
        for stack in recipes.stacks(guest):
            recipe = recipes.stack(guest, stack)
            assert (recipes.stack_dir(guest, stack) / "Containerfile").is_file()
            if recipe.build:
                assert (recipes.build_dir / recipe.build.method).is_file()
                assert (recipes.stack_dir(guest, stack) / recipe.build.containerfile).is_file()
                assert recipes.guest(guest).compilers


def test_a_pinned_image_is_its_own_state_and_a_tag_is_refused(bases: Bases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDMATRIX_FEDORA_BOOTC", PINNED)
    write(bases, "{image: '${KDMATRIX_FEDORA_BOOTC}'}")
    assert state(bases) == PINNED
    write(bases, "{image: 'name.invalid/bootc:latest'}")
    with pytest.raises(UserError, match=r"bootc:latest: what is behind a tag changes; pin the image by its digest"):
        state(bases)


@pytest.mark.skipif(shutil.which("buildah") is None, reason="buildah is not installed")
def test_a_guest_is_built_on_an_image_of_this_host_and_its_state_follows_it(bases: Bases, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    states = []
    for word in ("one", "two"):
        (source / "Containerfile").write_text("FROM scratch\nCOPY word /etc/word\n")
        (source / "word").write_text(word)
        made = bases.buildah.reference("made", word)
        bases.buildah.build(made, source / "Containerfile", source, timeout=60)
        shutil.rmtree(tmp_path / "layout", ignore_errors=True)
        oci = tmp_path / "cache" / "oci"
        storage: list[str | Path] = ["--root", oci / "root", "--runroot", oci / "run"]
        words: list[str | Path] = [
            "buildah",
            *storage,
            "--storage-driver",
            "overlay",
            "push",
            made,
            f"oci:{tmp_path}/layout",
        ]
        subprocess.run(words, check=True, capture_output=True)
        write(bases, f"{{image: 'oci:{tmp_path}/layout'}}", "ARG BASE\nFROM ${BASE}\nCOPY guest.yaml /etc/guest\n")
        states.append(state(bases))
        reference = bases.buildah.reference("base", word)
        bases.build("g", bases.recipes.guest("g"), reference, 60)
        with bases.buildah.mounted(reference) as tree:
            assert (tree / "etc/word").read_text() == word
            assert "distribution: x" in (tree / "etc/guest").read_text()
    assert states[0] != states[1]


def test_packages_that_nobody_signed_are_taken_only_when_the_recipe_says_so(bases: Bases, tmp_path: Path) -> None:
    there = f"{{release: '1', repositories: ['file://{tmp_path}'], include: [x]}}"
    write(bases, f"{{dnf: {there}}}")
    with pytest.raises(UserError, match=r'nothing is signed in repository file:.*say `unsigned: "yes"`'):
        state(bases)


def test_a_base_has_one_origin(bases: Bases) -> None:
    write(bases, "{image: x, mmdebstrap: {suite: trixie}}")
    with pytest.raises(UserError, match=r"guest.yaml:4: base: .*one of mmdebstrap, dnf and image"):
        bases.recipes.guest("g")


def test_a_keyring_that_is_missing_is_told_before_anything_is_asked(
    bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDMATRIX_UBUNTU_KEYRING", "/nonexistent.gpg")
    write(bases, "{mmdebstrap: {suite: noble, mirror: 'http://name.invalid/', keyring: '${KDMATRIX_UBUNTU_KEYRING}'}}")
    with pytest.raises(KdmatrixError, match=r"keyring /nonexistent.gpg is missing"):
        state(bases)
