"""Modules come with everything that they need, in load order, from depmod's real indices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.kernels import KernelFiles
from harness.kernels.modules import (
    closure,
    module_name,
    parse_alias,
    parse_builtin,
    parse_builtin_modinfo,
    parse_dep,
    parse_softdep,
)


def index(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"modules.{name.replace('_', '.')}").write_text(text)
    return folder


def names(paths: tuple[Path, ...]) -> list[str]:
    return [module_name(path.name) for path in paths]


@pytest.mark.parametrize("text", ["nova-core", "nova_core", "kernel/drivers/gpu/nova-core/nova-core.ko.xz"])
def test_one_module_has_one_name(text: str) -> None:
    assert module_name(text) == "nova_core"


def test_the_parsers_read_depmods_lines() -> None:
    assert parse_dep("kernel/a.ko: kernel/b.ko.xz kernel/c-d.ko\nkernel/b.ko.xz:\n") == {
        "a": ("kernel/a.ko", ("c_d", "b")),
        "b": ("kernel/b.ko.xz", ()),
    }
    assert parse_builtin("kernel/fs/ext4/ext4.ko\n\n") == {"ext4"}
    assert parse_softdep("# comment\nsoftdep a pre: b c-d post: e\nsoftdep a pre: f\n") == {
        "a": (("b", "c-d", "f"), ("e",))
    }
    assert parse_alias("# x\nalias crc32c crc32c-intel\nalias fs-* erofs\n") == (
        ("crc32c", "crc32c_intel"),
        ("fs-*", "erofs"),
    )
    assert parse_builtin_modinfo(b"ext4.alias=fs-ext4\0ext4.license=GPL\0") == (("fs-ext4", "ext4"),)


def test_dependencies_come_first_and_once(tmp_path: Path) -> None:
    folder = index(
        tmp_path,
        dep="k/top.ko: k/left.ko k/right.ko k/base.ko\nk/left.ko: k/base.ko\nk/right.ko: k/base.ko\nk/base.ko:\n",
    )
    found = closure(folder, ["top", "left"])
    order = names(found.paths)
    assert sorted(order) == ["base", "left", "right", "top"]
    assert order[0] == "base"
    assert order[-1] == "top"
    assert found.soft == frozenset()
    assert found.paths[0] == folder / "k/base.ko"


def test_soft_dependencies_are_resolved_through_aliases_and_marked(tmp_path: Path) -> None:
    folder = index(
        tmp_path,
        dep="k/erofs.ko:\nk/crc32c_generic.ko:\nk/crc32c-intel.ko:\nk/late.ko:\n",
        softdep="softdep erofs pre: crc32c post: late nosuch\n",
        alias="alias crc32c crc32c_generic\nalias crc32c crc32c_intel\n",
    )
    found = closure(folder, ["erofs"])
    order = names(found.paths)
    assert set(order[:2]) == {"crc32c_generic", "crc32c_intel"}
    assert order[2:] == ["erofs", "late"]
    assert sorted(names(tuple(found.soft))) == ["crc32c_generic", "crc32c_intel", "late"]
    assert found.unknown == ()


def test_a_module_wanted_both_softly_and_hard_is_hard(tmp_path: Path) -> None:
    folder = index(tmp_path, dep="k/a.ko:\nk/b.ko:\n", softdep="softdep a pre: b\nsoftdep b pre: a\n")
    found = closure(folder, ["a", "b"])
    assert sorted(names(found.paths)) == ["a", "b"]
    assert found.soft == frozenset()


def test_builtin_and_unknown_names_are_told_apart(tmp_path: Path) -> None:
    folder = index(
        tmp_path, dep="", builtin="kernel/virtio-pci.ko\n", builtin_modinfo="virtio_pci.alias=virtio-thing\0"
    )
    found = closure(folder, ["virtio_pci", "virtio-thing", "nosuch"])
    assert found.paths == ()
    assert found.builtin == ("virtio_pci", "virtio-thing")
    assert found.unknown == ("nosuch",)


def test_a_device_alias_finds_its_driver(tmp_path: Path) -> None:
    folder = index(tmp_path, dep="k/nova-core.ko:\n", alias="alias pci:v000010DEd*sv*sd*bc03sc0[02]i* nova_core\n")
    assert names(closure(folder, ["pci:v000010DEd00002684sv0sd0bc03sc00i00"]).paths) == ["nova_core"]
    assert closure(folder, ["pci:v00001002d0sv0sd0bc03sc00i00"]).unknown


def test_a_folder_without_indices_knows_nothing(tmp_path: Path) -> None:
    assert closure(tmp_path, ["erofs"]).unknown == ("erofs",)


@pytest.mark.parametrize("suite", ["bookworm", "trixie", "trixie-backports"])
def test_a_real_kernels_root_modules_resolve(real_kernel: Callable[[str], KernelFiles], suite: str) -> None:
    modules = real_kernel(suite).modules
    found = closure(modules, ["erofs", "overlay", "virtio_blk", "virtio-pci", "nosuch"])
    assert found.unknown == ("nosuch",)
    assert all(path.is_file() for path in found.paths)
    order = names(found.paths)
    assert order.index("erofs") >= 0
    if suite == "bookworm":
        assert order.index("crc32c_generic") < order.index("erofs")
    position = {name: place for place, name in enumerate(order)}
    for name, (_, needed) in parse_dep((modules / "modules.dep").read_text()).items():
        if name in position:
            assert all(position[other] < position[name] for other in needed)
