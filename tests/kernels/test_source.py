"""A kernel of the matrix finds the source that serves it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.kernels import KernelSource, open_archive, source_for
from harness.kernels.archive import Archive
from harness.kernels.debian import DebianSource
from harness.kernels.mirror import VARIABLE
from harness.kernels.tree import TreeSource
from harness.model.cell import DebianKernel, KernelSpec, Series, TreeKernel


def no_archive() -> Archive:
    raise AssertionError("a tree needs no archive")


def test_a_tree_needs_no_archive() -> None:
    source: KernelSource = source_for(KernelSpec("mine", Series.MAINLINE, TreeKernel("/nowhere")), no_archive)
    assert isinstance(source, TreeSource)


def test_a_debian_kernel_gets_the_archive_and_the_wish_for_headers(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "http://127.0.0.1:1/debian", tmp_path / "keyring.gpg")
    spec = KernelSpec("lts", Series.LONGTERM, DebianKernel("trixie"))
    source = source_for(spec, lambda: archive, need_headers=True)
    assert isinstance(source, DebianSource)
    assert source.archive is archive
    assert source.need_headers


def test_an_archive_lives_below_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = tmp_path / "keyring.gpg"
    keyring.write_bytes(b"")
    monkeypatch.setenv(VARIABLE, "http://127.0.0.1:1/debian")
    monkeypatch.setattr("harness.kernels.checked_keyring", lambda: keyring)
    assert open_archive(tmp_path).root == tmp_path / "apt"
