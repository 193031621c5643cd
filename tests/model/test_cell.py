"""A cell's id names the axes' entries and nothing that moves; its slug is a file name."""

from __future__ import annotations

from harness.model.cell import Cell, DebianKernel, KernelSpec, Series, Timeouts


def cell(**changes: object) -> Cell:
    kernel = KernelSpec("lts-6.12", Series.LONGTERM, DebianKernel("trixie"))
    return Cell("debian-13", kernel, "cpu-opencl", **changes)  # type: ignore[arg-type]


def test_the_id_is_stable_whatever_else_changes() -> None:
    assert cell().id == "debian-13/lts-6.12/cpu-opencl/none"
    assert cell(boots=3, tests=("a",), timeouts=Timeouts(boot=1.0)).id == cell().id


def test_the_slug_is_one_path_component() -> None:
    slug = cell(device="0000:01:00.0").slug
    assert slug == "debian-13__lts-6.12__cpu-opencl__0000-01-00.0"
    assert not set(slug) & set("/:\\ ")
