"""Everything the tool writes is below one directory, which the user may name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.home import Home, default_home, own_test_folders


def test_every_directory_is_below_the_root(tmp_path: Path) -> None:
    home = Home(tmp_path)
    places = [home.database, home.evidence, home.cache, home.journal, home.own_tests, home.runs]
    assert all(place.parent == tmp_path for place in places)
    assert len(set(places)) == 6
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variables", "uid", "root"),
    [
        ({"KDMATRIX_HOME": "/srv/k"}, 0, "/srv/k"),
        ({"KDMATRIX_HOME": "~/k"}, 1000, "/home/me/k"),
        ({}, 0, "/var/lib/kdmatrix"),
        ({}, 1000, "/home/me/.local/state/kdmatrix"),
        ({"XDG_STATE_HOME": "/state"}, 1000, "/state/kdmatrix"),
        ({"KDMATRIX_HOME": "", "XDG_STATE_HOME": ""}, 1000, "/home/me/.local/state/kdmatrix"),
    ],
)
def test_the_root_follows_the_environment_and_the_user(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], uid: int, root: str
) -> None:
    for name in ("KDMATRIX_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert default_home().root == Path(root)


def test_a_relative_name_does_not_follow_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDMATRIX_HOME", "here")
    assert default_home().root == tmp_path / "here"


def test_own_tests_lie_in_the_home_unless_other_places_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = Home(tmp_path)
    monkeypatch.delenv("KDMATRIX_TESTS", raising=False)
    assert own_test_folders(home) == ()
    home.own_tests.mkdir()
    assert own_test_folders(home) == (home.own_tests,)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("KDMATRIX_TESTS", "~/a::/b")
    assert own_test_folders(home) == (Path("/home/me/a"), Path("/b"))
