"""Machines that are there already, and that a cell is executed on instead of in a VM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HERE = "here"
"""What the guests axis, and so every cell id, calls the machine that kdmatrix itself runs on."""

BootMethod = Literal["systemd-boot", "grub", "kexec"]
"""How a kernel is chosen for one boot only."""


@dataclass(frozen=True, slots=True)
class LabBox:
    """A host in a lab, reached over SSH; it boots kernels that are installed on it, each for one boot."""

    name: str
    """What the guests axis, and so every cell id, calls it."""
    guest: str
    """The guest whose stack recipes hold for its installation."""
    host: str
    boot: BootMethod
    key: str
    """Path of the private key that opens it."""
    known_hosts: str = ""
    """Path of a file in OpenSSH's format that names its host key; empty where ``host_key`` does."""
    host_key: str = ""
    """The host key itself, as a public key line: ``ssh-ed25519 AAAA…``."""
    port: int = 22
    user: str = "root"
    """Where it is not root, every command goes through ``sudo -n``."""
    power: tuple[str, ...] = ()
    """Argument vector of a command on this host that cycles the box' power; empty where there is none."""
    console: tuple[str, ...] = ()
    """Argument vector of a command on this host that prints the box' serial console; empty where there is none."""
    patience: float = 600.0
    """Seconds from a reboot until SSH answers: servers test their memory for minutes."""

    @property
    def place(self) -> str:
        """Where its cells take turns."""
        return f"box:{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.name} ({self.user}@{self.host}:{self.port})"


@dataclass(frozen=True, slots=True)
class ThisMachine:
    """The machine that kdmatrix runs on, with the kernel and the drivers that it runs now; nothing of it is changed."""

    hostname: str
    device: str = ""
    """What the compute tests are told to open: a device's index or PCI address; empty where they choose themselves."""
    functions: tuple[str, ...] = ()
    """PCI functions of that device and the bridges above it: the kernel's words about others are not about it."""

    @property
    def name(self) -> str:
        """What the guests axis calls it."""
        return HERE

    @property
    def place(self) -> str:
        """Where its cells take turns."""
        return HERE
