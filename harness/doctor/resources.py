"""What a run uses up: disk, memory, processors, open files."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

from harness.doctor.host import Answer, Host, State, existing, read
from harness.errors import InfraError

SPACE = 6_000_000_000
"""Bytes that the caches of a first run with four kernels need, with room to spare."""
_VM_MEMORY = 1 << 30
_HOST_RESERVE = 2 << 30
_NO_LOCAL_DISK = ("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse.sshfs", "afs", "glusterfs", "virtiofs")
_NO_OVERLAY_UPPER = (*_NO_LOCAL_DISK, "overlay", "vfat", "exfat", "ntfs", "ntfs3")
"""File systems that overlayfs does not take for its writable layer (the kernel's filesystems/overlayfs.rst)."""


def home(host: Host) -> Answer:
    """Whether databases and layers can live in the home directory."""
    path = host.lab.home.root
    there = existing(path)
    if not there.is_dir():
        return State.FAIL, f"{there} is not a directory", "set KDMATRIX_HOME to a directory of yours"
    if not os.access(there, os.W_OK | os.X_OK):
        return State.FAIL, f"{there} may not be written by this user", "set KDMATRIX_HOME to a directory of yours"
    kind = _file_system(host, there)
    if kind in _NO_LOCAL_DISK:
        fix = "set KDMATRIX_HOME to a directory on a local disk: SQLite's write-ahead log needs one"
        return State.FAIL, f"{path} is on {kind}", fix
    if kind in _NO_OVERLAY_UPPER:
        fix = "set KDMATRIX_HOME to a directory on ext4, XFS or Btrfs: image builds stack layers with overlayfs"
        return State.WARN, f"{path} is on {kind}", fix
    return State.OK, f"{path} on {kind or 'an unknown file system'}", ""


def _file_system(host: Host, path: Path) -> str:
    """The type of the file system that holds ``path``; proc_pid_mountinfo(5)."""
    best, kind = -1, ""
    for line in read(host.root / "proc/self/mountinfo").splitlines():
        before, dash, after = line.partition(" - ")
        fields = before.split()
        if dash and len(fields) > 4:
            point = fields[4].replace("\\040", " ")
            if path.resolve().is_relative_to(point) and len(point) >= best:
                best, kind = len(point), after.split()[0]
    return kind


def space(host: Host) -> Answer:
    """Whether the caches of a first run fit."""
    free = shutil.disk_usage(existing(host.lab.home.root)).free
    cached = (host.lab.home.cache / "erofs").is_dir()
    needed = SPACE // 4 if cached else SPACE
    found = f"{free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB needed" + (" beside what is cached" if cached else "")
    if free < needed:
        return State.FAIL, found, "free some (kdmatrix clean --images empties the cache), or set KDMATRIX_HOME"
    return State.OK, found, ""


def capacity(host: Host) -> Answer:
    """How many VMs fit at a time."""
    cores = len(os.sched_getaffinity(0))
    available = _available_memory(host)
    vms = min(cores, (available - _HOST_RESERVE) // _VM_MEMORY)
    found = f"{cores} processors, {available / (1 << 30):.1f} GiB available: {max(1, vms)} VMs of 1 GiB at a time"
    if vms < 1:
        return State.WARN, found, "end other programs, or lower limits.vm_memory in the matrix"
    return State.OK, found, ""


def _available_memory(host: Host) -> int:
    for line in read(host.root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    raise InfraError("/proc/meminfo tells no MemAvailable")


def open_files(host: Host) -> Answer:
    """The limit on open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < 1024:
        return State.WARN, f"at most {soft} open files", f"ulimit -n {min(4096, hard) if hard >= 0 else 4096}"
    return State.OK, f"at most {soft if soft >= 0 else 'any number of'} open files", ""
