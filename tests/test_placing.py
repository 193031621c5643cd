"""Whole results or none, and one writer at a time."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from harness.errors import InfraError
from harness.placing import digest_of_parts, locked, placed_once, sha256_file, write_atomically


def test_a_directory_is_built_once_by_many(tmp_path: Path) -> None:
    built: list[Path] = []

    def build(folder: Path) -> None:
        built.append(folder)
        (folder / "file").write_text("x")

    threads = [threading.Thread(target=placed_once, args=(tmp_path / "final", build)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert (tmp_path / "final/file").read_text() == "x"


def test_a_failed_build_leaves_nothing_and_can_be_tried_again(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "part").write_text("x")
        raise InfraError("interrupted")

    with pytest.raises(InfraError):
        placed_once(tmp_path / "final", fail)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    (tmp_path / ".final.tmp-killed").mkdir()  # as a killed process leaves it
    placed_once(tmp_path / "final", lambda folder: (folder / "file").touch())
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["final"]


def test_a_lock_that_another_holds_ends_in_an_infra_error(tmp_path: Path) -> None:
    with locked(tmp_path / "lock", timeout=1), pytest.raises(InfraError, match="another process"):  # noqa: SIM117
        with locked(tmp_path / "lock", timeout=0.2):
            pass
    with locked(tmp_path / "lock", timeout=0.2):
        pass


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a/b", b"one")
    write_atomically(tmp_path / "a/b", b"two")
    assert (tmp_path / "a/b").read_bytes() == b"two"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    assert sha256_file(tmp_path / "a/b") == "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"


def test_an_identity_depends_on_every_part_and_not_on_their_order() -> None:
    parts = (("a", "1"), ("b", "2"))
    assert digest_of_parts(parts) == digest_of_parts(parts[::-1])
    assert len({digest_of_parts(one) for one in (parts, parts[:1], (("a", "2"), ("b", "1")), ())}) == 4
