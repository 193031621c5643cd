"""One EROFS file per layer, stacked by overlayfs in the guest, against one flattened EROFS file per cell.

For the cells of the default matrix: bytes on disk, and seconds of mkfs.erofs. The container images have to be in the
cache (any run of the default matrix leaves them there). Needs root: it mounts them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from sampling import Samples, arguments, ratio, report, timed

from harness.errors import InfraError, UserError
from harness.images.builder import _MKFS, disk_usage
from harness.lab import Lab
from harness.matrix import load_matrix
from harness.model.expand import expand

_MATRIX = Path(__file__).resolve().parents[1] / "matrix.yaml"


def references(lab: Lab) -> tuple[tuple[str, ...], ...]:
    """The container images of every cell, topmost first."""
    cells = expand(load_matrix(_MATRIX, lab.known()), lab.unfit).cells
    found = []
    for cell in cells:
        image = lab.images.prepare(cell.guest, cell.stack, cell.kernel, timeout=cell.timeouts.image)
        # A layer lies in a directory named after its kind and key, as its container image is.
        names = [layer.path.parent.name.partition("-") for layer in image.layers]
        found.append(tuple(lab.images.buildah.reference(kind, key) for kind, _, key in names))
    return tuple(found)


@contextlib.contextmanager
def merged(trees: Sequence[Path], folder: Path) -> Iterator[Path]:
    """The trees stacked as one, as a guest sees them."""
    target = folder / "merged"
    target.mkdir(exist_ok=True)
    lower = ":".join(str(tree) for tree in trees)
    subprocess.run(["mount", "-t", "overlay", "-o", f"ro,lowerdir={lower}", "overlay", target], check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", target], check=True)


def make(tree: Path, folder: Path) -> tuple[float, float]:
    """Make an EROFS file of a tree; return (seconds, MB on disk)."""
    into = folder / "layer.erofs"
    into.unlink(missing_ok=True)
    seconds = timed(lambda: subprocess.run([*_MKFS, into, tree], check=True, capture_output=True))
    return seconds, disk_usage(into) / 1e6


def main() -> None:
    """Measure and report."""
    n = arguments(__doc__ or "").n
    if os.geteuid() != 0:
        raise SystemExit("layers.py mounts container images and needs root")
    lab = Lab.open()
    cells = references(lab)
    single = sorted({reference for cell in cells for reference in cell})
    size = [Samples("one per layer, disk", "MB"), Samples("one per cell, disk", "MB")]
    time = [Samples("one per layer, mkfs", "s"), Samples("one per cell, mkfs", "s")]
    with contextlib.ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="layers-", dir=lab.home.cache / "scratch"))
        )
        trees = {name: stack.enter_context(lab.images.buildah.mounted(name)) for name in single}
        for turn in range(n):
            layered = [make(trees[name], folder) for name in single]
            flat = []
            for cell in cells:
                with merged([trees[name] for name in cell], folder) as tree:
                    flat.append(make(tree, folder))
            for place, made in enumerate((layered, flat)):
                time[place].samples.append(sum(seconds for seconds, _ in made))
                size[place].samples.append(sum(megabytes for _, megabytes in made))
            print(f"  {turn + 1}/{n}: {[(s.name, round(s.samples[-1], 1)) for s in (*time, *size)]}", flush=True)
    lines = [ratio(size[0], size[1]), ratio(time[0], time[1]), f"{len(cells)} cells, {len(single)} distinct layers"]
    report("layers", [*size, *time], lines)


if __name__ == "__main__":
    try:
        main()
    except (InfraError, UserError) as error:
        raise SystemExit(str(error)) from error
