"""The tests of the tests: every fault that a fake driver injects must be noticed by the tests that claim it.

Each test runs as a rung of the ladder runs it, under the watch over the kernel: what a driver's module complains of is
the watch's to notice, everything else the test's.
"""

from __future__ import annotations

import ctypes.util
import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.images.recipe import StackRecipe
from harness.ladder import rungs
from harness.ladder.testwatch import TestWatch
from harness.model.outcome import Outcome
from harness.model.records import TestResult
from harness.suites.fakes import build_fake
from harness.suites.manifest import TestSpec, load_tests

from .conftest import LocalShell
from .simulated_machine import simulated_guest
from .test_enumerate import plant

FAKES = {"opencl": "kOpenCl", "cuda": "kCuda", "hip": "kHip", "level-zero": "kZe"}
"""The backend that a fake driver stands behind, and its name in faults.h."""
UNDER_SYSFS = {"reload", "reset", "suspend"}
"""Tests that would act on a device of this host, if it had one where the simulated one is."""
OF_THE_MACHINE = {"container"} | UNDER_SYSFS
"""Tests of what not every machine has, whatever its driver: they have test files of their own."""
OF_THE_WATCH = {"xid"}
"""Faults that no test sees: they are in the kernel's log alone."""
SOUND = {"", "throttled"} | OF_THE_WATCH
"""Faults, and none, that leave what the test itself finds right."""
HANG_SECONDS = 3.0
SHOWN = "shown at the end"
"""Name of the property that the summary of the whole run prints: a worker's own output is not seen."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One run: a test on a backend whose fake injects a fault, or none."""

    test: TestSpec
    backend: str
    fault: str


def faults(sources: Path, which: str = "kFaults") -> dict[str, set[str]]:
    """Which backends' fakes can inject each fault of a list of faults.h."""
    text = (sources / "fakes" / "faults.h").read_text()
    masks: dict[str, set[str]] = {name: {backend} for backend, name in FAKES.items()} | {"kNvml": {"nvml"}}

    def expand(words: str) -> set[str]:
        return set().union(*(masks[word.strip()] for word in words.split("|")))

    for name, words in re.findall(r"(k\w+) = (k\w+(?: \| k\w+)*)", text):
        masks[name] = expand(words)
    listed = re.search(which + r"\[\] = \{(.*?)\n\};", text, re.DOTALL)
    assert listed
    return {name: expand(words) for name, words in re.findall(r'\{"(\w+)", ([^}]+)\}', listed[1])}


def backends(test: TestSpec) -> list[str]:
    """The backends of a test that have a fake."""
    return [name for name in FAKES if name in test.backends and has_compiler(name)]


def has_compiler(backend: str) -> bool:
    """Whether device code reaches the fake as source: Level Zero has no compiler but Intel's (intel-opencl-icd)."""
    return backend != "level-zero" or ctypes.util.find_library("ocloc") is not None


def pairs(sources: Path) -> list[Pair]:
    injected = faults(sources)
    return [
        Pair(test, backend, fault)
        for test in load_tests(sources).values()
        for fault in test.mutations
        for backend in backends(test)
        if backend in injected[fault]
    ]


def spread(all_pairs: Iterable[Pair]) -> list[Pair]:
    """Each test with each of its faults once, on the backends in turn."""
    by_question: dict[tuple[str, str], list[Pair]] = {}
    for pair in all_pairs:
        by_question.setdefault((pair.test.name, pair.fault), []).append(pair)
    return [choice[number % len(choice)] for number, choice in enumerate(by_question.values())]


SIMULATED = ("0000:f1:00.0", "0000:f2:00.0")
"""Where the two simulated GPUs are."""
KERNEL_DRIVERS = {"cuda": ("0x10de", "nvidia"), "hip": ("0x1002", "amdgpu"), "level-zero": ("0x8086", "xe")}
"""The vendor and the kernel's driver of each API that stands on them."""


