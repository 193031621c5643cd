"""RPM repositories, each made by the test that reads it: nothing is taken that no signature or digest covers."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

import pytest
import zstandard

from harness.errors import InfraError
from harness.kernels.fetching import Downloads
from harness.kernels.repositories import Repository as Entry
from harness.kernels.rpm import RpmSource
from harness.kernels.source import KernelUnavailable
from harness.model.cell import RpmKernel
from tests.kernels.conftest import Repository, sh
from tests.kernels.rpmrepo import RpmRepo


@pytest.fixture
def repo(repository: Repository) -> RpmRepo:
    """An empty RPM repository below the folder that the loopback server serves."""
    return RpmRepo(repository.root / "rpms")


def armored(gnupg: Path, into: Path) -> Path:
    key = into / "key.asc"
    key.write_bytes(sh("gpg", "--homedir", gnupg, "--batch", "--armor", "--export"))
    return key


def source(
    repository: Repository, tmp_path: Path, *, signed: str = "nothing", need_headers: bool = False, **spec: str
) -> RpmSource:
    key = None if signed == "nothing" else armored(repository.gnupg, tmp_path)
    entry = Entry("mine", f"{repository.url}/rpms", signed, key, "made by a test")
    return RpmSource(RpmKernel("mine", **spec), entry, Downloads(tmp_path / "downloads", ttl=0.0), need_headers)


@pytest.mark.parametrize("compression", ["gz", "xz", "bz2"])
def test_a_split_kernel_is_found_and_laid_out(
    repository: Repository, repo: RpmRepo, tmp_path: Path, compression: str
) -> None:
    repo.add_kernel("7.3.4", "200.fc44")
    repo.publish(compression)
    wanted = source(repository, tmp_path)
    identity = wanted.resolve()
    assert (identity.release, identity.version) == ("7.3.4-200.fc44.x86_64", "7.3.4-200.fc44")
    assert identity.source == "rpm mine (not signed)"
    assert [name.partition("-7")[0] for name, _ in identity.parts] == [
        "kernel-core",
        "kernel-devel",
        "kernel-modules",
        "kernel-modules-core",
    ]
    files = wanted.fetch(tmp_path / "kernels")
    assert files.vmlinuz.read_text().strip() == files.release
    assert files.config.read_text() == "CONFIG_EROFS_FS=m\n"
    assert (files.modules / "modules.dep").is_file()
    assert (files.modules / "kernel/fs/note").is_file()
    assert not (files.modules / "build").is_symlink()
    headers = wanted.headers(tmp_path / "headers")
    link = headers.root / "usr/lib/modules" / headers.release / "build"
    assert link.readlink() == Path(f"/usr/src/kernels/{headers.release}")
    assert headers.config.read_text() == "CONFIG_EROFS_FS=m\n"


def test_an_index_in_zstandard_is_read(repository: Repository, repo: RpmRepo, tmp_path: Path) -> None:
    repo.add_kernel("7.3.4", "200.fc44")
    repo.publish()
    (old,) = repo.root.glob("repodata/*primary.xml.gz")
    data = zstandard.compress(gzip.decompress(old.read_bytes()))
    new, digest = old.with_suffix(".zst"), hashlib.sha256(data).hexdigest()
    new.write_bytes(data)
    repomd = repo.root / "repodata/repomd.xml"
    before = hashlib.sha256(old.read_bytes()).hexdigest()
    assert old.name.startswith(before)
    text = repomd.read_text().replace(f"repodata/{old.name}", f"repodata/{new.name}").replace(before, digest)
    repomd.write_text(text.replace(f"repodata/{digest}", f"repodata/{before}"))
    assert source(repository, tmp_path).resolve().release == "7.3.4-200.fc44.x86_64"


def test_the_newest_is_the_one_that_rpm_calls_newest(repository: Repository, repo: RpmRepo, tmp_path: Path) -> None:
    repo.add_kernel("7.3.0", "0.rc7.20251103gt848e0763.345.fc44")
    repo.add_kernel("7.3.0", "0.rc10.1.fc44")
    repo.add_kernel("7.3~beta", "1.fc44")
    repo.publish()
    newest = source(repository, tmp_path).resolve()
    assert newest.version == "7.3.0-0.rc10.1.fc44"
    repo.add_kernel("7.3.0", "200.fc44")
    repo.add_kernel("7.3.0^post", "1.fc44")
    repo.publish()
    assert source(repository, tmp_path).resolve().version == "7.3.0^post-1.fc44"
    order = [one.version for one in source(repository, tmp_path).candidates()]
    assert order[-1] == "7.3~beta-1.fc44"
    snapshot = source(repository, tmp_path, release="7.3.0-0.rc7.20251103gt848e0763.345.fc44").resolve()
    assert snapshot.commit == "848e0763"


def test_a_kernel_without_devel_is_bootable_and_has_no_headers(
    repository: Repository, repo: RpmRepo, tmp_path: Path
) -> None:
    repo.add_kernel("7.2.12", "200.fc44")
    repo.add_kernel("7.3.4", "200.fc44", without=("devel",))
    repo.publish()
    wanted = source(repository, tmp_path)
    assert wanted.resolve().version == "7.3.4-200.fc44"
    assert not wanted.resolve().has_headers
    with pytest.raises(KernelUnavailable, match=r"without headers \(kernel-devel 7\.3\.4-200\.fc44\)"):
        wanted.headers(tmp_path / "headers")
    assert source(repository, tmp_path, need_headers=True).resolve().version == "7.2.12-200.fc44"
    with pytest.raises(KernelUnavailable, match=r"only in part \(7\.3\.4-200\.fc44\.x86_64: no kernel-devel\)"):
        source(repository, tmp_path, need_headers=True, version="7.3").resolve()


@pytest.mark.parametrize("part", ["modules", "modules-core"])
def test_a_kernel_that_lost_its_modules_is_not_taken(
    repository: Repository, repo: RpmRepo, tmp_path: Path, part: str
) -> None:
    repo.add_kernel("7.2.12", "200.fc44")
    repo.add_kernel("7.3.4", "200.fc44", without=(part,))
    repo.publish()
    assert source(repository, tmp_path).resolve().version == "7.2.12-200.fc44"
    with pytest.raises(KernelUnavailable, match=rf"no kernel-{part}\); did you mean 7\.2\.12"):
        source(repository, tmp_path, version="7.3").resolve()


def test_a_parallel_package_is_another_kernel(repository: Repository, repo: RpmRepo, tmp_path: Path) -> None:
    repo.add_kernel("7.3.4", "200.fc44")
    repo.add_kernel("6.18.40", "200.fc44", name="kernel-longterm", lib="/usr/lib")
    repo.publish()
    wanted = source(repository, tmp_path, package="kernel-longterm")
    assert wanted.resolve().release == "6.18.40-200.fc44.x86_64"
    assert wanted.fetch(tmp_path / "kernels").vmlinuz.is_file()
    assert [one.version for one in source(repository, tmp_path).candidates()] == ["7.3.4-200.fc44"]


def test_a_misspelt_release_is_answered_with_the_nearest(repository: Repository, repo: RpmRepo, tmp_path: Path) -> None:
    repo.add_kernel("7.3.4", "200.fc44")
    repo.publish()
    with pytest.raises(KernelUnavailable, match=r"has no kernel 7\.3\.4-201.*did you mean 7\.3\.4-200\.fc44\.x86_64"):
        source(repository, tmp_path, release="7.3.4-201.fc44").resolve()


def test_signed_packages_pass_and_unsigned_ones_are_refused(
    repository: Repository, repo: RpmRepo, tmp_path: Path
) -> None:
    repo.add_kernel("7.3.4", "200.fc44")
    repo.publish()
    unsigned = source(repository, tmp_path, signed="packages")
    unsigned.resolve()
    with pytest.raises(InfraError, match=r"refusing kernel-.*not signed"):
        unsigned.fetch(tmp_path / "kernels")
    assert not [path for path in (tmp_path / "kernels").iterdir() if path.is_dir()]
    repo.sign(repository.gnupg, packages=True)
    repo.publish()
    signed = source(repository, tmp_path, signed="packages")
    assert signed.fetch(tmp_path / "kernels").vmlinuz.is_file()
    assert signed.headers(tmp_path / "headers").config.is_file()
    assert signed.resolve().source == "rpm mine"
    assert signed.note == ""


def test_packages_signed_by_a_stranger_are_refused(
    repository: Repository, repo: RpmRepo, tmp_path: Path, stranger: Path
) -> None:
    repo.add_kernel("7.3.4", "200.fc44")
    repo.sign(stranger, packages=True)
    repo.publish()
    with pytest.raises(InfraError, match=r"refusing kernel-.*NOKEY"):
        source(repository, tmp_path, signed="packages").fetch(tmp_path / "kernels")


def test_a_signed_index_passes_and_a_tampered_one_is_refused(
    repository: Repository, repo: RpmRepo, tmp_path: Path, stranger: Path
) -> None:
    repo.add_kernel("7.3.4", "200.fc44")
    repo.publish()
    with pytest.raises(InfraError, match=r"repomd\.xml\.asc: the server answers 404"):
        source(repository, tmp_path, signed="repomd").resolve()
    repo.sign(repository.gnupg, repomd=True)
    assert source(repository, tmp_path, signed="repomd").resolve().release == "7.3.4-200.fc44.x86_64"
    repomd = repo.root / "repodata/repomd.xml"
    repomd.write_text(repomd.read_text().replace("<revision>", "<revision>9"))
    with pytest.raises(InfraError, match=r"refusing .*repomd\.xml: BAD signature"):
        source(repository, tmp_path, signed="repomd").resolve()
    repo.sign(stranger, repomd=True)
    with pytest.raises(InfraError, match=r"refusing .*repomd\.xml: Can't check signature: No public key"):
        source(repository, tmp_path, signed="repomd").resolve()


def damaged(repo: RpmRepo, pattern: str) -> None:
    (file,) = repo.root.glob(pattern)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("pattern", "phrase"),
    [
        ("repodata/*primary.xml.gz", "refusing .*primary.xml.gz: SHA-256"),
        ("kernel-core-*.rpm", "refusing kernel-core.*SHA"),
    ],
)
def test_what_differs_from_its_digest_is_refused(
    repository: Repository, repo: RpmRepo, tmp_path: Path, pattern: str, phrase: str
) -> None:
    repo.add_kernel("7.3.4", "200.fc44")
    repo.publish()
    damaged(repo, pattern)
    with pytest.raises(InfraError, match=phrase):
        source(repository, tmp_path).fetch(tmp_path / "kernels")
    assert not list((tmp_path / "downloads").rglob("kernel-core*.rpm"))


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        (lambda text: text[: len(text) // 2], "damaged"),
        (lambda text: text.replace('type="primary"', 'type="other2"'), "names no primary index"),
        (lambda text: re.sub(r'href="repodata/[^"]*primary.xml', 'href="../../etc/passwd', text), "no path within"),
        (lambda text: text.replace('"sha256"', '"md5"'), "has no SHA-256"),
        (lambda text: '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]>' + text.partition("?>")[2], "document type"),
        (lambda text: "", "damaged"),
    ],
)
def test_damaged_metadata_is_told_in_one_line_and_not_kept(
    repository: Repository, repo: RpmRepo, tmp_path: Path, change: object, phrase: str
) -> None:
    repo.add_kernel("7.3.4", "200.fc44")
    repo.publish()
    repomd = repo.root / "repodata/repomd.xml"
    good = repomd.read_text()
    repomd.write_text(change(good))  # type: ignore[operator]
    with pytest.raises(InfraError, match=phrase) as caught:
        source(repository, tmp_path).resolve()
    assert "\n" not in str(caught.value)
    repomd.write_text(good)
    assert source(repository, tmp_path).resolve().release == "7.3.4-200.fc44.x86_64"


def test_an_index_that_was_read_serves_while_it_is_fresh(repository: Repository, repo: RpmRepo, tmp_path: Path) -> None:
    repo.add_kernel("7.3.4", "200.fc44")
    repo.publish()
    first = source(repository, tmp_path)
    first.resolve()
    (repo.root / "repodata/repomd.xml").unlink()
    kept = RpmSource(RpmKernel("mine"), first.repository, Downloads(tmp_path / "downloads", ttl=3600.0))
    assert kept.resolve() == first.resolve()
    with pytest.raises(InfraError, match=r"repomd\.xml: the server answers 404"):
        source(repository, tmp_path).resolve()
