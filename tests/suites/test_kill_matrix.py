"""The tests of the tests: every fault that the fake driver injects must be noticed by the tests that claim it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.model.outcome import Outcome
from harness.model.records import TestResult
from harness.suites.manifest import TestSpec, load_tests
from harness.suites.run import run_test

from .conftest import LocalShell


def _run(test: TestSpec, fault: str, built: Path, fake: Path, env: Mapping[str, str]) -> TestResult:
    shell = LocalShell({**env, "GT_LIBRARY": str(fake), "GT_FAKE_FAULT": fault})
    quick = dataclasses.replace(test, budget=0.4)
    timeout = 3.0 if fault.startswith("hang") else 60.0
    results, _ = run_test(shell, quick, backend="opencl", timeout=timeout, gpu_tests_dir=str(built))
    return results[0]


def test_every_declared_mutation_is_killed(
    sources: Path,
    built: Path,
    fake_opencl: Path,
    opencl: Mapping[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    tests = {name: test for name, test in load_tests(sources).items() if "opencl" in test.backends}
    mutations = list(dict.fromkeys(m for test in tests.values() for m in test.mutations))
    table: dict[str, dict[str, str]] = {}
    survivors = []
    for test in tests.values():
        control = _run(test, "", built, fake_opencl, opencl)
        assert control.outcome is Outcome.PASS, f"{test.name} fails without a fault: {control.reason}"
        assert control.kind == "fake"
        for mutation in test.mutations:
            result = _run(test, mutation, built, fake_opencl, opencl)
            killed = result.outcome is Outcome.FAIL
            table.setdefault(mutation, {})[test.name] = "killed" if killed else "SURVIVED"
            if not killed:
                survivors.append(f"{test.name} x {mutation}: {result.outcome} {result.reason}")
            if mutation.startswith("timer_"):
                assert result.reason.startswith("implausible: "), result.reason
            if mutation.startswith("hang"):
                assert "no result within 3 s" in result.reason
            if mutation.startswith("crash"):
                assert "SIGSEGV" in result.reason
    with capsys.disabled():
        print("\n" + f"{'mutation':18}" + "".join(f"{name:>12}" for name in tests))
        for mutation in mutations:
            print(f"{mutation:18}" + "".join(f"{table[mutation].get(name, '-'):>12}" for name in tests))
    assert not survivors


def test_every_fault_of_the_fake_is_claimed_by_a_test(sources: Path) -> None:
    text = (sources / "fakes" / "faults.h").read_text()
    listed = re.search(r"kFaults\[\] = \{(.*?)\};", text, re.DOTALL)
    assert listed
    faults = set(re.findall(r'"(\w+)"', listed.group(1)))
    claimed = {mutation for test in load_tests(sources).values() for mutation in test.mutations}
    assert faults <= claimed


def test_every_compute_test_claims_the_faults_of_initialisation(sources: Path) -> None:
    for test in (test for test in load_tests(sources).values() if "opencl" in test.backends):
        assert {"hang_at_init", "crash_at_init", "no_platform", "no_device"} <= set(test.mutations), test.name
