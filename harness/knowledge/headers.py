"""Looks an interface up in a kernel's headers: what breaks a driver can be seen there before anything is compiled."""

from __future__ import annotations

import re
from pathlib import Path

from harness.knowledge.issues import Interface

_ANCHOR = Path("include/linux/kernel.h")
"""Every kernel's headers have it, so a tree that holds it is one."""


def source_trees(root: Path) -> tuple[Path, ...]:
    """The trees of header files below a root that is laid out as a build root sees it."""
    folders = [*root.glob("usr/src/*"), *root.glob("usr/lib/modules/*/build"), *root.glob("usr/lib/modules/*/source")]
    return tuple(folder for folder in sorted(folders) if (folder / _ANCHOR).is_file())


def breaks(interface: Interface, root: Path) -> bool | None:
    """Whether the headers are such that the driver breaks; None where no headers are found there."""
    trees = source_trees(root)
    if not trees:
        return None
    texts = [path.read_text(errors="replace") for tree in trees if (path := tree / interface.header).is_file()]
    if interface.when == "missing":
        return not texts
    if not texts:
        return None  # the file that would tell has moved
    found = any(re.search(interface.pattern, text, re.MULTILINE) for text in texts)
    return found if interface.when == "has" else not found
