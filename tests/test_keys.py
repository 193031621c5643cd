"""Two keys per lab, made once, kept private, and fit for boot images and kernel modules."""

from __future__ import annotations

import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from harness.errors import InfraError
from harness.keys import SigningKeys


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lab") / "keys"


@pytest.fixture(scope="module")
def keys(folder: Path) -> SigningKeys:
    return SigningKeys.open(folder)


def test_only_the_owner_can_reach_a_private_key(keys: SigningKeys, folder: Path) -> None:
    assert folder.stat().st_mode & 0o777 == 0o700
    for one in (keys.lab, keys.stranger):
        assert one.key.stat().st_mode & 0o777 == 0o600


def test_the_same_keys_are_found_again(keys: SigningKeys, folder: Path) -> None:
    before = keys.lab.key.read_bytes()
    assert SigningKeys.open(folder) == keys
    assert keys.lab.key.read_bytes() == before


def test_the_stranger_shares_nothing_with_the_lab(keys: SigningKeys) -> None:
    assert keys.lab.key.read_bytes() != keys.stranger.key.read_bytes()
    assert keys.lab.certificate.read_bytes() != keys.stranger.certificate.read_bytes()
    assert keys.lab.common_name != keys.stranger.common_name


def test_two_labs_can_be_told_apart_by_the_name_of_their_signer(keys: SigningKeys, tmp_path: Path) -> None:
    assert SigningKeys.open(tmp_path / "other").lab.common_name != keys.lab.common_name


def test_many_that_ask_at_once_get_the_same_keys(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def ask() -> None:
        seen.append(SigningKeys.open(tmp_path / "keys").lab.certificate.read_bytes())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 4
    assert len(set(seen)) == 1


def test_openssl_reads_the_certificate_as_one_that_may_sign_code(keys: SigningKeys) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this host")
    text = _said("openssl", "x509", "-inform", "DER", "-in", str(keys.lab.certificate), "-noout", "-text")
    assert "Code Signing" in text
    assert "CA:TRUE" in text
    assert f"CN = {keys.lab.common_name}" in text
    modulus = _said("openssl", "rsa", "-in", str(keys.lab.key), "-noout", "-modulus")
    assert _said("openssl", "x509", "-in", str(keys.lab.pem), "-noout", "-modulus") == modulus


def test_what_is_no_certificate_is_said_with_its_place(tmp_path: Path) -> None:
    keys = SigningKeys.open(tmp_path)
    keys.lab.certificate.write_bytes(b"torn")
    with pytest.raises(InfraError, match="no usable signing key there") as raised:
        SigningKeys.open(tmp_path)
    assert str(tmp_path / "lab") in str(raised.value)


def test_a_place_that_cannot_be_a_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InfraError, match="no place for signing keys"):
        SigningKeys.open(tmp_path / "file")


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
