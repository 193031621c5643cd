"""A module in a real guest: what it says of itself, that it comes, goes, comes again and is gone; and who is bound."""

from __future__ import annotations

import json

import pytest

from harness.model.outcome import Outcome
from harness.model.records import Attempt
from harness.model.stage import Stage

from .installation import Installation

pytestmark = [pytest.mark.vm, pytest.mark.xdist_group("e2e"), pytest.mark.timeout(900)]

MATRIX = """
version: 1
kernels: [{name: lts-6.12, series: longterm, debian: trixie}]
guests: [debian-13]
stacks: [probe]
tests: [enumerate]
limits: {vms: 1, vm_memory: 768MiB}
"""

LOOKS_AT_THE_NETWORK = """
import json
from harness.ladder import rungs
from harness.ladder.binding import misbound, pci_functions
from harness.cli import main

shipped = rungs.load

def load(modules, *rest):
    rung = shipped(modules, *rest)
    network = [one.address for one in pci_functions(modules.guest, 60.0) if one.base_class == 2]
    seen = [misbound(modules.guest, [driver], 60.0, network)[:2] for driver in ("virtio-pci", "nvidia")]
    rung.facts["test.bound"] = json.dumps([network, *seen])
    return rung

rungs.load = load
main()
"""


@pytest.fixture(scope="module")
def attempt(module_installation: Installation) -> Attempt:
    program = module_installation.root / "looks.py"
    program.write_text(LOOKS_AT_THE_NETWORK)
    run = module_installation.run("run", module_installation.matrix(MATRIX), program=program)
    assert run.code == 0, run.out + run.err
    (attempt,) = module_installation.stored().attempts
    return attempt


def test_a_module_is_told_by_what_its_file_says(attempt: Attempt) -> None:
    release = attempt.facts["uname_release"]
    assert attempt.facts["module.dummy.vermagic"].startswith(f"{release} SMP")
    assert attempt.facts["module.dummy.license"] == "GPL"
    assert attempt.facts["module.dummy.intree"] == "Y"
    # Debian signs the modules of its kernels.
    assert attempt.facts["module.dummy.signer"] != "unsigned"


def test_a_module_comes_goes_comes_again_and_leaves_nothing(attempt: Attempt) -> None:
    seen = [(test.name, test.outcome) for test in attempt.tests if test.stage is Stage.UNLOAD]
    assert seen == [
        ("unload dummy", Outcome.PASS),
        ("reload dummy", Outcome.PASS),
        ("unload dummy again", Outcome.PASS),
        ("nothing is left behind", Outcome.PASS),
    ]


def test_the_driver_that_holds_a_device_is_read_from_the_guest(attempt: Attempt) -> None:
    network, right, wrong = json.loads(attempt.facts["test.bound"])
    assert len(network) == 1
    assert right == ["PASS", ""]
    assert wrong[0] == "FAIL"
    assert wrong[1].startswith(f"{network[0]} (1af4:")
    assert wrong[1].endswith("is held by virtio-pci; expected nvidia")
