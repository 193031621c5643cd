"""What the kernel says while something is done to it decides, whatever the command itself returned."""

from __future__ import annotations

import pytest

from harness.ladder.watching import Acted, act, in_turn, last_words
from harness.machines import guest as guest_module
from harness.machines.guest import GuestLost
from harness.model.outcome import Outcome
from harness.model.records import TestResult
from harness.model.shell import Completed
from harness.model.stage import Stage
from harness.model.taint import BIT
from ladder.scripted_guest import LATE, LOST, FakeShell, a_guest, said

PASS, FAIL, MISS = Outcome.PASS, Outcome.FAIL, Outcome.MISS
WARNING = "WARNING: CPU: 0 PID: 1 at drivers/gpu/drm/drm_gem.c:100 drm_gem_x+0x1/0x2"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_module, "_DEATH_GRACE", 0.02)
    monkeypatch.setattr(guest_module, "_RECONNECT", 0.02)


def acted(answer: Completed, *, log: tuple[str, ...] = (), taint: int = 0) -> Acted:
    shell = FakeShell()
    guest = a_guest(shell)
    guest.change()

    def answered() -> Completed:
        shell.log += log
        shell.taint |= taint
        return answer

    shell.answers["poke"] = answered
    return act(guest, ["poke", "it"], 10.0)


@pytest.mark.parametrize(
    ("answer", "outcome", "reason"),
    [
        (said(), PASS, ""),
        (said("", 1, "first\nit is busy\n"), FAIL, "it is busy"),
        (said("", 1), FAIL, "no error output"),
        (LATE, FAIL, "did not finish within 10 s"),
    ],
)
def test_a_command_that_leaves_the_kernel_alone_is_judged_by_how_it_ended(
    answer: Completed, outcome: Outcome, reason: str
) -> None:
    result = acted(answer)
    assert (result.outcome, result.reason) == (outcome, reason)


def test_a_kernel_that_complains_makes_a_success_a_failure_and_names_the_complaint() -> None:
    result = acted(said(), log=(WARNING,))
    assert result.outcome is FAIL
    assert result.reason.startswith("the kernel complained: WARNING: CPU: 0")
    assert result.details()["new_messages"] == 1


@pytest.mark.parametrize(("letter", "outcome"), [("W", FAIL), ("D", FAIL), ("O", PASS), ("E", PASS), ("P", PASS)])
def test_a_taint_that_means_trouble_fails_and_one_that_only_tells_where_a_module_is_from_does_not(
    letter: str, outcome: Outcome
) -> None:
    result = acted(said(), taint=BIT[letter])
    assert result.outcome is outcome
    assert letter in str(result.details()["taint_after"])
    assert result.details()["taint_added"]


def test_what_was_there_before_is_held_against_nobody() -> None:
    shell = FakeShell(log=[WARNING], taint=BIT["W"])
    guest = a_guest(shell)
    guest.change()
    assert act(guest, ["poke"], 10.0).outcome is PASS


def test_turns_end_with_the_guest_and_say_how_it_was_lost() -> None:
    done = TestResult("one", Stage.LOAD, PASS, "", 0.0)

    def die() -> TestResult:
        raise GuestLost(MISS, "the VM stopped by itself")

    results, lost = in_turn(Stage.LOAD, [("one", lambda: done), ("two", die), ("three", lambda: done)])
    assert lost
    assert [(one.name, one.outcome, one.reason) for one in results] == [
        ("one", PASS, ""),
        ("two", MISS, "the VM stopped by itself"),
    ]


def test_a_lost_connection_is_no_result_of_the_command() -> None:
    shell = FakeShell()
    guest = a_guest(shell)

    def die() -> Completed:
        shell.alive = False
        return LOST

    shell.answers["poke"] = die
    with pytest.raises(GuestLost, match="stopped answering"):
        act(guest, ["poke"], 10.0)


def test_last_words_are_one_bounded_line() -> None:
    assert last_words(said("", 1, "x\n" + "y" * 500 + "\n")) == "y" * 200
