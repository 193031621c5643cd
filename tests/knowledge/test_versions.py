"""Kernel and driver versions order as their makers order them, and ranges say what people mean by them."""

from __future__ import annotations

from functools import cmp_to_key
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.knowledge.versions import compare_drivers, compare_kernels, in_ranges, kernel_version, parse_range
from harness.model.cell import KernelIdentity

KERNELS = [
    "5.15.118",
    "6.1.0-9-amd64",
    "6.1.0-50-amd64",
    "6.1.159-1",
    "6.8.0-44-generic",
    "6.8.0-100-generic",
    "6.12.96-1",
    "6.12.97",
    "6.12.107-1~bpo12+1",
    "6.12.107-1",
    "6.12.107-2",
    "6.14.0-0.rc5.20250306gt848e0763.345",
    "6.14.0-0.rc6.20250310git80e54e84911a.50",
    "6.14.0",
    "6.14.1-200.fc44",
    "6.19",
    "7.0",
    "7.3-rc1",
    "7.3~rc7",
    "7.3~rc7-1~exp1",
    "7.3",
    "7.3.4-1~bpo13+1",
    "7.3.4-1",
    "7.10",
]
DRIVERS = [
    "390.157-16",
    "470.256.02",
    "470.256.02-1~deb12u1",
    "470.256.02-9",
    "470.256.02-10",
    "550.54.14",
    "550.163.01",
    "550.163.01-2",
    "550.163.01-4~bpo13+1",
    "550.163.01-4",
    "550.163.01-5",
    "550.163.01-5.1",
    "555.58.02-4",
    "580.65.06",
    "580.126.09",
    "610.43.02",
]
OTHERS = [
    "6.8.5",
    "6.12.12",
    "6.16.6",
    "6.16.13",
    "25.48.36300.8",
    "26.27.39122.12",
    "26.27.39122.14",
    "26.27.39122.14-1",
]

NUMBER = st.integers(0, 130).map(str)
ADDED = st.sampled_from(
    ["", "-rc1", "~rc7", "-0.rc5.20250306gt848e0763.345", "-1", "-1~bpo13+1", "+deb13-amd64", "-44-generic"]
)
RELEASES = st.builds(lambda numbers, added: ".".join(numbers) + added, st.lists(NUMBER, min_size=1, max_size=3), ADDED)
REVISION = st.sampled_from(["", "-1", "-5.1", "-10", "-1~deb13u1", "-4~bpo13+1"])
VERSIONS = st.builds(lambda n, r: ".".join(n) + r, st.lists(NUMBER, min_size=1, max_size=4), REVISION)
ANYTHING = st.text(st.characters(codec="ascii", exclude_characters="\n"), max_size=12)


@pytest.mark.parametrize("known", [KERNELS, sorted(KERNELS)[::-1]])
def test_kernels_sort_as_they_were_released(known: list[str]) -> None:
    assert sorted(known, key=cmp_to_key(compare_kernels)) == KERNELS


@pytest.mark.parametrize("known", [DRIVERS, OTHERS])
def test_drivers_sort_as_they_were_released(known: list[str]) -> None:
    for older, newer in pairwise(known):
        assert compare_drivers(older, newer) < 0, (older, newer)


@pytest.mark.parametrize("left", ["7.3~rc7", "7.3-rc7", "v7.3-rc7", "7.3.0-0.rc7"])
def test_one_kernel_in_several_spellings_is_one_version(left: str) -> None:
    assert compare_kernels(left, "7.3-rc7") == 0
    assert compare_kernels(left, "7.3") < 0
    assert compare_kernels(left, "7.3.4") < 0


def test_an_epoch_says_nothing_about_a_driver() -> None:
    assert compare_drivers("1:6.14.14-2204008.24.04", "6.14.14-2204008.24.04") == 0
    assert compare_drivers("3:580.126.09", "580.126.09") == 0


@pytest.mark.parametrize(
    ("compare", "versions"), [(compare_kernels, RELEASES | ANYTHING), (compare_drivers, VERSIONS | ANYTHING)]
)
def test_any_three_versions_are_in_one_order(compare, versions) -> None:  # type: ignore[no-untyped-def]
    @given(versions, versions, versions)
    def check(a: str, b: str, c: str) -> None:
        assert compare(a, a) == 0
        assert (compare(a, b) > 0) == (compare(b, a) < 0)
        if compare(a, b) <= 0 and compare(b, c) <= 0:
            assert compare(a, c) <= 0
        if compare(a, b) == 0:
            assert (compare(a, c) > 0) == (compare(b, c) > 0)

    check()


