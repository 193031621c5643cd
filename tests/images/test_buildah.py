"""Images are built, measured and made into file systems by the real buildah, in a storage of our own."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.hostcmd import run
from harness.images.buildah import Buildah, BuildFailed

pytestmark = pytest.mark.skipif(shutil.which("buildah") is None, reason="buildah is not installed")


@pytest.fixture
def buildah(tmp_path: Path) -> Iterator[Buildah]:
    made = Buildah(tmp_path / "oci")
    yield made
    made.remove_all()


def context(folder: Path, containerfile: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "file").write_text("hello\n")
    (folder / "Containerfile").write_text(containerfile)
    return folder


def build(buildah: Buildah, reference: str, folder: Path, **arguments: str) -> str:
    return buildah.build(reference, folder / "Containerfile", folder, arguments=arguments, timeout=120)


def test_an_image_is_there_under_its_name_after_it_was_built(buildah: Buildah, tmp_path: Path) -> None:
    reference = buildah.reference("tiny", "ab" * 32)
    assert reference == "localhost/kdmatrix/tiny:" + "ab" * 16
    assert not buildah.exists(reference)
    assert buildah.size_of(reference) == 0
    log = build(buildah, reference, context(tmp_path / "c", "FROM scratch\nCOPY file /etc/file\n"))
    assert "COPY file /etc/file" in log
    assert buildah.exists(reference)
    assert buildah.size_of(reference) > 0
    buildah.remove_all()
    assert not buildah.exists(reference)


@pytest.mark.skipif(shutil.which("mkfs.erofs") is None, reason="erofs-utils is not installed")
def test_its_tree_becomes_an_erofs_file_with_the_same_content(buildah: Buildah, tmp_path: Path) -> None:
    base, top = buildah.reference("base", "1" * 64), buildah.reference("top", "2" * 64)
    build(buildah, base, context(tmp_path / "c", "FROM scratch\nCOPY file /etc/file\n"))
    build(buildah, top, context(tmp_path / "c", "ARG BASE\nFROM ${BASE}\nCOPY file /usr/second\n"), BASE=base)
    image = tmp_path / "layer.erofs"
    buildah.mkfs(top, ["mkfs.erofs", "--quiet", "-Enoinline_data", image], timeout=60)
    out = tmp_path / "out"
    subprocess.run(["fsck.erofs", f"--extract={out}", image], check=True, capture_output=True)
    assert (out / "etc/file").read_text() == (out / "usr/second").read_text() == "hello\n"
    assert buildah.remove_leftovers() == 0


@pytest.mark.parametrize(
    ("containerfile", "telling"),
    [
        ("FROM scratch\nCOPY nothing /x\n", r'COPY nothing /x.*"/nothing": no such file'),
        ("FROM scratch\nFOO x\n", "Unknown instruction"),
    ],
)
def test_a_failed_build_names_the_image_and_what_went_wrong(
    buildah: Buildah, tmp_path: Path, containerfile: str, telling: str
) -> None:
    reference = buildah.reference("tiny", "c" * 64)
    with pytest.raises(BuildFailed, match=rf"^image tiny:c+ did not build \(status \d+\): .*{telling}") as caught:
        build(buildah, reference, context(tmp_path / "c", containerfile))
    assert b"STEP 2/" in caught.value.log
    assert "\n" not in str(caught.value)
    assert not buildah.exists(reference)


def test_the_programs_own_complaint_is_quoted_and_not_buildahs_summary() -> None:
    log = "Get:1 x\nE: Unable to locate package nope\nerror building: exit status 100\nexit status 100\n"
    said = str(BuildFailed("localhost/kdmatrix/root:abc", 100, log))
    assert said == "image root:abc did not build (status 100): E: Unable to locate package nope"
    assert str(BuildFailed("a/b:c", 1, "")).endswith("no output")


def test_containers_that_a_killed_build_left_are_removed(buildah: Buildah, tmp_path: Path) -> None:
    reference = buildah.reference("tiny", "d" * 64)
    build(buildah, reference, context(tmp_path / "c", "FROM scratch\nCOPY file /f\n"))
    assert run([*buildah._prefix, "from", "--pull-never", reference], timeout=60).returncode == 0
    assert buildah.remove_leftovers() == 1
    assert buildah.remove_leftovers() == 0
    assert buildah.exists(reference)


def test_a_mount_goes_away_with_its_container_even_when_the_block_fails(buildah: Buildah, tmp_path: Path) -> None:
    if buildah.rootless:
        pytest.skip("without root, images are mounted in a user namespace only")
    reference = buildah.reference("tiny", "e" * 64)
    build(buildah, reference, context(tmp_path / "c", "FROM scratch\nCOPY file /f\n"))
    with contextlib.suppress(ZeroDivisionError), buildah.mounted(reference) as tree:
        assert (tree / "f").read_text() == "hello\n"
        raise ZeroDivisionError
    assert buildah.remove_leftovers() == 0
    assert str(tmp_path) not in Path("/proc/mounts").read_text()


def test_a_recipe_that_adds_nothing_to_its_base_leaves_no_container(buildah: Buildah, tmp_path: Path) -> None:
    base = buildah.reference("tiny", "1" * 64)
    build(buildah, base, context(tmp_path / "base", "FROM scratch\nCOPY file /f\n"))
    same = context(tmp_path / "same", "ARG BASE\nFROM ${BASE}\n")
    buildah.build(
        buildah.reference("tiny", "2" * 64), same / "Containerfile", same, arguments={"BASE": base}, timeout=60
    )
    assert buildah.remove_leftovers() == 0
