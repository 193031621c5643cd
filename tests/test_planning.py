"""What a run would do is told from the same data that the run uses, and asking changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import InfraError, UserError
from harness.home import Home
from harness.images.builder import Images
from harness.kernels.source import KernelFiles, KernelUnavailable
from harness.lab import Lab
from harness.model.cell import KernelIdentity, KernelSpec
from harness.planning import choose, default_matrix, look_ahead

MATRIX = """version: 1
kernels:
  - {name: lts, series: longterm, tree: /nowhere/lts}
  - {name: rc, series: mainline, tree: /nowhere/rc}
guests: [debian-13]
stacks: [cpu-opencl, intree]
presets:
  quick: {kernels: [rc], stacks: [intree]}
"""


class FakeSource:
    """Knows the release of one kernel and nothing of the others."""

    def __init__(self, spec: KernelSpec) -> None:
        self.spec = spec

    def resolve(self) -> KernelIdentity:
        if self.spec.name == "rc":
            raise KernelUnavailable("the archive no longer has it")
        return KernelIdentity("6.12.1-test", "6.12.1", "a test", "d" * 64)

    def fetch(self, into: Path) -> KernelFiles:
        raise AssertionError("planning fetches nothing")


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    def missing(_: Images, guest: str, stack: str, kernel: KernelSpec) -> tuple[str, ...]:
        return (f"root layer {guest} with {stack}",) if stack == "intree" else ()

    monkeypatch.setattr(Lab, "kernel_source", lambda _lab, spec, _headers: FakeSource(spec))
    monkeypatch.setattr(Images, "missing", missing)
    return Lab(Home(tmp_path / "home"))


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    path = tmp_path / "matrix.yaml"
    path.write_text(MATRIX)
    return path


def test_cells_come_with_their_releases_and_what_is_missing(lab: Lab, matrix: Path) -> None:
    rows = look_ahead(lab, choose(lab, matrix, preset=None, expression=None).cells)
    assert [(row.cell.id, row.release, row.to_make, row.problem) for row in rows] == [
        ("debian-13/lts/cpu-opencl/none", "6.12.1-test", (), ""),
        ("debian-13/lts/intree/none", "6.12.1-test", ("root layer debian-13 with intree",), ""),
        ("debian-13/rc/cpu-opencl/none", "", (), "the archive no longer has it"),
        ("debian-13/rc/intree/none", "", (), "the archive no longer has it"),
    ]
    assert not lab.home.root.exists()


def test_an_expression_narrows_and_says_what_it_left_out(lab: Lab, matrix: Path) -> None:
    selection = choose(lab, matrix, preset=None, expression="lts and intree")
    assert [cell.id for cell in selection.cells] == ["debian-13/lts/intree/none"]
    assert {one.cell_id for one in selection.left_out} == {
        "debian-13/lts/cpu-opencl/none",
        "debian-13/rc/cpu-opencl/none",
        "debian-13/rc/intree/none",
    }


def test_a_preset_is_another_matrix(lab: Lab, matrix: Path) -> None:
    selection = choose(lab, matrix, preset="quick", expression=None)
    assert [cell.id for cell in selection.cells] == ["debian-13/rc/intree/none"]
    assert selection.left_out == ()
    with pytest.raises(UserError, match="quik"):
        choose(lab, matrix, preset="quik", expression=None)


def test_one_dead_mirror_does_not_hide_the_other_kernels(
    lab: Lab, matrix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead(self: FakeSource) -> KernelIdentity:
        if self.spec.name == "lts":
            raise InfraError("the mirror is down")
        return KernelIdentity("7.3", "7.3", "a test", "e" * 64)

    monkeypatch.setattr(FakeSource, "resolve", dead)
    rows = look_ahead(lab, choose(lab, matrix, preset=None, expression="intree").cells)
    assert [(row.release, row.problem) for row in rows] == [("", "the mirror is down"), ("7.3", "")]


def test_the_matrix_of_this_directory_comes_before_the_shipped_one(
    matrix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_matrix().resolve() == matrix
    matrix.unlink()
    assert default_matrix().name == "matrix.yaml"
    assert "cpu-opencl" in default_matrix().read_text()
