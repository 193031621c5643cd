"""The ROCm Validation Suite's ``-j`` file: modules, their actions, and results whose members are all texts."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.model.outcome import Outcome
from harness.model.records import Metric
from harness.suites.formats.case import Case, Unreadable, bounded, json_object, line, measured, number

_RATES = {
    "gflops": ("throughput", 1e9, "flop/s"),
    "mbytes_per_sec": ("bandwidth", 1e6, "B/s"),
    "mibytes_per_sec": ("bandwidth", 2.0**20, "B/s"),
}
_GBPS = re.compile(r"([0-9.]+) *GBps", re.IGNORECASE)
_NAMING = ("gpu_id", "gpu_index", "dstgpu", "src", "dst", "Test", "subtest")


def read(report: bytes) -> list[Case]:
    """Each result with a member ``pass`` as a case ``module/action/what``; results may hold further ones."""
    data = json_object(report)
    modules = {name: actions for name, actions in data.items() if isinstance(actions, dict)}
    if not modules:
        raise Unreadable("it names no module")
    cases = [
        case
        for module, actions in modules.items()
        for action, results in actions.items()
        for case in _cases(f"{module}/{action}", results, 0)
    ]
    return bounded(cases)


def _cases(prefix: str, results: object, depth: int) -> Iterator[Case]:
    for result in results if isinstance(results, list) else ():
        if not isinstance(result, dict):
            continue
        name = line("/".join([prefix, *(str(result[key]) for key in _NAMING if key in result)]))
        nested = [item for item in result.values() if isinstance(item, list)]
        if "pass" in result:
            good = str(result["pass"]).strip().lower() in ("true", "1", "pass")
            yield Case(name, Outcome.PASS if good else Outcome.FAIL, "" if good else "pass: false", _metrics(result))
        for items in nested if depth < 4 else ():
            yield from _cases(name, items, depth + 1)


def _metrics(result: dict[str, object]) -> tuple[Metric, ...]:
    metrics = []
    for key, (name, scale, unit) in _RATES.items():
        value = number(result.get(key))
        if value is not None and value > 0:
            metrics.append(measured(name, value * scale, unit))
    # "25.123 GBps", or "N/A" where nothing was measured.
    if found := _GBPS.search(str(result.get("throughput", ""))):
        value = number(found[1])
        if value is not None and value > 0:
            metrics.append(measured("bandwidth", value * 1e9, "B/s"))
    return tuple(metrics)
