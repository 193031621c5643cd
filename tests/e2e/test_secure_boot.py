"""A kernel that Secure Boot locked loads what this lab signed, and nothing else: shown in real VMs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from harness.content import content_dir
from harness.errors import InfraError
from harness.images.builder import Images
from harness.machines.firmware import find_firmware
from harness.model.outcome import Outcome
from harness.model.records import Attempt
from harness.model.stage import Stage

from .installation import Installation, installed, stage_of

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.xdist_group("e2e"), pytest.mark.timeout(1800)]

MODULE = """
#include <linux/module.h>
static int __init hello(void) { pr_info("sb_probe: here\\n"); return 0; }
static void __exit bye(void) { }
module_init(hello);
module_exit(bye);
MODULE_DESCRIPTION("does nothing, for its signature");
MODULE_LICENSE("GPL");
"""
STACK = """
description: a module of a few lines, signed by this lab, by nobody, or by a stranger
kind: none
device: none
build: {method: make, produces: [sb_probe]}
modules:
  - {name: sb_probe}
versions:
  signed: {build: {sign: lab}}
  unsigned: {build: {sign: none}}
  foreign: {build: {sign: stranger}}
"""
MATRIX = """
version: 1
kernels:
  - {name: locked, series: longterm, debian: trixie, secure_boot: true}
  - {name: open, series: longterm, debian: trixie}
guests: [debian-13]
stacks: [sb-probe@signed, sb-probe@unsigned, sb-probe@foreign]
exclude:
  - {kernel: open, stack: sb-probe@signed, reason: one control is enough}
  - {kernel: open, stack: sb-probe@foreign, reason: one control is enough}
limits: {vms: 1, vm_memory: 768MiB}
timeouts: {boot: 300s}
"""


def add_stack(guests: Path) -> None:
    """Add the stack to a folder of guests: content, and no line of code."""
    stack = guests / "debian-13" / "stacks" / "sb-probe"
    source = stack / "source" / "sb_probe"
    source.mkdir(parents=True)
    (stack / "stack.yaml").write_text(STACK)
    (stack / "Containerfile").write_text("ARG BASE\nFROM ${BASE}\n")
    (stack / "Containerfile.modules").write_text("ARG BASE\nFROM ${BASE}\nCOPY source/ /usr/src/kdmatrix/\n")
    (source / "Makefile").write_text("obj-m := sb_probe.o\n")
    (source / "sb_probe.c").write_text(MODULE)


@pytest.fixture(scope="module")
def attempts(
    images: Images, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Installation, Mapping[str, Attempt]]]:
    """One run of all cells, by ``KERNEL/VERSION``."""
    try:
        find_firmware()
    except InfraError as error:
        pytest.skip(str(error))
    content = tmp_path_factory.mktemp("content")
    shutil.copytree(content_dir("guests"), content / "guests")
    add_stack(content / "guests")
    with installed(content, shared_cache) as made:
        ran = made.run("run", made.matrix(MATRIX))
        assert ran.code in (0, 1), ran.out + ran.err
        found = {}
        for one in made.stored().attempts:
            _, kernel, stack, _ = one.cell_id.split("/")
            found[f"{kernel}/{stack.partition('@')[2]}"] = one
        yield made, found
        assert made.run("clean").code == 0
        assert made.left() == []


Attempts = tuple[Installation, Mapping[str, Attempt]]


def test_the_module_that_the_lab_signed_loads(attempts: Attempts) -> None:
    attempt = attempts[1]["locked/signed"]
    assert (attempt.outcome, stage_of(attempt, Stage.LOAD)[0]) == (Outcome.PASS, Outcome.PASS), attempt.reason
    assert attempt.facts["module.sb_probe.signer"].startswith("kdmatrix lab ")


def test_the_unsigned_module_is_refused_for_want_of_a_signature(attempts: Attempts) -> None:
    attempt = attempts[1]["locked/unsigned"]
    assert (attempt.outcome, attempt.rung) == (Outcome.FAIL, Stage.LOAD), attempt.reason
    assert "the module is unsigned" in attempt.reason


def test_the_module_of_a_stranger_is_refused_by_name(attempts: Attempts) -> None:
    attempt = attempts[1]["locked/foreign"]
    assert (attempt.outcome, attempt.rung) == (Outcome.FAIL, Stage.LOAD), attempt.reason
    assert "signed by kdmatrix stranger " in attempt.reason
    assert "whom this kernel does not trust" in attempt.reason


def test_without_secure_boot_the_unsigned_module_loads(attempts: Attempts) -> None:
    attempt = attempts[1]["open/unsigned"]
    assert attempt.outcome is Outcome.PASS, attempt.reason
    assert "secureboot.state" not in attempt.facts


@pytest.mark.parametrize("version", ["signed", "unsigned", "foreign"])
def test_the_guest_itself_says_that_it_is_locked_and_whose_key_it_holds(attempts: Attempts, version: str) -> None:
    made, found = attempts
    facts = found[f"locked/{version}"].facts
    assert facts["secureboot.state"] == "enabled"
    assert facts["secureboot.lockdown"] == "integrity"
    assert facts["secureboot.owner_key"] == "held by the kernel"
    assert "Linux version 6.12." in made.evidence(found[f"locked/{version}"], "console.log")