@pytest.fixture(scope="session")
def run(
    sources: Path, built: Path, cache: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Pair], TestResult]:
    """Runs one pair and returns its result."""
    libraries: dict[str, Path] = {}
    environments: dict[str, Mapping[str, str]] = {}
    for backend in dict.fromkeys(pair.backend for pair in pairs(sources)):
        libraries[backend] = build_fake(backend, sources, cache)
        environments[backend] = request.getfixturevalue("opencl") if backend == "opencl" else {}
    management = str(build_fake("nvml", sources, cache))
    logs = tmp_path_factory.mktemp("kmsg")
    trees: dict[str, Path] = {}
    bare = tmp_path_factory.mktemp("bare")
    for backend, (vendor, driver) in KERNEL_DRIVERS.items():
        trees[backend] = tmp_path_factory.mktemp("sysfs")
        for address in SIMULATED:
            plant(trees[backend], address, vendor=vendor, driver=driver)

    def one(pair: Pair) -> TestResult:
        log = logs / f"{pair.test.name}-{pair.backend}-{pair.fault}"
        log.unlink(missing_ok=True)
        settings = {"GT_LIBRARY": str(libraries[pair.backend]), "GT_FAKE_FAULT": pair.fault, "GT_FAKE_KMSG": str(log)}
        settings["GT_NVML"] = management
        if pair.test.name == "enumerate" and pair.backend in trees:
            settings["GT_SYSFS"] = str(trees[pair.backend])
        elif pair.test.name in UNDER_SYSFS:
            settings["GT_SYSFS"] = str(bare)
        elif pair.test.name == "oversubscribe":
            settings["GT_FAKE_MEMORY"] = "256"  # MiB, which take their time to come and go
        quick = dataclasses.replace(pair.test, budget=0.4)
        timeout = HANG_SECONDS if pair.fault.startswith("hang") else 90.0
        watch = TestWatch(simulated_guest(LocalShell({**environments[pair.backend], **settings}), log))
        stack = StackRecipe(description="simulated", backends=(pair.backend,), kind="fake", device="none")
        rung = rungs.compute(watch, stack, [quick], quick.stage, timeout, 1.0, tests_dir=str(built))
        return rung.tests[0]

    return one


def carry_out(chosen: list[Pair], run: Callable[[Pair], TestResult]) -> dict[Pair, TestResult]:
    """Two at a time; what only waits for its end waits beside them."""
    waiting = [pair for pair in chosen if pair.fault.startswith("hang")]
    working = [pair for pair in chosen if not pair.fault.startswith("hang")]
    with ThreadPoolExecutor(max_workers=2) as pool, ThreadPoolExecutor(max_workers=4) as beside:
        waited, worked = beside.map(run, waiting), pool.map(run, working)
        results = dict(zip([*waiting, *working], [*waited, *worked], strict=True))
    # A clock is held against the wall's, and several ran at a time: whom that may have spoilt runs again, alone.
    for pair, result in results.items():
        lying = pair.fault.startswith("timer_") and result.outcome is not Outcome.FAIL
        if lying or (pair.fault in SOUND and "implausible: " in result.reason):
            results[pair] = run(pair)
    return results


def table(results: Mapping[Pair, TestResult], backend: str) -> str:
    """The kill matrix of one backend."""
    mine = {(pair.fault, pair.test.name): result for pair, result in results.items() if pair.backend == backend}
    tests = sorted({test for _, test in mine})
    lines = [f"\n{backend:18}" + "".join(f"{test:>15}" for test in tests)]
    for fault in sorted({fault for fault, _ in mine}):
        found = (mine.get((fault, test)) for test in tests)
        marks = ("-" if one is None else "killed" if one.outcome is Outcome.FAIL else "SURVIVED" for one in found)
        lines.append(f"{fault:18}" + "".join(f"{mark:>15}" for mark in marks))
    return "\n".join(lines)


def survivors(results: Mapping[Pair, TestResult]) -> list[str]:
    """What was not noticed, or not for the right reason."""
    out = []
    for pair, result in results.items():
        # The watch's word comes first, and the test's own stands behind it.
        complained, failed = "kernel.complaints" in result.details, "(the test said FAIL" in result.reason
        right = result.outcome is Outcome.FAIL
        right &= complained and not failed if pair.fault in OF_THE_WATCH else not complained or failed
        if pair.fault.startswith("hang"):
            right &= f"no result within {HANG_SECONDS:g} s" in result.reason
        if pair.fault.startswith("crash"):
            right &= "SIGSEGV" in result.reason
        if not right:
            out.append(f"{pair.test.name} x {pair.fault} on {pair.backend}: {result.outcome} {result.reason}")
    return out


def tables(results: Mapping[Pair, TestResult]) -> str:
    return "\n".join(table(results, backend) for backend in sorted({pair.backend for pair in results}))


