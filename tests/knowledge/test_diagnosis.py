"""A failed rung is explained by what is known; only a recognised fault of the lab ever changes an outcome."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import pytest

from harness.content import content_dir
from harness.errors import InfraError
from harness.knowledge.diagnosis import MOST, Knowledge
from harness.model.outcome import Outcome
from harness.model.prediction import Grade
from harness.model.records import Evidence, StageResult
from harness.model.stage import Stage
from knowledge.subjects import subject

KNOWN = Knowledge.load(content_dir("guests"))
ERROR = "nvidia/nv.c:1710:9: error: implicit declaration of function ‘in_irq’; did you mean ‘in_nmi’?\n"
OBJTOOL = "LD [M] nvidia.ko\nobjtool [signal.c:75]: read_stack_limit: fopen failed\nmake: *** [nvidia.ko] Error 255\n"


@dataclass
class Shelf:
    files: dict[str, bytes] = field(default_factory=dict)

    def put(self, name: str, text: str) -> Evidence:
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        self.files[sha256] = text.encode()
        return Evidence(name, sha256, len(text))

    def read(self, sha256: str) -> bytes:
        if sha256 not in self.files:
            raise InfraError("no such evidence")
        return self.files[sha256]


def explained(stage: Stage, outcome: Outcome, *files: tuple[str, str], **more: Any):  # type: ignore[no-untyped-def]
    shelf = Shelf()
    evidence = tuple(shelf.put(name, text) for name, text in files)
    stages = [
        StageResult(Stage.IMAGE, Outcome.PASS, 1.0, evidence=(shelf.put("kernel.config", ERROR),)),
        StageResult(stage, outcome, 2.0, "dkms returned 10", evidence),
    ]
    return KNOWN.explain(stages, subject(**more), shelf.read)


def test_a_failed_build_is_identified_and_stays_a_failure() -> None:
    stages, issues = explained(Stage.BUILD, Outcome.FAIL, ("build.log", ERROR))
    assert stages[1].outcome is Outcome.FAIL
    assert (issues[0].issue, issues[0].grade) == ("ki-011-in-irq", Grade.IDENTIFIED)
    assert issues[0].excerpt == ERROR.strip()
    assert len(issues) <= MOST
    assert all(one.stage is Stage.BUILD for one in issues)


@pytest.mark.parametrize(
    ("line", "issue"),
    [
        (OBJTOOL, "ki-900-no-proc"),
        ("gcc: fatal error: cannot execute ‘cc1’: execvp: No such file or directory", "ki-901-no-compiler-proper"),
        (ERROR + "error: error writing to x.s: No space left on device", "ki-902-no-space"),
        (ERROR + "gcc: fatal error: Killed signal terminated program cc1\n", "ki-903-compiler-killed"),
        ("cc1: error: incompatible gcc/plugin versions", "ki-904-gcc-plugins"),
        ("/bin/sh: 1: gcc-14: not found", "ki-905-no-compiler"),
    ],
)
def test_a_fault_of_the_lab_takes_a_failure_back(line: str, issue: str) -> None:
    stages, issues = explained(Stage.BUILD, Outcome.FAIL, ("build.log", line))
    assert stages[1].outcome is Outcome.MISS
    assert issue in stages[1].reason
    assert [one.issue for one in issues] == [issue]


def test_words_of_the_lab_in_a_guests_log_take_nothing_back() -> None:
    stages, issues = explained(Stage.LOAD, Outcome.FAIL, ("dmesg.txt", "No space left on device\nKilled\n"))
    assert stages[1].outcome is Outcome.FAIL
    assert issues == ()


def test_a_lost_build_is_explained_by_the_lab_alone() -> None:
    stages, issues = explained(Stage.BUILD, Outcome.MISS, ("build.log", OBJTOOL + ERROR))
    assert [one.issue for one in issues] == ["ki-900-no-proc"]
    stages, issues = explained(Stage.BUILD, Outcome.MISS, ("build.log", ERROR))
    assert (stages[1].outcome, issues) == (Outcome.MISS, ())


@pytest.mark.parametrize("outcome", [Outcome.PASS, Outcome.SKIP, Outcome.DONE])
def test_what_did_not_fail_is_not_explained(outcome: Outcome) -> None:
    assert explained(Stage.BUILD, outcome, ("build.log", ERROR))[1] == ()


def test_other_files_and_lost_evidence_are_not_searched() -> None:
    stages, issues = explained(Stage.BUILD, Outcome.FAIL, ("modinfo.txt", ERROR))
    assert Grade.IDENTIFIED not in {one.grade for one in issues}
    stages = [StageResult(Stage.BUILD, Outcome.FAIL, 1.0, "", (Evidence("build.log", "0" * 64, 3),))]
    assert KNOWN.explain(stages, subject(), Shelf().read)[0] == stages


def test_the_console_tells_about_rungs_after_boot() -> None:
    shelf = Shelf()
    said = "BUG: kernel NULL pointer dereference\nOops: 0000\nRIP: 0010:amdgpu_device_init+0x90/0x1d0 [amdgpu]\n"
    stages = [
        StageResult(Stage.BOOT, Outcome.PASS, 1.0, "", (shelf.put("console.log", said),)),
        StageResult(Stage.LOAD, Outcome.FAIL, 1.0, "the guest was lost"),
    ]
    from knowledge.subjects import recipe

    cell = subject("intree", "", "5.15.118", recipe=recipe(build=None), device="1002:73bf")
    assert [one.issue for one in KNOWN.explain(stages, cell, shelf.read)[1]] == ["ki-046-5-15-118"]
