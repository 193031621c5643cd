"""What a killed run left is found by its records and removed; what is not ours, or still in use, is left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.clean import clean, undo_orphans
from harness.home import Home
from harness.journal import Journal
from harness.lab import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(Home(tmp_path / "home"))


def orphan(lab: Lab, kind: str, name: str, /, **details: str) -> None:
    """An entry of a process that is dead by now."""
    script = "import sys; from pathlib import Path; from harness.journal import Journal\n"
    script += "Journal(Path(sys.argv[1])).add(sys.argv[2], sys.argv[3], **dict(w.split('=', 1) for w in sys.argv[4:]))"
    words = [f"{key}={value}" for key, value in details.items()]
    subprocess.run([sys.executable, "-c", script, str(lab.home.journal), kind, name, *words], check=True)


def test_an_untouched_host_has_nothing_to_clean(lab: Lab) -> None:
    assert clean(lab) == []
    assert not lab.home.root.exists()


def test_a_dead_process_paths_are_removed_and_its_records_with_them(lab: Lab) -> None:
    work = lab.home.runs / "r" / "work" / "boot-1"
    work.mkdir(parents=True)
    (work / "initramfs").write_bytes(b"x")
    orphan(lab, "path", str(work))
    orphan(lab, "path", str(lab.home.runs / "never-made"))
    states = {one.what: one.state for one in clean(lab)}
    assert states[f"path {work}"] == "removed"
    assert states[f"path {lab.home.runs / 'never-made'}"] == "was gone already"
    assert not work.parent.exists()
    assert lab.journal().entries() == []


def test_a_path_outside_the_home_is_never_touched(lab: Lab, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    orphan(lab, "path", str(precious))
    (done,) = undo_orphans(lab)
    assert done.state.startswith("left alone: not below")
    assert precious.is_dir()
    assert len(lab.journal().entries()) == 1


@pytest.mark.parametrize("spelling", ["runs/../../precious", "link/inside"])
def test_a_path_that_only_looks_like_ours_is_not_touched(lab: Lab, tmp_path: Path, spelling: str) -> None:
    precious = tmp_path / "precious"
    (precious / "inside").mkdir(parents=True)
    lab.home.runs.mkdir(parents=True)
    (lab.home.root / "link").symlink_to(precious)
    orphan(lab, "path", f"{lab.home.root}/{spelling}")
    undo_orphans(lab)
    assert (precious / "inside").is_dir()


def test_a_record_that_nobody_can_undo_is_told_and_kept(lab: Lab) -> None:
    orphan(lab, "teapot", "short and stout")
    (done,) = undo_orphans(lab)
    assert done.state == "left alone: nobody knows how to undo a teapot"
    assert len(lab.journal().entries()) == 1


def test_a_domain_of_a_daemon_that_is_gone_is_gone(lab: Lab, tmp_path: Path) -> None:
    pytest.importorskip("libvirt", reason="libvirt-python is not installed")
    uri = f"qemu+unix:///system?socket={tmp_path / 'no-such-socket'}"
    orphan(lab, "domain", "0b0a5f0e-0000-4000-8000-000000000001", uri=uri, name="kdmatrix-1")
    (done,) = undo_orphans(lab)
    assert (done.what, done.state) == ("domain kdmatrix-1", "was gone already")
    assert lab.journal().entries() == []


def test_while_another_run_goes_on_only_dead_ones_are_cleaned(lab: Lab) -> None:
    half = lab.home.cache / "erofs" / ".layer.tmp-1"
    half.mkdir(parents=True)
    with Journal(lab.home.journal).entry("path", str(lab.home.runs / "mine")):
        done = clean(lab)
        assert [one.what for one in done] == ["1 records of running processes"]
        assert half.is_dir()
    assert [one.what for one in clean(lab)] == [f"path {half}"]
    assert not half.exists()


def test_half_made_files_and_torn_records_are_removed(lab: Lab) -> None:
    (lab.home.cache / "scratch" / "base-1").mkdir(parents=True)
    (lab.home.runs / "r" / "work").mkdir(parents=True)
    lab.home.journal.mkdir()
    (lab.home.journal / "torn.json").write_text("{")
    assert {one.state for one in clean(lab)} == {"removed"}
    assert list((lab.home.cache / "scratch").iterdir()) == []
    assert not (lab.home.runs / "r" / "work").exists()
    assert list(lab.home.journal.iterdir()) == []


def test_what_a_killed_build_had_started_is_ended_and_nothing_else(lab: Lab) -> None:
    scratch = lab.home.cache / "scratch"
    scratch.mkdir(parents=True)
    argv = ["sleep", "600"]
    with (
        subprocess.Popen(argv, env={**os.environ, "TMPDIR": str(scratch)}) as build,
        subprocess.Popen(argv, cwd=scratch) as visitor,
    ):
        try:
            assert [one.what for one in clean(lab)] == [f"process {build.pid} of a killed build"]
            assert build.wait() == -signal.SIGKILL
            assert visitor.poll() is None
        finally:
            build.kill()
            visitor.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_nothing_is_removed_through_a_mount_that_was_left(lab: Lab, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    point = lab.home.cache / "scratch" / "base with blank" / "dev"
    point.mkdir(parents=True)
    done = subprocess.run(["mount", "--bind", precious, point], capture_output=True)
    if done.returncode != 0:
        pytest.skip(f"mounting is not allowed here: {done.stderr.decode()}")
    try:
        clean(lab)
        assert (precious / "file").exists()
        assert list((lab.home.cache / "scratch").iterdir()) == []
    finally:
        subprocess.run(["umount", point], capture_output=True)


def test_images_are_freed_only_on_request_and_links_are_not_followed(lab: Lab, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "layer").write_bytes(b"x")
    (lab.home.cache / "kernels").mkdir(parents=True)
    (lab.home.cache / "erofs").symlink_to(shared)
    assert clean(lab) == []
    assert {one.what.split()[0] for one in clean(lab, images=True)} == {"kernels", "erofs"}
    assert list(lab.home.cache.iterdir()) == []
    assert (shared / "layer").is_file()
