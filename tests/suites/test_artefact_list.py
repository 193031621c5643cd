"""The committed digests of compiled device code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.suites.artefact_list import Listed, listed_kernels, read_list, write_list

ONE = Listed("sm_90/sum.cubin", "ab" * 32, 7, "nvrtc", "sm_90", "-x -y", "cubin", "nvrtc 1.2", ("{nvrtc} a b",))


def test_a_list_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    entries = {one.path: one for one in (ONE, replace(ONE, path="gfx90a/sum.hsaco", compiler="clang", version="19"))}
    write_list(tmp_path, "sum", entries)
    assert read_list(tmp_path, "sum") == entries
    assert listed_kernels(tmp_path) == ["sum"]


def test_one_artefact_is_one_line_so_that_a_difference_is_small(tmp_path: Path) -> None:
    write_list(tmp_path, "sum", {ONE.path: ONE, "b": replace(ONE, path="b")})
    before = (tmp_path / "digests/sum.json").read_text().splitlines()
    write_list(tmp_path, "sum", {ONE.path: ONE, "b": replace(ONE, path="b", sha256="cd" * 32)})
    after = (tmp_path / "digests/sum.json").read_text().splitlines()
    assert sum(old != new for old, new in zip(before, after, strict=True)) == 1


def test_a_kernel_without_artefacts_has_no_list(tmp_path: Path) -> None:
    write_list(tmp_path, "sum", {ONE.path: ONE})
    write_list(tmp_path, "sum", {})
    assert read_list(tmp_path, "sum") == {}
    assert listed_kernels(tmp_path) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"compilers": {}, "artefacts": [{"path": "a"}]}'])
def test_a_damaged_list_is_told_by_its_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "digests").mkdir()
    (tmp_path / "digests/sum.json").write_text(text)
    with pytest.raises(UserError, match=r"digests/sum.json: not a list of artefacts"):
        read_list(tmp_path, "sum")
