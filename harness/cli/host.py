"""Commands about this host: doctor, clean, schema."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.clean import clean as clean_up
from harness.cli.output import GAPS, OK, reported, say, show_json
from harness.lab import Lab
from harness.matrix import json_schema


@reported
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")] = False) -> None:
    """Say what this host can do, and how to mend what it cannot."""
    from harness.doctor import examine

    checks = examine(Lab.open())
    if as_json:
        show_json([{"name": c.name, "state": c.state, "found": c.found, "fix": c.fix} for c in checks])
    else:
        styles = {"ok": ("✓ ok  ", "green"), "warn": ("! warn", "yellow"), "fail": ("✗ fail", "bold red")}
        for check in checks:
            mark, style = styles[check.state]
            say(f"{mark} {check.name}: {check.found}", style if check.state != "ok" else "")
            if check.fix:
                say(f"         fix: {check.fix}")
    raise typer.Exit(GAPS if any(check.state == "fail" for check in checks) else OK)


@reported
def clean(
    images: Annotated[bool, typer.Option("--images", help="Also free the cache of kernels and images.")] = False,
) -> None:
    """Remove whatever a killed run left: VMs, files, build containers, the private libvirt daemon."""
    lab = Lab.open()
    done = clean_up(lab, images=images)
    for one in done:
        say(f"{one.what}: {one.state}")
    if not done:
        say("nothing to clean")
    if not images:
        total = sum(size for _, _, size in lab.images.cached())
        if total:
            say(f"image cache: {total / 1e9:.1f} GB in {lab.home.cache} (kdmatrix clean --images frees it)")
    raise typer.Exit(GAPS if any("refuses" in one.state or "does not answer" in one.state for one in done) else OK)


@reported
def schema() -> None:
    """Print the JSON Schema of the matrix file, for editors."""
    show_json(json_schema())
