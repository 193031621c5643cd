"""Package files of this host: together exactly one kernel, and what is unpacked is what was looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import InfraError, UserError
from harness.kernels.files import FilesSource
from harness.kernels.source import KernelUnavailable
from harness.model.cell import PackagesKernel
from tests.kernels.conftest import Repository
from tests.kernels.rpmrepo import RpmRepo


def source(*paths: Path, need_headers: bool = False) -> FilesSource:
    return FilesSource(PackagesKernel(tuple(map(str, paths))), need_headers)


@pytest.fixture
def debs(repository: Repository) -> list[Path]:
    """The packages of one Debian kernel from before the split, with headers."""
    repository.add_whole_kernel("6.1.0-51-amd64", "6.1.177-1", headers=True)
    return sorted((repository.root / "pool").glob("linux-[ih]*.deb"))


def test_debian_packages_make_a_kernel_and_its_headers(debs: list[Path], tmp_path: Path) -> None:
    wanted = source(*debs)
    identity = wanted.resolve()
    assert (identity.release, identity.version, identity.has_headers) == ("6.1.0-51-amd64", "6.1.177-1", True)
    assert wanted.fetch(tmp_path / "kernels").vmlinuz.read_text() == "6.1.0-51-amd64"
    headers = wanted.headers(tmp_path / "headers")
    assert headers.config.read_text() == "CONFIG_EXT4_FS=y\n"
    assert not (headers.root / "boot").exists()


def test_rpm_packages_make_a_kernel_and_its_headers(tmp_path: Path) -> None:
    wanted = source(*RpmRepo(tmp_path / "rpms").add_kernel("7.3.0", "0.rc7.20251103gt848e0763.345.fc44"))
    identity = wanted.resolve()
    assert identity.release == "7.3.0-0.rc7.20251103gt848e0763.345.fc44.x86_64"
    assert identity.commit == "848e0763"
    assert wanted.fetch(tmp_path / "kernels").vmlinuz.is_file()
    assert wanted.headers(tmp_path / "headers").config.is_file()


def test_without_headers_the_kernel_boots_and_nothing_is_built(debs: list[Path], tmp_path: Path) -> None:
    image = [deb for deb in debs if "image" in deb.name]
    assert not source(*image).resolve().has_headers
    with pytest.raises(KernelUnavailable, match="hold no headers: add"):
        source(*image).headers(tmp_path / "headers")
    with pytest.raises(KernelUnavailable, match="hold no headers: add"):
        source(*image, need_headers=True).resolve()


def test_files_that_are_not_one_kernel_are_the_users_error(debs: list[Path], tmp_path: Path) -> None:
    def problem(*paths: Path) -> str:
        with pytest.raises(UserError) as caught:
            source(*paths).resolve()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    rpms = RpmRepo(tmp_path / "rpms").add_kernel("7.3.4", "200.fc44")
    assert "hold 2 kernels: 6.1.0-51-amd64, 7.3.4-200.fc44.x86_64" in problem(*debs, *rpms)
    assert "no kernel's modules" in problem(next(deb for deb in debs if "headers" in deb.name))
    assert "there is no such file" in problem(tmp_path / "none.deb")
    for name in ("broken.deb", "broken.rpm"):
        (tmp_path / name).write_bytes(b"no package")
        assert "cannot be read as a package" in problem(tmp_path / name)
    (tmp_path / "a.tar").write_bytes(b"")
    assert "neither a .deb nor a .rpm" in problem(tmp_path / "a.tar")


def test_a_file_that_changes_after_it_was_looked_at_is_not_unpacked(debs: list[Path], tmp_path: Path) -> None:
    wanted = source(*debs)
    wanted.resolve()
    image = next(deb for deb in debs if "image" in deb.name)
    image.write_bytes(image.read_bytes() + b"x")
    with pytest.raises(InfraError, match="has changed since it was looked at"):
        wanted.fetch(tmp_path / "kernels")
