"""A Debian kernel is taken only when it is whole, and laid out the same way however it was packaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import InfraError
from harness.kernels import KernelFiles, KernelUnavailable
from harness.kernels.archive import Archive
from harness.kernels.debian import DebianSource, find_candidates
from harness.kernels.vmlinux import payload_of
from harness.model.cell import DebianKernel
from tests.kernels.conftest import Repository


@pytest.fixture
def archive(repository: Repository, tmp_path: Path) -> Archive:
    """A backports suite as they are: old shells without their parts, one kernel without headers, two whole ones."""
    repository.add_split_kernel("7.1.13+deb13-amd64", "7.1.13-1", without=("linux-modules", "linux-base"))
    repository.add_split_kernel("7.2.9+deb13-amd64", "7.2.9-1")
    repository.add_split_kernel("7.2.12+deb13-amd64", "7.2.12-1")
    repository.add_split_kernel("7.2.12+deb13-cloud-amd64", "7.2.12-1")
    repository.add_split_kernel("7.3-amd64", "7.3~rc7-1~exp1", without=("linux-kbuild",))
    repository.add_whole_kernel("6.1.0-50-amd64", "6.1.176-1")
    repository.add("linux-image-amd64", "7.3~rc7-1~exp1", depends="linux-image-7.3-amd64")
    repository.add("linux-image-7.2.12+deb13-amd64-dbg", "7.2.12-1")
    repository.publish("backports")
    return Archive(tmp_path / "cache", repository.url, repository.keyring)


def source(archive: Archive, *, need_headers: bool = False, **spec: str) -> DebianSource:
    return DebianSource(DebianKernel("backports", **spec), archive, need_headers=need_headers)


def test_candidates_are_sorted_numerically_and_say_what_is_missing(archive: Archive) -> None:
    found = source(archive).candidates()
    assert [one.release for one in found] == [
        "7.3-amd64",
        "7.2.12+deb13-amd64",
        "7.2.9+deb13-amd64",
        "7.1.13+deb13-amd64",
        "6.1.0-50-amd64",
    ]
    problems = {one.release: one.problem for one in found}
    assert problems["7.2.12+deb13-amd64"] == ""
    assert "no longer has" in problems["7.1.13+deb13-amd64"]
    assert "linux-modules-7.1.13+deb13-amd64" in problems["7.1.13+deb13-amd64"]
    assert problems["7.3-amd64"] == "no headers (linux-kbuild-7.3-amd64)"


def test_a_flavour_is_not_taken_for_another(archive: Archive) -> None:
    packages = archive.index("backports").packages
    assert [one.release for one in find_candidates(packages, "cloud-amd64")] == ["7.2.12+deb13-cloud-amd64"]


def test_latest_is_the_newest_whole_kernel(archive: Archive) -> None:
    assert source(archive).resolve().release == "7.3-amd64"
    with_headers = source(archive, need_headers=True).resolve()
    assert with_headers.release == "7.2.12+deb13-amd64"
    assert with_headers.has_headers
    assert source(archive, version="7.2").resolve().version == "7.2.12-1"


def test_the_identity_holds_every_part_with_its_digest(archive: Archive) -> None:
    identity = source(archive, release="7.2.9+deb13-amd64").resolve()
    assert identity.source == "debian backports"
    assert [name.partition("-7")[0] for name, _ in identity.parts] == [
        "linux-base",
        "linux-binary",
        "linux-headers",
        "linux-image",
        "linux-kbuild",
        "linux-modules",
    ]
    assert all(len(sha256) == 64 for _, sha256 in identity.parts)
    assert identity.digest != source(archive, release="7.2.12+deb13-amd64").resolve().digest


def test_an_incomplete_kernel_is_unavailable_with_its_reason(archive: Archive) -> None:
    with pytest.raises(
        KernelUnavailable, match=r"no longer has linux-modules-7\.1|no longer has linux-base-7\.1"
    ) as caught:
        source(archive, release="7.1.13+deb13-amd64").resolve()
    assert "did you mean 7.2." in str(caught.value)


def test_a_misspelt_release_is_answered_with_the_nearest(archive: Archive) -> None:
    with pytest.raises(KernelUnavailable, match=r"did you mean 7\.2\.12\+deb13-amd64"):
        source(archive, release="7.2.12-deb13-amd64").resolve()


def test_a_series_that_is_not_there_is_unavailable(archive: Archive) -> None:
    with pytest.raises(KernelUnavailable, match=r"has no kernel 6\.12 amd64; did you mean"):
        source(archive, version="6.12").resolve()


def test_a_split_kernel_is_laid_out_once(archive: Archive, tmp_path: Path) -> None:
    wanted = source(archive, release="7.2.12+deb13-amd64")
    files = wanted.fetch(tmp_path / "kernels")
    assert files.vmlinuz.read_text() == files.release == "7.2.12+deb13-amd64"
    assert files.modules == files.root / "usr/lib/modules/7.2.12+deb13-amd64"
    assert (files.modules / "modules.dep").is_file()
    assert files.root.name == wanted.resolve().digest
    before = files.root.stat().st_ino
    assert wanted.fetch(tmp_path / "kernels") == files
    assert files.root.stat().st_ino == before
    assert not list(files.root.parent.glob("*tmp*"))


def test_headers_are_laid_out_apart_from_the_kernel(archive: Archive, tmp_path: Path) -> None:
    wanted = source(archive, release="7.2.12+deb13-amd64")
    headers = wanted.headers(tmp_path / "headers")
    assert headers.root == tmp_path / "headers" / wanted.resolve().digest
    assert headers.release == "7.2.12+deb13-amd64"
    assert headers.config.read_text() == "CONFIG_EROFS_FS=m\n"
    assert (headers.root / "usr/lib/modules/7.2.12+deb13-amd64/build/.config").is_file()
    assert (headers.root / "usr/lib/linux-kbuild-7.2.12+deb13-amd64/scripts/kallsyms").is_file()
    # Header packages depend on the image since Debian 13; a build does not read the kernel itself.
    assert not (headers.root / "usr/lib/modules/7.2.12+deb13-amd64/vmlinuz").exists()
    assert wanted.headers(tmp_path / "headers") == headers


def test_headers_from_before_the_usr_merge_get_the_same_layout_without_a_compiler(
    repository: Repository, archive: Archive, tmp_path: Path
) -> None:
    repository.add_whole_kernel("6.1.0-51-amd64", "6.1.177-1", headers=True)
    repository.publish("backports")
    wanted = source(Archive(tmp_path / "other", repository.url, repository.keyring), version="6.1", need_headers=True)
    headers = wanted.headers(tmp_path / "headers")
    assert headers.config == headers.root / "usr/src/linux-headers-6.1.0-51-amd64/.config"
    link = headers.root / "usr/lib/modules/6.1.0-51-amd64/build"
    assert link.readlink() == Path("/usr/src/linux-headers-6.1.0-51-amd64")
    assert (headers.root / "lib").readlink() == Path("usr/lib")
    assert (headers.root / "usr/lib/linux-kbuild-6.1/tool").is_file()
    assert not (headers.root / "usr/bin/compiler").exists()


def test_a_kernel_without_headers_is_refused_with_what_is_missing(archive: Archive, tmp_path: Path) -> None:
    wanted = source(archive, version="7.3")
    with pytest.raises(KernelUnavailable, match=r"7\.3-amd64 without headers \(linux-kbuild-7\.3-amd64\)"):
        wanted.headers(tmp_path / "headers")
    assert not (tmp_path / "headers").exists()


def test_the_wish_for_headers_does_not_change_the_identity(archive: Archive) -> None:
    one = source(archive, version="7.2").resolve()
    assert one == source(archive, version="7.2", need_headers=True).resolve()


def test_a_kernel_from_before_the_usr_merge_gets_the_same_layout(archive: Archive, tmp_path: Path) -> None:
    files = source(archive, release="6.1.0-50-amd64").fetch(tmp_path / "kernels")
    assert files.vmlinuz == files.root / "boot/vmlinuz-6.1.0-50-amd64"
    assert files.modules == files.root / "usr/lib/modules/6.1.0-50-amd64"
    assert (files.root / "lib").readlink() == Path("usr/lib")
    assert (files.modules / "modules.dep").is_file()


@pytest.mark.parametrize("suite", ["bookworm", "trixie", "trixie-backports"])
def test_a_real_kernel_is_whole(real_kernel: Callable[[str], KernelFiles], suite: str) -> None:
    files = real_kernel(suite)
    assert payload_of(files.vmlinuz.read_bytes()) is not None
    assert (files.modules / "kernel/fs/erofs").is_dir()
    assert (files.modules / "modules.dep").stat().st_size > 100_000


def test_the_real_backports_index_lists_more_than_is_whole(debian: Archive) -> None:
    try:
        found = DebianSource(DebianKernel("trixie-backports"), debian).candidates()
    except InfraError as error:
        pytest.skip(f"trixie-backports is out of reach: {error}")
    assert any(one.bootable and one.has_headers for one in found)
    assert all(one.problem for one in found if not (one.bootable and one.has_headers))


def test_real_headers_hold_what_modules_are_built_with(debian: Archive, cache: Path) -> None:
    try:
        headers = DebianSource(DebianKernel("bookworm"), debian, need_headers=True).headers(cache / "headers")
    except InfraError as error:
        pytest.skip(f"bookworm is out of reach: {error}")
    assert 'CONFIG_CC_VERSION_TEXT="gcc-12' in headers.config.read_text()
    assert (headers.config.parent / "Module.symvers").stat().st_size > 100_000
    assert list((headers.root / "usr/lib").glob("linux-kbuild-*/scripts/mod/modpost"))
