"""One GPU, one call: our compute tests and a peer (PyTorch with its vendor BLAS) on the same device in the same run.

Runs tier 1 and what of tier 2 stays within the process, then the peer, and prints a short table last: each number
against its roof or the peer's, and the target it is held to. Everything is written to ``benchmarks/results/``. Clocks,
power limits, partitions and persistence are read at most, never set. ``--dry-run`` goes the same way without a GPU:
over the fake driver of the backend, and with PyTorch, if there is one, on the CPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.content import content_dir
from harness.machines.here import LocalShell
from harness.suites.build import build_runner
from harness.suites.fakes import build_fake
from harness.suites.manifest import TestSpec, load_tests
from harness.suites.run import run_test
from harness.suites.wire import parse

RESULTS = Path(__file__).resolve().parent / "results"
SAFE_TIER_2 = ("streams", "memory_walk")
"""Tests of the nightly tier that neither kill processes nor ask for more memory than there is."""

PEER = Path(__file__).resolve().parent / "gpu_peer_torch.py"
PEER_DEVICES = {"cuda": "cuda", "hip": "cuda", "level-zero": "xpu", "sycl": "xpu"}
"""What PyTorch calls the devices behind a backend; it has none for OpenCL's."""
DRY_PEER = ("cpu", "--side", "256", "--words", "65536")


@dataclass(frozen=True, slots=True)
class Target:
    """What one of our numbers is held to: at least ``least`` of its roof, or of the peer's number."""

    metric: str
    against: str
    """``roof``, or the peer's metric."""
    least: float


TARGETS = (
    Target("copy_bw", "roof", 0.90),
    Target("triad_bw", "roof", 0.90),
    Target("copy_bw", "copy_bw", 1.0),
    Target("triad_bw", "copy_bw", 1.0),
    Target("h2d_bw", "roof", 0.85),
    Target("d2h_bw", "roof", 0.85),
    Target("gemm_bf16_blas", "gemm_bf16", 0.98),
    Target("gemm_bf16_wgmma", "roof", 0.55),
    Target("fp32_peak", "roof", 0.93),
)


