"""A kernel configuration is read as kconfig writes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.kernels import KernelFiles
from harness.kernels.config import Requirement, parse_config, read_config, unmet

TEXT = """#
# Automatically generated file; DO NOT EDIT.
#
CONFIG_EROFS_FS=m
CONFIG_PVH=y
# CONFIG_IOMMUFD is not set
CONFIG_HZ=250
CONFIG_LOCALVERSION="-a\\"b"
CONFIG_EMPTY=""
"""


def test_values_unset_options_and_strings_are_read() -> None:
    assert parse_config(TEXT) == {
        "CONFIG_EROFS_FS": "m",
        "CONFIG_PVH": "y",
        "CONFIG_IOMMUFD": "n",
        "CONFIG_HZ": "250",
        "CONFIG_LOCALVERSION": '-a"b',
        "CONFIG_EMPTY": "",
    }


@pytest.mark.parametrize(
    ("requirement", "met"),
    [
        ("CONFIG_EROFS_FS=y|m", True),
        ("CONFIG_EROFS_FS", True),
        ("EROFS_FS=y", False),
        ("CONFIG_HZ=250", True),
        ("IOMMUFD", False),
        ("CONFIG_IOMMUFD=n", True),
        ("CONFIG_NEVER_HEARD_OF=n", True),
        ("CONFIG_PVH!=y", False),
        ("CONFIG_MODVERSIONS != y", True),
    ],
)
def test_a_requirement_is_met_or_not(requirement: str, met: bool) -> None:
    assert Requirement.parse(requirement).met(parse_config(TEXT)) is met


def test_what_is_unmet_says_what_is_there() -> None:
    assert unmet(parse_config(TEXT), ["PVH=y", "CONFIG_EROFS_FS=y"]) == ["CONFIG_EROFS_FS=y wanted, is m"]


@pytest.mark.parametrize("text", ["", "config_x=y", "CONFIG_X==", "=y", "CONFIG_X=y; rm"])
def test_nonsense_is_the_users_error(text: str) -> None:
    if text in ("CONFIG_X==", "CONFIG_X=y; rm"):
        assert not Requirement.parse(text).met(parse_config(TEXT))
        return
    with pytest.raises(UserError, match="requirement"):
        Requirement.parse(text)


def test_a_real_configuration_has_what_our_images_need(real_kernel: Callable[[str], KernelFiles]) -> None:
    config = read_config(real_kernel("trixie").config)
    assert len(config) > 5000
    assert unmet(config, ["EROFS_FS", "OVERLAY_FS", "VIRTIO_BLK", "DEVTMPFS=y", "PVH=y"]) == []


def test_a_file_that_is_missing_is_not_an_empty_configuration(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_config(tmp_path / "none")
