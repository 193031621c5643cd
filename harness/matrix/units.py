"""The small notations of a matrix file: durations, sizes, whole numbers, names and PCI addresses.

Every function takes the text of a scalar and raises ValueError with a message for the user.
"""

from __future__ import annotations

import re

from harness.matrix.frame import quoted

NAME = r"[a-z0-9][a-z0-9._+-]*(@[a-z0-9._+~-]+)?"
DURATION = r"[0-9]+(\.[0-9]+)?|([0-9]+(\.[0-9]+)?d)?([0-9]+(\.[0-9]+)?h)?([0-9]+(\.[0-9]+)?m)?([0-9]+(\.[0-9]+)?s)?"
SIZE = r"[0-9]+(\.[0-9]+)?[KMGT]iB"
PCI_ADDRESS = r"[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]"
"""Domain, bus, slot and function as sysfs writes them under ``/sys/bus/pci/devices``."""

MAX_SECONDS = 7 * 86400.0
MIN_MEMORY = 128 << 20
MAX_MEMORY = 1 << 40

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SHIFT = {"K": 10, "M": 20, "G": 30, "T": 40}


def duration(text: str) -> float:
    """Return seconds: ``90``, ``90s``, ``5m``, ``1h30m``, ``1.5h``; at most a week."""
    if not text or not re.fullmatch(DURATION, text):
        raise ValueError(f"{quoted(text)} is not a duration; write 90s, 5m, 1h, 1h30m, or bare seconds")
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", text)
    seconds = sum(float(number) * _SECONDS[unit or "s"] for number, unit in parts)
    if not 0 < seconds <= MAX_SECONDS:
        raise ValueError(f"{quoted(text)} is out of range; a duration is more than 0 and at most 7d")
    return seconds


def size(text: str) -> int:
    """Return bytes: ``512MiB``, ``1GiB``, ``1.5GiB``."""
    if not re.fullmatch(SIZE, text):
        # 1G, 1GB, 1 gib and the like: the intent is plain, the factor is not.
        loose = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGTkmgt])(?:[iI]?[bB])?", text)
        hint = f"did you mean {loose[1]}{loose[2].upper()}iB?" if loose else "write 512MiB or 1GiB"
        raise ValueError(f"{quoted(text)} is not a size; {hint}")
    value = int(float(text[:-3]) * (1 << _SHIFT[text[-3]]))
    if not MIN_MEMORY <= value <= MAX_MEMORY:
        raise ValueError(f"{quoted(text)} is out of range; memory is at least 128MiB and at most 1TiB")
    return value


def whole(text: str, low: int, high: int) -> int:
    """Return a decimal number within bounds; no signs, underscores, exponents or other bases."""
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError(f"{quoted(text)} is not a whole number; write {low} to {high}")
    if not low <= int(text) <= high:
        raise ValueError(f"{text} is out of range; write {low} to {high}")
    return int(text)


def name(text: str) -> str:
    """Return a name that is safe in cell ids, file names and image tags."""
    if not re.fullmatch(NAME, text) or len(text) > 64:
        fixed = re.sub(r"_{2,}", "_", re.sub(r"[^a-z0-9._+-]+", "-", text.lower())).strip("-._+")[:64]
        hint = f"did you mean {quoted(fixed)}?" if fixed else "for example lts-6.12"
        raise ValueError(
            f"{quoted(text)} is not a name: lower-case letters, digits and . _ + -, first a letter or digit, "
            f"64 characters at most; {hint}"
        )
    if "__" in text:
        raise ValueError(f"{quoted(text)} holds '__', which joins the parts of file names; write one underscore")
    return text


def device(text: str) -> str:
    """Return ``none`` or a full PCI address."""
    if text == "none" or re.fullmatch(PCI_ADDRESS, text):
        return text
    lowered = text.lower()
    candidates = (lowered, f"0000:{lowered}", lowered.replace("_", ":"), "none" if lowered in ("no", "cpu") else "")
    close = next((c for c in candidates if c == "none" or re.fullmatch(PCI_ADDRESS, c)), None)
    hint = f"did you mean {close}?" if close else "write none, or an address such as 0000:01:00.0"
    raise ValueError(f"{quoted(text)} is not a device; {hint}")


def free_text(text: str, longest: int) -> str:
    """Return text for people or for a command line: one line, printable, not blank."""
    if not text.strip():
        raise ValueError("is blank; give a text or leave the key out")
    if not text.isprintable():
        raise ValueError("holds a line break or another control character; write one line of printable text")
    if len(text) > longest:
        raise ValueError(f"has {len(text)} characters; at most {longest} are allowed")
    return text
