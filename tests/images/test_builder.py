"""Each part of an image is made once, by one process, whole or not at all."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import InfraError, UserError
from harness.images.buildah import BuildFailed
from harness.images.builder import check_guest, require_space
from harness.kernels.source import KernelUnavailable
from harness.model.image import Image
from images.tiny_lab import TinyLab, spec

pytestmark = pytest.mark.skipif(
    any(shutil.which(program) is None for program in ("buildah", "mkfs.erofs", "busybox")),
    reason="buildah, erofs-utils or busybox is not installed",
)

ALL = ["kernel 6.0-one", "tests layer", "kernel layer 6.0-one", "root layer g with s", "base g"]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[TinyLab]:
    made = TinyLab(tmp_path).write()
    yield made
    made.open().buildah.remove_all()


def files_of(image: Image, tmp_path: Path) -> dict[str, str]:
    """Everything in the layers, topmost first, as the guest will see it."""
    found: dict[str, str] = {}
    for layer in image.layers:
        out = tmp_path / f"out-{layer.serial}"
        shutil.rmtree(out, ignore_errors=True)
        subprocess.run(["fsck.erofs", f"--extract={out}", layer.path], check=True, capture_output=True)
        for path in out.rglob("*"):
            if path.is_file():
                found.setdefault(path.relative_to(out).as_posix(), path.read_text())
    return found


def half_made(lab: TinyLab) -> list[Path]:
    return list((lab.folder / "cache").glob("*/.*.tmp-*"))


def test_an_image_is_three_layers_with_the_right_files_in_them(lab: TinyLab, tmp_path: Path) -> None:
    image = lab.open().prepare("g", "s", spec(), timeout=60)
    assert [layer.serial for layer in image.layers] == ["tests", "kernel", "root"]
    assert lab.parts == ALL
    assert set(image.made) == set(ALL)
    found = files_of(image, tmp_path)
    assert found["opt/gpu_tests/bin/gtrun"] == "runner"
    assert found["usr/lib/modules/6.0-one/erofs.ko"] == "module of 6.0-one"
    assert found["etc/stack"] == "stack s\n"
    assert "distribution: x" in found["etc/guest"]
    assert image.kernel.initramfs.read_bytes()[:6] == b"070701"
    assert image.kernel.vmlinux is None
    assert half_made(lab) == []
    assert list((lab.folder / "cache/scratch").iterdir()) == []


def test_only_a_stack_that_serves_sycl_gets_the_tests_with_its_runner(lab: TinyLab, tmp_path: Path) -> None:
    (lab.folder / "guests/g/stacks/t/stack.yaml").write_text("description: t\ndevice: none\nbackends: [sycl]\n")
    larger = tmp_path / "larger"
    shutil.copytree(lab.folder / "gpu_tests", larger)
    (larger / "bin/gtrun-sycl").write_text("runner with sycl")
    images = replace(lab.open(), sycl_tests=lambda: larger)
    plain = files_of(images.prepare("g", "s", spec(), timeout=60), tmp_path)
    with_sycl = files_of(images.prepare("g", "t", spec(), timeout=60), tmp_path)
    assert "opt/gpu_tests/bin/gtrun-sycl" not in plain
    assert with_sycl["opt/gpu_tests/bin/gtrun-sycl"] == "runner with sycl"
    assert with_sycl["opt/gpu_tests/bin/gtrun"] == "runner"


def test_a_second_process_makes_nothing(lab: TinyLab) -> None:
    first = lab.open().prepare("g", "s", spec(), timeout=60)
    lab.parts.clear()
    again = lab.open().prepare("g", "s", spec(), timeout=60)
    assert lab.parts == []
    assert again.made == ()
    assert again.layers == first.layers


def test_cells_that_differ_in_one_thing_share_all_other_parts(lab: TinyLab) -> None:
    images = lab.open()
    images.prepare("g", "s", spec(), timeout=60)
    for stack, kernel, made in (
        ("t", spec(), ["root layer g with t"]),
        ("s", spec("j", "two"), ["kernel 6.0-two", "kernel layer 6.0-two"]),
        ("t", spec("other name of the same"), []),
    ):
        lab.parts.clear()
        assert lab.open().missing("g", stack, kernel) == tuple(made)
        images.prepare("g", stack, kernel, timeout=60)
        assert lab.parts == made


@pytest.mark.parametrize(
    ("changed", "made"),
    [
        ("guests/g/stacks/s/Containerfile", {"root layer g with s"}),
        ("guests/g/Containerfile", {"root layer g with s", "base g"}),
        ("guests/_boot/Containerfile.tests", {"tests layer"}),
        ("guests/_boot/Containerfile.kernel", {"kernel layer 6.0-one"}),
        ("gpu_tests/bin/gtrun", {"tests layer"}),
    ],
)
def test_a_changed_recipe_makes_exactly_what_depends_on_it_again(lab: TinyLab, changed: str, made: set[str]) -> None:
    before = lab.open().prepare("g", "s", spec(), timeout=60)
    with (lab.folder / changed).open("a") as file:
        file.write("\n")
    after = lab.open().prepare("g", "s", spec(), timeout=60)
    assert set(after.made) - {"kernel 6.0-one"} == made
    assert len({layer.path for layer in (*before.layers, *after.layers)}) == 4


def test_a_changed_init_gives_another_initramfs(lab: TinyLab) -> None:
    before = lab.open().boot_kernel(spec())
    (lab.folder / "guests/_boot/init").write_text("#!/bin/sh\n# changed\n")
    after = lab.open().boot_kernel(spec())
    assert before.initramfs != after.initramfs
    assert b"# changed" in after.initramfs.read_bytes()
    assert b"# changed" not in before.initramfs.read_bytes()


def test_a_part_that_failed_is_tried_once_and_every_caller_is_told_why(lab: TinyLab) -> None:
    images = lab.open()
    told = []
    for _ in range(3):
        with pytest.raises(BuildFailed, match="nowhere") as caught:
            images.prepare("g", "bad", spec(), timeout=60)
        told.append(caught.value)
    assert lab.parts.count("root layer g with bad") == 1
    assert len(set(map(id, told))) == 1
    assert half_made(lab) == []
    # It is this process that remembers; the next one tries again, and other stacks are not concerned.
    lab.parts.clear()
    images.prepare("g", "s", spec(), timeout=60)
    assert lab.parts == ["root layer g with s"]
    (lab.folder / "guests/g/stacks/bad/nowhere").write_text("here now")
    assert lab.open().prepare("g", "bad", spec(), timeout=60).made == ("root layer g with bad",)


@pytest.mark.parametrize(
    ("path", "error", "said"), [("missing", KernelUnavailable, "no kernel"), ("broken", InfraError, "mirror is dead")]
)
def test_a_kernel_that_cannot_be_had_is_asked_for_once(
    lab: TinyLab, path: str, error: type[Exception], said: str
) -> None:
    images = lab.open()
    for stack in ("s", "t", "s"):
        with pytest.raises(error, match=said):
            images.prepare("g", stack, spec("k", path), timeout=60)
    assert lab.asked == [path]


def test_threads_and_processes_that_want_the_same_image_make_it_once(lab: TinyLab) -> None:
    # Two "processes" with four threads each, all at once.
    views = [lab.open(), lab.open()]
    begin = threading.Barrier(8)

    def want(index: int) -> Image:
        begin.wait(30)
        return views[index % 2].prepare("g", "s", spec(), timeout=60)

    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(want, range(8)))
    assert len({image.layers for image in images}) == 1
    layers = [part for part in lab.parts if "layer" in part or part.startswith("base")]
    assert sorted(layers) == sorted(ALL[1:])


@pytest.mark.parametrize(
    "delay", [0.05, pytest.param(0.0, marks=pytest.mark.slow), pytest.param(0.2, marks=pytest.mark.slow)]
)
def test_a_killed_build_leaves_nothing_half_visible_and_no_process(lab: TinyLab, tmp_path: Path, delay: float) -> None:
    program = Path(__file__).with_name("tiny_lab.py")
    # A marker in the environment finds all descendants, whoever adopts them.
    marker = f"KDMATRIX_TEST_MARK={os.getpid()}-{time.monotonic_ns()}"
    name, _, value = marker.partition("=")
    environment = {**os.environ, name: value, "PYTHONPATH": str(Path(__file__).parents[2])}
    child = subprocess.Popen(
        [sys.executable, program, str(lab.folder)], stdout=subprocess.PIPE, env=environment, start_new_session=True
    )
    assert child.stdout is not None
    while b"kernel layer" not in child.stdout.readline():
        pass
    time.sleep(delay)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    deadline = time.monotonic() + 20
    while (left := _marked(marker.encode())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []
    for layer in (lab.folder / "cache/erofs").glob("[a-z]*/layer.erofs"):
        subprocess.run(["fsck.erofs", layer], check=True, capture_output=True)
    image = lab.open().prepare("g", "s", spec(), timeout=60)
    assert files_of(image, tmp_path)["usr/lib/modules/6.0-one/erofs.ko"] == "module of 6.0-one"
    assert half_made(lab) == []


def _marked(marker: bytes) -> list[str]:
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if marker in environ.read_bytes():
                found.append((environ.parent / "comm").read_text().strip())
        except OSError:
            continue
    return found


def test_too_little_space_is_told_before_anything_is_made(tmp_path: Path) -> None:
    require_space(tmp_path / "cache", 1)
    with pytest.raises(InfraError, match=r"GB free and 10+\.0 GB are needed; `kdmatrix clean --images`"):
        require_space(tmp_path / "cache", 10**21)


def test_a_stack_that_a_guest_lacks_is_answered_with_those_that_it_has(lab: TinyLab) -> None:
    recipes = lab.open().recipes
    check_guest(recipes, "g", "s")
    with pytest.raises(UserError, match="guest g has no recipe for stack nope; it has: bad, s, t"):
        check_guest(recipes, "g", "nope")


def test_what_is_cached_is_listed_with_its_size(lab: TinyLab) -> None:
    assert list(lab.open().cached()) == []
    lab.open().prepare("g", "s", spec(), timeout=60)
    sizes = {name: size for name, _path, size in lab.open().cached()}
    assert {"boot", "erofs", "kernels", "oci"} <= set(sizes)
    assert sizes["erofs"] > 3 * 4096
