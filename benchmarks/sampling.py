"""What the benchmarks share: interleaved samples, medians, ratios, and raw results that can be judged later."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import harness
from harness.errors import KdmatrixError
from harness.lab import Lab, host_facts
from harness.machines.acceleration import prove
from harness.machines.domain import Accelerator
from harness.model.cell import Cell, DebianKernel, KernelSpec, Series
from harness.model.image import Image

RESULTS = Path(__file__).resolve().parent / "results"
CELL = Cell("debian-13", KernelSpec("lts-6.12", Series.LONGTERM, DebianKernel("trixie")), "cpu-opencl")
"""What is booted and run: the cell of the preset ``quick``."""


@dataclass(slots=True)
class Samples:
    """Samples of one contender."""

    name: str
    unit: str
    samples: list[float] = field(default_factory=list)
    not_run: str = ""
    """Why there are none."""

    @property
    def median(self) -> float:
        """The middle sample."""
        return statistics.median(self.samples)

    def line(self) -> str:
        """How it is printed."""
        if self.not_run:
            return f"{self.name:<34} not run: {self.not_run}"
        low, high = min(self.samples), max(self.samples)
        return f"{self.name:<34} {self.median:9.2f} {self.unit}  (n={len(self.samples)}, {low:.2f} … {high:.2f})"


def arguments(description: str, n: int = 5) -> argparse.Namespace:
    """Parse the one option that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("-n", type=int, default=n, help=f"samples of each contender (default {n})")
    parsed = parser.parse_args()
    if parsed.n < 1:
        parser.error("-n must be 1 or more")
    return parsed


def interleave(
    n: int, contenders: Mapping[str, Callable[[], float]], unit: str = "s", *, warm_up: bool = True
) -> dict[str, Samples]:
    """Measure every contender ``n`` times, in turns, so that a drift of the host meets all alike.

    Each is first run once for nothing, which fills the page cache. A contender that raises RuntimeError, or one of
    our errors, is left out with the reason.
    """
    found = {name: Samples(name, unit) for name in contenders}
    for turn in range(-1 if warm_up else 0, n):
        order = list(contenders)
        for name in order if turn % 2 == 0 else reversed(order):
            series = found[name]
            if series.not_run:
                continue
            try:
                value = contenders[name]()
            except (RuntimeError, KdmatrixError) as error:
                series.not_run, series.samples = str(error), []
                continue
            if turn >= 0:
                series.samples.append(value)
                print(f"  {turn + 1}/{n} {name}: {value:.2f} {unit}", file=sys.stderr, flush=True)
    return found


def ratio(ours: Samples, theirs: Samples) -> str:
    """Say how ours compares, with the range that the samples leave (paired by turn)."""
    if ours.not_run or theirs.not_run:
        return f"{ours.name} / {theirs.name}: not known"
    paired = sorted(a / b for a, b in zip(ours.samples, theirs.samples, strict=True))
    spread = f"paired {paired[0]:.2f} … {paired[-1]:.2f}"
    return f"{ours.name} / {theirs.name} = {ours.median / theirs.median:.2f}  ({spread})"


def save(name: str, series: Sequence[Samples], **more: object) -> Path:
    """Write the raw samples with what is needed to judge them; no name of the host is in it."""
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    path = RESULTS / f"{name}-{now:%Y%m%dT%H%M%SZ}.json"
    record = {
        "benchmark": name,
        "date": now.isoformat(timespec="seconds"),
        "host": host_facts() | {"processors": str(os.cpu_count()), "load_1min": f"{os.getloadavg()[0]:.2f}"},
        "versions": {
            "kdmatrix": harness.__version__,
            "qemu": _version("qemu-system-x86_64"),
            "python": platform.python_version(),
        },
        "series": [
            {"name": one.name, "unit": one.unit, "samples": one.samples, "not_run": one.not_run} for one in series
        ],
        **more,
    }
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


def report(name: str, series: Sequence[Samples], lines: Sequence[str], **more: object) -> None:
    """Print medians and conclusions, and keep the samples."""
    for one in series:
        print(one.line())
    for line in lines:
        print(line)
    path = save(name, series, conclusions=list(lines), **more)
    print(f"raw samples: {os.path.relpath(path)}")


def prepared(lab: Lab) -> tuple[Image, Accelerator]:
    """The image of the benchmarks' cell, made if it is not cached, and what accelerates it here."""
    image = lab.images.prepare(CELL.guest, CELL.stack, CELL.kernel, timeout=CELL.timeouts.image)
    return image, prove(image.kernel.vmlinuz, image.kernel.initramfs, lab.home.cache).accelerator


def _version(program: str) -> str:
    if shutil.which(program) is None:
        return "not installed"
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).splitlines()[0]


def timed(act: Callable[[], object]) -> float:
    """Seconds that ``act`` takes."""
    started = time.monotonic()
    act()
    return time.monotonic() - started
