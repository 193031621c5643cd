"""PyTorch's numbers on one device, as ``gpu_peers.py`` asks for them: one line of JSON on stdout.

It is run by the interpreter that has PyTorch, and needs nothing else. On a GPU the device's own events measure; on a
CPU, where a dry run goes, the host's clock does, over small data.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch

WARM, REPEATS = 5, 30


def seconds(device: str, act: Callable[[], object]) -> float:
    """Return how long the device worked on it."""
    module = torch.get_device_module(device)
    if device == "cpu":
        started = time.perf_counter()
        act()
        return time.perf_counter() - started
    first, last = module.Event(enable_timing=True), module.Event(enable_timing=True)
    first.record()
    act()
    last.record()
    module.synchronize()
    return float(first.elapsed_time(last)) * 1e-3


def rates(device: str, amount: float, act: Callable[[], object]) -> list[float]:
    """Return ``amount`` over each of the times that ``act`` took."""
    for _ in range(WARM):
        act()
    torch.get_device_module(device).synchronize()
    return [amount / seconds(device, act) for _ in range(REPEATS)]


def measure(device: str, side: int, words: int) -> dict[str, list[float]]:
    """Multiply square matrices of ``side`` in bf16 (flop/s), copy ``words`` of 4 bytes within and to and fro (B/s)."""
    torch.manual_seed(1)
    a, b = (torch.rand(side, side, device=device).mul_(2).sub_(1).bfloat16() for _ in "ab")
    c = torch.empty(side, side, device=device, dtype=torch.bfloat16)
    x = torch.rand(words, device=device)
    y = torch.empty_like(x)
    host = torch.rand(words, pin_memory=device != "cpu")
    size = 4.0 * words
    return {
        "gemm_bf16": rates(device, 2.0 * side**3, lambda: torch.mm(a, b.t(), out=c)),
        "copy_bw": rates(device, 2.0 * size, lambda: y.copy_(x)),
        "h2d_bw": rates(device, size, lambda: y.copy_(host, non_blocking=True)),
        "d2h_bw": rates(device, size, lambda: host.copy_(x, non_blocking=True)),
    }


def main() -> None:
    """Print the samples by metric, and what they were taken on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("device", choices=("cuda", "xpu", "cpu"))
    parser.add_argument("--side", type=int, default=8192, help="of the matrices (default: 8192)")
    parser.add_argument("--words", type=int, default=1 << 28, help="of 4 bytes to copy (default: 2^28)")
    options = parser.parse_args()
    samples = measure(options.device, options.side, options.words)
    on = options.device
    name = "CPU" if on == "cpu" else torch.get_device_module(on).get_device_name()
    print(json.dumps({"torch": torch.__version__, "device": name, "samples": samples}))


if __name__ == "__main__":
    main()
