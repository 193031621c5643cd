"""This very machine as cells: the kernel that it runs, and each device that a driver of it offers to compute on."""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterable, Sequence
from ctypes.util import find_library
from dataclasses import dataclass
from datetime import UTC, datetime

from harness.content import content_dir
from harness.devices.pci import read_functions
from harness.errors import UserError
from harness.kernels.longterm import read_longterm
from harness.kernels.version import candidate
from harness.lab import Lab
from harness.machines.here import LocalShell
from harness.model.cell import Cell, KernelSpec, LeftOut, RunningKernel, Series, Timeouts
from harness.model.device import PciFunction
from harness.model.machine import HERE, ThisMachine
from harness.suites.manifest import TestSpec, pick_tests
from harness.suites.offers import Offer, Offered, ask, backends_of
from harness.suites.run import RUNNERS

_GPU_VENDORS = frozenset({0x10DE, 0x1002, 0x8086})
_SPARE = 600.0
"""Seconds that a cell may take beside its tests."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be tested here."""

    cells: tuple[Cell, ...]
    left_out: tuple[LeftOut, ...]
    tests: tuple[TestSpec, ...]
    text: str
    """In place of a matrix file: what was asked for and what was found."""


def plan_here(lab: Lab, backends: Sequence[str], tier: int, names: Collection[str]) -> Plan:
    """Ask the drivers of this machine what they offer; ``backends`` are asked for outright, all of them when none is.

    A backend that was not asked for by name is left out where its library is not there, and where it offers nothing on
    a machine that has no GPU. ``names`` are tests of any tier; without one, those up to ``tier`` are taken.

    Raises:
        UserError: there is no such backend or test.
        InfraError: the compute tests' runner cannot be built, or does not start.
    """
    tests = pick_tests(lab.tests, names or [test.name for test in lab.tests.values() if test.tier <= tier])
    # Building a backend's own runner fetches a library: not where nothing here could use it.
    absent = {} if backends else {one: why for one in RUNNERS if (why := _not_installed(one))}
    runner = str(lab.images.tests_folder(backends or [one for one in RUNNERS if one not in absent]).resolve())
    shell = LocalShell()
    known = (*backends_of(shell, runner), *RUNNERS)
    for backend in backends:
        if backend not in known:
            raise UserError(f"--backend {backend}: there is no such backend; known: {', '.join(known)}")
    functions = read_functions()
    cells: list[Cell] = []
    left_out: list[LeftOut] = []
    for backend in dict.fromkeys(backends or known):
        offer = Offer(backend, absent=absent[backend]) if backend in absent else ask(shell, backend, runner)
        why = "" if backends else _left_out(offer, functions)
        if why:
            left_out.append(LeftOut(f"{HERE}/{platform.release()}/{backend}/none", why))
        else:
            cells += _cells(lab, offer, functions, tests)
    text = "".join(
        [
            "# kdmatrix run --here: this machine, as it was found\n",
            f"# {datetime.now(UTC).isoformat(timespec='seconds')}, {platform.node()}, Linux {platform.release()}\n",
            *(f"# {cell.id}\n" for cell in cells),
            *(f"# left out: {one.cell_id}: {one.reason}\n" for one in left_out),
        ]
    )
    return Plan(tuple(cells), tuple(left_out), tuple(tests), text)


def _not_installed(backend: str) -> str:
    """Why nobody can run the backend's own runner, which is linked with a library of the backend's name."""
    return "" if find_library(backend) else f"no lib{backend}.so among this machine's libraries"


def _left_out(offer: Offer, functions: Iterable[PciFunction]) -> str:
    """Why nothing of a backend is tested; empty when something is."""
    if offer.absent:
        return offer.absent
    if offer.devices or any(one.is_gpu and one.vendor in _GPU_VENDORS for one in functions):
        return ""
    return f"{offer.trouble or 'the driver offers no device'}, and this machine has no GPU"


def _cells(lab: Lab, offer: Offer, functions: Sequence[PciFunction], tests: Sequence[TestSpec]) -> list[Cell]:
    """A cell for each device of a backend; one without a device where it offers none, or computes on the CPU alone."""
    release = platform.release()
    kernel = KernelSpec(release, series_here(lab, release), RunningKernel(release))
    longest = max((test.timeout for test in tests), default=0.0)
    timeouts = Timeouts(test=max(Timeouts().test, longest), cell=_SPARE + sum(test.timeout for test in tests))
    computing: list[Offered | None] = [one for one in offer.devices if one.kind in ("gpu", "fake")]
    names = tuple(test.name for test in tests)
    cells = []
    for device in computing or [None]:
        chosen = (device.bdf or str(device.index)) if device is not None else ""
        machine = ThisMachine(platform.node(), chosen, _around(device, functions))
        called = "none" if device is None else device.bdf or f"{device.kind}{device.index}"
        cells.append(Cell(HERE, kernel, offer.backend, called, tests=names, timeouts=timeouts, machine=machine))
    return cells


def _around(device: Offered | None, functions: Sequence[PciFunction]) -> tuple[str, ...]:
    """The functions of a device's slot and the bridges above it; of all GPUs, where the driver does not say which."""
    if device is None:
        return ()
    slot = device.bdf.rpartition(".")[0]
    own = [one for one in functions if (one.address.rpartition(".")[0] == slot if slot else one.is_gpu)]
    found = [*(one.address for one in own), *(bridge for one in own for bridge in one.bridges)]
    return tuple(dict.fromkeys(found or ([device.bdf] if device.bdf else [])))


def series_here(lab: Lab, release: str) -> Series:
    """The series that a running kernel stands for, by its release; what is of no other is of the stable one."""
    if "-next-" in release:
        return Series.NEXT
    if candidate(release) is not None:
        return Series.MAINLINE
    known = read_longterm(content_dir("guests") / "_kernels", lab.home.root)
    return Series.LONGTERM if known.of(release) is not None else Series.STABLE
