"""dnf makes a root from RPM packages: dependencies resolved, signatures checked, the host's own dnf left alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from harness.errors import InfraError
from harness.images.dnf import DnfRoot, guest_repositories
from harness.kernels.repositories import Repository

pytestmark = [
    pytest.mark.skipif(
        any(shutil.which(program) is None for program in ("dnf", "rpmbuild", "createrepo_c", "gpg")),
        reason="dnf, rpm, createrepo-c or gnupg is not installed",
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="rpm sets owners: needs root"),
]

SPEC = """
Name: {name}
Version: {version}
Release: 1
Summary: {name}
License: none
BuildArch: noarch
{requires}
%description
{name}
%install
mkdir -p %{{buildroot}}/etc/tiny
echo {version} >%{{buildroot}}/etc/tiny/{name}
%files
/etc/tiny/{name}
"""


def run(*argv: str | Path, **environment: str) -> None:
    done = subprocess.run(
        [str(word) for word in argv], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def add(folder: Path, name: str, version: str = "1", requires: str = "") -> Path:
    """Put a package into a repository, made with it."""
    spec = folder.parent / f"{name}.spec"
    spec.write_text(SPEC.format(name=name, version=version, requires=requires))
    run("rpmbuild", "-bb", "--quiet", f"--define=_topdir {folder.parent / 'top'}", f"--define=_rpmdir {folder}", spec)
    run("createrepo_c", "--quiet", folder)
    return folder / "noarch" / f"{name}-{version}-1.noarch.rpm"


def unsigned(folder: Path) -> Repository:
    return Repository("tiny", folder.as_uri(), "nothing", note="a test")


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    add(folder, "leaf")
    add(folder, "top", requires="Requires: leaf")
    add(folder, "other")
    return folder


def install(tmp_path: Path, repository: Repository, *names: str) -> dict[str, bytes]:
    """Files of the root that comes out, by name."""
    tar = tmp_path / "root.tar"
    DnfRoot(tmp_path / "cache").install("1", [repository], names, (), tar, 120)
    with tarfile.open(tar) as archive:
        return {
            one.name.removeprefix("./"): stream.read()
            for one in archive.getmembers()
            if one.isfile() and (stream := archive.extractfile(one)) is not None
        }


def test_a_root_holds_what_is_asked_for_and_what_that_requires(tmp_path: Path, packages: Path) -> None:
    found = install(tmp_path, unsigned(packages), "top")
    assert {name for name in found if name.startswith("etc/")} == {"etc/tiny/top", "etc/tiny/leaf"}
    assert "usr/lib/sysimage/rpm/rpmdb.sqlite" in found
    assert not [name for name in found if name.startswith(("var/cache/dnf/", "var/log/dnf", "proc/", "dev/"))]
    assert list((tmp_path / "cache" / "scratch").iterdir()) == []


def test_what_cannot_be_resolved_is_one_line_with_the_package(tmp_path: Path, packages: Path) -> None:
    add(packages, "broken", requires="Requires: nowhere")
    for name, said in (("broken", "nothing provides nowhere needed by broken-1-1.noarch"), ("absent", "absent")):
        with pytest.raises(InfraError, match=said) as caught:
            install(tmp_path, unsigned(packages), name)
        assert "\n" not in str(caught.value)


def test_a_repository_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InfraError, match=r"dnf cannot makecache: .*repo 'tiny'"):
        DnfRoot(tmp_path / "cache").state("1", [unsigned(tmp_path / "gone")])


def test_the_state_follows_the_repository(tmp_path: Path, packages: Path) -> None:
    dnf = DnfRoot(tmp_path / "cache")
    first = dnf.state("1", [unsigned(packages)])
    assert dnf.state("1", [unsigned(packages)]) == first
    add(packages, "leaf", version="2")
    assert dnf.state("1", [unsigned(packages)]) != first
    assert install(tmp_path, unsigned(packages), "leaf")["etc/tiny/leaf"] == b"2\n"


def test_a_local_repository_is_read_anew_however_young_the_index_of_it_is(tmp_path: Path, packages: Path) -> None:
    install(tmp_path, unsigned(packages), "leaf")
    for kept in (tmp_path / "cache/dnf").rglob("*"):
        os.utime(kept, (4e9, 4e9))
    add(packages, "leaf", version="2")
    assert install(tmp_path, unsigned(packages), "leaf")["etc/tiny/leaf"] == b"2\n"


def test_only_packages_signed_by_the_key_are_taken(tmp_path: Path, packages: Path) -> None:
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    gnupg = {"GNUPGHOME": str(home)}
    run("gpg", "--batch", "--passphrase", "", "--quick-gen-key", "tiny <tiny@invalid>", "rsa2048", "sign", **gnupg)
    key = tmp_path / "tiny.asc"
    run("gpg", "--armor", "--output", key, "--export", "tiny", **gnupg)
    repository = Repository("tiny", packages.as_uri(), "packages", key)
    with pytest.raises(InfraError, match=r"(?i)leaf.*not signed"):
        install(tmp_path, repository, "leaf")
    gpg = f"--define=__gpg {shutil.which('gpg')}"
    run("rpmsign", gpg, "--define=_gpg_name tiny", "--addsign", packages / "noarch/leaf-1-1.noarch.rpm", **gnupg)
    run("createrepo_c", "--quiet", packages)
    assert "etc/tiny/leaf" in install(tmp_path, repository, "leaf")
    with pytest.raises(InfraError, match=r"(?i)other.*not signed"):
        install(tmp_path, repository, "leaf", "other")


def test_a_guest_is_told_the_same_repositories_with_its_own_keys(tmp_path: Path) -> None:
    key = tmp_path / "RPM-GPG-KEY-x"
    key.touch()
    text = guest_repositories([Repository("x", "file:///x", "packages", key)])
    assert "baseurl=file:///x/\n" in text
    assert "gpgcheck=1\n" in text
    assert "gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-x\n" in text
