"""Named repositories are data with settings; what is missing is one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.content import content_dir
from harness.errors import UserError
from harness.kernels.repositories import EXTRA, find_repository, known_names

DATA = content_dir("guests") / "_kernels"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FEDORA_MIRROR", "FEDORA_KEYS", "FEDORA_ALT", "COPR", "COPR_KEYS", "REPOSITORIES"):
        monkeypatch.delenv(f"KDMATRIX_{name}", raising=False)


def keys(tmp_path: Path, *names: str) -> str:
    for name in names:
        (tmp_path / name).write_text("key")
    return str(tmp_path)


def test_a_fedora_repository_is_made_of_settings_and_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDMATRIX_FEDORA_MIRROR", "http://127.0.0.1:1/linux/")
    monkeypatch.setenv("KDMATRIX_FEDORA_KEYS", keys(tmp_path, "RPM-GPG-KEY-fedora-44-x86_64"))
    updates = find_repository("fedora-44-updates", DATA)
    assert updates.url == "http://127.0.0.1:1/linux/updates/44/Everything/x86_64"
    assert find_repository("fedora-44", DATA).url == "http://127.0.0.1:1/linux/releases/44/Everything/x86_64/os"
    assert (updates.signed, updates.key) == ("packages", tmp_path / "RPM-GPG-KEY-fedora-44-x86_64")


def test_a_longterm_repository_knows_its_parallel_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDMATRIX_COPR", "http://127.0.0.1:1")
    monkeypatch.setenv("KDMATRIX_COPR_KEYS", keys(tmp_path, "kernel-longterm-6.18.gpg"))
    found = find_repository("kernel-longterm-6.18-fedora-44", DATA)
    assert found.url == "http://127.0.0.1:1/results/kwizart/kernel-longterm-6.18/fedora-44-x86_64"
    assert found.package == "kernel-longterm"


@pytest.mark.parametrize("name", known_names(DATA))
def test_a_setting_that_is_missing_is_named(name: str) -> None:
    full = name.replace("{release}", "44").replace("{series}", "6.18")
    with pytest.raises(UserError, match=r"needs a setting of this host: set KDMATRIX_\w+$"):
        find_repository(full, DATA)


def test_a_key_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDMATRIX_FEDORA_MIRROR", "http://127.0.0.1:1")
    monkeypatch.setenv("KDMATRIX_FEDORA_KEYS", str(tmp_path))
    with pytest.raises(UserError, match=r"its key .*RPM-GPG-KEY-fedora-44-x86_64 is missing"):
        find_repository("fedora-44", DATA)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no rpm repository 'rawhide-nodbug'; did you mean rawhide-nodebug\?"):
        find_repository("rawhide-nodbug", DATA)


def test_a_bare_address_is_refused_as_nothing_vouches_for_it() -> None:
    with pytest.raises(UserError, match=f"nothing vouches .*{EXTRA}"):
        find_repository("http://127.0.0.1:1/repo", DATA)


def test_a_directory_of_this_host_needs_no_entry(tmp_path: Path) -> None:
    found = find_repository(str(tmp_path), DATA)
    assert (found.url, found.signed) == (tmp_path.as_uri(), "nothing")


def test_a_file_of_ones_own_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text("lab: {url: 'http://127.0.0.1:1/lab', signed: nothing, note: built in this lab}\n")
    monkeypatch.setenv(EXTRA, str(own))
    assert find_repository("lab", DATA).note == "built in this lab"


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("lab: {url: x, signed: nothing}", "signed: nothing needs note"),
        ("lab: {url: x, signed: packages}", "signed: packages needs key"),
        ("lab: {url: x, signed: maybe}", "needs url, and signed as one of packages, repomd, nothing"),
        ("lab: {signed: nothing, note: y}", "needs url"),
        ("lab: {uri: x}", "unknown key 'uri'; did you mean 'url'?"),
        ("lab: [x]", "must be a mapping of texts"),
        ("- lab", "must be a mapping of repository names"),
        ("lab: {", r"mine.yaml:\d+:\d+: not valid YAML"),
    ],
)
def test_wrong_data_is_told_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, phrase: str
) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text(text)
    monkeypatch.setenv(EXTRA, str(own))
    with pytest.raises(UserError, match=phrase.replace("?", r"\?") if "\\" not in phrase else phrase) as caught:
        find_repository("lab", DATA)
    assert "mine.yaml" in str(caught.value)