@pytest.mark.parametrize(
    ("fault", "reason", "killed"),
    [
        ("xid", "nvidia complained: NVRM: Xid", True),
        ("xid", "nvidia complained: NVRM: Xid (the test said FAIL: sum: 1 of 64 wrong)", False),
        ("overrun", "nvidia complained: NVRM: Xid (the test said FAIL: sum: 1 of 64 wrong)", True),
        ("overrun", "nvidia complained: NVRM: Xid", False),
    ],
)
def test_watch_and_test_each_notice_what_is_theirs(sources: Path, fault: str, reason: str, *, killed: bool) -> None:
    test = load_tests(sources)["vecadd"]
    result = TestResult(test.name, test.stage, Outcome.FAIL, reason, details={"kernel.complaints": 1})
    assert (survivors({Pair(test, "cuda", fault): result}) == []) is killed


def test_every_test_passes_on_every_fake_without_a_fault(sources: Path, run: Callable[[Pair], TestResult]) -> None:
    sound = [Pair(test, name, "") for test in load_tests(sources).values() for name in backends(test)]
    failed = []
    for pair, result in carry_out(sound, run).items():
        skipped = result.outcome is Outcome.SKIP and pair.test.name in OF_THE_MACHINE
        if (result.outcome is not Outcome.PASS and not skipped) or result.kind != "fake":
            failed.append(f"{pair.test.name} on {pair.backend}: {result.outcome} {result.reason}")
    assert not failed


def test_every_declared_mutation_is_killed(
    sources: Path, run: Callable[[Pair], TestResult], record_property: Callable[[str, object], None]
) -> None:
    results = carry_out(spread(pairs(sources)), run)
    record_property(SHOWN, tables(results))
    assert not survivors(results)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_declared_mutation_is_killed_on_every_backend(
    sources: Path, run: Callable[[Pair], TestResult], record_property: Callable[[str, object], None]
) -> None:
    results = carry_out(pairs(sources), run)
    record_property(SHOWN, tables(results))
    assert not survivors(results)


def test_every_rate_says_what_held_the_device_back(sources: Path, run: Callable[[Pair], TestResult]) -> None:
    rates = {
        test.name: [metric.name for metric in test.metrics if "/s" in metric.unit]
        for test in load_tests(sources).values()
        if "cuda" in backends(test) and test.name not in OF_THE_MACHINE
    }
    held_back = [
        Pair(load_tests(sources)[name], "cuda", fault)
        for name, metrics in rates.items()
        for fault in ("", *faults(sources, "kRecorded"))
        if metrics
    ]
    for pair, result in carry_out(held_back, run).items():
        assert result.outcome is Outcome.PASS, f"{pair.test.name}: {result.reason}"
        told = {metric.name: result.details[f"{metric.name}.throttle"] for metric in result.metrics}
        measured = {name: value for name, value in told.items() if name in rates[pair.test.name]}
        assert measured
        assert set(measured.values()) == {"hw_slowdown,hw_thermal" if pair.fault else "none"}, pair.test.name


def test_a_fault_that_the_test_provokes_is_in_the_log_and_no_finding(
    sources: Path, run: Callable[[Pair], TestResult]
) -> None:
    result = run(Pair(load_tests(sources)["fault_recovery"], "cuda", ""))
    assert result.outcome is Outcome.PASS, result.reason
    assert result.details["kernel"] == "clean"
    assert result.details["kernel.expected"] == 3  # the Xids of an assertion, a trap and a wild write


def test_every_fault_of_the_fakes_is_claimed_by_a_test_that_can_run_with_it(sources: Path) -> None:
    claimed = {pair.fault for pair in pairs(sources)}
    assert set(faults(sources)) <= claimed


def test_no_test_claims_a_fault_that_no_fake_injects_on_its_backends(sources: Path) -> None:
    possible = {(pair.test.name, pair.fault) for pair in pairs(sources)}
    tests = [test for test in load_tests(sources).values() if backends(test)]
    assert [
        (test.name, fault) for test in tests for fault in test.mutations if (test.name, fault) not in possible
    ] == []


def test_every_compute_test_claims_the_faults_of_initialisation(sources: Path) -> None:
    for test in (test for test in load_tests(sources).values() if backends(test)):
        assert {"hang_at_init", "crash_at_init", "no_platform", "no_device"} <= set(test.mutations), test.name
