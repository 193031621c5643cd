"""Kernel releases sort by their numbers; Debian versions sort as dpkg sorts them."""

from __future__ import annotations

import itertools
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.kernels.version import (
    candidate,
    commit_in,
    compare_debian,
    compare_rpm,
    debian_key,
    evr_key,
    fields,
    in_series,
    release_key,
    series_of,
    upstream_of,
)

ASCENDING = [
    "5.15.0-9-generic",
    "6.1.0-9-amd64",
    "6.1.0-50-amd64",
    "6.8.0-44-generic",
    "6.9",
    "6.10",
    "6.12.94+deb13-amd64",
    "6.12.107+deb13-amd64",
    "6.14.0-0.rc5.20250306gt848e0763.345",
    "6.14.0-0.rc6.1",
    "6.14.0-63.fc42.x86_64",
    "6.19.14",
    "7.0.4",
    "7.3-rc7",
    "7.3.0-rc7-next-20261101",
    "7.3",
    "7.3.1",
    "10.0",
]
NUMBERS = st.lists(st.integers(0, 300), min_size=1, max_size=4)
VERSIONS = st.from_regex(r"\A(?:[0-3]:)?[0-9][0-9a-zA-Z.+~]{0,8}(?:-[0-9a-zA-Z.+~]{1,6})?\Z")


@pytest.mark.parametrize(("older", "newer"), list(itertools.combinations(ASCENDING, 2)))
def test_releases_sort_numerically_and_candidates_come_first(older: str, newer: str) -> None:
    assert release_key(older) < release_key(newer)


@pytest.mark.parametrize("spelling", ["7.3~rc7", "7.3-rc7", "7.3~rc7-1~exp1", "7.3.0-rc7"])
def test_a_candidate_precedes_its_release_however_it_is_spelled(spelling: str) -> None:
    assert candidate(spelling) == 7
    assert release_key("7.2.99") < release_key(spelling) < release_key("7.3-amd64")


@given(NUMBERS, NUMBERS)
def test_dotted_numbers_sort_as_number_tuples(left: list[int], right: list[int]) -> None:
    if left[-1] and right[-1]:
        texts = [".".join(map(str, numbers)) for numbers in (left, right)]
        assert (release_key(texts[0]) < release_key(texts[1])) == (left < right)


@given(st.lists(st.text(max_size=12), max_size=6))
def test_any_text_has_a_place_in_the_order(texts: list[str]) -> None:
    assert sorted(sorted(texts, reverse=True), key=release_key) == sorted(sorted(texts), key=release_key)


@pytest.mark.parametrize(
    ("version", "series", "belongs"),
    [
        ("6.12.107", "6.12", True),
        ("6.12.107-1", "6", True),
        ("6.12.107", "6.1", False),
        ("6.1", "6.1.0", False),
        ("7.3~rc7", "7.3", True),
        ("7.3~rc7", "7.3-rc7", True),
        ("7.3~rc7", "7.3~rc6", False),
        ("7.3.4", "7.3-rc7", False),
        ("7.3", "latest", False),
    ],
)
def test_a_version_belongs_to_a_series_by_whole_fields(version: str, series: str, belongs: bool) -> None:
    assert in_series(version, series) is belongs


def test_series_and_fields_ignore_what_follows_the_numbers() -> None:
    assert series_of("6.12.107+deb13-amd64") == "6.12"
    assert fields("7.3-rc7") == (7, 3)
    assert fields("next-20261101") == ()
    assert upstream_of("1:7.3~rc7-1~exp1") == "7.3~rc7"


def test_debian_versions_sort_by_policy() -> None:
    ascending = ["7.3~rc7-1~exp1", "7.3-1~bpo13+1", "7.3-1", "7.3-1+b1", "7.3.4-1~bpo13+1", "7.3.4-1", "1:0.1"]
    for older, newer in itertools.combinations(ascending, 2):
        assert debian_key(older) < debian_key(newer)


@given(VERSIONS, VERSIONS)
def test_comparing_the_other_way_round_turns_the_sign(left: str, right: str) -> None:
    assert compare_debian(left, right) == -compare_debian(right, left)
    assert compare_debian(left, left) == 0


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="dpkg is not installed")
@settings(max_examples=150, deadline=None)
@given(VERSIONS, VERSIONS)
def test_the_order_is_dpkgs_own(left: str, right: str) -> None:
    operator = {-1: "lt", 0: "eq", 1: "gt"}[compare_debian(left, right)]
    assert subprocess.run(["dpkg", "--compare-versions", left, operator, right], check=False).returncode == 0


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("6.9", "6.10"),
        ("7.3~rc7", "7.3"),
        ("7.3", "7.3^post"),
        ("7.3^post", "7.3.1"),
        ("7.3~rc7", "7.3~rc7^git1"),
        ("0.rc7.20251103gt848e0763.345.fc44", "0.rc10.1.fc44"),
        ("0.rc10.1.fc44", "200.fc44"),
        ("a", "1"),
        ("1.a", "1.1"),
        ("fc44", "fc45"),
    ],
)
def test_rpm_versions_order_as_rpm_orders_them(older: str, newer: str) -> None:
    assert compare_rpm(older, newer) < 0 < compare_rpm(newer, older)
    assert compare_rpm(older, older) == 0


def test_what_only_separates_makes_no_difference_to_rpm() -> None:
    assert compare_rpm("1.0", "1_0") == compare_rpm("1.0", "1.00") == compare_rpm("1..0", "1.0.") == 0


def test_an_epoch_wins_over_the_version() -> None:
    assert sorted([("1", "6.0", "1"), ("", "7.3", "1"), ("0", "7.3", "2")], key=evr_key) == [
        ("", "7.3", "1"),
        ("0", "7.3", "2"),
        ("1", "6.0", "1"),
    ]


@pytest.mark.skipif(shutil.which("rpm") is None, reason="rpm is not installed")
def test_rpm_itself_agrees_on_versions_made_at_random(tmp_path: Path) -> None:
    made = random.Random(73)
    words = ["0", "1", "10", "007", "a", "b", "rc", "~", "^", ".", "_", "+"]
    pairs = [tuple("".join(made.choices(words, k=made.randint(1, 6))) for _ in range(2)) for _ in range(1000)]
    script = tmp_path / "compare.lua"
    script.write_text("".join(f"print(rpm.vercmp('{a}', '{b}') .. ' ')\n" for a, b in pairs))
    argv = ["rpm", "--eval", f"%{{lua: dofile('{script}')}}"]
    said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()
    ours = [compare_rpm(a, b) for a, b in pairs]
    assert [(order > 0) - (order < 0) for order in ours] == [int(word) for word in said]


@pytest.mark.parametrize(
    ("version", "commit"),
    [
        ("6.14.0-0.rc5.20250306gt848e0763.345.vanilla.fc41", "848e0763"),
        ("7.3.0-0.rc7.20251103git848e0763fb2a.58.fc44", "848e0763fb2a"),
        ("7.3.0-0.rc7.251103g848e076.58.fc44", ""),
        ("7.3.4-200.fc44", ""),
    ],
)
def test_a_snapshot_names_its_commit(version: str, commit: str) -> None:
    assert commit_in(version) == commit
