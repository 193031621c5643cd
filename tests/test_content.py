"""Shipped content is found in the checkout, and a user's own comes first."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.content import content_dir


@pytest.mark.parametrize("room", ["guests", "gpu_tests", "reports"])
def test_each_room_is_there(room: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KDMATRIX_CONTENT", raising=False)
    assert any(content_dir(room).iterdir())


def test_the_users_own_comes_first_and_what_it_lacks_is_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = content_dir("gpu_tests")
    (tmp_path / "guests").mkdir()
    monkeypatch.setenv("KDMATRIX_CONTENT", str(tmp_path))
    assert content_dir("guests") == tmp_path / "guests"
    assert content_dir("gpu_tests") == shipped


def test_a_room_that_is_nowhere_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="'nowhere'"):
        content_dir("nowhere")
