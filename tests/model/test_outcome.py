"""Several outcomes are summed up by the most telling one."""

from __future__ import annotations

from itertools import permutations

import pytest

from harness.model.outcome import DECIDING, PRIORITY, Outcome, summarise


def test_every_outcome_has_one_place_in_the_order() -> None:
    assert sorted(PRIORITY) == sorted(Outcome)
    assert set(PRIORITY[: len(DECIDING)]) == DECIDING


@pytest.mark.parametrize("index", range(len(PRIORITY)))
def test_the_summary_is_the_first_of_the_order_whatever_the_order_of_the_input(index: int) -> None:
    rest = PRIORITY[index:]
    for some in permutations(rest, min(3, len(rest))):
        if PRIORITY[index] in some:
            assert summarise(some) is PRIORITY[index]


def test_nothing_is_a_skip() -> None:
    assert summarise([]) is Outcome.SKIP
