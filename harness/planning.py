"""What a run would do, without doing it: cells with exact releases, parts that are missing, and what is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.content import content_dir
from harness.errors import KdmatrixError, UserError
from harness.foresight import subject_of
from harness.lab import Lab
from harness.matrix import load_matrix
from harness.model.cell import Cell, InstalledKernel, LeftOut
from harness.model.expand import expand
from harness.model.matrix import Matrix
from harness.model.prediction import Prediction
from harness.model.select import select


@dataclass(frozen=True, slots=True)
class Selection:
    """A matrix narrowed to what is asked for."""

    matrix: Matrix
    cells: tuple[Cell, ...]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """One cell as ``kdmatrix plan`` shows it."""

    cell: Cell
    release: str
    """Empty when the kernel cannot be resolved."""
    to_make: tuple[str, ...]
    problem: str
    predictions: tuple[Prediction, ...] = ()
    configured: bool = False
    """Whether the kernel's configuration is at hand, on which most predictions rest."""


def default_matrix() -> Path:
    """``matrix.yaml`` of the current directory, else the one that ships with the installation."""
    here = Path("matrix.yaml")
    if here.is_file():
        return here
    beside = content_dir("guests").parent / "matrix.yaml"
    if beside.is_file():
        return beside
    raise UserError("matrix.yaml: no such file here; name a matrix file")


def choose(lab: Lab, path: Path | None, *, preset: str | None, expression: str | None) -> Selection:
    """Read a matrix, expand it and narrow it by ``-k``.

    Raises:
        UserError: the file, the preset or the expression is wrong, or nothing is left.
    """
    matrix = load_matrix(path or default_matrix(), lab.known(), preset=preset)
    expansion = expand(matrix, lab.unfit)
    cells, left_out = expansion.cells, expansion.left_out
    if expression:
        cells, dropped = select(cells, expression)
        left_out = (*left_out, *dropped)
    return Selection(matrix, cells, left_out)


def look_ahead(lab: Lab, cells: Sequence[Cell], *, fetch: bool = False) -> list[PlannedCell]:
    """Resolve every cell's kernel, see what is missing in the cache, and predict what its rungs will come to.

    With ``fetch``, kernels are fetched first: without them their configurations are not known.
    """
    rows = []
    for cell in cells:
        try:
            if isinstance(cell.kernel.source, InstalledKernel):
                predictions = lab.knowledge.predict(subject_of(cell, lab.images, lab.drivers))
                rows.append(PlannedCell(cell, cell.kernel.source.pattern, (), "", predictions))
                continue
            release = lab.images.identity(cell.kernel).release
            if fetch:
                _fetch(lab, cell)
            parts = (cell.guest, cell.stack, cell.kernel)
            to_make = (*lab.images.missing(*parts), *lab.drivers.missing(*parts))
            subject = subject_of(cell, lab.images, lab.drivers)
            predictions = lab.knowledge.predict(subject)
            rows.append(PlannedCell(cell, release, to_make, "", predictions, subject.config is not None))
        except KdmatrixError as error:
            rows.append(PlannedCell(cell, "", (), str(error)))
    return rows


def _fetch(lab: Lab, cell: Cell) -> None:
    """Bring what holds the kernel's configuration into the cache: its headers where a stack builds, else the kernel."""
    if lab.recipes.stack(cell.guest, cell.stack).build is not None:
        lab.drivers.headers(cell.kernel)
    else:
        lab.images.kernel_source(cell.kernel, False).fetch(lab.images.cache / "kernels")
