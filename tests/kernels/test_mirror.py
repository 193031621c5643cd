"""The mirror comes from the environment or from the host's own configuration, never from the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UserError
from harness.kernels import mirror


def test_the_variable_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(mirror.VARIABLE, "https://mirror.example.org/debian/")
    assert mirror.find_mirror() == "https://mirror.example.org/debian"


@pytest.mark.parametrize("url", ["mirror.example.org", "http://a b", "ftp://x/debian", "http://x [trusted=yes]"])
def test_a_value_that_is_no_url_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv(mirror.VARIABLE, url)
    with pytest.raises(UserError, match=mirror.VARIABLE):
        mirror.find_mirror()


def test_without_apt_the_message_names_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(mirror.VARIABLE, raising=False)
    monkeypatch.setattr("harness.kernels.mirror._host_mirror", lambda: None)
    with pytest.raises(UserError, match=f"set {mirror.VARIABLE}"):
        mirror.find_mirror()


def test_a_debian_host_knows_its_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    os_release = Path("/etc/os-release")
    if not os_release.is_file() or "ID=debian" not in os_release.read_text().splitlines():
        pytest.skip("this host is not Debian")
    monkeypatch.delenv(mirror.VARIABLE, raising=False)
    try:
        found = mirror.find_mirror()
    except UserError as error:
        pytest.skip(f"this host's apt has no archive configured: {error}")
    assert mirror.checked_mirror(found, where="host") == found


def test_a_missing_keyring_names_its_package(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="debian-archive-keyring"):
        mirror.checked_keyring(tmp_path / "none.gpg")
