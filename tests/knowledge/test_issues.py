from __future__ import annotations

from typing import Any

import pytest

from harness.knowledge.issues import KnownIssue, KnownIssues
from harness.model.prediction import Grade
from harness.model.stage import Stage

LOG = "cc -c nv.c\nnv.c:1710:9: error: implicit declaration of function ‘in_irq’; did you mean ‘in_nmi’?\n"
IDENTIFIED, RESEMBLES, CANDIDATE = Grade.IDENTIFIED, Grade.RESEMBLES, Grade.CANDIDATE


def issue(**more: Any) -> KnownIssue:
    settings: dict[str, Any] = {
        "id": "ki-011-in-irq",
        "title": "in_irq is gone",
        "stack": ("nvidia*",),
        "driver": ("<570.211.01",),
        "kernel": (">=6.19~rc1",),
        "rung": "build",
        "signature": "implicit declaration of function .in_irq",
        "samples": (LOG,),
        "cause": "it was removed",
        "fault": "driver",
        "sources": ("a/b#1",),
        "confidence": "high",
    }
    return KnownIssue.model_validate(settings | more)


def graded(*issues: KnownIssue, **more: Any) -> list[tuple[str, Grade]]:
    wanted: dict[str, Any] = {
        "stack": "nvidia@550",
        "driver": "550.163.01-2",
        "kernel": "7.3.4-1",
        "stage": Stage.BUILD,
        "text": LOG,
    }
    return [(one.issue, one.grade) for one in KnownIssues(issues).match(**wanted | more)]


@pytest.mark.parametrize(
    ("more", "grade"),
    [
        ({}, IDENTIFIED),
        ({"text": "error: something else"}, CANDIDATE),
        ({"kernel": "6.12.107-1"}, RESEMBLES),
        ({"driver": "580.126.09"}, RESEMBLES),
        ({"driver": ""}, RESEMBLES),
        ({"kernel": "6.12.107-1", "text": ""}, None),
        ({"driver": "", "text": ""}, None),
        ({"stage": Stage.LOAD}, None),
        ({"stack": "rocm"}, None),
    ],
)
def test_signature_and_versions_together_identify(more: dict[str, Any], grade: Grade | None) -> None:
    assert graded(issue(), **more) == ([("ki-011-in-irq", grade)] if grade else [])


def test_the_best_comes_first_and_the_line_is_quoted() -> None:
    candidate = issue(id="ki-001-a", signature="", samples=())
    resembling = issue(id="ki-002-b", kernel=("5.*",))
    unsure = issue(id="ki-003-c", confidence="low")
    found = KnownIssues((candidate, resembling, unsure, issue())).match(
        stack="nvidia", driver="550.163.01", kernel="7.3", stage=Stage.BUILD, text=LOG
    )
    assert [one.issue for one in found] == ["ki-011-in-irq", "ki-003-c", "ki-002-b", "ki-001-a"]
    assert found[0].excerpt == LOG.splitlines()[1]
    assert found[3].excerpt == ""


def test_a_signature_without_any_range_identifies_alone() -> None:
    anywhere = issue(stack=("*",), driver=(), kernel=())
    assert graded(anywhere, driver="", kernel="", stack="zfs") == [(anywhere.id, IDENTIFIED)]
    assert graded(anywhere, text="nothing") == []


def test_the_configuration_takes_part() -> None:
    configured = issue(config=("CONFIG_OF_GPIO=y",))
    assert graded(configured, config={"CONFIG_OF_GPIO": "y"}) == [(configured.id, IDENTIFIED)]
    assert graded(configured, config={"CONFIG_OF_GPIO": "n"}) == [(configured.id, RESEMBLES)]
    assert graded(configured, config=None) == [(configured.id, RESEMBLES)]


@pytest.mark.parametrize(("modules", "fits"), [("open", True), ("closed", False), ("", True)])
def test_open_and_closed_modules_are_told_apart(modules: str, fits: bool) -> None:
    assert bool(graded(issue(modules=("open",)), modules=modules)) is fits


@pytest.mark.parametrize(
    ("device", "fits"), [("none", True), ("10de:2684", True), ("8086:56a0", False), ("0000:01:00.0", True)]
)
def test_a_device_that_is_known_to_be_another_rules_an_issue_out(device: str, fits: bool) -> None:
    assert bool(graded(issue(device=("10de:*",)), device=device)) is fits


def test_stacks_can_be_excepted() -> None:
    but_open = issue(stack=("nvidia*", "!nvidia-open*"))
    assert graded(but_open, stack="nvidia@550")
    assert not graded(but_open, stack="nvidia-open@550")


def test_megabytes_of_log_are_searched_quickly() -> None:
    noise = "drivers/x.c:1:1: warning: unused\n" * 60_000
    assert graded(issue(), text=noise + LOG) == [("ki-011-in-irq", IDENTIFIED)]
