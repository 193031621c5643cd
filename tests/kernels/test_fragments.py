"""Configurations that are asked for: read, merged in order, and held against what is there in the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.content import content_dir
from harness.errors import UserError
from harness.kernels.fragments import Fragment, lost, read_fragments, requested


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "vm.config").write_text("# starts from: tinyconfig\nCONFIG_SMP=y\nCONFIG_DRM=m\n")
    (tmp_path / "nova.config").write_text("CONFIG_DRM=y\n# CONFIG_DRM_NOUVEAU is not set\n")
    return tmp_path


def test_a_later_fragment_decides(folder: Path) -> None:
    fragments = read_fragments(folder, "vm", ["nova"])
    assert requested(fragments) == {"CONFIG_SMP": "y", "CONFIG_DRM": "y", "CONFIG_DRM_NOUVEAU": "n"}


def test_a_base_names_what_it_starts_from(folder: Path) -> None:
    base, over = read_fragments(folder, "vm", ["nova"])
    assert (base.start, over.start) == ("tinyconfig", "")


def test_of_a_base_that_stands_alone_nothing_is_insisted_on() -> None:
    whole = Fragment("distribution", "CONFIG_GONE_SINCE=y\nCONFIG_DRM=m\n")
    assert requested([whole, Fragment("mine", "CONFIG_DRM=y\n")]) == {"CONFIG_DRM": "y"}


def test_a_fragment_may_be_a_path(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "elsewhere" / "mine.config"
    mine.parent.mkdir()
    mine.write_text('CONFIG_LOCALVERSION="-mine"\n')
    assert read_fragments(folder, "vm", [str(mine)])[1].name == "mine"


def test_an_unknown_name_is_told_with_the_shipped_ones(folder: Path) -> None:
    with pytest.raises(UserError, match=r"kernel configuration novva: there is no .*novva\.config.*nova, vm"):
        read_fragments(folder, "vm", ["novva"])


@pytest.mark.parametrize("line", ["CONFIG_DRM=yes", "DRM=y", "CONFIG_DRM", "CONFIG_X='a'"])
def test_a_line_that_says_nothing_to_kconfig_is_refused_with_its_place(folder: Path, line: str) -> None:
    (folder / "bad.config").write_text(f"CONFIG_SMP=y\n{line}\n")
    with pytest.raises(UserError, match=r"bad\.config:2:1: .* is no line of a kernel configuration"):
        read_fragments(folder, "bad", [])


def test_what_vanished_is_told_with_what_was_wanted_and_what_is_there() -> None:
    wanted = {"CONFIG_DRM": "y", "CONFIG_DRM_NOVA": "m", "CONFIG_DRM_NOUVEAU": "n", "CONFIG_SMP": "y"}
    got = {"CONFIG_DRM": "m", "CONFIG_SMP": "y"}
    assert lost(wanted, got) == ("CONFIG_DRM: wanted y, got m", "CONFIG_DRM_NOVA: wanted m, got n")


def test_every_shipped_configuration_can_be_read() -> None:
    folder = content_dir("guests") / "_kernels"
    names = sorted(path.stem for path in folder.glob("*.config"))
    fragments = read_fragments(folder, "vm", [name for name in names if name != "vm"])
    assert {"vm", "nova", "secureboot"} <= {one.name for one in fragments}
    assert requested(fragments)["CONFIG_DRM_NOVA"] == "m"
