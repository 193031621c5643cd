"""The machines of a matrix file: lab boxes that are there already, reached over SSH."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from harness.matrix import units
from harness.matrix.frame import quoted
from harness.matrix.origins import Entry, Path, matching, text
from harness.model.machine import LabBox

_HOST_KEY = r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)) ([A-Za-z0-9+/]+={0,2})( .*)?"
_PORT = (1, 65535)


def _port(value: object) -> int:
    if not isinstance(value, str):
        raise ValueError("must be a whole number from 1 to 65535")
    return units.whole(value, *_PORT)


def _patience(value: object) -> float:
    if not isinstance(value, str):
        raise ValueError("must be a duration such as 10m")
    return units.duration(value)


def _words(value: object) -> object:
    if isinstance(value, str):
        raise ValueError("must be a list such as [ipmitool, chassis, power, cycle]; no shell reads it, so each word "
                         "is an entry of its own")  # fmt: skip
    if value == []:
        raise ValueError("is an empty list; name the program, or leave the key out")
    return value


def _host_key(value: str) -> str:
    kind, blob = value.split()[:2]
    try:
        raw = base64.b64decode(blob, validate=True)
    except binascii.Error:
        raw = b""
    if _fields(raw)[:1] != [kind.encode()]:
        raise ValueError(f"{quoted(value[:40])}… is cut or damaged; copy the line of /etc/ssh/ssh_host_*_key.pub whole")
    return f"{kind} {blob}"


def _fields(raw: bytes) -> list[bytes]:
    """The parts of a key, each with its length before it (RFC 4253, section 6.6); none where they do not add up."""
    found = []
    while raw:
        length = int.from_bytes(raw[:4], "big")
        if len(raw) < 4 + length:
            return []
        found.append(raw[4 : 4 + length])
        raw = raw[4 + length :]
    return found


Words = Annotated[
    list[Annotated[str, text(1024)]],
    BeforeValidator(_words),
    WithJsonSchema({"type": "array", "items": {"type": ["string", "number"]}, "minItems": 1}),
]


class SshEntry(Entry):
    """How a lab box is reached, and how it is known for the one that is meant."""

    host: Annotated[
        str, matching(r"[A-Za-z0-9][A-Za-z0-9.:_-]{0,252}", "a host name or an address; for example box.lab.example")
    ] = Field(description="Name or address of the box")
    port: Annotated[
        int, BeforeValidator(_port), WithJsonSchema({"type": "integer", "minimum": _PORT[0], "maximum": _PORT[1]})
    ] = Field(default=22, description="Port of its SSH server (default 22)")
    user: Annotated[str, matching(r"[a-z_][a-z0-9_-]{0,31}", "a login name; for example root")] = Field(
        default="root", description="Whom to log in as (default root); anybody else needs `sudo -n`"
    )
    key: Path = Field(description="File with the private key that opens it, without a passphrase")
    known_hosts: Path | None = Field(
        default=None, description="File that names its host key, in OpenSSH's format: ~/.ssh/known_hosts"
    )
    host_key: (
        Annotated[
            str,
            matching(_HOST_KEY, "a public host key; write the line of /etc/ssh/ssh_host_ed25519_key.pub"),
            AfterValidator(_host_key),
        ]
        | None
    ) = Field(default=None, description="Its host key itself: ssh-ed25519 AAAA…")

    @model_validator(mode="after")
    def _pinned(self) -> SshEntry:
        if self.known_hosts is None and self.host_key is None:
            raise ValueError(
                "names no host key, so any machine could pass for the box; add known_hosts: ~/.ssh/known_hosts, or "
                "host_key: ssh-ed25519 AAAA…"
            )
        if self.known_hosts is not None and self.host_key is not None:
            raise ValueError("has known_hosts and host_key; keep one of the two")
        return self


class MachineEntry(Entry):
    """A host that is there already: cells are executed on its own installation instead of in a VM."""

    guest: Annotated[str, AfterValidator(units.name)] = Field(
        description="Guest (a folder in guests/) whose stack recipes hold for what is installed on the box"
    )
    ssh: SshEntry = Field(description="How the box is reached")
    boot: Literal["systemd-boot", "grub", "kexec"] = Field(
        description="How a kernel is chosen for one boot only, so that the next one is the default kernel's again"
    )
    power: Words | None = Field(
        default=None, description="Command on this host, word by word, that cycles the box' power when it hangs"
    )
    console: Words | None = Field(
        default=None, description="Command on this host, word by word, that prints the box' serial console"
    )
    answers_within: Annotated[
        float,
        BeforeValidator(_patience),
        WithJsonSchema({"type": ["string", "number"], "pattern": f"^({units.DURATION})$", "minLength": 1}),
    ] = Field(
        default=600.0,
        description="Longest time from a reboot until SSH answers (default 10m)",
        json_schema_extra={"default": "10m"},
    )

    def machine(self, name: str, absolute: Callable[[str], str]) -> LabBox:
        """What the model makes of it; ``absolute`` turns a path of the file into one of this host."""
        ssh = self.ssh
        return LabBox(
            name=name,
            guest=self.guest,
            host=ssh.host,
            boot=self.boot,
            key=absolute(ssh.key),
            known_hosts=absolute(ssh.known_hosts) if ssh.known_hosts is not None else "",
            host_key=ssh.host_key or "",
            port=ssh.port,
            user=ssh.user,
            power=tuple(self.power or ()),
            console=tuple(self.console or ()),
            patience=self.answers_within,
        )
