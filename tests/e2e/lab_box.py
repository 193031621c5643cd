"""A machine that plays a lab box: firmware, a boot loader on a disk of its own, two kernels, systemd and an SSH server.

It is QEMU alone, started by the test and unknown to the program: what the program knows of it is an address, a host
key, and a command that cycles its power. Its disk stays between its boots, as a box' disk does.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

from harness.images.builder import Images, content_key
from harness.images.initramfs import build_initramfs
from harness.kernels.source import KernelFiles
from harness.machines.ssh import KeyPair
from harness.model.cell import DebianKernel, KernelSpec, Series
from harness.placing import placed_once

DEFAULT = KernelSpec("default", Series.LONGTERM, DebianKernel("trixie"))
TESTED = KernelSpec("tested", Series.LONGTERM, DebianKernel("bookworm"))
LOADER = Path("/usr/lib/systemd/boot/efi/systemd-bootx64.efi")
FIRMWARE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")

_MIB = 1 << 20
_ESP_MIB, _ROOT_MIB = 96, 1600
_ESP_TYPE = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
_LINUX_TYPE = UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
"""Partition types of the Discoverable Partitions Specification."""

INIT = r"""#!/bin/busybox sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do insmod "/modules/$module" 2>/dev/null; done </modules/order
next=/sbin/init
for word in $(cat /proc/cmdline); do case $word in box.init=*) next=${word#box.init=} ;; esac; done
until [ -b /dev/vda2 ]; do sleep 0.1; done
mount -t ext4 -o rw /dev/vda2 /root
mount --move /dev /root/dev
mount --move /sys /root/sys
mount --move /proc /root/proc
exec switch_root /root "$next"
"""

CONTAINERFILE = r"""ARG BASE
FROM ${BASE}
RUN apt-get update \
 && apt-get install --yes --no-install-recommends systemd-boot-tools kexec-tools pocl-opencl-icd ocl-icd-libopencl1 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb
RUN mkdir -p /efi && echo '/dev/vda1 /efi vfat defaults,umask=0077 0 0' >/etc/fstab \
 && echo 0123456789abcdef0123456789abcdef >/etc/machine-id && echo 'blacklist dummy' >/etc/modprobe.d/box.conf \
 && printf '[Match]\nName=e*\n[Network]\nAddress=10.0.2.15/24\n' >/etc/systemd/network/10-box.network \
 && sed -i 's/^LOAD_KEXEC=.*/LOAD_KEXEC=false/' /etc/default/kexec || true
# Every unit costs an emulated machine a good part of a second.
RUN systemctl enable systemd-networkd ssh && systemctl set-default multi-user.target && systemctl mask \
      getty.target serial-getty@ttyS0.service systemd-timesyncd.service systemd-networkd-wait-online.service \
      apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
      logrotate.timer man-db.timer systemd-tmpfiles-clean.timer systemd-pstore.service systemd-random-seed.service \
      dev-hugepages.mount dev-mqueue.mount sys-kernel-tracing.mount sys-kernel-config.mount \
      sys-fs-fuse-connections.mount \
      proc-sys-fs-binfmt_misc.automount modprobe@configfs.service modprobe@drm.service modprobe@fuse.service \
      modprobe@efi_pstore.service systemd-network-generator.service systemd-networkd-persistent-storage.service \
      systemd-update-utmp.service systemd-user-sessions.service systemd-logind.service systemd-sysctl.service \
      systemd-journal-flush.service kmod-static-nodes.service systemd-modules-load.service \
      kexec-load.service kexec.service
RUN printf '#!/bin/sh\nmount -t proc proc /proc 2>/dev/null\necho box: about to crash\necho c >/proc/sysrq-trigger\n' \
      >/usr/sbin/crash && chmod 755 /usr/sbin/crash
"""


def guid(value: UUID) -> bytes:
    """As GPT stores it."""
    return value.bytes_le


def write_gpt(disk: Path, parts: list[tuple[UUID, int, int]]) -> None:
    """Write a partition table (UEFI Specification, chapter 5) of (type, first MiB, MiB); the file has its size."""
    size = disk.stat().st_size
    last = size // 512 - 1
    entries = b"".join(
        guid(kind) + guid(uuid4()) + struct.pack("<QQQ", start * _MIB // 512, (start + length) * _MIB // 512 - 1, 0)
        + b"".ljust(72, b"\0")
        for kind, start, length in parts
    ).ljust(128 * 128, b"\0")  # fmt: skip
    own = guid(uuid4())

    def header(here: int, other: int, table: int) -> bytes:
        def packed(crc: int) -> bytes:
            return struct.pack(
                "<8sIIIIQQQQ16sQIII",
                *(b"EFI PART", 0x10000, 92, crc, 0, here, other, 34, last - 33, own, table, 128, 128),
                zlib.crc32(entries),
            )

        return packed(zlib.crc32(packed(0))).ljust(512, b"\0")

    protective = b"\0" * 446 + struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1, last) + b"\0" * 48
    with disk.open("r+b") as out:
        out.write(protective + b"\x55\xaa" + header(1, last, 2) + entries)
        out.seek((last - 32) * 512)
        out.write(entries + header(last, 1, last - 32))


def make_disk(images: Images, shared: Path, into: Path) -> dict[str, str]:
    """Make the box' disk and return the releases of its kernels; all but the box' own keys is made once and kept."""
    kernels = {
        spec.name: images.kernel_source(spec, False).fetch(images.cache / "kernels") for spec in (DEFAULT, TESTED)
    }
    releases = {name: files.release for name, files in kernels.items()}
    key = content_key("lab box", CONTAINERFILE, INIT, images.base_key("debian-13"), *releases.values())[:32]

    def build(folder: Path) -> None:
        _build(images, kernels, folder)

    made = placed_once(shared / "lab-box" / key, build)
    subprocess.run(["cp", "--sparse=always", str(made / "disk.raw"), str(into)], check=True)
    return releases


def _build(images: Images, kernels: dict[str, KernelFiles], folder: Path) -> None:
    context = folder / "context"
    context.mkdir()
    containerfile = context / "Containerfile"
    containerfile.write_text(CONTAINERFILE)
    reference = images.buildah.reference("lab-box", content_key("lab box", CONTAINERFILE))
    images.build("debian-13", reference, containerfile, context, {"BASE": images.base("debian-13", 1800)}, 1800)
    init = folder / "init"
    init.write_text(INIT)
    disk = folder / "disk.raw"
    with disk.open("wb") as out:
        out.truncate((1 + _ESP_MIB + _ROOT_MIB + 1) * _MIB)
    write_gpt(disk, [(_ESP_TYPE, 1, _ESP_MIB), (_LINUX_TYPE, 1 + _ESP_MIB, _ROOT_MIB)])
    esp = f"{disk}@@1M"
    subprocess.run(["mformat", "-i", esp, "-T", str(_ESP_MIB * 2048), "-F", "::"], check=True)
    for path in ("EFI", "EFI/BOOT", "EFI/systemd", "loader", "loader/entries"):
        subprocess.run(["mmd", "-i", esp, f"::{path}"], check=True)
    files = {"EFI/BOOT/BOOTX64.EFI": LOADER, "EFI/systemd/systemd-bootx64.efi": LOADER}
    texts = {"loader/loader.conf": "default default.conf\ntimeout 0\n"}
    for name, kernel in kernels.items():
        initramfs = folder / f"{name}.cpio"
        build_initramfs(kernel.modules, init, initramfs, extra=("ext4", "vfat", "nls_cp437", "nls_ascii"))
        files |= {f"{name}.efi": kernel.vmlinuz, f"{name}.img": initramfs}
        texts[f"loader/entries/{name}.conf"] = _entry(name, name, kernel.release, "")
    texts["loader/entries/crashing.conf"] = _entry(
        "crashing", "tested", kernels["tested"].release, "box.init=/usr/sbin/crash panic=0"
    )
    for name, text in texts.items():
        (folder / "text").write_text(text)
        files_from = {name: folder / "text"}
        _copy(esp, files_from)
    _copy(esp, files)
    with images.buildah.mounted(reference) as tree:
        for name, kernel in kernels.items():
            shutil.copytree(kernel.modules, tree / "usr/lib/modules" / kernel.release, symlinks=True)
            # Where kexec looks for them on a Debian system.
            shutil.copy(kernel.vmlinuz, tree / f"boot/vmlinuz-{kernel.release}")
            shutil.copy(folder / f"{name}.cpio", tree / f"boot/initrd.img-{kernel.release}")
        offset = f"offset={(1 + _ESP_MIB) * _MIB}"
        subprocess.run(
            ["mke2fs", "-q", "-F", "-t", "ext4", "-E", offset, "-d", str(tree), str(disk), f"{_ROOT_MIB}M"], check=True
        )
    for path in (init, folder / "text", *folder.glob("*.cpio")):
        path.unlink()
    shutil.rmtree(context)


def _entry(title: str, files: str, release: str, more: str) -> str:
    options = f"console=ttyS0 audit=0 systemd.show_status=0 {more}".strip()
    return f"title {title}\nversion {release}\nlinux /{files}.efi\ninitrd /{files}.img\noptions {options}\n"


def _copy(esp: str, files: dict[str, Path]) -> None:
    for name, path in files.items():
        subprocess.run(["mcopy", "-o", "-i", esp, str(path), f"::{name}"], check=True)


POWER = """
import json, socket, sys
with socket.socket(socket.AF_UNIX) as monitor:
    monitor.connect(sys.argv[1])
    stream = monitor.makefile("rw")
    stream.readline()
    for command in ("qmp_capabilities", "system_reset"):
        stream.write(json.dumps({"execute": command}) + "\\n")
        stream.flush()
        while "return" not in json.loads(stream.readline()):
            pass
"""


@dataclass
class Box:
    """The machine, switched on."""

    folder: Path
    releases: dict[str, str]
    host_key: KeyPair
    client_key: KeyPair
    port: int
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def power(self) -> list[str]:
        """The command that cycles its power."""
        return [sys.executable, str(self.folder / "power.py"), str(self.folder / "qmp")]

    @property
    def console(self) -> str:
        """All that it wrote to its serial port."""
        return (self.folder / "console.log").read_text(errors="replace")

    def close(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def switch_on(images: Images, shared: Path, folder: Path) -> Box:
    """Make a box below ``folder`` and start it; nobody waits until it is up."""
    disk = folder / "disk.raw"
    releases = make_disk(images, shared, disk)
    host_key, client_key = KeyPair.generate("box"), KeyPair.generate("lab")
    (folder / "host_key").write_bytes(host_key.private)
    (folder / "client_key").write_bytes(client_key.private)
    (folder / "client_key").chmod(0o600)
    (folder / "authorized_keys").write_bytes(client_key.public)
    commands = [
        "mkdir /root/.ssh",
        f"write {folder}/host_key /etc/ssh/ssh_host_ed25519_key",
        f"write {folder}/authorized_keys /root/.ssh/authorized_keys",
        "set_inode_field /etc/ssh/ssh_host_ed25519_key mode 0100600",
        "set_inode_field /root/.ssh/authorized_keys mode 0100600",
        "set_inode_field /root/.ssh mode 040700",
    ]
    script = folder / "debugfs"
    script.write_text("\n".join(commands) + "\n")
    where = f"{disk}?offset={(1 + _ESP_MIB) * _MIB}"
    subprocess.run(["debugfs", "-w", "-f", str(script), where], check=True, capture_output=True)
    shutil.copy(VARIABLES, folder / "variables.fd")
    (folder / "power.py").write_text(POWER)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kvm = os.environ.get("KDMATRIX_ACCELERATOR") == "kvm"
    argv = [
        *("qemu-system-x86_64", "-nodefaults", "-display", "none", "-machine", f"pc,accel={'kvm' if kvm else 'tcg'}"),
        *("-cpu", "Nehalem", "-m", "1024", "-smp", "1"),
        # The guest's time follows its instructions. On a busy host, real time has OVMF do nothing but take its timer's
        # interrupts, each of which has come before the last one is done with.
        *(() if kvm else ("-icount", "shift=2")),
        *("-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={FIRMWARE}"),
        *("-drive", f"if=pflash,format=raw,unit=1,file={folder}/variables.fd"),
        *("-drive", f"if=virtio,format=raw,cache=unsafe,file={disk}"),
        *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *("-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng"),
        *("-chardev", f"file,id=serial,path={folder}/console.log", "-serial", "chardev:serial"),
        *("-qmp", f"unix:{folder}/qmp,server=on,wait=off"),
    ]
    with (folder / "qemu.log").open("wb") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    return Box(folder, releases, host_key, client_key, port, process)
