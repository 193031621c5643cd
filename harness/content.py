"""Where the shipped content lives: ``guests/``, ``gpu_tests/`` and ``reports/``, in a checkout or in the wheel."""

from __future__ import annotations

import os
from pathlib import Path

_HERE = Path(__file__).resolve().parent


def content_dir(room: str) -> Path:
    """Return the directory of one content room (``guests``, ``gpu_tests``, ``reports``).

    ``KDMATRIX_CONTENT`` names a directory that is looked at first: a room found there stands in for the shipped one,
    so that users work with guests, stacks and tests of their own without touching the installation. The wheel carries
    the rooms in ``harness/_data``; in a checkout they lie beside the package.
    """
    own = os.environ.get("KDMATRIX_CONTENT")
    candidates = [Path(own) / room] if own else []
    candidates += [_HERE / "_data" / room, _HERE.parent / room]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"the installation lacks its content directory {room!r}")
