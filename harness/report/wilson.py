"""How much a few boots can promise: the Wilson score interval's lower end.

Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927) 209-212.
"""

from __future__ import annotations

from math import ceil, sqrt

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


def lower_bound(passed: int, tried: int, z: float = Z95) -> float | None:
    """Return the least success rate (0 … 1) that ``passed`` of ``tried`` is compatible with; None without a trial.

    One pass in one boot gives 0.207, three in three 0.438. Raises ValueError when the counts contradict each other.
    """
    if passed < 0 or passed > tried:
        raise ValueError(f"{passed} passes in {tried} trials")
    if tried == 0:
        return None
    rate, square = passed / tried, z * z
    centre = rate + square / (2 * tried)
    margin = z * sqrt(rate * (1 - rate) / tried + square / (4 * tried * tried))
    return max(0.0, (centre - margin) / (1 + square / tried))


def passes_needed(rate: float, z: float = Z95) -> int:
    """Return how many boots must pass, with none failing, before ``rate`` (0 … 1, exclusive) can be claimed."""
    if not 0 < rate < 1:
        raise ValueError(f"a rate between 0 and 1 is needed, not {rate}")
    return ceil(rate * z * z / (1 - rate))
