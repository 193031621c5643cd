"""Guests that misbehave on request, and installations to test them in; the image cache is made once and shared."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from drivers.conftest import drivers as drivers

from harness.content import content_dir
from harness.errors import InfraError, UserError
from harness.images.builder import Images
from harness.images.recipe import Recipes
from harness.kernels import source_for
from harness.kernels.archive import Archive
from harness.kernels.mirror import checked_keyring, find_mirror
from harness.model.cell import DebianKernel, KernelSpec, Series
from harness.placing import locked
from harness.suites.build import build_runner

from .installation import Installation, installed

MISBEHAVE = r"""#!/bin/sh
# Called with the rung that begins; the kernel's command line says what goes wrong in this guest.
case "$1 $(sed -n 's/.*kdmatrix\.test=\([a-z-]*\).*/\1/p' /proc/cmdline)" in
"boot panics-booting" | "load panics-loading") echo c >/proc/sysrq-trigger; sleep 600 ;;
"boot hangs") # in the kernel, which without a limit waits for firmware that nobody brings
    modprobe test_firmware && echo 0 >/sys/class/firmware/timeout
    echo -n nowhere >/sys/devices/virtual/misc/test_firmware/trigger_custom_fallback ;;
"boot waits") sleep infinity ;;
"boot slow") while :; do :; done ;;
"boot late") end=$(($(date +%s) + 25)); while [ "$(date +%s)" -lt $end ]; do :; done ;;
"boot absent")
    # The text index alone is read where the binary ones are missing.
    cd "/lib/modules/$(uname -r)" && rm -f kernel/drivers/net/dummy.ko* modules.*.bin
    grep -v '^kernel/drivers/net/dummy\.ko' modules.dep >/run/dep && cp /run/dep modules.dep ;;
"load full") dd if=/dev/zero of=/fill bs=1M 2>/dev/null ;;
"load deaf")
    setsid sh -c 'until pgrep -f "[g]trun run vecadd"; do sleep 0.2; done; sleep 1; pkill -KILL sshd' \
        >/dev/null 2>&1 </dev/null & ;;
"compute pause") sleep 3 ;;
esac
exit 0
"""

STACK = """
description: computes on the CPU, loads one small module, and misbehaves on request
apis: [opencl]
backends: [opencl]
kind: cpu-runtime
device: none
modules:
  - {name: dummy}
activate:
  - {run: [/usr/local/bin/misbehave, load]}
verify:
  - {run: [/usr/local/bin/misbehave, compute], stage: compute}
"""


@pytest.fixture(scope="session")
def content(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped guests with a stack more, whose guests do what the kernel's command line asks for."""
    root = tmp_path_factory.mktemp("content")
    guests = root / "guests"
    shutil.copytree(content_dir("guests"), guests)
    init = guests / "_boot" / "guest-init"
    shipped = init.read_text()
    begin, end = "mount -t tmpfs -o mode=755", 'echo "kdmatrix-guest: starting sshd"'
    assert shipped.count(begin) == shipped.count(end) == 1
    # The personality UNAME26 makes the kernel itself give another release; see uname26 in setarch(8).
    again = 'grep -q kdmatrix.test=renamed /proc/cmdline && [ -z "$AGAIN" ] && AGAIN=1 exec setarch --uname-2.6 "$0"\n'
    here = f"cat >/usr/local/bin/misbehave <<'END'\n{MISBEHAVE}END\nchmod 755 /usr/local/bin/misbehave\n"
    shipped = shipped.replace(begin, again + begin).replace(end, here + "/usr/local/bin/misbehave boot\n" + end)
    init.write_text(shipped)
    stack = guests / "debian-13" / "stacks" / "probe"
    stack.mkdir()
    shutil.copy(guests / "debian-13" / "stacks" / "cpu-opencl" / "Containerfile", stack)
    (stack / "stack.yaml").write_text(STACK)
    return root


KERNEL = KernelSpec("lts-6.12", Series.LONGTERM, DebianKernel("trixie"))


STACKS = ("probe", "cpu-opencl", "intree")


def make_images(shared: Path, content: Path, kernel: KernelSpec = KERNEL, stacks: Sequence[str] = STACKS) -> Images:
    """The shared image cache with every part that the tests boot from; made under a lock, once for all workers."""
    archive = Archive(shared / "apt", find_mirror(), checked_keyring())
    images = Images(
        cache=shared,
        recipes=Recipes(content / "guests"),
        archive=lambda: archive,
        kernel_source=lambda spec, headers: source_for(spec, lambda: archive, need_headers=headers),
        tests=lambda: build_runner(content_dir("gpu_tests"), shared / "gpu_tests"),
    )
    with locked(shared / "e2e.lock", timeout=3600):
        for stack in stacks:
            images.prepare("debian-13", stack, kernel, timeout=1800)
    return images


@pytest.fixture(scope="session")
def images(shared_cache: Path, content: Path) -> Images:
    """What all tests here boot from; skips where this host has no way to it."""
    for program in ("qemu-system-x86_64", "buildah", "mkfs.erofs", "busybox"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    pytest.importorskip("libvirt", reason="libvirt-python is not installed")
    try:
        return make_images(shared_cache, content)
    except (InfraError, UserError) as error:
        pytest.skip(f"no images to boot: {error}")


@pytest.fixture
def installation(images: Images, content: Path, shared_cache: Path) -> Iterator[Installation]:
    """An installation of the test's own."""
    with installed(content, shared_cache) as made:
        yield made


@pytest.fixture(scope="module")
def module_installation(images: Images, content: Path, shared_cache: Path) -> Iterator[Installation]:
    """An installation whose one run many tests look at."""
    with installed(content, shared_cache) as made:
        yield made