def judge(metrics: Mapping[str, Mapping[str, Any]], peer: Mapping[str, float]) -> list[dict[str, Any]]:
    """Hold each number to its target; what has no number or nothing to be held against is not judged, and says why."""
    rows = []
    for target in TARGETS:
        ours = metrics.get(target.metric)
        value = None if ours is None else float(ours["value"])
        against = (ours or {}).get("roof") if target.against == "roof" else peer.get(target.against)
        row: dict[str, Any] = {"metric": target.metric, "against": target.against, "target": target.least}
        if value is None:
            row |= {"verdict": "not measured"}
        elif not against:
            row |= {"value": value, "verdict": "no roof known" if target.against == "roof" else "no peer"}
        else:
            ratio = value / float(against)
            row |= {"value": value, "of": float(against), "ratio": ratio}
            row |= {"verdict": "met" if ratio >= target.least else "MISSED"}
        rows.append(row)
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as lines of text."""
    lines = [f"{'metric':16} {'value':>10} {'against':>10} {'ratio':>6} {'target':>6}  verdict"]
    for row in rows:
        value = f"{row['value']:.3g}" if "value" in row else "-"
        ratio = f"{row['ratio']:.3f}" if "ratio" in row else "-"
        against = "roof" if row["against"] == "roof" else "peer"
        lines.append(f"{row['metric']:16} {value:>10} {against:>10} {ratio:>6} {row['target']:>6.2f}  {row['verdict']}")
    return "\n".join(lines)


def chosen(tests: Mapping[str, TestSpec], backend: str) -> list[TestSpec]:
    """Return the tests of tier 1 and the harmless ones of tier 2 that are written for the backend."""
    return [
        test for test in tests.values() if backend in test.backends and (test.tier == 1 or test.name in SAFE_TIER_2)
    ]


def peer_numbers(python: str, arguments: Sequence[str], seconds: float) -> dict[str, Any]:
    """Run PyTorch in an interpreter that has it; without PyTorch or a device, return the reason instead of samples."""
    try:
        done = subprocess.run(
            [python, str(PEER), *arguments], capture_output=True, text=True, timeout=seconds, check=False
        )
    except OSError as error:
        return {"absent": f"{python}: {error.strerror}"}
    except subprocess.TimeoutExpired:
        return {"absent": f"the peer did not end within {seconds:.0f} s"}
    if done.returncode != 0:
        return {"absent": (done.stderr.strip().splitlines() or ["no message"])[-1][:300]}
    try:
        return dict(json.loads(done.stdout.splitlines()[-1]))
    except (ValueError, IndexError):
        return {"absent": "the peer's output is no JSON"}


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 when every test passed, whatever the ratios; 1 when one did not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--budget", type=float, default=3.0, help="seconds a test may measure (default: 3)")
    parser.add_argument("--limit", type=float, default=540.0, help="seconds that all of it may take (default: 540)")
    parser.add_argument("--only", nargs="*", default=[], help="names of tests (default: tier 1 and part of tier 2)")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--cache", type=Path, default=None, help="where the runner is built, and kept")
    parser.add_argument("--peer-python", default=sys.executable, help="an interpreter that has PyTorch")
    parser.add_argument("--dry-run", action="store_true", help="over the backend's fake driver")
    options = parser.parse_args(argv)
    started = time.monotonic()
    sources = content_dir("gpu_tests")
    with tempfile.TemporaryDirectory() as temporary:
        cache = options.cache or Path(temporary)
        built = build_runner(sources, cache).resolve()
        if options.dry_run:
            os.environ["GT_LIBRARY"] = str(build_fake(options.backend, sources, cache))
        ran: list[dict[str, str]] = []
        metrics: dict[str, dict[str, Any]] = {}
        device: dict[str, Any] = {}
        problems = 0
        for test in chosen(load_tests(sources), options.backend):
            if options.only and test.name not in options.only:
                continue
            left = options.limit - (time.monotonic() - started) - (0.0 if options.dry_run else 90.0)
            if left <= 5.0:
                ran.append({"test": test.name, "outcome": "NOT RUN", "reason": "the time was used up"})
                problems += 1
                continue
            spec = dataclasses.replace(test, budget=options.budget)
            results, raw = run_test(
                LocalShell(), spec, backend=options.backend, timeout=min(test.timeout, left), gpu_tests_dir=str(built)
            )
            wire = parse(raw)
            for said in wire.of("device"):
                device = dict(said.data)
            for said in wire.of("metric"):
                metrics[said.text("name")] = dict(said.data)
            (result,) = results
            print(f"{test.name:16} {result.outcome:6} {result.reason}", flush=True)
            ran.append({"test": test.name, "outcome": str(result.outcome), "reason": result.reason})
            problems += result.outcome not in ("PASS", "SKIP")
    left = options.limit - (time.monotonic() - started)
    peer: dict[str, Any] = {"absent": f"PyTorch has no devices of {options.backend}"}
    if options.dry_run or options.backend in PEER_DEVICES:
        arguments = DRY_PEER if options.dry_run else (PEER_DEVICES[options.backend],)
        peer = peer_numbers(options.peer_python, arguments, max(10.0, min(120.0, left)))
    medians = {name: sorted(samples)[len(samples) // 2] for name, samples in peer.get("samples", {}).items()}
    rows = judge(metrics, medians)
    now = datetime.now(UTC)
    record = {
        "benchmark": "gpu_peers",
        "date": now.isoformat(timespec="seconds"),
        "dry_run": options.dry_run,
        "kernel": platform.release(),
        "device": device,
        "tests": ran,
        "metrics": metrics,
        "peer": peer,
        "targets": rows,
        "seconds": round(time.monotonic() - started, 1),
    }
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / f"gpu_peers{'-dry' if options.dry_run else ''}-{now:%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"\n{device.get('name', 'no device')}, driver {device.get('driver', '?')}, kernel {platform.release()}")
    if options.dry_run:
        print("dry run: the numbers are of this machine's processor, and no verdict counts")
    if "absent" in peer:
        print(f"no peer: {peer['absent']}")
    print(f"raw results: {os.path.relpath(path)}\n{table(rows)}")
    return 1 if problems or not ran else 0


if __name__ == "__main__":
    sys.exit(main())
