"""Names come from the host's list of PCI ids, in any of its places, and are empty without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.devices.names import PciNames, chip_and_model

LIST = """# List of PCI IDs
#	Version: 2026.01.01

1002  Advanced Micro Devices, Inc. [AMD/ATI]
	744c  Navi 31 [Radeon RX 7900 XT/7900 XTX]
		1002 0e3b  Radeon RX 7900 XTX
	74a1  Aqua Vanjaram [Instinct MI300X]
10de  NVIDIA Corporation
# a comment between
	2684  AD102 [GeForce RTX 4090]

C 03  Display controller
	00  VGA compatible controller
	744d  no device
"""


def test_vendors_and_devices_have_names() -> None:
    names = PciNames(LIST)
    assert names.known
    assert names.vendor_name(0x10DE) == "NVIDIA Corporation"
    assert names.device_name(0x10DE, 0x2684) == "AD102 [GeForce RTX 4090]"
    assert names.device_name(0x1002, 0x74A1) == "Aqua Vanjaram [Instinct MI300X]"


def test_what_the_list_does_not_know_has_no_name() -> None:
    names = PciNames(LIST)
    assert (names.vendor_name(0x8086), names.device_name(0x1002, 0x2684)) == ("", "")
    assert names.device_name(0x10DE, 0x744D) == "", "classes at the end are no devices of the last vendor"


@pytest.mark.parametrize("place", ["usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids", "usr/share/pci.ids"])
def test_the_list_is_found_where_distributions_put_it(tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text(LIST)
    assert PciNames.of(tmp_path).device_name(0x1002, 0x744C).startswith("Navi 31")


def test_without_a_list_nothing_is_known(tmp_path: Path) -> None:
    assert not PciNames.of(tmp_path).known
    assert PciNames.of(tmp_path).vendor_name(0x10DE) == ""


def test_a_broken_list_breaks_nothing(tmp_path: Path) -> None:
    (tmp_path / "usr/share/misc").mkdir(parents=True)
    (tmp_path / "usr/share/misc/pci.ids").write_bytes(b"\xff\xfe\n\t2684  lost\n10de  \x1b[2Jodd\n" + b"x" * 100_000)
    names = PciNames.of(tmp_path)
    assert names.vendor_name(0x10DE) == "?[2Jodd"


@pytest.mark.parametrize(
    ("name", "chip", "model"),
    [
        ("AD102 [GeForce RTX 4090]", "AD102", "GeForce RTX 4090"),
        ("GH100[H100 SXM5 80GB]", "GH100", "H100 SXM5 80GB"),
        ("Raphael", "Raphael", "Raphael"),
        ("Cezanne [Radeon Vega Series / Radeon Vega Mobile Series]", "Cezanne", None),
    ],
)
def test_chip_and_model_are_told_apart(name: str, chip: str, model: str | None) -> None:
    assert chip_and_model(name)[0] == chip
    assert model is None or chip_and_model(name)[1] == model
