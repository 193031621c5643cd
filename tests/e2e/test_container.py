"""Local inference in a rootless container, in a real VM: how users of an AI desktop meet a kernel and its drivers."""

from __future__ import annotations

import pytest

from harness.model.outcome import Outcome

from .installation import Installation

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.xdist_group("e2e"), pytest.mark.timeout(2400)]

MATRIX = """
version: 1
kernels: [{name: lts-6.12, series: longterm, debian: trixie}]
guests: [debian-13]
stacks: [cpu-containers]
tests: [enumerate, container]
limits: {vm_memory: 2GiB}
timeouts: {test: 4m}
"""


def test_a_model_runs_in_a_rootless_container_of_a_vm(installation: Installation) -> None:
    run = installation.run("run", installation.matrix(MATRIX))
    assert run.code == 0, run.out + run.err
    (attempt,) = installation.stored().attempts
    (result,) = [test for test in attempt.tests if test.name == "container"]
    assert (result.outcome, result.kind) == (Outcome.PASS, "cpu-runtime"), result.reason
    assert {metric.name: metric.unit for metric in result.metrics} == {
        "prefill_rate": "token/s",
        "decode_rate": "token/s",
    }
    raw = installation.evidence(attempt, "opencl-container.txt")
    for check in ("in_a_container", "without_root", "described_by_cdi", "tiny_logits", "passed_in_a_container"):
        assert f'"name":"{check}","kind":"cpu-runtime","ok":true' in raw
