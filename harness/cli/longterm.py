"""Warns of kernels that stand for a longterm series which has ended, or which never was one."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from harness.content import content_dir
from harness.kernels.longterm import LongtermList, read_longterm
from harness.lab import Lab
from harness.model.cell import KernelSpec, Series


def longterm_warnings(lab: Lab, planned: Iterable[tuple[KernelSpec, str]]) -> list[str]:
    """One line for each kernel (given with the release that it was resolved to) for which something is wrong."""
    today = datetime.datetime.now(datetime.UTC).date()
    known = read_longterm(content_dir("guests") / "_kernels", lab.home.root)
    seen = {kernel.name: (kernel, release) for kernel, release in planned}
    found = ((kernel.name, longterm_warning(kernel, release, known, today)) for kernel, release in seen.values())
    return [f"{name}: {text}" for name, text in found if text]


def longterm_warning(kernel: KernelSpec, release: str, known: LongtermList, today: datetime.date) -> str:
    """What is wrong with one kernel as a longterm one; empty when nothing is, or when it does not stand for one."""
    return known.warning(release, today) if kernel.series is Series.LONGTERM and release else ""
