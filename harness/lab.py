"""This host as a lab: its content, caches, store and journal, opened together."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.content import content_dir
from harness.drivers.build import Drivers
from harness.drivers.roots import Roots
from harness.errors import UserError
from harness.home import Home, default_home, own_test_folders
from harness.images.builder import Images
from harness.images.recipe import Recipes
from harness.images.toolchain import KernelToolchain
from harness.journal import Journal
from harness.kernels import KernelSource, Places, open_archive, source_for
from harness.kernels.archive import Archive
from harness.kernels.repositories import known_names
from harness.kernels.sourcebuild import SourceBuild
from harness.keys import SigningKeys
from harness.knowledge.diagnosis import Knowledge
from harness.matrix.references import Known
from harness.model.cell import Cell, InstalledKernel, KernelSpec, SourceKernel
from harness.store.evidence import EvidenceStore
from harness.store.store import Store
from harness.suites.build import build_runner
from harness.suites.manifest import TestSpec, load_own_tests, load_tests
from harness.suites.sycl import build_with_sycl


@dataclass(frozen=True)
class Lab:
    """Everything below one :class:`Home`."""

    home: Home

    @classmethod
    def open(cls, home: Home | None = None) -> Lab:
        """The lab of this user."""
        return cls(home or default_home())

    @cached_property
    def recipes(self) -> Recipes:
        """Guests and stacks."""
        return Recipes(content_dir("guests"))

    @cached_property
    def knowledge(self) -> Knowledge:
        """Known issues, and rules about kernels and stacks."""
        return Knowledge.load(content_dir("guests"))

    @cached_property
    def tests(self) -> Mapping[str, TestSpec]:
        """The compute tests by name, the user's own among them."""
        shipped = load_tests(content_dir("gpu_tests"))
        return {**shipped, **load_own_tests(own_test_folders(self.home), shipped)}

    @cached_property
    def archive(self) -> Archive:
        """Debian's packages, from this host's mirror, signatures checked."""
        return open_archive(self.home.cache)

    @cached_property
    def driver_archive(self) -> Archive:
        """Debian's packages of all components: most drivers' sources are not in main."""
        return open_archive(self.home.cache, components=("main", "contrib", "non-free", "non-free-firmware"))

    @cached_property
    def keys(self) -> SigningKeys:
        """This lab's signing keys, made when first needed."""
        return SigningKeys.open(self.home.root / "keys")

    @cached_property
    def evidence(self) -> EvidenceStore:
        """Evidence files."""
        return EvidenceStore(self.home.evidence)

    def store(self) -> Store:
        """Open the results; the caller closes it."""
        try:
            self.home.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.home.root}: not usable as KDMATRIX_HOME: {error.strerror}") from error
        return Store.open(self.home.database, self.evidence)

    def journal(self, run_id: str = "") -> Journal:
        """The record of what must be undone."""
        return Journal(self.home.journal, run_id)

    @cached_property
    def images(self) -> Images:
        """The image cache."""
        return Images(
            cache=self.home.cache,
            recipes=self.recipes,
            archive=lambda: self.archive,
            kernel_source=self.kernel_source,
            tests=lambda: build_runner(content_dir("gpu_tests"), self.home.cache / "gpu_tests"),
            sycl_tests=lambda: build_with_sycl(
                content_dir("gpu_tests"), self.home.cache / "gpu_tests", self.home.cache / "wheels"
            ),
        )

    @cached_property
    def drivers(self) -> Drivers:
        """The stacks' own modules, built for kernels."""
        return Drivers(
            self.images,
            Roots(self.images, lambda: self.driver_archive),
            lambda: self.keys,
            jobs=compilers_at_a_time(),
            cache=self.home.cache,
        )

    def kernel_source(self, spec: KernelSpec, need_headers: bool) -> KernelSource:
        """Where a kernel comes from; a local tree needs no mirror."""
        places = Places(self.home.cache, content_dir("guests") / "_kernels")
        return source_for(
            spec, lambda: self.archive, need_headers=need_headers, places=places, builder=self._built_from_source
        )

    def _built_from_source(self, spec: SourceKernel) -> KernelSource:
        images = self.images
        jobs = len(os.sched_getaffinity(0))
        content = content_dir("guests") / "_kernels"
        toolchain = KernelToolchain(images)
        return SourceBuild(spec, content, self.home.cache, toolchain, lambda: self.archive, jobs, images.begin)

    def known(self) -> Known:
        """The names that a matrix may use."""
        return Known(
            guests=frozenset(self.recipes.guests()),
            stacks=frozenset(self.recipes.stacks()),
            tests=frozenset(self.tests),
            repositories=frozenset(known_names(content_dir("guests") / "_kernels")),
            tiers={test.name: test.tier for test in self.tests.values()},
        )

    def unfit(self, cell: Cell) -> str | None:
        """Why a combination cannot be a cell, if it cannot."""
        if cell.stack not in self.recipes.stacks(cell.guest):
            return f"guest {cell.guest} has no recipe for {cell.stack}"
        stack = self.recipes.stack(cell.guest, cell.stack)
        if misplaced := _misplaced(cell):
            return misplaced
        if cell.device == "none":
            return f"{cell.stack} needs a device" if stack.device == "required" else None
        if stack.device == "none":
            return f"{cell.stack} computes on the CPU and takes no device"
        return None


def _misplaced(cell: Cell) -> str:
    """Why a kernel or a device cannot be had where the cell is executed; empty when it can."""
    installed = isinstance(cell.kernel.source, InstalledKernel)
    if cell.machine is None:
        return f"{cell.kernel.name} is installed on lab boxes, and {cell.guest} runs in a VM" if installed else ""
    if not installed:
        return f"{cell.machine.name} boots only kernels that are installed on it"
    request = cell.request
    if request is not None and any((request.model, request.architecture, request.memory, request.mdev, request.nvlink)):
        return f"a device of {cell.machine.name} is asked for by address, vendor or id only"
    if request is not None and request.display:
        return f"{cell.machine.name} is no VM that could have an emulated display"
    return "virtual devices are made on this host only" if request is not None and request.virtual else ""


def builds_at_a_time() -> int:
    """How many module builds run at the same time: while one probes the kernel, which is serial, another compiles."""
    return max(2, (len(os.sched_getaffinity(0)) + 3) // 4)


def compilers_at_a_time() -> int:
    """How many compilers each build runs: all builds together fill the processors, and half as much again."""
    return max(1, -(-3 * len(os.sched_getaffinity(0)) // (2 * builds_at_a_time())))


def host_facts() -> dict[str, str]:
    """What is recorded of the host with every result."""
    facts = {
        "host.kernel": platform.release(),
        "host.machine": platform.machine(),
        "host.python": platform.python_version(),
    }
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        facts["host.cpu"] = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
        facts["host.os"] = release.get("PRETTY_NAME", "unknown").strip('"')
    except (OSError, StopIteration):
        pass
    return facts
