"""The shipped known issues and rules: whole, told apart from one another, and true of the lab's own words."""

from __future__ import annotations

import re

import pytest

from harness.content import content_dir
from harness.kernels.config import Requirement
from harness.knowledge.diagnosis import Knowledge
from harness.knowledge.issues import KnownIssue
from harness.knowledge.versions import compare_drivers
from harness.model.prediction import Grade
from harness.report.foresight import links

KNOWN = Knowledge.load(content_dir("guests"))
ISSUES = list(KNOWN.issues)


def test_every_breakage_on_record_is_there() -> None:
    numbers = {int(issue.id[3:6]) for issue in ISSUES}
    assert numbers >= set(range(61))


@pytest.mark.parametrize("issue", [one for one in ISSUES if one.samples], ids=lambda one: one.id)
def test_an_issue_finds_its_own_samples_within_a_log(issue: KnownIssue) -> None:
    for sample in issue.samples:
        log = f"make: Entering directory\n{sample}\nmake: *** [all] Error 2\n"
        found = KNOWN.issues.match(stack=issue.stack[0].replace("*", ""), stage=issue.rung, text=log)
        same = [one for one in found if one.issue == issue.id]
        assert same, [one.issue for one in found]
        assert same[0].grade in (Grade.IDENTIFIED, Grade.RESEMBLES)
        assert same[0].excerpt


@pytest.mark.parametrize("issue", [one for one in ISSUES if one.samples], ids=lambda one: one.id)
def test_a_sample_does_not_look_like_another_issue_of_its_rung(issue: KnownIssue) -> None:
    twins = {"ki-013", "ki-042", "ki-043"}  # the same breakage in several drivers, the same words of one firmware
    others = [
        one for one in ISSUES if one.signature and one.rung is issue.rung and one.id[:6] not in (issue.id[:6], *twins)
    ]
    for sample in issue.samples:
        hits = [one.id for one in others if re.search(one.signature, sample, re.MULTILINE)]
        assert issue.id[:6] in twins or hits == []


def test_a_log_without_trouble_matches_no_signature() -> None:
    log = "make -C /lib/modules/7.3.4/build M=/x modules\n  CC [M]  nvidia/nv.o\n  LD [M]  nvidia.ko\n"
    assert [one.id for one in ISSUES if one.signature and re.search(one.signature, log, re.MULTILINE)] == []


def test_toolkits_came_with_drivers_that_they_run_on() -> None:
    assert len(KNOWN.rules.cuda) == 23
    for release in KNOWN.rules.cuda.values():
        assert compare_drivers(release.floor, release.shipped) < 0, release.toolkit


def test_a_distributions_release_kernel_is_no_debug_kernel() -> None:
    release = ("DEBUG_INFO", "DEBUG_FS", "DEBUG_KERNEL", "DEBUG_LIST", "DEBUG_MISC", "SLUB_DEBUG", "DEBUG_BUGVERBOSE")
    assert KNOWN.debugging({f"CONFIG_{name}": "y" for name in release}) == ""
    assert all(Requirement.parse(option.config).values == ("y",) for option in KNOWN.rules.debug)


def test_sources_of_high_confidence_can_be_followed_or_say_what_was_seen() -> None:
    for issue in ISSUES:
        if issue.confidence == "high" and not issue.infrastructure:
            assert any(address for _, address in links(issue.sources)) or "seen in" in issue.sources[0], issue.id
