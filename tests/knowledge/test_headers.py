from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from harness.knowledge.headers import breaks, source_trees
from harness.knowledge.issues import Interface

RESIZED = (
    "int __must_check pci_resize_resource(struct pci_dev *dev, int i, int size,\n\t\t\t\t     int exclude_bars);\n"
)
BEFORE = "int __must_check pci_resize_resource(struct pci_dev *dev, int i, int size);\nint exclude_bars;\n"
ARGUMENT = Interface(header="include/linux/pci.h", when="has", pattern=r"pci_resize_resource\([^;]*exclude_bars")


def headers(root: Path, **files: str) -> Path:
    """As Debian splits them: one tree of the flavour, one that all share."""
    for tree in ("linux-headers-6.12.107-amd64", "linux-headers-6.12.107-common", "linux-kbuild-6.12"):
        (root / "usr/src" / tree).mkdir(parents=True)
    include = root / "usr/src/linux-headers-6.12.107-common/include/linux"
    include.mkdir(parents=True)
    (include / "kernel.h").touch()
    for name, text in files.items():
        (include / f"{name}.h").write_text(text)
    return root


def test_an_argument_over_two_lines_is_seen_and_a_neighbour_is_not(tmp_path: Path) -> None:
    assert breaks(ARGUMENT, headers(tmp_path / "new", pci=RESIZED)) is True
    assert breaks(ARGUMENT, headers(tmp_path / "old", pci=BEFORE)) is False


def test_what_must_be_there_breaks_when_it_is_gone(tmp_path: Path) -> None:
    gone = Interface(header="include/linux/preempt.h", when="lacks", pattern=r"define\s+in_irq\(\)")
    assert breaks(gone, headers(tmp_path / "new", preempt="#define in_nmi() 1\n")) is True
    assert breaks(gone, headers(tmp_path / "old", preempt="#define in_irq() 1\n")) is False


def test_a_missing_header_is_told_from_missing_headers(tmp_path: Path) -> None:
    missing = Interface(header="include/linux/of_gpio.h", when="missing")
    assert breaks(missing, headers(tmp_path / "new")) is True
    assert breaks(missing, headers(tmp_path / "old", of_gpio="")) is False
    (tmp_path / "none").mkdir()
    assert breaks(missing, tmp_path / "none") is None


def test_a_header_that_moved_decides_nothing(tmp_path: Path) -> None:
    assert breaks(ARGUMENT, headers(tmp_path)) is None


def test_a_build_tree_below_modules_is_a_source_tree(tmp_path: Path) -> None:
    build = tmp_path / "usr/lib/modules/7.3.4-200.fc44.x86_64/build/include/linux"
    build.mkdir(parents=True)
    (build / "kernel.h").touch()
    assert source_trees(tmp_path) == (build.parents[1],)


@pytest.mark.parametrize(
    "more", [{"when": "missing", "pattern": "x"}, {"when": "has"}, {"when": "has", "pattern": "("}]
)
def test_a_pattern_goes_with_has_and_lacks_only(more: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Interface.model_validate({"header": "include/linux/pci.h"} | more)
