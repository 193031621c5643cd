"""What this host can do, and how to mend what it cannot: every line names its fix.

Nothing here raises and nothing changes the host. (Whether KVM works is proved by booting a kernel, and the answer is
kept in our own cache, which a run would do as well.) Paths are below a root that tests replace.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import resource
import shutil
import struct
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from pathlib import Path

from harness.errors import InfraError, KdmatrixError
from harness.hostcmd import run
from harness.images.initramfs import build_initramfs
from harness.kernels.mirror import KEYRING, VARIABLE, checked_keyring, find_mirror
from harness.lab import Lab
from harness.machines.acceleration import Acceleration, cannot_open, prove
from harness.machines.daemon import choose_uri, service_manager_runs
from harness.machines.hypervisor import emulator
from harness.suites.build import find_compiler

SPACE = 6_000_000_000
"""Bytes that the caches of a first run with four kernels need, with room to spare."""
_VM_MEMORY = 1 << 30
_HOST_RESERVE = 2 << 30
_SBIN = ("/usr/sbin", "/sbin")
_CLOCK_TOLERANCE = 300.0
"""Seconds: package indexes expire by the clock, and certificates, too."""
_NO_LOCAL_DISK = ("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse.sshfs", "afs", "glusterfs", "virtiofs")
_NO_OVERLAY_UPPER = (*_NO_LOCAL_DISK, "overlay", "vfat", "exfat", "ntfs", "ntfs3")
"""File systems that overlayfs does not take for its writable layer (the kernel's filesystems/overlayfs.rst)."""

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
    "uidmap": ("uidmap", "shadow-utils", "shadow"),
}
"""Packages of Debian and Ubuntu, Fedora, Arch."""


class State(StrEnum):
    """What a check says; FAIL is for what a run cannot do without."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the answer."""

    name: str
    state: State
    found: str
    fix: str = ""
    """What to do; empty when there is nothing to do."""


def examine(lab: Lab, root: Path = Path("/"), fetch_date: Callable[[str], str] | None = None) -> list[Check]:
    """Look at everything that a run needs from this host, in the order in which it needs it.

    ``root`` is where /proc, /sys, /etc, /boot and /usr are looked for. ``fetch_date`` asks a URL and returns its
    answer's ``Date`` header ("" when it has none) or raises OSError.
    """
    host = _Host(lab, root, fetch_date or _head)
    checks: list[Check] = []
    for name, look in (
        ("Python", host.python),
        ("libvirt-python", host.binding),
        ("libvirt", host.libvirt),
        ("QEMU", host.qemu),
        ("KVM", host.kvm),
        ("network", host.network),
        ("buildah", host.buildah),
        ("mmdebstrap", lambda: host.program("mmdebstrap", "makes a Debian guest's root")),
        ("mkfs.erofs", lambda: host.program("mkfs.erofs", "makes the read-only layers")),
        ("busybox", host.busybox),
        ("apt-get", lambda: host.program("apt-get", "reads the signed package index")),
        ("dpkg-deb", lambda: host.program("dpkg-deb", "unpacks kernel packages")),
        ("depmod", lambda: host.program("depmod", "indexes a kernel's modules")),
        ("Debian keyring", host.keyring),
        ("Debian mirror", host.mirror),
        ("C++ compiler", host.compiler),
        ("home directory", host.home),
        ("disk space", host.space),
        ("processors and memory", host.capacity),
        ("open files", host.open_files),
        ("clock", host.clock),
        ("IOMMU", host.iommu),
        ("GPUs", host.gpus),
    ):
        try:
            state, found, fix = look()
        except Exception as error:  # one odd host must not hide what is wrong with the rest of it
            state, found, fix = State.WARN, f"could not be looked at: {type(error).__name__}: {error}", ""
        checks.append(Check(name, state, " ".join(found.split()), fix))
    return checks


def exit_code(checks: list[Check]) -> int:
    """Return 4 when something that every run needs is missing, else 0."""
    return 4 if any(check.state is State.FAIL for check in checks) else 0


_Answer = tuple[State, str, str]


