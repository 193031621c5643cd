"""Turns untrusted text and numbers into what may stand on a page. Guests are hostile; nothing here trusts them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

from markupsafe import Markup

LONGEST = 4000
"""Characters of one string on a page; the rest is counted, and is in ``results.json`` or the raw evidence file."""

_COLOUR = re.compile("\x1b\\[[0-9;:]*m")
# Unicode's Cc (but tab), Cf, Zl, Zp, Cs and the noncharacters of plane 0: what reorders, hides or breaks text.
_UNSEEN = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\ufdd0-\ufdef\ufffe\uffff\U000110bd\U000110cd\U00013430-\U0001345f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# Fonts often lack the control pictures of Unicode; names can always be read.
_NAMES = {0x00: "NUL", 0x07: "BEL", 0x08: "BS", 0x0A: "LF", 0x0D: "CR", 0x1B: "ESC", 0x7F: "DEL"}
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))


def _shown(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"⟨{_NAMES.get(code) or f'U+{code:04X}'}⟩"


def visible(text: str) -> str:
    """Replace every control, format and bidirectional character by something that can be seen.

    Terminal colour sequences are dropped: they carry no words, and every systemd console is full of them.
    """
    if "\x1b" in text:
        text = _COLOUR.sub("", text)
    return _UNSEEN.sub(_shown, text)


def shorten(text: str, limit: int = LONGEST) -> str:
    """Cut the middle out of a text longer than ``limit`` characters, saying how much is gone."""
    if len(text) <= limit:
        return text
    tail = limit // 4
    head = limit - tail
    return f"{text[:head]} […{len(text) - limit} characters cut…] {text[-tail:]}"


def page_text(text: str, limit: int = LONGEST) -> str:
    """Return a text that is bounded and harmless on a page (escaping is still the page's part)."""
    # Printable ASCII holds nothing that visible() replaces, and nearly every text is that.
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text
    return visible(shorten(text, limit))


def page_value(value: Any) -> Any:
    """Return JSON-able data with every string made fit for a page and every non-finite number made None."""
    return _walk(value, page_text)


def finite(value: Any) -> Any:
    """Return the same JSON-able data with every non-finite number made None, strings untouched."""
    return _walk(value, str)


def _walk(value: Any, text: Callable[[str], str]) -> Any:
    # The commonest types first: a report of 10,000 cells holds millions of values.
    if isinstance(value, str):
        return text(value)
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_walk(item, text) for item in value]
    if isinstance(value, dict):
        return {text(key): _walk(item, text) for key, item in value.items()}
    raise TypeError(f"cannot stand on a page: {type(value).__name__}")


def script_json(value: Any) -> str:
    """Return JSON that may stand inside a ``<script>``: ASCII only, and no character that HTML gives a meaning to."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def own(text: str) -> Markup:
    """Mark a text of our own making (shipped CSS and scripts, ``script_json``) as not to be escaped.

    Raises ValueError if it could end the element it stands in.
    """
    if re.search(r"</(script|style)|<!--", text, re.IGNORECASE):
        raise ValueError("this text would end its own element")
    return Markup(text)  # noqa: S704 - the only place where markup is made, and never from a guest's output


def csv_text(text: str) -> str:
    """Return a text for a CSV field that no spreadsheet takes for a formula."""
    text = page_text(text)
    return f"'{text}" if text[:1] in "=+-@\t" and text else text


def quantity(value: float | None, unit: str, digits: int = 3) -> str:
    """Return a number with an SI prefix before its unit: ``21.3 GB/s``, ``4.02 ms``; ``not known`` for None."""
    if value is None or not math.isfinite(value):
        return "not known"
    if unit == "s" and abs(value) >= 60:
        return duration(value)
    scale, prefix = 1.0, ""
    if value and unit not in ("", "1", "%", "ratio"):
        scale, prefix = next((pair for pair in _PREFIXES if abs(value) >= pair[0] * 0.9995), _PREFIXES[-1])
    return f"{_figures(value / scale, digits)} {prefix}{unit}".rstrip()


def spread(low: float | None, high: float | None, unit: str) -> str:
    """Return a range in the prefix of its upper end: ``20.9–21.8 GB/s``; empty where it is not known."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    top = quantity(high, unit)
    for scale, prefix in _PREFIXES:
        if top.endswith(f" {prefix}{unit}"):
            return f"{_figures(low / scale, 3)}–{top}"
    return f"{_figures(low, 3)}–{top}"


def _figures(value: float, digits: int) -> str:
    whole = len(str(int(abs(value))))
    return f"{value:,.{max(0, digits - whole)}f}"


def duration(seconds: float) -> str:
    """Return a time as people say it: ``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if not math.isfinite(seconds) or seconds < 0:
        return "not known"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def percent(share: float) -> str:
    """Return a share (1 is all) in whole percent: ``21 %``; never rounded up to a full 100."""
    whole = round(share * 100)
    return f"{99 if whole == 100 and share < 1 else whole} %"


def size(count: int) -> str:
    """Return bytes with a binary prefix: ``812 B``, ``14.2 KiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
