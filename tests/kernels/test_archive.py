"""The private apt root: signatures always count, the host's apt is untouched, a dead mirror is told in one line."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import socket
import tempfile
import threading
from pathlib import Path

import pytest

from harness.errors import InfraError, UserError
from harness.kernels.archive import Archive, PackageUnavailable
from tests.kernels.conftest import Repository, sh


@pytest.fixture
def filled(repository: Repository) -> Repository:
    repository.add("linux-image-7.3-amd64", "7.3-1", files={"boot/vmlinuz-7.3-amd64": b"k"})
    repository.add("hello", "1-1")
    repository.publish("stable")
    return repository


def opened(repository: Repository, tmp_path: Path, **options: object) -> Archive:
    return Archive(tmp_path / "cache", repository.url, repository.keyring, **options)  # type: ignore[arg-type]


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_a_signed_index_is_read_and_a_package_lands_in_the_pool(filled: Repository, tmp_path: Path) -> None:
    archive = opened(filled, tmp_path)
    index = archive.index("stable")
    assert index.packages.names() == ("linux-image-7.3-amd64",)
    assert index.note == ""
    package = index.packages.versions("linux-image-7.3-amd64")[0]
    (deb,) = archive.download("stable", [package])
    assert deb.parent.name == package.sha256 == hashlib.sha256(deb.read_bytes()).hexdigest()


def test_the_hosts_apt_lists_are_not_touched(filled: Repository, tmp_path: Path) -> None:
    lists = Path("/var/lib/apt/lists")
    before = sorted((entry.name, entry.stat().st_mtime_ns) for entry in os.scandir(lists)) if lists.is_dir() else []
    opened(filled, tmp_path).index("stable")
    after = sorted((entry.name, entry.stat().st_mtime_ns) for entry in os.scandir(lists)) if lists.is_dir() else []
    assert before == after


def test_a_fresh_index_is_not_asked_for_again_until_refresh(filled: Repository, tmp_path: Path) -> None:
    assert len(opened(filled, tmp_path).index("stable").packages.names()) == 1
    filled.add("linux-image-7.4-amd64", "7.4-1")
    filled.publish("stable")
    assert len(opened(filled, tmp_path).index("stable").packages.names()) == 1
    assert len(opened(filled, tmp_path, refresh=True).index("stable").packages.names()) == 2
    filled.add("linux-image-7.5-amd64", "7.5-1")
    filled.publish("stable")
    assert len(opened(filled, tmp_path, ttl=0.0).index("stable").packages.names()) == 3


def test_a_mirror_that_is_down_is_an_infra_error_of_one_line(signing_key: tuple[Path, Path], tmp_path: Path) -> None:
    archive = Archive(tmp_path / "cache", f"http://127.0.0.1:{closed_port()}/debian", signing_key[1])
    with pytest.raises(InfraError, match="cannot get the index of stable from http://127") as caught:
        archive.index("stable")
    assert "\n" not in str(caught.value)
    assert "onnect" in str(caught.value)


def test_a_cached_index_serves_with_a_note_while_the_mirror_is_down(filled: Repository, tmp_path: Path) -> None:
    opened(filled, tmp_path).index("stable")
    for path in sorted((filled.root / "dists").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    index = opened(filled, tmp_path, refresh=True).index("stable")
    assert index.packages.names() == ("linux-image-7.3-amd64",)
    assert re.match(r"stable: index is 0\.0 h old, the mirror cannot be asked: ", index.note)


def test_a_pooled_package_needs_no_mirror(filled: Repository, tmp_path: Path) -> None:
    archive = opened(filled, tmp_path)
    package = archive.index("stable").packages.versions("linux-image-7.3-amd64")[0]
    first = archive.download("stable", [package])
    archive.mirror = f"http://127.0.0.1:{closed_port()}"
    assert archive.download("stable", [package]) == first


def test_an_unsigned_repository_is_refused(filled: Repository, tmp_path: Path) -> None:
    filled.publish("stable", signed=False)
    with pytest.raises(InfraError, match=r"refusing stable from .*not signed"):
        opened(filled, tmp_path).index("stable")


def test_a_tampered_release_file_is_refused_even_with_a_cached_index(filled: Repository, tmp_path: Path) -> None:
    opened(filled, tmp_path).index("stable")
    inrelease = filled.root / "dists/stable/InRelease"
    inrelease.write_text(inrelease.read_text().replace("Label: Debian", "Label: Mallory"))
    filled.touch("stable")
    with pytest.raises(InfraError, match=r"refusing stable from .*BADSIG"):
        opened(filled, tmp_path, refresh=True).index("stable")


def test_a_tampered_index_is_refused(filled: Repository, tmp_path: Path) -> None:
    packages = filled.root / "dists/stable/main/binary-amd64/Packages"
    packages.write_bytes(packages.read_bytes().replace(b"7.3-1", b"9.9-9"))
    with pytest.raises(InfraError, match=r"cannot get the index of stable.*(Hash Sum mismatch|unexpected size)"):
        opened(filled, tmp_path).index("stable")


def test_a_tampered_package_is_refused_and_does_not_reach_the_pool(filled: Repository, tmp_path: Path) -> None:
    archive = opened(filled, tmp_path)
    package = archive.index("stable").packages.versions("linux-image-7.3-amd64")[0]
    (deb,) = (filled.root / "pool").glob("linux-image*")
    data = bytearray(deb.read_bytes())
    data[-1] ^= 1
    deb.write_bytes(bytes(data))
    with pytest.raises(InfraError, match=r"cannot download linux-image-7\.3-amd64=7\.3-1"):
        archive.download("stable", [package])
    assert not archive.pooled(package).exists()


def test_a_repository_signed_by_a_stranger_is_refused(filled: Repository, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="kdm") as home:
        try:
            gpg = ("gpg", "--homedir", home, "--batch")
            sh(*gpg, "--passphrase", "", "--quick-gen-key", "other@example.org", "rsa2048")
            (tmp_path / "other.gpg").write_bytes(sh(*gpg, "--export"))
        finally:
            sh("gpgconf", "--homedir", home, "--kill", "all")
    with pytest.raises(InfraError, match=r"refusing stable from .*NO_PUBKEY"):
        Archive(tmp_path / "cache", filled.url, tmp_path / "other.gpg").index("stable")


def test_a_digest_that_differs_from_the_index_is_refused_here_too(filled: Repository, tmp_path: Path) -> None:
    archive = opened(filled, tmp_path)
    package = archive.index("stable").packages.versions("linux-image-7.3-amd64")[0]
    other = dataclasses.replace(package, sha256="0" * 64)
    with pytest.raises(InfraError, match=r"refusing linux-image-7\.3-amd64_7\.3-1_amd64\.deb: SHA-256"):
        archive.download("stable", [other])
    assert not archive.pooled(other).exists()


def test_a_package_gone_from_the_mirror_names_the_package(filled: Repository, tmp_path: Path) -> None:
    archive = opened(filled, tmp_path)
    package = archive.index("stable").packages.versions("linux-image-7.3-amd64")[0]
    next((filled.root / "pool").glob("linux-image*")).unlink()
    with pytest.raises(InfraError, match=r"linux-image-7\.3-amd64=7\.3-1 .*404"):
        archive.download("stable", [package])


@pytest.mark.parametrize("suite", ["nosuch", "../etc", "stable main\ndeb x"])
def test_a_suite_that_does_not_exist_is_the_users_error(filled: Repository, tmp_path: Path, suite: str) -> None:
    with pytest.raises(UserError, match="suite"):
        opened(filled, tmp_path).index(suite)


def test_a_missing_keyring_names_the_package_to_install(filled: Repository, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="install debian-archive-keyring"):
        Archive(tmp_path / "cache", filled.url, tmp_path / "none.gpg").index("stable")


def test_any_package_can_be_had_by_name_in_its_newest_version(filled: Repository, tmp_path: Path) -> None:
    filled.add("hello", "1-2")
    filled.add("hello", "1-2~rc1")
    filled.add("linux-source-7.3", "7.3-1", arch="all")
    filled.publish("stable")
    archive = opened(filled, tmp_path)
    hello, source = archive.packages("stable", ["hello", "linux-source-7.3"])
    assert (hello.name, hello.version, source.name) == ("hello", "1-2", "linux-source-7.3")
    (deb, other) = archive.download("stable", [hello, source])
    assert sh("dpkg-deb", "-f", deb, "Version").strip() == b"1-2"
    assert sh("dpkg-deb", "-f", other, "Package").strip() == b"linux-source-7.3"


def test_a_package_that_the_suite_lacks_is_answered_with_the_nearest(filled: Repository, tmp_path: Path) -> None:
    with pytest.raises(PackageUnavailable, match=r"stable has no package helo; did you mean hello\?"):
        opened(filled, tmp_path).packages("stable", ["helo"])


def test_two_archives_on_one_root_do_not_disturb_each_other(filled: Repository, tmp_path: Path) -> None:
    seen: list[Path] = []

    def work() -> None:
        archive = opened(filled, tmp_path, ttl=0.0)
        seen.extend(archive.download("stable", archive.index("stable").packages.versions("linux-image-7.3-amd64")))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 3
    assert len(set(seen)) == 1
    assert b"Package: linux-image" in sh("dpkg-deb", "-f", seen[0])
