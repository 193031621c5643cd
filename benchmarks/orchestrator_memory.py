"""What the orchestrator itself needs: memory and processor time with 1, 4 and 8 cells in flight in real VMs.

Every level is a process of its own, which executes so many cells at once through the engine that a run uses, in VMs
of 512 MiB. Its resident memory is sampled while they run; the VMs are children of libvirtd, so they are not in it.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path

from sampling import CELL, Samples, arguments, prepared, report
from warm_cell import workshop

from harness.engine.seam import local_engine
from harness.lab import Lab
from harness.ladder.cell import execute
from harness.machines.hypervisor import Hypervisor
from harness.model.cell import Timeouts

LEVELS = (1, 4, 8)
TARGET = 150.0
"""MB that the orchestrator may occupy with 8 cells in flight."""


def resident() -> float:
    """MB of this process that are in memory; proc_pid_status(5)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("/proc/self/status tells no VmRSS")


def measure(level: int) -> dict[str, float]:
    """Execute ``level`` cells at once in this process."""
    lab = Lab.open()
    _, accelerator = prepared(lab)
    # Eight emulated VMs on few processors are slow; how slow is not what is measured.
    cell = replace(CELL, timeouts=Timeouts(boot=1200, test=1200, cell=7200))
    peaks = [resident()]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            peaks.append(resident())

    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="memory-") as folder, Hypervisor.connect(lab.home.root / "libvirt") as host:
        Path(folder).chmod(0o711)
        shop = workshop(lab, host, accelerator, Lab(type(lab.home)(Path(folder) / "home")), memory=512 << 20)
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        with local_engine("benchmark", lambda cell, number: execute(cell, number, shop), level) as engine:
            futures = [engine.submit(cell, number) for number in range(1, level + 1)]
            wait(futures)
        over.set()
        watcher.join()
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "idle": peaks[0],
        "peak": max(peaks),
        "cpu": used.ru_utime + used.ru_stime,
        "wall": time.monotonic() - started,
        "passed": float(sum(future.result().outcome.value == "PASS" for future in futures)),
    }


def main() -> None:
    """Measure every level in a process of its own and report."""
    if len(sys.argv) == 3 and sys.argv[1] == "--level":
        print(json.dumps(measure(int(sys.argv[2]))))
        return
    n = arguments(__doc__ or "", n=1).n
    memory = [Samples(f"RSS, {level} cells in flight", "MB") for level in LEVELS]
    processor = [Samples(f"CPU, {level} cells in flight", "s") for level in LEVELS]
    for _ in range(n):
        for place, level in enumerate(LEVELS):
            argv = [sys.executable, __file__, "--level", str(level)]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise SystemExit(done.stderr[-2000:])
            found = json.loads(done.stdout.splitlines()[-1])
            if found["passed"] != level:
                print(f"only {found['passed']:.0f} of {level} cells passed", file=sys.stderr)
            memory[place].samples.append(found["peak"])
            processor[place].samples.append(found["cpu"])
            print(f"  {level} cells: {found}", file=sys.stderr, flush=True)
    peak = max(memory[-1].samples)
    verdict = "within" if peak <= TARGET else "above"
    growth = (memory[-1].median - memory[0].median) / (LEVELS[-1] - LEVELS[0])
    lines = [
        f"{peak:.0f} MB with {LEVELS[-1]} cells in flight, {verdict} the target of {TARGET:.0f} MB",
        f"{growth:.1f} MB and {processor[-1].median / LEVELS[-1]:.2f} s of processor time for each cell",
    ]
    report("orchestrator_memory", [*memory, *processor], lines)


if __name__ == "__main__":
    main()
