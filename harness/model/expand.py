"""From the axes and rules of a matrix to its cells, and to what is left out and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from harness.model.cell import Cell, KernelSpec, LeftOut
from harness.model.matrix import Exclude, Include, Matrix, override


@dataclass(frozen=True, slots=True)
class Expansion:
    """The cells of a matrix in the order of execution, and the combinations that are none."""

    cells: tuple[Cell, ...]
    left_out: tuple[LeftOut, ...]


def expand(matrix: Matrix, unfit: Callable[[Cell], str | None] | None = None) -> Expansion:
    """Combine the axes; every combination becomes either a cell or a :class:`LeftOut` with its reason.

    The order is deterministic and kernel by kernel, so that what is built for a kernel is built once and used while
    it is at hand: kernels, then guests, stacks and devices, each in the order of the file; the combinations that
    includes add follow at the end of their kernel's. Excludes win over includes; of several includes that match one
    cell, a later one wins for each value that both name.

    ``unfit``, where given, is asked about every cell that no rule excludes and returns why it cannot exist (a stack
    that needs a device paired with ``none``), or None.
    """
    cells: list[Cell] = []
    left_out: list[LeftOut] = []
    for kernel in matrix.kernels:
        excludes = [rule for rule in matrix.excludes if rule.when.speaks_of_kernel(kernel.name)]
        includes = [rule for rule in matrix.includes if rule.when.speaks_of_kernel(kernel.name)]
        for cell in _combinations(matrix, kernel, includes):
            excluded = _first_exclude(excludes, cell)
            if excluded is not None:
                left_out.append(LeftOut(cell.id, f"{excluded.reason} (exclude rule at line {excluded.line})"))
                continue
            changed = _apply(includes, cell)
            reason = unfit(changed) if unfit is not None else None
            if reason is not None:
                left_out.append(LeftOut(cell.id, reason))
            else:
                cells.append(changed)
    return Expansion(tuple(cells), tuple(left_out))


def _combinations(matrix: Matrix, kernel: KernelSpec, includes: Sequence[Include]) -> Iterator[Cell]:
    names = dict.fromkeys(product(matrix.guests, matrix.stacks, matrix.devices))
    for include in includes:
        names.update(dict.fromkeys(_added(matrix, include, kernel)))
    for guest, stack, device in names:
        request, machine = matrix.request(device), matrix.machine(guest)
        family = machine.guest if machine is not None else guest
        yield Cell(family, kernel, stack, device, matrix.tests, matrix.boots, matrix.timeouts, request, machine)


def _added(matrix: Matrix, include: Include, kernel: KernelSpec) -> Iterator[tuple[str, str, str]]:
    """Combinations with at least one entry that the axes lack."""
    if not include.adds:
        return
    candidates = product(
        matrix.guests + include.adds_guests,
        matrix.stacks + include.adds_stacks,
        matrix.devices + include.adds_devices,
    )
    for guest, stack, device in candidates:
        if include.when.matches(guest, kernel.name, stack, device):
            yield guest, stack, device


def _first_exclude(excludes: Sequence[Exclude], cell: Cell) -> Exclude | None:
    names = (cell.place, cell.kernel.name, cell.stack, cell.device)
    return next((rule for rule in excludes if rule.when.matches(*names)), None)


def _apply(includes: Sequence[Include], cell: Cell) -> Cell:
    for include in includes:
        if include.when.matches(cell.place, cell.kernel.name, cell.stack, cell.device):
            cell = replace(
                cell,
                tests=cell.tests if include.tests is None else include.tests,
                boots=cell.boots if include.boots is None else include.boots,
                timeouts=override(cell.timeouts, include.timeouts),
            )
    return cell
