"""How the kernel's small files are read: a bounded part of each, and nothing of it trusted.

What a device says of itself (a name, a number, a link) is text from hardware. A file that is missing, too long, no
file at all or not in the format is *unknown* here, never an error: one odd device must not hide the others.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

_MOST = 4096
"""Bytes: an attribute of sysfs is one page at most (filesystems/sysfs.rst of the kernel)."""
_MOST_ENTRIES = 100_000
"""Names that are read of one directory."""
_CONTROL = re.compile(r"[^\x20-\x7e\n\t]")


def data(path: Path, most: int = _MOST) -> bytes | None:
    """Return up to ``most`` bytes of a file; None when there is none, it may not be read, or it is no plain file."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        # A file of /proc comes in pieces of a page, so one read is not enough.
        parts, left = [], most
        while left > 0 and (part := os.read(handle, left)):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)
    except OSError:  # the device went away, or answers with an error
        return None
    finally:
        os.close(handle)


def text(path: Path, most: int = _MOST) -> str:
    """The file as printable ASCII without blanks around it; empty when it cannot be read."""
    found = data(path, most)
    return _CONTROL.sub("?", found.decode("ascii", "replace")).strip() if found else ""


def number(path: Path, most: int = 0xFFFF_FFFF) -> int | None:
    """The number in a file, ``0x`` for hexadecimal; None when there is none from 0 to ``most``."""
    try:
        found = int(text(path), 0)
    except ValueError:
        return None
    return found if 0 <= found <= most else None


def link_name(path: Path) -> str:
    """Last part of what a symbolic link points to, in printable ASCII; empty when it is no link."""
    try:
        return _CONTROL.sub("?", Path(os.readlink(path)).name)  # noqa: PTH115  Path.readlink raises for odd text
    except (OSError, ValueError):
        return ""


def names(path: Path) -> tuple[str, ...]:
    """Sorted names in a directory; none when it cannot be read."""
    found: list[str] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if len(found) >= _MOST_ENTRIES:
                    break
                found.append(entry.name)
    except OSError:
        return ()
    return tuple(sorted(found))


def children(path: Path) -> Iterator[Path]:
    """The entries of a directory by name; none when it cannot be read."""
    for name in names(path):
        yield path / name


def real(path: Path) -> Path | None:
    """Where a path leads with all links followed; None when it leads nowhere."""
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        return None
