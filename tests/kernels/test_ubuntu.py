"""Ubuntu's two archives, each made by the test: a suite with its own keyring, and folders of mainline builds."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from harness.errors import InfraError, UserError
from harness.kernels import Places, source_for
from harness.kernels.archive import Archive
from harness.kernels.fetching import Downloads
from harness.kernels.source import KernelSource, KernelUnavailable
from harness.kernels.ubuntu import KEYRING, MAINLINE, MAINLINE_KEY, MIRROR, MainlineSource
from harness.model.cell import KernelSpec, Series, UbuntuKernel
from tests.kernels.conftest import Repository, sh


def no_archive() -> Archive:
    raise AssertionError("Ubuntu's kernels need no Debian archive")


@pytest.fixture(autouse=True)
def _settings(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MIRROR, repository.url)
    monkeypatch.setenv(KEYRING, str(repository.keyring))
    monkeypatch.setenv(MAINLINE, f"{repository.url}/mainline")
    monkeypatch.delenv(MAINLINE_KEY, raising=False)


def add_kernel(repository: Repository, abi: str, version: str, *, hwe: str = "", without: tuple[str, ...] = ()) -> None:
    """A kernel cut as Ubuntu cuts it; ``hwe`` is what stands in the name of the shared headers of a carried one."""
    release = f"{abi}-generic"
    shared = f"linux-{hwe}headers-{abi}"
    parts: dict[str, tuple[str, dict[str, bytes], dict[str, str]]] = {
        f"linux-image-{release}": (
            f"kmod, linux-base (>= 4.5ubuntu1), linux-modules-{release}",
            {f"boot/vmlinuz-{release}": release.encode()},
            {},
        ),
        f"linux-image-unsigned-{release}": (f"linux-modules-{release}", {f"boot/vmlinuz-{release}": b"unsigned"}, {}),
        f"linux-modules-{release}": (
            "linux-base",
            {
                f"boot/config-{release}": b"CONFIG_EROFS_FS=m\n",
                f"lib/modules/{release}/modules.order": b"",
                f"lib/modules/{release}/modules.builtin": b"",
            },
            {},
        ),
        f"linux-modules-extra-{release}": (
            f"linux-modules-{release}",
            {f"lib/modules/{release}/kernel/drivers/note": b"extra"},
            {},
        ),
        shared: ("", {f"usr/src/{shared}/Makefile": b"all:\n"}, {}),
        f"linux-headers-{release}": (
            f"{shared}, libc6 (>= 2.38), libelf1t64",
            {f"usr/src/linux-headers-{release}/.config": b"CONFIG_EROFS_FS=m\n"},
            {f"lib/modules/{release}/build": f"/usr/src/linux-headers-{release}"},
        ),
    }
    for name, (depends, files, links) in parts.items():
        if name not in without:
            repository.add(name, version, depends=depends, files=files, links=links)


def suite(tmp_path: Path, *, need_headers: bool = False, **spec: str) -> KernelSource:
    kernel = KernelSpec("hwe", Series.STABLE, UbuntuKernel("noble-updates", **spec))  # type: ignore[arg-type]
    return source_for(kernel, no_archive, need_headers=need_headers, places=Places(tmp_path / "cache", tmp_path))


def test_a_kernel_of_a_suite_is_whole_with_its_extra_modules_and_headers(
    repository: Repository, tmp_path: Path
) -> None:
    add_kernel(repository, "6.8.0-44", "6.8.0-44.44")
    add_kernel(repository, "6.14.0-24", "6.14.0-24.24~24.04.3", hwe="hwe-6.14-")
    repository.publish("noble-updates")
    wanted = suite(tmp_path, need_headers=True)
    identity = wanted.resolve()
    assert (identity.release, identity.version) == ("6.14.0-24-generic", "6.14.0-24.24~24.04.3")
    assert identity.source == "ubuntu noble-updates"
    files = wanted.fetch(tmp_path / "kernels")
    assert files.vmlinuz.read_text() == "6.14.0-24-generic"  # the signed image
    assert (files.modules / "kernel/drivers/note").is_file()
    headers = wanted.headers(tmp_path / "headers")
    assert (headers.root / "usr/src/linux-hwe-6.14-headers-6.14.0-24/Makefile").is_file()
    assert headers.config.is_file()
    assert suite(tmp_path, version="6.8").resolve().release == "6.8.0-44-generic"


def test_a_kernel_whose_shared_headers_are_gone_has_none(repository: Repository, tmp_path: Path) -> None:
    gone = "linux-hwe-6.14-headers-6.14.0-24"
    add_kernel(repository, "6.14.0-24", "6.14.0-24.24~24.04.3", hwe="hwe-6.14-", without=(gone,))
    repository.publish("noble-updates")
    with pytest.raises(KernelUnavailable, match=rf"ubuntu noble-updates has kernel .* without headers \({gone}\)"):
        suite(tmp_path).headers(tmp_path / "headers")


def test_an_unsigned_image_stands_in_where_there_is_no_signed_one(repository: Repository, tmp_path: Path) -> None:
    add_kernel(repository, "6.8.0-44", "6.8.0-44.44", without=("linux-image-6.8.0-44-generic",))
    repository.publish("noble-updates")
    assert suite(tmp_path).fetch(tmp_path / "kernels").vmlinuz.read_text() == "unsigned"


def test_a_security_suite_lies_in_the_same_archive(repository: Repository, tmp_path: Path) -> None:
    add_kernel(repository, "6.8.0-44", "6.8.0-44.44")
    repository.publish("noble-security")
    spec = KernelSpec("sec", Series.STABLE, UbuntuKernel("noble-security"))
    found = source_for(spec, no_archive, places=Places(tmp_path / "cache", tmp_path)).resolve()
    assert found.source == "ubuntu noble-security"


def test_an_archive_signed_by_another_key_is_refused(
    repository: Repository, tmp_path: Path, stranger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_kernel(repository, "6.8.0-44", "6.8.0-44.44")
    repository.publish("noble-updates")
    (tmp_path / "other.gpg").write_bytes(sh("gpg", "--homedir", stranger, "--batch", "--export"))
    monkeypatch.setenv(KEYRING, str(tmp_path / "other.gpg"))
    with pytest.raises(InfraError, match=r"refusing noble-updates .*NO_PUBKEY"):
        suite(tmp_path).resolve()


@pytest.mark.parametrize(("variable", "phrase"), [(MIRROR, f"set {MIRROR}"), (KEYRING, f"set {KEYRING}")])
def test_a_setting_of_the_archive_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, phrase: str
) -> None:
    monkeypatch.setenv(variable, "" if variable == MIRROR else str(tmp_path / "none.gpg"))
    with pytest.raises(UserError, match=phrase):
        suite(tmp_path)


def add_build(repository: Repository, tag: str, *, without: tuple[str, ...] = ()) -> Path:
    """A folder of the mainline archive: four packages and CHECKSUMS."""
    folder = repository.root / "mainline" / tag / "amd64"
    folder.mkdir(parents=True)
    upstream, _, rc = tag[1:].partition("-")
    numbers = [int(field) for field in upstream.split(".")] + [0] * (3 - len(upstream.split(".")))
    dotted = ".".join(map(str, numbers))
    abi = f"{dotted}-{''.join(f'{number:02}' for number in numbers)}{rc}"
    version, release = f"{abi}.202511031442", f"{abi}-generic"
    shared = f"linux-headers-{abi}"
    packages: dict[str, tuple[str, dict[str, bytes], dict[str, str]]] = {
        f"linux-image-unsigned-{release}": ("amd64", {f"boot/vmlinuz-{release}": release.encode()}, {}),
        f"linux-modules-{release}": (
            "amd64",
            {f"boot/config-{release}": b"CONFIG_EROFS_FS=m\n", f"lib/modules/{release}/modules.order": b""},
            {},
        ),
        shared: ("all", {f"usr/src/{shared}/Makefile": b"all:\n"}, {}),
        f"linux-headers-{release}": (
            "amd64",
            {f"usr/src/linux-headers-{release}/.config": b"CONFIG_EROFS_FS=m\n"},
            {f"lib/modules/{release}/build": f"/usr/src/linux-headers-{release}"},
        ),
    }
    lines = ["# Checksums-Sha1:", f"{'0' * 40}  linux-nothing.deb", "# Checksums-Sha256:"]
    for name, (arch, files, links) in packages.items():
        if not any(part in name for part in without):
            deb = repository.add(name, version, arch=arch, files=files, links=links)
            shutil.move(deb, folder / deb.name)
            lines.append(f"{hashlib.sha256((folder / deb.name).read_bytes()).hexdigest()}  {deb.name}")
    (folder / "CHECKSUMS").write_text("\n".join(lines) + "\n")
    return folder


def mainline(tmp_path: Path, tag: str = "latest", *, need_headers: bool = False, **spec: str) -> MainlineSource:
    kernel = UbuntuKernel(None, tag, **spec)  # type: ignore[arg-type]
    return MainlineSource(kernel, Downloads(tmp_path / "downloads", ttl=0.0), need_headers)


def test_the_newest_mainline_build_that_is_whole_is_taken(repository: Repository, tmp_path: Path) -> None:
    add_build(repository, "v7.2.5")
    add_build(repository, "v7.2.10")
    add_build(repository, "v7.3-rc7")
    add_build(repository, "v7.3", without=("image", "modules"))
    (repository.root / "mainline/v7.4-rc1").mkdir()
    wanted = mainline(tmp_path)
    identity = wanted.resolve()
    assert identity.release == "7.3.0-070300rc7-generic"
    assert identity.source == "ubuntu mainline v7.3-rc7 (not signed)"
    assert wanted.note.startswith("checksums not signed")
    files = wanted.fetch(tmp_path / "kernels")
    assert files.vmlinuz.read_text() == identity.release
    assert wanted.headers(tmp_path / "headers").config.is_file()
    assert mainline(tmp_path, version="7.2").resolve().release == "7.2.10-070210-generic"
    assert mainline(tmp_path, "v7.2.10").resolve().digest == mainline(tmp_path, version="7.2").resolve().digest


def test_a_mainline_build_that_is_not_there_or_not_whole_says_so(repository: Repository, tmp_path: Path) -> None:
    add_build(repository, "v7.3", without=("modules",))
    add_build(repository, "v7.2.5", without=("headers",))
    with pytest.raises(KernelUnavailable, match=r"no build v7\.9 for amd64"):
        mainline(tmp_path, "v7.9").resolve()
    with pytest.raises(KernelUnavailable, match=r"build v7\.3 without its modules for generic"):
        mainline(tmp_path, "v7.3").resolve()
    assert not mainline(tmp_path, "v7.2.5").resolve().has_headers
    with pytest.raises(KernelUnavailable, match="without headers"):
        mainline(tmp_path, "v7.2.5").headers(tmp_path / "headers")
    with pytest.raises(KernelUnavailable, match="without headers for generic"):
        mainline(tmp_path, "v7.2.5", need_headers=True).resolve()
    with pytest.raises(KernelUnavailable, match=r"no kernel 6\.18 that is whole"):
        mainline(tmp_path, version="6.18").resolve()


def test_a_mainline_package_that_differs_from_its_checksum_is_refused(repository: Repository, tmp_path: Path) -> None:
    folder = add_build(repository, "v7.3")
    (image,) = folder.glob("linux-image*")
    image.write_bytes(image.read_bytes() + b"x")
    with pytest.raises(InfraError, match=r"refusing linux-image-unsigned-7.*SHA-256"):
        mainline(tmp_path).fetch(tmp_path / "kernels")


def test_checksums_are_checked_against_a_configured_key(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = add_build(repository, "v7.3")
    monkeypatch.setenv(MAINLINE_KEY, str(repository.keyring))
    with pytest.raises(InfraError, match=r"refusing .*CHECKSUMS: not signed"):
        mainline(tmp_path).resolve()
    sums, signature = folder / "CHECKSUMS", folder / "CHECKSUMS.gpg"
    sh("gpg", "--homedir", repository.gnupg, "--batch", "--armor", "--detach-sign", "-o", signature, sums)
    assert mainline(tmp_path).resolve().source == "ubuntu mainline v7.3"
    sums.write_text(sums.read_text().replace("SHA256", "Sha256") + "\n")
    with pytest.raises(InfraError, match="CHECKSUMS: BAD signature"):
        mainline(tmp_path).resolve()


def test_an_unset_mainline_archive_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MAINLINE)
    with pytest.raises(UserError, match=f"set {MAINLINE} "):
        mainline(tmp_path).resolve()
