"""One outer machine for all scenes; each leaves its devices with their drivers, and says so if it does not."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from harness.errors import InfraError, UserError
from harness.images.builder import Images
from harness.placing import locked

from .outer import DRIVERS, Outer, make_parts, switch_on

PROGRAMS = ("qemu-system-x86_64", "buildah", "mkfs.erofs", "busybox", "dpkg-deb", "setpriv")


@pytest.fixture(scope="session")
def clock(pytestconfig: pytest.Config) -> Iterator[Callable[[str, float], None]]:
    """Notes how long a step took; all steps are printed at the end."""
    noted: list[str] = []
    yield lambda step, seconds: noted.append(f"{seconds:7.1f} s  {step}")
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else nullcontext():
        print("\nnested passthrough:", *noted, sep="\n")


@pytest.fixture(scope="session")
def outer(
    real_images: Images,
    shared_cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
    clock: Callable[[str, float], None],
) -> Iterator[Outer]:
    """The outer machine, up, with the devices bound to their own drivers."""
    for program in PROGRAMS:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    started = time.monotonic()
    try:
        with locked(shared_cache / "nested.lock", timeout=3600):
            parts = make_parts(real_images, shared_cache)
    except (InfraError, UserError) as error:
        pytest.skip(f"no outer machine: {error}")
    clock("parts of the outer machine", time.monotonic() - started)
    started = time.monotonic()
    machine = switch_on(parts, tmp_path_factory.mktemp("outer"))
    try:
        machine.connect(600)
        machine.must("modprobe", "--all", "bochs", "virtio_gpu", "snd_hda_intel")
        assert machine.drivers() == DRIVERS
        clock("outer machine up", time.monotonic() - started)
        yield machine
    finally:
        clock("processor time of the outer machine in all", machine.cpu_seconds)
        machine.close()
