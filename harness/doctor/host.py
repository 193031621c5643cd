"""What the checks share: a host, its files below a root, its programs, and the packages that bring them."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from harness.lab import Lab

_SBIN = ("/usr/sbin", "/sbin")
_PACKAGES = {
    "libvirt-python": ("python3-dev libvirt-dev pkg-config gcc", "python3-devel libvirt-devel gcc", "libvirt gcc"),
    "libvirtd": ("libvirt-daemon-system", "libvirt-daemon-kvm", "libvirt"),
    "libvirt-qemu": ("libvirt-daemon-driver-qemu", "libvirt-daemon-driver-qemu", "libvirt"),
    "unshare": ("util-linux", "util-linux", "util-linux"),
    "qemu": ("qemu-system-x86", "qemu-kvm", "qemu-base"),
    "buildah": ("buildah", "buildah", "buildah crun"),
    "mmdebstrap": ("mmdebstrap", "mmdebstrap", "mmdebstrap"),
    "mkfs.erofs": ("erofs-utils", "erofs-utils", "erofs-utils"),
    "busybox": ("busybox-static", "busybox", "busybox"),
    "apt-get": ("apt", "apt", "apt"),
    "dpkg-deb": ("dpkg", "dpkg", "dpkg"),
    "depmod": ("kmod", "kmod", "kmod"),
    "keyring": ("debian-archive-keyring", "debian-keyring", "debian-archive-keyring"),
    "c++": ("g++", "gcc-c++", "gcc"),
    "secure-boot": (
        "ovmf shim-signed systemd-boot-efi sbsigntool mtools binutils",
        "edk2-ovmf shim-x64 systemd-boot-unsigned sbsigntools mtools binutils",
        "edk2-ovmf systemd sbsigntools mtools binutils",
    ),
    "uidmap": ("uidmap", "shadow-utils", "shadow"),
}
"""Packages of Debian and Ubuntu, Fedora, Arch."""


class State(StrEnum):
    """What a check says; FAIL is for what a run cannot do without."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


Answer = tuple[State, str, str]
"""The state, what was found, and the fix ("" when there is nothing to do)."""


@dataclass(frozen=True, slots=True)
class Host:
    """The host that is looked at."""

    lab: Lab
    root: Path
    """What /proc, /sys, /etc, /boot, /run and /usr are looked for below."""

    def which(self, name: str) -> str | None:
        """Find a program, also where only root's PATH leads."""
        return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *_SBIN]))

    def install(self, what: str) -> str:
        """The command that installs what lacks, in the words of this distribution."""
        debian, fedora, arch = _PACKAGES[what]
        commands = {
            "debian": f"sudo apt install {debian}",
            "fedora": f"sudo dnf install {fedora}",
            "arch": f"sudo pacman -S {arch}",
        }
        if what == "mmdebstrap":
            commands["arch"] = "install mmdebstrap from the AUR"
        words = self._os_words()
        for name, command in commands.items():
            if name in words:
                return command
        return f"install {debian} (Debian, Ubuntu), {fedora} (Fedora) or {arch} (Arch)"

    def _os_words(self) -> set[str]:
        """ID and ID_LIKE of os-release(5)."""
        words: set[str] = set()
        for line in read(self.root / "etc/os-release").splitlines():
            key, _, value = line.partition("=")
            if key in ("ID", "ID_LIKE"):
                words.update(value.strip("\"'").split())
        return words


def existing(path: Path) -> Path:
    """The path itself, or the nearest directory above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def read(path: Path) -> str:
    """The text of a small file; "" when it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
