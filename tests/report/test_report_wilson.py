import pytest

from harness.report.wilson import lower_bound, passes_needed


@pytest.mark.parametrize(
    ("passed", "tried", "bound"), [(1, 1, 0.2065), (3, 3, 0.4385), (2, 3, 0.2077), (0, 4, 0.0), (95, 100, 0.8882)]
)
def test_the_lower_bound_agrees_with_published_values(passed: int, tried: int, bound: float) -> None:
    assert lower_bound(passed, tried) == pytest.approx(bound, abs=5e-5)


def test_without_a_trial_nothing_is_known() -> None:
    assert lower_bound(0, 0) is None


def test_contradicting_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="2 passes in 1 trials"):
        lower_bound(2, 1)


def test_the_number_of_passes_needed_is_the_least_that_reaches_the_rate() -> None:
    needed = passes_needed(0.95)
    assert needed == 73
    assert (lower_bound(needed, needed) or 0) >= 0.95 > (lower_bound(needed - 1, needed - 1) or 0)


def test_certainty_can_never_be_claimed() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        passes_needed(1.0)
