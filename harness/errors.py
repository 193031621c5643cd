"""The three roots of everything that can go wrong.

* :class:`UserError`: the input is wrong; one line says where and what would be right (exit code 2).
* :class:`InfraError`: host, network or lab trouble; nothing is known about the product, so the cell becomes MISS.
* A *finding* (the product under test is at fault) is no exception: it is an outcome with evidence.
"""

from __future__ import annotations


class KdmatrixError(Exception):
    """Common root, so that the command line can tell our own errors from defects in the tool."""


class UserError(KdmatrixError):
    """Bad input or usage: the message is one line that says where and what to do."""


class InfraError(KdmatrixError):
    """Host, network or lab trouble: what it stopped is MISS, never FAIL and never PASS."""
