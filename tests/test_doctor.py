"""The doctor tells what is missing and how to mend it, on hosts of every kind, and changes none."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from email.utils import formatdate
from pathlib import Path

import pytest
from devices.recorded import machine

from harness.doctor import Check, State, examine, exit_code, is_static
from harness.doctor.host import _PACKAGES
from harness.home import Home
from harness.lab import Lab
from harness.machines.acceleration import Acceleration

TOOLS = ("buildah", "mmdebstrap", "mkfs.erofs", "apt-get", "dpkg-deb", "depmod", "libvirtd", "unshare", "newuidmap")
QEMU = """#!/bin/sh
case $1 in
--version) echo "QEMU emulator version 9.9.9" ;;
-netdev) printf 'socket\\nuser\\n' ;;
esac
"""


def write(path: Path, text: str, mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A complete host: its programs, its /etc, /proc and /sys; nothing of the real one is looked at."""
    programs = tmp_path / "bin"
    for name in TOOLS:
        write(programs / name, "#!/bin/sh\n", 0o755)
    write(programs / "qemu-system-x86_64", QEMU, 0o755)
    (programs / "busybox").write_bytes(elf())
    (programs / "busybox").chmod(0o755)
    root = tmp_path / "root"
    write(root / "etc/os-release", "ID=debian\n")
    write(root / "proc/meminfo", "MemTotal: 99 kB\nMemAvailable: 8388608 kB\n")
    write(root / "proc/self/mountinfo", f"1 0 8:1 / / rw - tmpfs x rw\n2 1 8:2 / {tmp_path} rw - ext4 /dev/x rw\n")
    write(root / "usr/share/keyrings/debian-archive-keyring.gpg", "")
    write(root / "usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so", "")
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setattr("harness.doctor.host._SBIN", ())
    monkeypatch.setenv("KDMATRIX_DEBIAN_MIRROR", "http://mirror.example/debian")
    for name in ("KDMATRIX_ACCELERATOR", "KDMATRIX_LIBVIRT_URI"):
        monkeypatch.delenv(name, raising=False)
    for module in ("harness.doctor.virtualisation", "harness.machines.daemon"):
        monkeypatch.setattr(f"{module}.service_manager_runs", lambda: False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("harness.doctor.virtualisation.cannot_open", lambda: None)
    return root


def elf(interpreter: bool = False) -> bytes:
    """A 64-bit ELF header with one program header, PT_INTERP (3) or PT_LOAD (1)."""
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    header[32:40] = (64).to_bytes(8, "little")
    header[54:58] = (56).to_bytes(2, "little") + (1).to_bytes(2, "little")
    return bytes(header) + (3 if interpreter else 1).to_bytes(4, "little") + bytes(52)


def now(_url: str) -> str:
    return formatdate(time.time(), usegmt=True)


def checks(root: Path, date: Callable[[str], str] = now) -> dict[str, Check]:
    return {check.name: check for check in examine(Lab(Home(root.parent / "home")), root, date)}


def without(host: Path, name: str) -> None:
    """Take a program away, and the real host's with it."""
    programs = host.parent / "bin"
    (programs / name).unlink()
    os.environ["PATH"] = str(programs)


def test_a_complete_host_fails_in_nothing(host: Path) -> None:
    found = checks(host)
    assert [check for check in found.values() if check.state is State.FAIL] == []
    assert exit_code(list(found.values())) == 0
    assert found["QEMU"].found.startswith("version 9.9.9")
    assert found["home directory"].found == f"{host.parent}/home on ext4"


def test_looking_makes_nothing(host: Path) -> None:
    before = sorted(host.parent.rglob("*"))
    checks(host)
    assert sorted(host.parent.rglob("*")) == before


def test_the_answer_is_json(host: Path) -> None:
    assert json.loads(json.dumps([asdict(check) for check in checks(host).values()]))[0]["state"] == "ok"


@pytest.mark.parametrize(
    ("program", "check", "package"),
    [
        ("buildah", "buildah", "buildah"),
        ("mmdebstrap", "mmdebstrap", "mmdebstrap"),
        ("mkfs.erofs", "mkfs.erofs", "erofs-utils"),
        ("busybox", "busybox", "busybox-static"),
        ("apt-get", "apt-get", "apt"),
        ("dpkg-deb", "dpkg-deb", "dpkg"),
        ("depmod", "depmod", "kmod"),
        ("qemu-system-x86_64", "QEMU", "qemu-system-x86"),
        ("libvirtd", "libvirt", "libvirt-daemon-system"),
        ("unshare", "libvirt", "util-linux"),
    ],
)
def test_a_missing_program_is_a_failure_that_names_its_package(
    host: Path, program: str, check: str, package: str
) -> None:
    without(host, program)
    found = checks(host)
    assert found[check].state is State.FAIL
    assert found[check].fix == f"sudo apt install {package}"
    assert exit_code(list(found.values())) == 4


@pytest.mark.parametrize(
    ("os_release", "fix"),
    [
        ('ID=ubuntu\nID_LIKE="debian"\n', "sudo apt install erofs-utils"),
        ("ID=fedora\n", "sudo dnf install erofs-utils"),
        ("ID=arch\n", "sudo pacman -S erofs-utils"),
        ("ID=gentoo\n", "install erofs-utils (Debian, Ubuntu), erofs-utils (Fedora) or erofs-utils (Arch)"),
        ("", "install erofs-utils (Debian, Ubuntu), erofs-utils (Fedora) or erofs-utils (Arch)"),
    ],
)
def test_fixes_speak_the_language_of_the_distribution(host: Path, os_release: str, fix: str) -> None:
    write(host / "etc/os-release", os_release)
    without(host, "mkfs.erofs")
    assert checks(host)["mkfs.erofs"].fix == fix


def test_every_package_is_known_for_three_distributions() -> None:
    assert all(len(names) == 3 and all(names) for names in _PACKAGES.values())


def test_a_dynamic_busybox_will_not_do(host: Path) -> None:
    (host.parent / "bin" / "busybox").write_bytes(elf(interpreter=True))
    found = checks(host)["busybox"]
    assert found.state is State.FAIL
    assert "linked dynamically" in found.found


def test_what_is_no_program_is_not_static(tmp_path: Path) -> None:
    assert not is_static(write(tmp_path / "script", "#!/bin/sh\n"))
    assert not is_static(Path(shutil.which("sh") or "/bin/sh").resolve())


def test_libvirt_without_its_qemu_driver_is_a_failure(host: Path) -> None:
    (host / "usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so").unlink()
    found = checks(host)["libvirt"]
    assert (found.state, found.fix) == (State.FAIL, "sudo apt install libvirt-daemon-driver-qemu")


def test_under_a_service_manager_libvirts_socket_has_to_be_there(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("harness.doctor.virtualisation", "harness.machines.daemon"):
        monkeypatch.setattr(f"{module}.service_manager_runs", lambda: True)
    found = checks(host)["libvirt"]
    assert found.state is State.FAIL
    assert "systemctl enable --now" in found.fix
    write(host / "run/libvirt/virtqemud-sock", "")
    assert checks(host)["libvirt"].found == "qemu:///system"


def test_kvm_that_opens_is_not_said_to_work(host: Path) -> None:
    found = checks(host)["KVM"]
    assert found.state is State.WARN
    assert "unproven" in found.found


def test_kvm_works_when_a_cached_kernel_boots(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = host.parent / "home/cache"
    kernel = write(cache / "kernels/abc/boot/vmlinuz-6.1", "")
    initramfs = write(cache / "boot/def/initramfs.cpio", "")
    asked = []

    def proved(*paths: Path) -> Acceleration:
        asked.append(paths)
        return Acceleration("kvm", "a stock kernel booted under KVM")

    monkeypatch.setattr("harness.doctor.virtualisation.prove", proved)
    assert checks(host)["KVM"].state is State.OK
    assert asked == [(kernel, initramfs, cache)]


def test_kvm_that_opens_and_hangs_is_told_with_its_reason(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(host.parent / "home/cache/kernels/abc/boot/vmlinuz-6.1", "")
    write(host.parent / "home/cache/boot/def/initramfs.cpio", "")
    hung = Acceleration("qemu", "a stock kernel did not reach its initramfs")
    monkeypatch.setattr("harness.doctor.virtualisation.prove", lambda *_: hung)
    found = checks(host)["KVM"]
    assert found.state is State.WARN
    assert found.found == "not usable: a stock kernel did not reach its initramfs"


def test_kvm_that_may_not_be_opened_tells_the_group(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.doctor.virtualisation.cannot_open", lambda: "/dev/kvm may not be opened by this user")
    assert "usermod -aG kvm" in checks(host)["KVM"].fix


def test_a_qemu_without_user_networking_is_a_failure(host: Path) -> None:
    write(host.parent / "bin/qemu-system-x86_64", QEMU.replace("user", ""), 0o755)
    assert checks(host)["network"].state is State.FAIL


def test_without_root_buildah_needs_a_range_of_user_ids(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = checks(host)["buildah"]
    assert found.state is State.FAIL
    assert "--add-subuids" in found.fix
    for name in ("subuid", "subgid"):
        write(host / "etc" / name, f"{os.getuid()}:100000:65536\n")
    assert checks(host)["buildah"].state is State.OK


def test_a_missing_keyring_is_a_failure(host: Path) -> None:
    (host / "usr/share/keyrings/debian-archive-keyring.gpg").unlink()
    found = checks(host)["Debian keyring"]
    assert (found.state, found.fix) == (State.FAIL, "sudo apt install debian-archive-keyring")


def refuse(_url: str) -> str:
    raise OSError("Connection refused")


def test_a_dead_mirror_is_a_failure_until_something_is_cached(host: Path) -> None:
    found = checks(host, refuse)["Debian mirror"]
    assert found.state is State.FAIL
    assert found.found == "http://mirror.example/debian does not answer: Connection refused"
    assert "KDMATRIX_DEBIAN_MIRROR" in found.fix
    write(host.parent / "home/cache/erofs/root-1/layer.erofs", "")
    assert checks(host, refuse)["Debian mirror"].state is State.WARN


def test_a_mirror_on_disk_is_looked_at(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDMATRIX_DEBIAN_MIRROR", f"file:{host}/mirror")
    assert checks(host, refuse)["Debian mirror"].state is State.FAIL
    (host / "mirror/dists").mkdir(parents=True)
    assert checks(host, refuse)["Debian mirror"].state is State.OK


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_wrong_clock_is_told(host: Path, hours: int) -> None:
    found = checks(host, lambda _: formatdate(time.time() + hours * 3600, usegmt=True))["clock"]
    assert found.state is State.WARN
    assert ("behind" if hours > 0 else "ahead of") in found.found


@pytest.mark.parametrize("date", ["", "not a date"])
def test_a_mirror_without_a_clock_does_no_harm(host: Path, date: str) -> None:
    found = checks(host, lambda _: date)
    assert found["Debian mirror"].state in (State.OK, State.WARN)
    assert found["clock"].state is State.OK


@pytest.mark.parametrize(("kind", "state"), [("nfs4", State.FAIL), ("overlay", State.WARN), ("xfs", State.OK)])
def test_the_home_must_be_on_a_disk_that_databases_and_layers_can_live_on(host: Path, kind: str, state: State) -> None:
    write(host / "proc/self/mountinfo", f"1 0 8:1 / / rw - ext4 x rw\n2 1 8:2 / {host.parent} rw - {kind} x rw\n")
    assert checks(host)["home directory"].state is state


def test_a_home_that_is_no_directory_is_a_failure(host: Path) -> None:
    write(host.parent / "home", "")
    found = checks(host)
    assert found["home directory"].state is State.FAIL


def test_a_full_disk_is_a_failure(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(host)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=10**9))
    found = checks(host)["disk space"]
    assert found.state is State.FAIL
    assert found.found == "1.0 GB free, 6.0 GB needed"


def test_little_memory_is_told(host: Path) -> None:
    write(host / "proc/meminfo", "MemAvailable: 1048576 kB\n")
    assert checks(host)["processors and memory"].state is State.WARN


def test_without_a_gpu_nothing_about_passthrough_is_wrong(host: Path) -> None:
    found = checks(host)
    assert found["GPUs"].found.startswith("none")
    assert found["IOMMU"].found.startswith("off")
    assert {found[name].state for name in ("GPUs", "IOMMU", "vfio-pci")} == {State.OK}


def test_an_iommu_that_is_off_is_told_with_the_kernel_argument(host: Path) -> None:
    machine("desktop-iommu-off").unfold(host)
    found = checks(host)["IOMMU"]
    assert (found.state, found.fix) == (
        State.WARN,
        "add intel_iommu=on iommu=pt to the kernel command line, then reboot",
    )


def test_gpus_are_told_with_the_first_reason_against_each(host: Path) -> None:
    machine("lab-reserved").unfold(host)
    found = checks(host)
    assert (found["IOMMU"].state, found["IOMMU"].found) == (State.OK, "on, 8 groups, interrupts are remapped")
    assert found["vfio-pci"].found == "loaded"
    first, second, third = found["GPUs"].found.split("; ")
    card = "Navi 31 [Radeon RX 7900 XT/7900 XTX], driver vfio-pci"
    assert first == f"0000:03:00.0 {card}, IOMMU group 16: may be passed through"
    assert second.startswith(f"0000:08:00.0 {card}, IOMMU group 19: not to be passed through: a VM has it")
    assert third.startswith("0000:0f:00.0 Raphael, driver amdgpu, IOMMU group 25: not to be passed through: ")
    assert found["GPUs"].fix.startswith("kdmatrix devices")


def test_interrupts_that_are_not_remapped_are_told(host: Path) -> None:
    machine("x58-no-remapping").unfold(host)
    found = checks(host)["IOMMU"]
    assert found.state is State.WARN
    assert "interrupts are not remapped" in found.found
    assert "allow_unsafe_interrupts" not in found.fix


def test_unsafe_interrupts_are_warned_of(host: Path) -> None:
    machine("lab-reserved").unfold(host)
    write(host / "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", "Y\n")
    found = checks(host)["IOMMU"]
    assert found.state is State.WARN
    assert found.fix.startswith("remove allow_unsafe_interrupts")


def test_a_kernel_without_vfio_is_told(host: Path) -> None:
    machine("kernel-without-vfio").unfold(host)
    found = checks(host)["vfio-pci"]
    assert (found.state, found.fix) == (State.WARN, "boot a kernel with CONFIG_VFIO_PCI=m")


def test_a_check_that_breaks_is_told_and_hides_nothing(host: Path) -> None:
    write(host / "proc/meminfo", "nonsense")
    found = checks(host)
    assert found["processors and memory"].state is State.WARN
    assert "could not be looked at" in found["processors and memory"].found
    assert found["GPUs"].state is State.OK


def test_an_empty_host_breaks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("KDMATRIX_DEBIAN_MIRROR", "no url at all")
    monkeypatch.setattr("harness.doctor.host._SBIN", ())
    found = examine(Lab(Home(tmp_path / "a/b/c")), tmp_path / "nothing", refuse)
    assert exit_code(found) == 4
    assert all("\n" not in check.found for check in found)


def test_secure_boot_is_a_warning_with_its_packages_where_the_firmware_is_missing(host: Path) -> None:
    found = checks(host)["Secure Boot firmware"]
    assert found.state is State.WARN
    assert "kernels with secure_boot cannot be tested" in found.found
    assert found.fix.startswith("sudo apt install ovmf shim-signed systemd-boot-efi")


def test_secure_boot_is_fine_where_all_of_it_is_there(host: Path) -> None:
    flash = {"device": "flash"} | {
        part: {"filename": f"/usr/share/fw/{part}.fd", "format": "raw"} for part in ("executable", "nvram-template")
    }
    targets = [{"architecture": "x86_64", "machines": ["pc-q35-*"]}]
    described = {"mapping": flash, "features": ["secure-boot", "requires-smm"], "targets": targets}
    write(host / "usr/share/qemu/firmware/50.json", json.dumps(described))
    for name in ("share/fw/executable.fd", "share/fw/nvram-template.fd", "lib/shim/shimx64.efi.signed"):
        write(host / "usr" / name, "")
    write(host / "usr/lib/systemd/boot/efi/linuxx64.efi.stub", "")
    tools = ("objcopy", "sbsign", "mformat", "mmd", "mcopy", "virt-fw-vars")
    for name in tools:
        write(host.parent / "bin" / name, "#!/bin/sh\n", 0o755)
    assert checks(host)["Secure Boot firmware"].state is State.OK
    without(host, "sbsign")
    found = checks(host)["Secure Boot firmware"]
    assert (found.state, "sbsign is not installed" in found.found) == (State.WARN, True)
