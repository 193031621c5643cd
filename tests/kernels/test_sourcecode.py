"""Where source comes from, and what it will call itself before anything of it is built."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.kernels.archive import Archive
from harness.kernels.source import KernelUnavailable
from harness.kernels.sourcecode import release_in, source_code
from harness.model.cell import SourceKernel
from tests.kernels.conftest import Repository

MAKEFILE = "VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\nEXTRAVERSION =\nNAME = Baby Opossum Posse\n\nall:\n"


def no_archive() -> Archive:
    raise AssertionError("no archive is needed for this")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "linux-7.3.4"
    folder.mkdir()
    (folder / "Makefile").write_text(MAKEFILE)
    (folder / "kernel").mkdir()
    (folder / "kernel" / "Makefile").write_text("VERSION = 1\nPATCHLEVEL = 1\n")
    return folder


def tarball(tree: Path, compression: str = "-J") -> SourceKernel:
    path = tree.parent / "linux.tar.any"
    subprocess.run(["tar", compression, "-cf", path, "-C", tree.parent, tree.name], check=True)
    return SourceKernel(tarball=str(path))


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    return subprocess.run(["git", *who, "-C", folder, *words], check=True, capture_output=True, text=True).stdout


def committed(tree: Path) -> str:
    git(tree, "init", "--quiet")
    git(tree, "add", ".")
    git(tree, "commit", "--quiet", "-m", "source")
    git(tree, "tag", "v7.3.4")
    return git(tree, "rev-parse", "HEAD").strip()


@pytest.mark.parametrize(
    ("makefile", "local", "release"),
    [
        (MAKEFILE, {}, "7.3.4"),
        ("VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 0\nEXTRAVERSION = -rc7\n", {}, "7.3.0-rc7"),
        (MAKEFILE, {"localversion-next": "-next-20261101\n", "localversion-next~": "-old"}, "7.3.4-next-20261101"),
        (MAKEFILE, {"localversion.b": "-b\n", "localversion.a": "-a\n"}, "7.3.4-a-b"),
    ],
)
def test_the_release_is_read_from_the_makefile(makefile: str, local: dict[str, str], release: str) -> None:
    assert release_in(makefile, local) == release


@pytest.mark.parametrize("compression", ["-J", "-z", "--zstd"])
def test_a_tarball_is_known_by_its_content_and_unpacks_without_its_top_folder(
    tree: Path, tmp_path: Path, compression: str
) -> None:
    source = source_code(tarball(tree, compression), no_archive)
    assert source.describe().release == "7.3.4"
    assert len(source.describe().part[1]) == 64
    (into := tmp_path / "into").mkdir()
    source.unpack(into)
    assert (into / "kernel" / "Makefile").is_file()


def test_a_tarball_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "Makefile").write_text("all:\n\ttrue\n")
    with pytest.raises(UserError, match="this is no kernel source"):
        source_code(tarball(tmp_path / "program"), no_archive).describe()


def test_a_tarball_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.tar: no such file"):
        source_code(SourceKernel(tarball=str(tmp_path / "none.tar")), no_archive).describe()


def test_a_commit_is_taken_as_committed_whatever_the_work_tree_holds(tree: Path, tmp_path: Path) -> None:
    commit = committed(tree)
    (tree / "Makefile").write_text("VERSION = 9\nPATCHLEVEL = 9\n")
    source = source_code(SourceKernel(git=(str(tree), "v7.3.4")), no_archive)
    described = source.describe()
    assert (described.release, described.version, described.commit) == ("7.3.4", "v7.3.4", commit)
    (into := tmp_path / "into").mkdir()
    source.unpack(into)
    assert (into / "Makefile").read_text() == MAKEFILE
    assert not (into / ".git").exists()


def test_two_commits_of_the_same_content_are_the_same_source(tree: Path) -> None:
    committed(tree)
    first = source_code(SourceKernel(git=(str(tree), "HEAD")), no_archive).describe()
    git(tree, "commit", "--quiet", "--allow-empty", "-m", "nothing")
    second = source_code(SourceKernel(git=(str(tree), "HEAD")), no_archive).describe()
    assert first.part == second.part
    assert first.commit != second.commit


@pytest.mark.parametrize("reference", ["v9.9", "--help"])
def test_a_reference_that_the_repository_lacks_is_refused(tree: Path, reference: str) -> None:
    committed(tree)
    with pytest.raises(UserError, match=f"it has no commit {reference}"):
        source_code(SourceKernel(git=(str(tree), reference)), no_archive).describe()


def package(repository: Repository, tree: Path, name: str, version: str) -> None:
    spec = tarball(tree)
    assert spec.tarball is not None
    data = Path(spec.tarball).read_bytes()
    repository.add(name, version, arch="all", files={f"usr/src/{name}.tar.xz": data})


@pytest.fixture
def archive(repository: Repository, tmp_path: Path) -> Archive:
    return Archive(tmp_path / "apt", repository.url, repository.keyring)


@pytest.fixture
def debian(repository: Repository, tree: Path) -> Repository:
    package(repository, tree, "linux-source-7.2", "7.2.12-1")
    package(repository, tree, "linux-source-7.3", "7.3.4-1~bpo13+1")
    repository.add("linux-source", "7.9-1", arch="all")
    repository.publish("trixie")
    return repository


def test_debians_newest_source_is_known_before_it_is_downloaded(debian: Repository, archive: Archive) -> None:
    described = source_code(SourceKernel(debian="trixie"), lambda: archive).describe()
    assert (described.release, described.version) == ("7.3.4", "7.3.4-1~bpo13+1")
    assert not list((archive.root / "pool").glob("*/linux-source*"))


def test_debians_source_is_narrowed_to_a_series_and_unpacked(
    debian: Repository, archive: Archive, tmp_path: Path
) -> None:
    source = source_code(SourceKernel(debian="trixie", version="7.2"), lambda: archive)
    assert source.describe().release == "7.2.12"
    (into := tmp_path / "into").mkdir()
    source.unpack(into)
    assert (into / "Makefile").read_text() == MAKEFILE


def test_a_series_that_the_suite_lacks_is_told_with_what_it_has(debian: Repository, archive: Archive) -> None:
    with pytest.raises(KernelUnavailable, match=r"no linux-source package of 6\.12; it has: linux-source-7\.3 \(7"):
        source_code(SourceKernel(debian="trixie", version="6.12"), lambda: archive).describe()


def test_a_release_candidate_is_named_as_its_makefile_names_it(
    repository: Repository, archive: Archive, tree: Path
) -> None:
    package(repository, tree, "linux-source-7.3", "7.3~rc7-1~exp1")
    repository.publish("trixie")
    assert source_code(SourceKernel(debian="trixie"), lambda: archive).describe().release == "7.3.0-rc7"
