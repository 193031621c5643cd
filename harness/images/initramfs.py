"""The initramfs of a kernel, and the small archive of a boot's own keys that is appended to it."""

from __future__ import annotations

import gzip
import lzma
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import zstandard

from harness.errors import InfraError
from harness.images.cpio import CpioWriter
from harness.kernels.modules import closure

ROOT_MODULES = (
    # EROFS on 6.1 asks for "crc32c" by its algorithm name, so no dependency leads to the provider.
    "crc32c_generic",
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "erofs",
    "overlay",
    "pvpanic_mmio",
    "pvpanic_pci",
)
"""What our VMs need before they see their root; a kernel that has one built in, or not at all, goes without."""

_APPLETS = (
    *("sh", "mount", "umount", "insmod", "cat", "sleep", "mkdir", "ip", "cp", "chmod", "switch_root", "poweroff"),
    *("ln", "hostname", "echo", "uname", "[", "test", "ls", "dmesg"),
)


def build_initramfs(modules: Path, init: Path, into: Path, *, extra: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Write an uncompressed initramfs for the kernel whose module directory is ``modules``.

    Returns the names of the modules in load order. It is not compressed: unpacking would cost the guest more time
    than reading the few megabytes.

    Raises:
        InfraError: this host has no statically linked busybox.
    """
    busybox = shutil.which("busybox")
    if busybox is None:
        raise InfraError("busybox is not installed on this host (Debian and Ubuntu: busybox-static)")
    order = closure(modules, (*ROOT_MODULES, *extra)).paths
    with into.open("wb") as stream:
        archive = CpioWriter(stream)
        for directory in ("bin", "proc", "sys", "dev", "layers", "overlay", "root", "seed", "modules"):
            archive.directory(directory)
        archive.device("dev/console", 5, 1)
        archive.add("bin/busybox", Path(busybox), 0o755)
        for applet in _APPLETS:
            archive.symlink(f"bin/{applet}", "busybox")
        archive.add("init", init, 0o755)
        names = []
        for path in order:
            name = path.name.split(".ko")[0] + ".ko"
            archive.file(f"modules/{name}", _plain(path))
            names.append(name)
        archive.file("modules/order", "".join(f"{name}\n" for name in names).encode())
        archive.close()
    return tuple(names)


def _plain(module: Path) -> bytes:
    """Return a module decompressed: busybox' insmod does not, and the kernel's own decompressor is optional."""
    data = module.read_bytes()
    if module.suffix == ".xz":
        return lzma.decompress(data)
    if module.suffix == ".zst":
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    if module.suffix == ".gz":
        return gzip.decompress(data)
    return data


@dataclass(frozen=True, slots=True)
class Seed:
    """What one boot adds to the initramfs: its identity, its keys, its layers."""

    host_key: bytes
    """OpenSSH private key of the guest's SSH server, made for this boot."""
    authorized_key: bytes
    """Public key line of this run's client key."""
    layers: tuple[str, ...]
    """Serial numbers of the disks that hold the layers, topmost first."""
    hostname: str
    init: str
    """Path in the guest of the program to hand over to."""
    overlay_size: str = "50%"
    address: str = "10.0.2.15"
    prefix: int = 24


GUEST_INIT = "/usr/sbin/kdmatrix-init"


def write_seed(seed: Seed, boot_dir: Path, into: Path) -> None:
    """Write the archive of ``seed``; concatenated to an initramfs, the kernel unpacks both."""
    settings = {
        "LAYERS": " ".join(seed.layers),
        "ADDRESS": seed.address,
        "PREFIX": str(seed.prefix),
        "OVERLAY_SIZE": seed.overlay_size,
        "NEXT_INIT": seed.init,
        "HOSTNAME": seed.hostname,
    }
    with into.open("wb") as stream:
        archive = CpioWriter(stream)
        archive.file("seed/ssh_host_ed25519_key", seed.host_key, 0o600)
        archive.file("seed/authorized_keys", seed.authorized_key, 0o600)
        archive.add("seed/guest-init", boot_dir / "guest-init", 0o755)
        archive.add("seed/sshd_config", boot_dir / "sshd_config")
        archive.add("seed/kdmatrix-sshd.service", boot_dir / "kdmatrix-sshd.service")
        archive.file(
            "seed/boot.conf", "".join(f"{name}={shlex.quote(value)}\n" for name, value in settings.items()).encode()
        )
        archive.close()
