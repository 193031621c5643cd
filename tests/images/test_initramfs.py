"""The initramfs holds what a kernel needs to find its root, and a boot's own keys arrive as they are."""

from __future__ import annotations

import gzip
import lzma
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import zstandard

from harness.content import content_dir
from harness.errors import InfraError
from harness.images.initramfs import Seed, build_initramfs, write_seed
from harness.model.image import BootKernel
from images.test_cpio import read_newc

needs_busybox = pytest.mark.skipif(shutil.which("busybox") is None, reason="busybox is not installed")


def kernel(folder: Path, **modules: bytes) -> Path:
    """A module directory with independent modules."""
    folder.mkdir()
    for name, content in modules.items():
        (folder / name.replace("__", ".")).write_bytes(content)
    (folder / "modules.dep").write_text("".join(f"{name.replace('__', '.')}:\n" for name in modules))
    return folder


@needs_busybox
def test_modules_are_unpacked_and_listed_in_load_order(tmp_path: Path) -> None:
    modules = kernel(
        tmp_path / "modules",
        erofs__ko=b"plain",
        overlay__ko__xz=lzma.compress(b"from xz"),
        virtio_blk__ko__zst=zstandard.compress(b"from zst"),
        virtio_net__ko__gz=gzip.compress(b"from gz"),
        unrelated__ko=b"not wanted",
    )
    order = build_initramfs(modules, tmp_init(tmp_path), tmp_path / "out")
    found = read_newc((tmp_path / "out").read_bytes())
    assert order == ("virtio_blk.ko", "virtio_net.ko", "erofs.ko", "overlay.ko")
    assert found["modules/order"].content.decode().split() == list(order)
    contents = {name.removeprefix("modules/"): entry.content for name, entry in found.items() if name.endswith(".ko")}
    assert contents == {
        "virtio_blk.ko": b"from zst",
        "virtio_net.ko": b"from gz",
        "erofs.ko": b"plain",
        "overlay.ko": b"from xz",
    }


@needs_busybox
def test_it_holds_an_init_a_console_and_every_applet_that_the_init_calls(tmp_path: Path) -> None:
    init = content_dir("guests") / "_boot" / "init"
    build_initramfs(kernel(tmp_path / "modules"), init, tmp_path / "out")
    found = read_newc((tmp_path / "out").read_bytes())
    assert found["init"].content == init.read_bytes()
    assert stat.S_IMODE(found["init"].mode) == 0o755
    assert found["dev/console"].rdev == (5, 1)
    assert found["bin/busybox"].content[:4] == b"\x7fELF"
    listed = subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
    applets = {name.removeprefix("bin/") for name, entry in found.items() if stat.S_ISLNK(entry.mode)}
    assert applets <= set(listed)
    commands = set(re.findall(r"(?:exec |then |do |^|[;&|(]) *([a-z_]+) ", init.read_text(), re.MULTILINE))
    assert commands & set(listed) - SHELL_WORDS <= applets
    assert {"mount", "insmod", "switch_root"} <= commands


SHELL_WORDS = {"top", "set", "read", "test", "time", "true", "false", "link"}
"""Words of the shell, or variables, that are also names of applets."""


def test_a_host_without_busybox_is_told_which_package_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InfraError, match="busybox-static"):
        build_initramfs(tmp_path, tmp_path / "init", tmp_path / "out")


@needs_busybox
def test_a_real_kernel_gets_its_root_modules_with_what_they_need(real_boot_kernel: BootKernel) -> None:
    found = read_newc(real_boot_kernel.initramfs.read_bytes())
    order = found["modules/order"].content.decode().split()
    builtin = (real_boot_kernel.modules / "modules.builtin").read_text()
    for wanted in ("virtio_blk", "erofs", "overlay"):
        assert f"{wanted}.ko" in order or f"/{wanted}.ko" in builtin
    assert len(order) == len(set(order))
    assert {f"modules/{name}" for name in order} <= set(found)
    if "net_failover.ko" in order:
        assert order.index("failover.ko") < order.index("net_failover.ko") < order.index("virtio_net.ko")
    assert all(found[f"modules/{name}"].content[:4] == b"\x7fELF" for name in order)


HOSTILE = "a b'c\"d$(touch /tmp/kdmatrix-was-here)`id`\\e"


@needs_busybox
def test_the_seed_carries_keys_as_files_and_settings_that_no_shell_interprets(tmp_path: Path) -> None:
    boot = content_dir("guests") / "_boot"
    seed = Seed(b"HOST\n", b"ssh-ed25519 AAAA me\n", ("tests", "root"), HOSTILE, "/sbin/init")
    write_seed(seed, boot, tmp_path / "seed.cpio")
    found = read_newc((tmp_path / "seed.cpio").read_bytes())
    assert found["seed/ssh_host_ed25519_key"].content == b"HOST\n"
    assert stat.S_IMODE(found["seed/ssh_host_ed25519_key"].mode) == 0o600
    assert found["seed/authorized_keys"].content == b"ssh-ed25519 AAAA me\n"
    assert found["seed/guest-init"].content == (boot / "guest-init").read_bytes()
    assert stat.S_IMODE(found["seed/guest-init"].mode) == 0o755
    (tmp_path / "boot.conf").write_bytes(found["seed/boot.conf"].content)
    script = '. ./boot.conf; printf "%s|" "$LAYERS" "$ADDRESS" "$PREFIX" "$OVERLAY_SIZE" "$NEXT_INIT" "$HOSTNAME"'
    said = subprocess.run(["busybox", "sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert said.stdout.split("|")[:-1] == ["tests root", "10.0.2.15", "24", "50%", "/sbin/init", HOSTILE]


def tmp_init(folder: Path) -> Path:
    init = folder / "init"
    init.write_bytes(b"#!/bin/sh\n")
    return init
