"""The programs and keys that make kernels, images and compute tests."""

from __future__ import annotations

import os
import platform
import shutil
import struct
import sys
from pathlib import Path

from harness.doctor.host import Answer, Host, State, read
from harness.errors import KdmatrixError
from harness.kernels.mirror import KEYRING, checked_keyring
from harness.suites.build import find_compiler


def python() -> Answer:
    """What runs us."""
    return State.OK, f"{platform.python_version()} ({sys.executable})", ""  # an older one does not come this far


def program(host: Host, name: str, purpose: str) -> Answer:
    """A program of which any version will do."""
    path = host.which(name)
    if path is None:
        return State.FAIL, f"not installed; it {purpose}", host.install(name)
    return State.OK, path, ""


def buildah(host: Host) -> Answer:
    """buildah, and the ranges of user ids that it needs without root."""
    state, found, fix = program(host, "buildah", "builds guest images")
    if state is State.FAIL or os.geteuid() == 0:
        return state, found, fix
    user = Path.home().name
    maps = [host.root / "etc" / name for name in ("subuid", "subgid")]
    if host.which("newuidmap") is None:
        return State.FAIL, f"{found}; newuidmap is missing, so it cannot work without root", host.install("uidmap")
    if not all(_mentions(path, user) for path in maps):
        fix = "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER"
        return State.FAIL, f"{found}; /etc/subuid and /etc/subgid have no range for this user", fix
    return state, found, fix


def _mentions(path: Path, user: str) -> bool:
    return any(line.split(":")[0] in (user, str(os.getuid())) for line in read(path).splitlines())


def busybox(host: Host) -> Answer:
    """A busybox that runs where there are no libraries."""
    path = shutil.which("busybox")
    if path is None:
        return State.FAIL, "not installed; the initramfs is made of it", host.install("busybox")
    if not is_static(Path(path)):
        return State.FAIL, f"{path} is linked dynamically and cannot run in an initramfs", host.install("busybox")
    return State.OK, f"{path}, statically linked", ""


def is_static(path: Path) -> bool:
    """Whether an ELF program asks for no interpreter (elf(5), PT_INTERP)."""
    with path.open("rb") as file:
        data = file.read(64 << 10)
    if data[:5] != b"\x7fELF\x02":
        return False
    offset, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    kinds = [struct.unpack_from("<I", data, offset + index * size)[0] for index in range(count)]
    return 3 not in kinds


def keyring(host: Host) -> Answer:
    """The keys that the package index is signed with."""
    try:
        return State.OK, str(checked_keyring(host.root / KEYRING.relative_to("/"))), ""
    except KdmatrixError:
        return State.FAIL, f"{KEYRING} is missing, so no signature can be checked", host.install("keyring")


def compiler(host: Host) -> Answer:
    """What compiles the compute tests."""
    try:
        command = find_compiler()
    except KdmatrixError as error:
        return State.FAIL, str(error), f"pip install 'kdmatrix[build]', or {host.install('c++')}"
    name = "zig" if "ziglang" in command else command[0]
    return State.OK, name if name == "zig" else str(host.which(name) or name), ""
