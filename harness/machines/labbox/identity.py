"""Who a lab box is, and who we are to it: the pinned host key, and the user's private key."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import stat
from dataclasses import dataclass
from pathlib import Path

import paramiko

from harness.errors import UserError
from harness.model.machine import LabBox

_LARGEST = 1 << 20
_SIGNATURES = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
"""What a server signs with when it has a key of a kind, where that is not the kind itself (RFC 8332)."""


class HostKeyRefused(UserError):
    """The box is not known, or what answers there is not the box. Trying again does not help."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Both keys of a connection, read once."""

    box: LabBox
    client_key: paramiko.PKey
    pinned: tuple[tuple[str, bytes], ...]
    """(kind, key) of every host key that the box may show."""
    revoked: frozenset[bytes] = frozenset()

    @classmethod
    def read(cls, box: LabBox) -> Identity:
        """Read the keys that a matrix names.

        Raises:
            HostKeyRefused: no host key is known for the box.
            UserError: a file cannot be read, or the private key cannot be used.
        """
        pinned, revoked = _pinned(box)
        return cls(box, _client_key(box), pinned, revoked)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The algorithms that the server may use: only of keys that are pinned, so that it cannot show another."""
        kinds = [algorithm for kind, _ in self.pinned for algorithm in _SIGNATURES.get(kind, (kind,))]
        return tuple(dict.fromkeys(kinds))

    def check(self, shown: paramiko.PKey) -> None:
        """Refuse any host key but those pinned.

        Raises:
            HostKeyRefused: with both fingerprints.
        """
        raw = shown.asbytes()
        if raw in self.revoked:
            raise HostKeyRefused(f"{self.box}: its host key {_fingerprint(raw)} is marked as revoked")
        if raw not in {key for _, key in self.pinned}:
            known = ", ".join(_fingerprint(key) for _, key in self.pinned)
            raise HostKeyRefused(
                f"{self.box} shows host key {_fingerprint(raw)}, and {self._place} names {known}: "
                "another machine answers there, or the box was installed anew; nothing was sent to it"
            )

    @property
    def _place(self) -> str:
        return self.box.known_hosts or "the matrix"


def _fingerprint(key: bytes) -> str:
    """As ssh-keygen prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def _read(path: str, what: str) -> str:
    try:
        with Path(path).open("rb") as stream:
            return stream.read(_LARGEST).decode("utf-8", "replace")
    except OSError as error:
        raise UserError(f"{path}: the {what} cannot be read: {error.strerror}") from None


def _pinned(box: LabBox) -> tuple[tuple[tuple[str, bytes], ...], frozenset[bytes]]:
    if box.host_key:
        kind, blob = box.host_key.split()[:2]
        return ((kind, base64.b64decode(blob)),), frozenset()
    name = box.host if box.port == 22 else f"[{box.host}]:{box.port}"
    pinned, revoked = [], set()
    for line in _read(box.known_hosts, f"file of host keys for {box.name}").splitlines():
        marker, _, rest = line.partition(" ") if line.startswith("@") else ("", "", line)
        fields = rest.split()
        if len(fields) < 3 or line.startswith("#") or not _names(fields[0], name):
            continue
        try:
            key = base64.b64decode(fields[2], validate=True)
        except ValueError:
            continue  # a damaged line pins nothing
        if marker == "@revoked":
            revoked.add(key)
        elif not marker:  # an authority pins nothing by itself: certificates are not read here
            pinned.append((fields[1], key))
    if not pinned:
        scan = f"ssh-keyscan {'' if box.port == 22 else f'-p {box.port} '}{box.host}"
        raise HostKeyRefused(
            f"{box.known_hosts} names no host key for {name}, so {box.name} is not known; compare what `{scan}` prints "
            "with the box itself, then add it"
        )
    return tuple(pinned), frozenset(revoked)


def _names(patterns: str, name: str) -> bool:
    """Whether the first field of a line speaks of a host: sshd(8), SSH_KNOWN_HOSTS FILE FORMAT."""
    if patterns.startswith("|1|"):
        try:
            salt, digest = (base64.b64decode(part, validate=True) for part in patterns[3:].split("|"))
        except ValueError:
            return False
        return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), digest)
    words = patterns.split(",")
    if any(word.startswith("!") and _fits(word[1:], name) for word in words):
        return False
    return any(_fits(word, name) for word in words)


def _fits(pattern: str, name: str) -> bool:
    # Brackets stand for themselves: they surround the host where a port follows.
    parts = ("." if char == "?" else ".*" if char == "*" else re.escape(char) for char in pattern)
    return re.fullmatch("".join(parts), name, re.IGNORECASE) is not None


def _client_key(box: LabBox) -> paramiko.PKey:
    path = Path(box.key)
    try:
        mode = path.stat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise UserError(f"{path}: the private key for {box.name} may be read by others; chmod 600 {path}")
        return paramiko.PKey.from_path(path)
    except OSError as error:
        raise UserError(f"{path}: the private key for {box.name} cannot be read: {error.strerror}") from None
    except (paramiko.PasswordRequiredException, TypeError):  # the latter is what cryptography says of a passphrase
        raise UserError(
            f"{path}: the private key for {box.name} has a passphrase, and nobody is there to type it; make a key "
            "without one that opens this box only"
        ) from None
    except (paramiko.SSHException, ValueError) as error:
        raise UserError(f"{path}: is no private key that can be used: {error}") from None
