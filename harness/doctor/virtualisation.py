"""What starts a VM: libvirt and its binding, QEMU and its network, KVM."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import tempfile
from pathlib import Path

from harness.doctor.host import Answer, Host, State
from harness.errors import InfraError, KdmatrixError
from harness.hostcmd import run
from harness.images.initramfs import build_initramfs
from harness.machines.acceleration import Acceleration, cannot_open, prove
from harness.machines.daemon import choose_uri, import_libvirt, service_manager_runs
from harness.machines.firmware import find_firmware, has_variable_tool
from harness.machines.hypervisor import emulator


def binding(host: Host) -> Answer:
    """libvirt's Python binding, which pip builds on the host."""
    fix = f"{host.install('libvirt-python')}; pip install libvirt-python"
    if importlib.util.find_spec("libvirt") is None:
        return State.FAIL, "not installed", fix
    try:
        version = _dotted(import_libvirt().getVersion())
    except InfraError as error:
        return State.FAIL, f"does not load: {error.__cause__}", fix
    return State.OK, f"{importlib.metadata.version('libvirt-python')} on libvirt {version}", ""


def libvirt(host: Host) -> Answer:
    """A libvirt that this user may use, or what a private one needs."""
    uri, daemon = choose_uri(host.lab.home.root / "libvirt")
    if os.environ.get("KDMATRIX_LIBVIRT_URI"):
        return State.OK, f"{uri}, named by KDMATRIX_LIBVIRT_URI", ""
    if daemon is not None:
        missing = [name for name in ("libvirtd", "unshare") if host.which(name) is None]
        if missing:
            return State.FAIL, f"no service manager, and {missing[0]} is not installed", host.install(missing[0])
        if _lacks_qemu_driver(host):
            return State.FAIL, "libvirtd is there, but not its driver for QEMU", host.install("libvirt-qemu")
        running = "runs" if daemon.pid() is not None else "is started when needed"
        return State.OK, f"no service manager: a private libvirtd {running} ({uri})", ""
    if host.which("libvirtd") is None and host.which("virtqemud") is None:
        return State.FAIL, "neither libvirtd nor virtqemud is installed", host.install("libvirtd")
    if uri.endswith("/session"):
        fix = "sudo usermod -aG libvirt $USER, then log in again, for qemu:///system and device passthrough"
        return State.WARN, f"{uri}: this user may not open the system's libvirt", fix
    sockets = ("libvirt-sock", "virtqemud-sock")
    if service_manager_runs() and not any((host.root / "run/libvirt" / name).exists() for name in sockets):
        fix = "sudo systemctl enable --now libvirtd.socket (Fedora: virtqemud.socket)"
        return State.FAIL, f"{uri}: no socket of libvirt in /run/libvirt", fix
    return State.OK, uri, ""


def _lacks_qemu_driver(host: Host) -> bool:
    """Whether libvirt's loadable drivers lie where distributions put them, and the one for QEMU is not there."""
    places = ("usr/lib64/libvirt", "usr/lib/libvirt", "usr/lib/x86_64-linux-gnu/libvirt")
    folders = [host.root / place / "connection-driver" for place in places]
    there = [folder for folder in folders if folder.is_dir()]
    return bool(there) and not any((folder / "libvirt_driver_qemu.so").exists() for folder in there)


def qemu(host: Host) -> Answer:
    """The emulator, and whether it starts."""
    try:
        path = emulator()
    except InfraError as error:
        return State.FAIL, str(error), host.install("qemu")
    done = run([path, "--version"], timeout=30)
    lines = done.stdout.decode(errors="replace").splitlines()
    if done.returncode != 0 or not lines:
        return State.FAIL, f"{path} does not run (exit status {done.returncode})", host.install("qemu")
    return State.OK, f"{lines[0].removeprefix('QEMU emulator ')} ({path})", ""


def kvm(host: Host) -> Answer:
    """Whether VMs are accelerated, proved by booting a kernel."""
    forced = os.environ.get("KDMATRIX_ACCELERATOR", "auto").strip().lower()
    unusable = cannot_open()
    if forced not in ("kvm", "tcg") and unusable:
        fix = "enable virtualisation in the firmware and load kvm_amd or kvm_intel; without it VMs are emulated"
        if "may not be opened" in unusable:
            fix = "sudo usermod -aG kvm $USER, then log in again"
        return State.WARN, unusable, fix
    found = _prove(host)
    if found is None:
        return State.WARN, "/dev/kvm opens; unproven, as there is no kernel here yet to boot under it", ""
    if found.accelerator == "kvm":
        return State.OK, f"works: {found.reason}", ""
    fix = "on a virtual machine, have nested virtualisation enabled outside; until then VMs are emulated"
    return State.WARN, f"not usable: {found.reason}", "" if forced == "tcg" else fix


def _prove(host: Host) -> Acceleration | None:
    """Boot a kernel of the cache, else the one that this host itself runs; None when neither can be read."""
    cache = host.lab.home.cache
    initramfs = next(iter(sorted(cache.glob("boot/*/initramfs.cpio"))), None)
    kernels = [*cache.glob("kernels/*/boot/vmlinuz-*"), *cache.glob("kernels/*/usr/lib/modules/*/vmlinuz")]
    if initramfs is not None and kernels:
        return prove(sorted(kernels)[0], initramfs, cache)
    release = platform.release()
    own = host.root / "boot" / f"vmlinuz-{release}"
    modules = host.root / "lib/modules" / release
    if not os.access(own, os.R_OK) or not modules.is_dir():
        return None
    with tempfile.TemporaryDirectory(prefix="kdmatrix-doctor-") as folder:
        try:
            build_initramfs(modules, host.lab.recipes.boot_dir / "init", Path(folder) / "initramfs.cpio")
        except (KdmatrixError, OSError):
            return None
        return prove(own, Path(folder) / "initramfs.cpio", Path(folder))


def secure_boot(host: Host) -> Answer:
    """What cells with Secure Boot start from; others do without."""
    fix = host.install("secure-boot")
    try:
        firmware = find_firmware(host.root)
    except InfraError as error:
        return State.WARN, f"{error}; kernels with secure_boot cannot be tested", fix
    missing = [name for name in ("objcopy", "sbsign", "mformat", "mmd", "mcopy") if host.which(name) is None]
    if missing:
        return State.WARN, f"{missing[0]} is not installed; kernels with secure_boot cannot be tested", fix
    if not has_variable_tool():
        fix = "pip install virt-firmware"
        return State.WARN, "virt-fw-vars is not installed; it makes firmware trust this lab's key", fix
    return State.OK, f"{firmware.code}, {firmware.shim}", ""


def network(host: Host) -> Answer:
    """QEMU's user network, through which SSH comes in."""
    try:
        done = run([emulator(), "-netdev", "help"], timeout=30)
    except InfraError:
        return State.WARN, "not known without QEMU", ""
    if "user" not in done.stdout.decode(errors="replace").split():
        return State.FAIL, "this QEMU is built without user networking (slirp)", host.install("qemu")
    return State.OK, "QEMU's user network: guests reach nothing, SSH comes in over 127.0.0.1", ""


def _dotted(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
