"""Every compute test that has a CPU status, in a VM with a stock kernel: OpenCL by PoCL and by Intel, and SYCL.

An emulated processor takes minutes for what a run-time compiler does in a second, so the limits are there to end what
hangs. The cells run one after the other: two at a time would share the host's processors. A result holds only for the
kernel and runtimes of its cell; `-k cpu-opencl` runs one of the two.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from intel_wheels import intel_wheels

from harness.content import content_dir
from harness.images.builder import Images
from harness.model.outcome import Outcome
from harness.model.records import TestResult
from harness.placing import locked
from harness.suites.manifest import load_tests
from harness.suites.sycl import build_with_sycl

from .conftest import KERNEL, make_images
from .installation import Installation, complete, installed

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.xdist_group("e2e"), pytest.mark.timeout(14400)]

NIGHTLY = ("churn", "managed", "memory_walk", "streams")
"""Of tier 2 what needs neither a second device nor minutes of load, and so means something without a GPU."""
SPECS = [spec for spec in load_tests(content_dir("gpu_tests")).values() if spec.tier == 1 or spec.name in NIGHTLY]
RUNTIMES = {"cpu-opencl": ("opencl",), "cpu-intel": ("opencl", "sycl")}
PAIRS = [
    (stack, backend, spec.name)
    for stack, backends in RUNTIMES.items()
    for backend in backends
    for spec in SPECS
    if backend in spec.backends
]


def matrix(stack: str) -> str:
    return f"""
version: 1
kernels: [{{name: lts-6.12, series: longterm, debian: trixie}}]
guests: [debian-13]
stacks: [{stack}]
tests: [{", ".join(spec.name for spec in SPECS)}]
timeouts: {{test: 30m, cell: 3h}}
limits: {{vms: 1, vm_memory: 4GiB}}
"""


@pytest.fixture(scope="module")
def home(images: Images, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The shipped guests, with the wheels of Intel's runtimes beside the recipe that takes them from there."""
    wheels = intel_wheels(shared_cache)
    content = tmp_path_factory.mktemp("runtimes")
    shutil.copytree(content_dir("guests"), content / "guests")
    for wheel in wheels.glob("*.whl"):
        os.link(wheel, content / "guests" / "debian-13" / "stacks" / "cpu-intel" / wheel.name)
    made = replace(
        make_images(shared_cache, content, stacks=()),
        sycl_tests=lambda: build_with_sycl(
            content_dir("gpu_tests"), shared_cache / "gpu_tests", shared_cache / "wheels"
        ),
    )
    if (made.tests_folder(("sycl",)) / "absent").exists():
        pytest.skip((made.tests_folder(("sycl",)) / "absent" / "sycl").read_text().strip())
    with locked(shared_cache / "e2e.lock", timeout=3600):
        for stack in RUNTIMES:
            made.prepare("debian-13", stack, KERNEL, timeout=1800)
    with installed(content, shared_cache) as installation:
        yield installation


@pytest.fixture(scope="module")
def results_of(home: Installation) -> Callable[[str], tuple[TestResult, ...]]:
    """The results of a stack's cell, which is run when they are first asked for."""

    @cache
    def results(stack: str) -> tuple[TestResult, ...]:
        done = home.run("run", home.matrix(matrix(stack)), env={"KDMATRIX_EMULATION_FACTOR": "15"})
        assert complete(home.stored()), done.out + done.err
        (attempt,) = home.stored().attempts
        return attempt.tests

    return results


@pytest.mark.parametrize(("stack", "backend", "name"), PAIRS)
def test_a_compute_test_passes_in_a_vm(
    results_of: Callable[[str], tuple[TestResult, ...]], stack: str, backend: str, name: str
) -> None:
    (result,) = [one for one in results_of(stack) if is_of(one, backend, name)]
    print(f"\n{stack} {backend} {name}: {result.outcome} in {result.seconds:.1f} s {result.reason}")
    assert (result.outcome, result.kind) == (Outcome.PASS, "cpu-runtime"), result.reason


def is_of(result: TestResult, backend: str, name: str) -> bool:
    return result.name == name and result.details.get("backend") == backend