class _Host:
    def __init__(self, lab: Lab, root: Path, fetch_date: Callable[[str], str]) -> None:
        self._lab = lab
        self._root = root
        self._fetch_date = fetch_date
        self._server_date: tuple[float, float] | None = None
        """(what the mirror's clock said, what ours said then), in seconds since the epoch."""
        self._accelerated: bool | None = None

    def python(self) -> _Answer:
        return State.OK, f"{platform.python_version()} ({sys.executable})", ""  # an older one does not come this far

    def binding(self) -> _Answer:
        fix = f"{self._install('libvirt-python')}; pip install libvirt-python"
        if importlib.util.find_spec("libvirt") is None:
            return State.FAIL, "not installed", fix
        try:
            import libvirt
        except ImportError as error:
            return State.FAIL, f"does not load: {error}", fix
        return (
            State.OK,
            f"{importlib.metadata.version('libvirt-python')} on libvirt {_dotted(libvirt.getVersion())}",
            "",
        )

    def libvirt(self) -> _Answer:
        uri, daemon = choose_uri(self._lab.home.root / "libvirt")
        if os.environ.get("KDMATRIX_LIBVIRT_URI"):
            return State.OK, f"{uri}, named by KDMATRIX_LIBVIRT_URI", ""
        if daemon is not None:
            missing = [name for name in ("libvirtd", "unshare") if self._which(name) is None]
            if missing:
                return State.FAIL, f"no service manager, and {missing[0]} is not installed", self._install(missing[0])
            if self._lacks_qemu_driver():
                return State.FAIL, "libvirtd is there, but not its driver for QEMU", self._install("libvirt-qemu")
            running = "runs" if daemon.pid() is not None else "is started when needed"
            return State.OK, f"no service manager: a private libvirtd {running} ({uri})", ""
        if self._which("libvirtd") is None and self._which("virtqemud") is None:
            return State.FAIL, "neither libvirtd nor virtqemud is installed", self._install("libvirtd")
        if uri.endswith("/session"):
            fix = "sudo usermod -aG libvirt $USER, then log in again, for qemu:///system and device passthrough"
            return State.WARN, f"{uri}: this user may not open the system's libvirt", fix
        sockets = ("libvirt-sock", "virtqemud-sock")
        if service_manager_runs() and not any((self._root / "run/libvirt" / name).exists() for name in sockets):
            fix = "sudo systemctl enable --now libvirtd.socket (Fedora: virtqemud.socket)"
            return State.FAIL, f"{uri}: no socket of libvirt in /run/libvirt", fix
        return State.OK, uri, ""

    def _lacks_qemu_driver(self) -> bool:
        """Whether libvirt's loadable drivers lie where distributions put them, and the one for QEMU is not there."""
        places = ("usr/lib64/libvirt", "usr/lib/libvirt", "usr/lib/x86_64-linux-gnu/libvirt")
        folders = [self._root / place / "connection-driver" for place in places]
        there = [folder for folder in folders if folder.is_dir()]
        return bool(there) and not any((folder / "libvirt_driver_qemu.so").exists() for folder in there)

    def qemu(self) -> _Answer:
        try:
            path = emulator()
        except InfraError as error:
            return State.FAIL, str(error), self._install("qemu")
        done = run([path, "--version"], timeout=30)
        lines = done.stdout.decode(errors="replace").splitlines()
        if done.returncode != 0 or not lines:
            return State.FAIL, f"{path} does not run (exit status {done.returncode})", self._install("qemu")
        return State.OK, f"{lines[0].removeprefix('QEMU emulator ')} ({path})", ""

    def kvm(self) -> _Answer:
        forced = os.environ.get("KDMATRIX_ACCELERATOR", "auto").strip().lower()
        unusable = cannot_open()
        if forced not in ("kvm", "tcg") and unusable:
            fix = "enable virtualisation in the firmware and load kvm_amd or kvm_intel; without it VMs are emulated"
            if "may not be opened" in unusable:
                fix = "sudo usermod -aG kvm $USER, then log in again"
            self._accelerated = False
            return State.WARN, unusable, fix
        found = self._prove()
        if found is None:
            return State.WARN, "/dev/kvm opens; unproven, as there is no kernel here yet to boot under it", ""
        self._accelerated = found.accelerator == "kvm"
        if self._accelerated:
            return State.OK, f"works: {found.reason}", ""
        fix = "on a virtual machine, have nested virtualisation enabled outside; until then VMs are emulated"
        return State.WARN, f"not usable: {found.reason}", "" if forced == "tcg" else fix

    def _prove(self) -> Acceleration | None:
        """Boot a kernel of the cache, else the one that this host itself runs; None when neither can be read."""
        cache = self._lab.home.cache
        initramfs = next(iter(sorted(cache.glob("boot/*/initramfs.cpio"))), None)
        kernels = [*cache.glob("kernels/*/boot/vmlinuz-*"), *cache.glob("kernels/*/usr/lib/modules/*/vmlinuz")]
        if initramfs is not None and kernels:
            return prove(sorted(kernels)[0], initramfs, cache)
        release = platform.release()
        own = self._root / "boot" / f"vmlinuz-{release}"
        modules = self._root / "lib/modules" / release
        if not os.access(own, os.R_OK) or not modules.is_dir():
            return None
        with tempfile.TemporaryDirectory(prefix="kdmatrix-doctor-") as folder:
            try:
                build_initramfs(modules, self._lab.recipes.boot_dir / "init", Path(folder) / "initramfs.cpio")
            except (KdmatrixError, OSError):
                return None
            return prove(own, Path(folder) / "initramfs.cpio", Path(folder))

    def network(self) -> _Answer:
        try:
            done = run([emulator(), "-netdev", "help"], timeout=30)
        except InfraError:
            return State.WARN, "not known without QEMU", ""
        if "user" not in done.stdout.decode(errors="replace").split():
            return State.FAIL, "this QEMU is built without user networking (slirp)", self._install("qemu")
        return State.OK, "QEMU's user network: guests reach nothing, SSH comes in over 127.0.0.1", ""

    def buildah(self) -> _Answer:
        state, found, fix = self.program("buildah", "builds guest images")
        if state is State.FAIL or os.geteuid() == 0:
            return state, found, fix
        user = Path.home().name
        maps = [self._root / "etc" / name for name in ("subuid", "subgid")]
        if self._which("newuidmap") is None:
            return State.FAIL, f"{found}; newuidmap is missing, so it cannot work without root", self._install("uidmap")
        if not all(self._mentions(path, user) for path in maps):
            fix = "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER"
            return State.FAIL, f"{found}; /etc/subuid and /etc/subgid have no range for this user", fix
        return state, found, fix

    def program(self, name: str, purpose: str) -> _Answer:
        path = self._which(name)
        if path is None:
            return State.FAIL, f"not installed; it {purpose}", self._install(name)
        return State.OK, path, ""

    def busybox(self) -> _Answer:
        path = shutil.which("busybox")
        if path is None:
            return State.FAIL, "not installed; the initramfs is made of it", self._install("busybox")
        if not is_static(Path(path)):
            return State.FAIL, f"{path} is linked dynamically and cannot run in an initramfs", self._install("busybox")
        return State.OK, f"{path}, statically linked", ""

    def keyring(self) -> _Answer:
        try:
            return State.OK, str(checked_keyring(self._root / KEYRING.relative_to("/"))), ""
        except KdmatrixError:
            return State.FAIL, f"{KEYRING} is missing, so no signature can be checked", self._install("keyring")

    def mirror(self) -> _Answer:
        fix = f"set {VARIABLE} to the URL of a Debian mirror that this host can reach"
        try:
            url = find_mirror()
        except KdmatrixError as error:
            return self._without_mirror, str(error), fix
        scheme, _, path = url.partition(":")
        if scheme in ("file", "copy"):
            there = (Path(path) / "dists").is_dir()
            return (State.OK, url, "") if there else (self._without_mirror, f"{url} holds no dists", fix)
        if scheme not in ("http", "https"):
            return State.OK, f"{url} (apt's own method; not tried)", ""
        asked = time.time()
        try:
            date = self._fetch_date(f"{url}/dists/stable/Release")
        except OSError as error:
            reason = getattr(error, "reason", None) or error
            return self._without_mirror, f"{url} does not answer: {reason}", fix
        if date:
            self._server_date = (parsedate_to_datetime(date).timestamp(), asked)
        return State.OK, f"{url} answers", ""

    @property
    def _without_mirror(self) -> State:
        """What is cached still runs."""
        return State.WARN if any((self._lab.home.cache / "erofs").glob("root-*")) else State.FAIL

    def compiler(self) -> _Answer:
        try:
            command = find_compiler()
        except KdmatrixError as error:
            return State.FAIL, str(error), f"pip install 'kdmatrix[build]', or {self._install('c++')}"
        name = "zig" if "ziglang" in command else command[0]
        return State.OK, name if name == "zig" else str(self._which(name) or name), ""

    def home(self) -> _Answer:
        path = self._lab.home.root
        there = _existing(path)
        if not there.is_dir():
            return State.FAIL, f"{there} is not a directory", "set KDMATRIX_HOME to a directory of yours"
        if not os.access(there, os.W_OK | os.X_OK):
            return State.FAIL, f"{there} may not be written by this user", "set KDMATRIX_HOME to a directory of yours"
        kind = self._file_system(there)
        if kind in _NO_LOCAL_DISK:
            fix = "set KDMATRIX_HOME to a directory on a local disk: SQLite's write-ahead log needs one"
            return State.FAIL, f"{path} is on {kind}", fix
        if kind in _NO_OVERLAY_UPPER:
            fix = "set KDMATRIX_HOME to a directory on ext4, XFS or Btrfs: image builds stack layers with overlayfs"
            return State.WARN, f"{path} is on {kind}", fix
        return State.OK, f"{path} on {kind or 'an unknown file system'}", ""

    def space(self) -> _Answer:
        free = shutil.disk_usage(_existing(self._lab.home.root)).free
        cached = (self._lab.home.cache / "erofs").is_dir()
        needed = SPACE // 4 if cached else SPACE
        found = f"{free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB needed" + (" beside what is cached" if cached else "")
        if free < needed:
            return State.FAIL, found, "free some (kdmatrix clean --images empties the cache), or set KDMATRIX_HOME"
        return State.OK, found, ""

    def capacity(self) -> _Answer:
        cores = len(os.sched_getaffinity(0))
        available = self._available_memory()
        vms = min(cores, (available - _HOST_RESERVE) // _VM_MEMORY)
        found = f"{cores} processors, {available / (1 << 30):.1f} GiB available: {max(1, vms)} VMs of 1 GiB at a time"
        if vms < 1:
            return State.WARN, found, "end other programs, or lower limits.vm_memory in the matrix"
        return State.OK, found, ""

    def open_files(self) -> _Answer:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if 0 <= soft < 1024:
            return State.WARN, f"at most {soft} open files", f"ulimit -n {min(4096, hard) if hard >= 0 else 4096}"
        return State.OK, f"at most {soft if soft >= 0 else 'any number of'} open files", ""

    def clock(self) -> _Answer:
        now = time.time()
        if self._server_date is None:
            newest = _existing(self._lab.home.root).stat().st_mtime
            if now + _CLOCK_TOLERANCE < newest:
                return State.WARN, "the clock is behind the date of files on this disk", "sudo timedatectl set-ntp true"
            return State.OK, f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime(now))} UTC, compared with nothing", ""
        theirs, ours = self._server_date
        off = ours - theirs
        if abs(off) > _CLOCK_TOLERANCE:
            where = "ahead of" if off > 0 else "behind"
            found = f"{abs(off):.0f} s {where} the mirror's: signatures may count as expired or not yet valid"
            return State.WARN, found, "sudo timedatectl set-ntp true"
        return State.OK, f"within {max(1.0, abs(off)):.0f} s of the mirror's", ""

    def iommu(self) -> _Answer:
        groups = self._root / "sys/kernel/iommu_groups"
        count = len(list(groups.iterdir())) if groups.is_dir() else 0
        if count:
            return State.OK, f"on, {count} groups", ""
        return State.OK, "off: no device can be passed through (only needed for GPU cells)", ""

    def gpus(self) -> _Answer:
        found = []
        for device in sorted((self._root / "sys/bus/pci/devices").glob("*")):
            code = _read(device / "class")
            # Display controllers, and processing accelerators (PCI Code and ID Assignment Specification).
            if code.startswith(("0x03", "0x12")):
                ids = f"{_read(device / 'vendor')[2:]}:{_read(device / 'device')[2:]}"
                driver = device / "driver"
                bound = f", driver {driver.readlink().name}" if driver.is_symlink() else ", no driver"
                group = device / "iommu_group"
                where = f", IOMMU group {group.readlink().name}" if group.is_symlink() else ""
                found.append(f"{device.name} [{ids}]{bound}{where}")
        return State.OK, "; ".join(found) or "none: cells without a device run all the same", ""

    def _which(self, name: str) -> str | None:
        return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *_SBIN]))

    def _install(self, what: str) -> str:
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
        for line in _read(self._root / "etc/os-release").splitlines():
            key, _, value = line.partition("=")
            if key in ("ID", "ID_LIKE"):
                words.update(value.strip("\"'").split())
        return words

    def _file_system(self, path: Path) -> str:
        """The type of the file system that holds ``path``; proc_pid_mountinfo(5)."""
        best, kind = -1, ""
        for line in _read(self._root / "proc/self/mountinfo").splitlines():
            before, dash, after = line.partition(" - ")
            fields = before.split()
            if dash and len(fields) > 4:
                point = fields[4].replace("\\040", " ")
                if path.resolve().is_relative_to(point) and len(point) >= best:
                    best, kind = len(point), after.split()[0]
        return kind

    def _available_memory(self) -> int:
        for line in _read(self._root / "proc/meminfo").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
        raise InfraError("/proc/meminfo tells no MemAvailable")

    @staticmethod
    def _mentions(path: Path, user: str) -> bool:
        return any(line.split(":")[0] in (user, str(os.getuid())) for line in _read(path).splitlines())


def is_static(path: Path) -> bool:
    """Whether an ELF program asks for no interpreter (elf(5), PT_INTERP)."""
    with path.open("rb") as file:
        data = file.read(64 << 10)
    if data[:5] != b"\x7fELF\x02":
        return False
    offset, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    kinds = [struct.unpack_from("<I", data, offset + index * size)[0] for index in range(count)]
    return 3 not in kinds


def _head(url: str) -> str:
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310  http or https, checked by the caller
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return str(answer.headers.get("Date") or "")


def _existing(path: Path) -> Path:
    """The path itself, or the nearest directory above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _dotted(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
