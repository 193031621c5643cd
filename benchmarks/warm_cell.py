"""What orchestration costs: a warm cell of ours against a bare shell script that runs the same commands.

The script is the one that ``kdmatrix repro`` prints, told not to compare checksums. Ours does more: it records the
log, the taint and the packages, judges what it sees, and keeps evidence; the difference is the price of all that.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from sampling import CELL, arguments, interleave, prepared, ratio, report

from harness.lab import Lab
from harness.ladder.cell import execute
from harness.ladder.workshop import Workshop
from harness.machines.domain import Accelerator
from harness.machines.hypervisor import Hypervisor
from harness.model.outcome import Outcome
from harness.repro import boot_of, script


def workshop(
    lab: Lab, hypervisor: Hypervisor, accelerator: Accelerator, evidence: Lab, memory: int = 1 << 30
) -> Workshop:
    """What a run shares between its cells; the evidence goes to a home of its own."""
    return Workshop(
        run_id="benchmark",
        images=lab.images,
        recipes=lab.recipes,
        hypervisor=hypervisor,
        journal=evidence.journal("benchmark"),
        evidence=evidence.evidence,
        tests=lab.tests,
        drivers=lab.drivers,
        accelerator=accelerator,
        work=evidence.home.runs / "benchmark",
        memory=memory,
    )


def ours(shop: Workshop, stages: list[dict[str, float]]) -> float:
    """Execute the cell once, and note the seconds of each rung."""
    started = time.monotonic()
    attempt = execute(CELL, 1, shop)
    seconds = time.monotonic() - started
    if attempt.outcome is not Outcome.PASS:
        raise RuntimeError(f"the cell was {attempt.outcome} on {attempt.rung}: {attempt.reason}")
    stages.append({result.stage.value: round(result.seconds, 3) for result in attempt.stages} | {"all": seconds})
    return seconds


def bare(path: Path) -> float:
    """Run the script once."""
    started = time.monotonic()
    done = subprocess.run(
        ["sh", path, "--unchecked"],
        cwd=path.parent,
        env={**os.environ, "TMPDIR": str(path.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - started
    if done.returncode != 0:
        raise RuntimeError(f"the script ended with {done.returncode}: {(done.stderr or done.stdout)[-300:]}")
    return seconds


def main() -> None:
    """Measure and report."""
    n = arguments(__doc__ or "").n
    lab = Lab.open()
    image, accelerator = prepared(lab)
    with (
        tempfile.TemporaryDirectory(prefix="warm-cell-") as folder,
        Hypervisor.connect(lab.home.root / "libvirt") as host,
    ):
        boot = boot_of(CELL, image, lab.recipes, accelerator=accelerator, memory=1 << 30, vcpus=1)
        path = Path(folder) / "repro.sh"
        path.write_text(script(CELL, boot, lab.recipes, lab.tests))
        path.parent.chmod(0o711)
        shop = workshop(lab, host, accelerator, Lab(type(lab.home)(Path(folder) / "home")))
        stages: list[dict[str, float]] = []
        found = interleave(n, {"kdmatrix cell": lambda: ours(shop, stages), "bare script": lambda: bare(path)})
    del stages[:-n]  # the warm-up
    cell, plain = found["kdmatrix cell"], found["bare script"]
    lines = [ratio(cell, plain)]
    if cell.samples and plain.samples:
        lines.append(f"orchestration overhead: {100 * (cell.median / plain.median - 1):+.1f} %")
    if stages:
        rungs = {name: statistics.median(one[name] for one in stages) for name in stages[0]}
        lines.append("medians by rung: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in rungs.items()))
    more = {"accelerator": accelerator, "kernel": image.kernel.identity.release, "rungs": stages}
    report("warm_cell", list(found.values()), lines, **more)


if __name__ == "__main__":
    main()
