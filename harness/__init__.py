"""kdmatrix: evidence for which kernel works with which GPU driver stack.

The import package is ``harness``; the command is ``kdmatrix``.
"""

__version__ = "0.1.0"
