"""The taint mask reads as the kernel's documentation says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.taint import BAD, TAINT_BITS, added, describe, letters


@pytest.mark.parametrize(
    ("mask", "text"), [(0, "-"), (1, "P"), (1 << 9, "W"), (1 << 12 | 1 << 13, "OE"), (4609, "PWO"), (1 << 40, "[40]")]
)
def test_each_bit_has_its_letter(mask: int, text: str) -> None:
    assert letters(mask) == text


def test_letters_are_unique_and_those_that_mean_trouble_are_among_them() -> None:
    known = [letter for letter, _ in TAINT_BITS]
    assert len(known) == len(set(known)) == 20
    assert set(known) >= BAD
    assert known.index("D") == 7
    assert known.index("W") == 9
    assert known.index("L") == 14


def test_a_description_names_the_meanings() -> None:
    assert describe(1 << 9 | 1) == "P (proprietary module loaded), W (kernel issued a warning)"
    assert describe(0) == "none"


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_what_was_added_is_what_was_not_there_before(before: int, after: int) -> None:
    new = added(before, after)
    assert new & before == 0
    assert new | (before & after) == after
