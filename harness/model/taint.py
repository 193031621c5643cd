"""What the kernel's taint mask says. Source: ``Documentation/admin-guide/tainted-kernels.rst``."""

from __future__ import annotations

TAINT_BITS: tuple[tuple[str, str], ...] = (
    ("P", "proprietary module loaded"),
    ("F", "module force loaded"),
    ("S", "kernel running on an out of specification system"),
    ("R", "module force unloaded"),
    ("M", "machine check exception"),
    ("B", "bad page referenced"),
    ("U", "taint requested by user space"),
    ("D", "kernel died: oops or BUG"),
    ("A", "ACPI table overridden"),
    ("W", "kernel issued a warning"),
    ("C", "staging driver loaded"),
    ("I", "workaround for a firmware bug"),
    ("O", "out-of-tree module loaded"),
    ("E", "unsigned module loaded"),
    ("L", "soft lockup occurred"),
    ("K", "kernel live patched"),
    ("X", "auxiliary taint of the distribution"),
    ("T", "built with struct randomisation"),
    ("N", "in-kernel test run"),
    ("J", "user space used a mutating debug operation"),
)
"""(letter, meaning) by bit number."""

BIT = {letter: 1 << bit for bit, (letter, _) in enumerate(TAINT_BITS)}
"""The mask of each letter."""
BAD = frozenset("DWLBM")
"""Bits that mean that the kernel itself complained; the others only tell what was loaded."""


def letters(mask: int) -> str:
    """Return the letters of the set bits in bit order; unknown bits as their number, ``-`` for none."""
    found = [TAINT_BITS[bit][0] if bit < len(TAINT_BITS) else f"[{bit}]" for bit in range(64) if mask >> bit & 1]
    return "".join(found) or "-"


def added(before: int, after: int) -> int:
    """The bits that are set now and were not before."""
    return after & ~before


def describe(mask: int) -> str:
    """Return ``W (kernel issued a warning), …`` for the set bits."""
    known = [f"{letter} ({meaning})" for bit, (letter, meaning) in enumerate(TAINT_BITS) if mask >> bit & 1]
    return ", ".join(known) or "none"
