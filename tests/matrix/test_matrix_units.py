from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from harness.matrix import units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("5m", 300),
        ("1h", 3600),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("1d12h", 129600),
        ("0.5", 0.5),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert units.duration(text) == seconds


@pytest.mark.parametrize(("text", "count"), [("512MiB", 512 << 20), ("1GiB", 1 << 30), ("1.5GiB", 3 << 29)])
def test_sizes(text: str, count: int) -> None:
    assert units.size(text) == count


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (units.duration, text)
        for text in ("", "0", "-1", "1m1h", "5 m", "5M", "1e3", "nan", "inf", "٣", "1.s", "8d", "9" * 400)
    ]
    + [(units.size, text) for text in ("", "1", "1GB", "1G", "GiB", "1 GiB", "2TiB", "1KiB", "٣GiB")]
    + [
        (lambda text: units.whole(text, 1, 9), text)
        for text in ("", "0", "10", "+1", "1_0", "0x1", "٣", " 1", "9" * 99)
    ]
    + [(units.name, text) for text in ("", "A", "a b", "-a", ".a", "a/b", "a__b", "é", "a\n", "a" * 65)]
    + [(units.device, text) for text in ("", "None", "01:00.0", "0000:01:20.0", "0000:01:00.8", "0000:01:00.0\n")],
)
def test_other_notations_are_refused(read: Callable[[str], object], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape("'") + "|out of range"):
        read(text)


def test_a_name_is_suggested_in_its_right_form() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'my-kernel-6\.1'\?"):
        units.name("My Kernel/6.1")


@pytest.mark.parametrize("address", ["0000:01:00.0", "10000:e1:1f.7", "none"])
def test_devices(address: str) -> None:
    assert units.device(address) == address
