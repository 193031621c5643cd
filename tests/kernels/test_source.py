"""A kernel of the matrix finds the source that serves it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.content import content_dir
from harness.errors import InfraError
from harness.kernels import KernelSource, Places, open_archive, source_for
from harness.kernels.archive import Archive
from harness.kernels.debian import DebianSource
from harness.kernels.files import FilesSource
from harness.kernels.koji import KojiSource
from harness.kernels.mirror import VARIABLE
from harness.kernels.rpm import RpmSource
from harness.kernels.tree import TreeSource
from harness.kernels.ubuntu import MainlineSource
from harness.model.cell import (
    DebianKernel,
    KernelOrigin,
    KernelSpec,
    KojiKernel,
    PackagesKernel,
    RpmKernel,
    Series,
    SourceKernel,
    TreeKernel,
    UbuntuKernel,
)


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
    wider = open_archive(tmp_path, components=("main", "non-free"))
    assert wider.components == ("main", "non-free")
    assert wider.root == tmp_path / "apt/with/main+non-free"


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (RpmKernel("/srv/repo"), RpmSource),
        (KojiKernel("kernel-7.3.4-200.fc44"), KojiSource),
        (UbuntuKernel(mainline="latest"), MainlineSource),
        (PackagesKernel(("/srv/a.deb",)), FilesSource),
    ],
)
def test_every_origin_has_its_source_and_asks_nobody_yet(tmp_path: Path, origin: KernelOrigin, expected: type) -> None:
    places = Places(tmp_path / "cache", content_dir("guests") / "_kernels")
    source = source_for(KernelSpec("it", Series.STABLE, origin), no_archive, need_headers=True, places=places)
    assert isinstance(source, expected)
    assert source.need_headers  # type: ignore[attr-defined]
    assert not (tmp_path / "cache").exists()


def test_a_build_from_source_is_handed_to_whoever_can_build() -> None:
    origin = SourceKernel(debian="trixie-backports")
    spec = KernelSpec("nova", Series.STABLE, origin)
    built = TreeSource(TreeKernel("/nowhere"))
    asked: list[SourceKernel] = []

    def builder(given: SourceKernel) -> KernelSource:
        asked.append(given)
        return built

    assert source_for(spec, no_archive, builder=builder) is built
    assert asked == [origin]
    with pytest.raises(InfraError, match="kernel nova: nothing here can build"):
        source_for(spec, no_archive)


def test_a_download_without_a_place_is_refused() -> None:
    with pytest.raises(InfraError, match="no place for what is downloaded"):
        source_for(KernelSpec("it", Series.STABLE, KojiKernel("kernel-7.3.4-200.fc44")), no_archive)
