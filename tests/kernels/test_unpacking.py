"""Packages of either kind end in the one layout, and a broken one leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import InfraError
from harness.kernels.layout import headers_in, inside, merge_usr
from harness.kernels.unpacking import place_headers, place_kernel, releases_in, unpack
from tests.kernels.conftest import Repository
from tests.kernels.rpmrepo import RpmRepo


def test_an_rpm_and_a_deb_are_unpacked_below_the_root(repository: Repository, tmp_path: Path) -> None:
    deb = repository.add("linux-image-7.3-amd64", "7.3-1", files={"usr/lib/modules/7.3-amd64/vmlinuz": b"k"})
    unpack(deb, tmp_path / "deb")
    assert (tmp_path / "deb/usr/lib/modules/7.3-amd64/vmlinuz").read_bytes() == b"k"
    assert releases_in(deb) == {"7.3-amd64"}
    core = next(one for one in RpmRepo(tmp_path / "rpms").add_kernel("7.3.4", "200.fc44") if "-core-7" in one.name)
    unpack(core, tmp_path / "rpm")
    assert (tmp_path / "rpm/lib/modules/7.3.4-200.fc44.x86_64/vmlinuz").is_file()
    assert releases_in(core) == {"7.3.4-200.fc44.x86_64"}


@pytest.mark.parametrize("name", ["broken.rpm", "broken.deb"])
def test_a_broken_package_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\xed\xab\xee\xdb" + b"x" * 200)
    with pytest.raises(InfraError):
        place_kernel(tmp_path / "kernels", "d" * 64, "7.3", lambda: [tmp_path / name])
    assert not [path for path in (tmp_path / "kernels").iterdir() if path.is_dir()]


def test_packages_without_the_kernel_are_not_kept(repository: Repository, tmp_path: Path) -> None:
    deb = repository.add("linux-modules-7.3-amd64", "7.3-1", files={"usr/lib/modules/7.3-amd64/modules.order": b""})
    with pytest.raises(InfraError, match="hold no kernel image"):
        place_kernel(tmp_path / "kernels", "d" * 64, "7.3-amd64", lambda: [deb])
    with pytest.raises(InfraError, match=r"hold no usr/lib/modules/7\.4"):
        place_kernel(tmp_path / "kernels", "d" * 64, "7.4", lambda: [deb])
    with pytest.raises(InfraError, match="hold neither its build folder"):
        place_headers(tmp_path / "headers", "d" * 64, "7.3-amd64", lambda: [deb])
    for folder in ("kernels", "headers"):
        assert not [path for path in (tmp_path / folder).iterdir() if path.is_dir()]


def test_both_places_of_lib_are_merged(tmp_path: Path) -> None:
    for path in ("lib/modules/a/x", "usr/lib/modules/a/y", "usr/lib/modules/b/z"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    merge_usr(tmp_path)
    merge_usr(tmp_path)
    assert (tmp_path / "lib").readlink() == Path("usr/lib")
    found = sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "usr").rglob("?") if path.is_file())
    assert found == ["usr/lib/modules/a/x", "usr/lib/modules/a/y", "usr/lib/modules/b/z"]


def test_links_of_a_package_are_read_within_its_root(tmp_path: Path) -> None:
    modules = tmp_path / "usr/lib/modules/7.3"
    modules.mkdir(parents=True)
    (modules / "build").symlink_to("/etc")  # on this host it is there; in the packages it is not
    with pytest.raises(InfraError, match=r"hold no usr/lib/modules/7\.3/build"):
        headers_in(tmp_path, "7.3")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(InfraError, match="links without an end"):
        inside(tmp_path, tmp_path / "a")