@given(RELEASES, RELEASES)
def test_below_at_least_and_exactly_cover_every_kernel_once(version: str, bound: str) -> None:
    found = [in_ranges(version, [text + bound], "kernel") for text in ("<", "==", ">")]
    assert sum(found) == 1
    assert in_ranges(version, [">=" + bound], "kernel") == (found[1] or found[2])
    assert in_ranges(version, ["<=" + bound], "kernel") == (found[0] or found[1])


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (">=7.1~rc1", ["7.1-rc1", "7.1", "7.3.4-1"], ["7.0.9", "6.19"]),
        (">=7.1", ["7.1", "7.1.0-9-amd64"], ["7.1-rc7"]),
        ("6.12.97..<6.13", ["6.12.97-1", "6.12.107+deb13-amd64"], ["6.12.96-amd64", "6.13", "6.13.1"]),
        ("6.17..6.17.12", ["6.17", "6.17.12-300.fc43"], ["6.17.13"]),
        ("<=6.12.96", ["6.12.96-amd64", "6.12.96-1"], ["6.12.97"]),
        ("6.14.*", ["6.14-rc1", "6.14.4"], ["6.1.14", "6.140"]),
        ("6.8.0-44", ["6.8.0-44-generic", "6.8.0-44.44"], ["6.8.0-43-generic", "6.8.0-45.45"]),
        (">=5.14.0-570.23.1 <5.15", ["5.14.0-570.23.1.el9_6", "5.14.0-600.1.el9"], ["5.14.0-427.el9", "5.15"]),
        ("..<6.2", ["6.1.0-50-amd64"], ["6.2"]),
    ],
)
def test_ranges_of_kernels(text: str, inside: list[str], outside: list[str]) -> None:
    if text.startswith(".."):
        with pytest.raises(ValueError, match="no range"):
            parse_range(text, "kernel")
        return
    assert [one for one in inside + outside if in_ranges(one, [text], "kernel")] == inside


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (
            "<550.163.01-5.1",
            ["550.163.01", "550.163.01-4~bpo13+1", "550.163.01-5"],
            ["550.163.01-5.1", "550.163.01-10"],
        ),
        ("550.163.01", ["550.163.01", "550.163.01-2", "550.163.1"], ["550.163.02"]),
        ("<580.126.09", ["580.119.02-3", "550.163.01"], ["580.126.09-1", "580.126.9"]),
        ("580.*", ["580.65.06", "580.142-1"], ["5800.1", "58.0"]),
        (">=26.22 <=26.27.39122.12", ["26.22", "26.27.39122.12-1"], ["26.27.39122.14", "26.18"]),
    ],
)
def test_ranges_of_drivers(text: str, inside: list[str], outside: list[str]) -> None:
    assert [one for one in inside + outside if in_ranges(one, [text], "driver")] == inside


def test_alternatives_express_a_backport() -> None:
    ranges = [">=6.19~rc1", "6.12.97..<6.13", "6.18.40..<6.19"]
    affected = ["6.12.107-1", "6.18.41", "6.19-rc1", "7.3"]
    good = ["6.12.96", "6.13.1", "6.18.39", "6.17.9"]
    assert [one for one in good + affected if in_ranges(one, ranges, "kernel")] == affected


@pytest.mark.parametrize("text", ["", "  ", ">=", "7.x", "=> 7.1", ">=7.1,<7.2", "7.1 - 7.2", "from 7.1"])
def test_what_is_no_range_is_refused_with_the_syntax(text: str) -> None:
    with pytest.raises(ValueError, match=r"no range of versions: want >=A"):
        parse_range(text, "kernel")


@pytest.mark.parametrize(
    ("release", "version", "says_most"),
    [
        ("6.1.0-50-amd64", "6.1.159-1", "6.1.159-1"),
        ("7.3-amd64", "7.3~rc7-1~exp1", "7.3~rc7-1~exp1"),
        ("7.3.0-rc2+", "v7.3-rc2-113-gabcdef", "7.3-rc2-113-gabcdef"),
        ("6.8.0-44-generic", "6.8.0-44.44", "6.8.0-44.44"),
        ("6.12.1-test", "tree", "6.12.1-test"),
        ("6.12.1-test", "20261101", "6.12.1-test"),
    ],
)
def test_the_version_that_says_most_about_the_source_counts(release: str, version: str, says_most: str) -> None:
    assert kernel_version(KernelIdentity(release, version, "a test", "d" * 64)) == says_most
