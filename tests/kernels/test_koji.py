"""A Koji build by its NVR, from a folder laid out as Koji lays out its packages."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.errors import InfraError, UserError
from harness.kernels.fetching import Downloads
from harness.kernels.koji import KEY_VARIABLE, SIGNED_VARIABLE, VARIABLE, KojiSource, Nvr
from harness.kernels.source import KernelUnavailable
from harness.model.cell import KojiKernel
from tests.kernels.conftest import Repository, sh
from tests.kernels.rpmrepo import RpmRepo

NVR = "kernel-7.3.0-0.rc7.20251103git848e0763fb2a.58.fc44"
VERSION, RELEASE = "7.3.0", "0.rc7.20251103git848e0763fb2a.58.fc44"


@pytest.fixture(autouse=True)
def _settings(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, f"{repository.url}/koji")
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.delenv(SIGNED_VARIABLE, raising=False)


def publish(repository: Repository, tmp_path: Path, *, inside: str = "x86_64", **options: object) -> Path:
    folder = repository.root / "koji/kernel" / VERSION / RELEASE / inside
    folder.parent.mkdir(parents=True)
    RpmRepo(tmp_path / "made").add_kernel(VERSION, RELEASE, **options)  # type: ignore[arg-type]
    shutil.move(tmp_path / "made", folder)
    return folder


def source(tmp_path: Path, *, need_headers: bool = False) -> KojiSource:
    return KojiSource(KojiKernel(NVR), Downloads(tmp_path / "downloads"), need_headers)


def test_a_build_is_resolved_to_its_packages_and_commit(repository: Repository, tmp_path: Path) -> None:
    publish(repository, tmp_path)
    wanted = source(tmp_path)
    identity = wanted.resolve()
    assert identity.release == f"{VERSION}-{RELEASE}.x86_64"
    assert identity.version == f"{VERSION}-{RELEASE}"
    assert identity.commit == "848e0763fb2a"
    assert identity.source == f"koji {NVR} (not signed)"
    assert wanted.note.startswith("not signed")
    assert len(identity.parts) == 4
    assert wanted.fetch(tmp_path / "kernels").vmlinuz.read_text().strip() == identity.release
    assert wanted.headers(tmp_path / "headers").config.is_file()
    shutil.rmtree(repository.root / "koji")
    assert source(tmp_path).resolve() == identity


def test_a_build_without_devel_boots_and_has_no_headers(repository: Repository, tmp_path: Path) -> None:
    publish(repository, tmp_path, without=("devel",))
    assert not source(tmp_path).resolve().has_headers
    with pytest.raises(KernelUnavailable, match="without headers"):
        source(tmp_path).headers(tmp_path / "headers")
    with pytest.raises(KernelUnavailable, match=r"without headers \(kernel-devel\)"):
        source(tmp_path, need_headers=True).resolve()


def test_a_build_that_is_not_there_or_lost_a_part_says_so(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(KernelUnavailable, match=r"koji has no build kernel-7\.3\.0-0\.rc7"):
        source(tmp_path).resolve()
    publish(repository, tmp_path, without=("modules",))
    with pytest.raises(KernelUnavailable, match=r"only in part \(no kernel-modules\)"):
        source(tmp_path).resolve()


def test_a_damaged_package_is_refused(repository: Repository, tmp_path: Path) -> None:
    folder = publish(repository, tmp_path)
    (core,) = folder.glob("kernel-core-*")
    data = bytearray(core.read_bytes())
    data[-20] ^= 0xFF
    core.write_bytes(bytes(data))
    with pytest.raises(InfraError, match=r"refusing .*digest"):
        source(tmp_path).resolve()


def test_signed_copies_are_taken_where_a_key_is_configured(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key.asc"
    key.write_bytes(sh("gpg", "--homedir", repository.gnupg, "--batch", "--armor", "--export"))
    monkeypatch.setenv(KEY_VARIABLE, str(key))
    monkeypatch.setenv(SIGNED_VARIABLE, "1234abcd")
    folder = publish(repository, tmp_path, inside="data/signed/1234abcd/x86_64")
    with pytest.raises(InfraError, match="not signed"):
        source(tmp_path).resolve()
    RpmRepo(folder).sign(repository.gnupg, packages=True)
    assert source(tmp_path).resolve().source == f"koji {NVR}"
    assert source(tmp_path).note == ""


def test_an_unset_setting_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(UserError, match=f"needs a setting of this host: set {VARIABLE} "):
        source(tmp_path).resolve()


def test_an_nvr_is_split_from_its_end() -> None:
    assert Nvr.parse("kernel-longterm-6.18.40-200.fc44") == Nvr("kernel-longterm", "6.18.40", "200.fc44")
    assert str(Nvr.parse(NVR)) == NVR
    with pytest.raises(UserError, match=r"did you mean kernel-7\.3\.4-200\.fc44\?"):
        Nvr.parse("kernel-7.3.4-200.fc44.x86_64")
    for wrong in ("kernel", "kernel-7.3.4", "kernel-a-b", "../x-1-1", "kernel-7.3.4-"):
        with pytest.raises(UserError, match="is not the NVR of a build"):
            Nvr.parse(wrong)
