"""Longterm series are data: read with their date, renewed into the lab, and a kernel past its end is warned of."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest

from harness.content import content_dir
from harness.errors import InfraError, UserError
from harness.kernels.longterm import NAME, read_longterm, refresh

DATA = content_dir("guests") / "_kernels"
TODAY = datetime.date(2026, 11, 24)


def releases(*rows: tuple[str, str, bool]) -> str:
    return json.dumps(
        {
            "latest_stable": {"version": "7.3.4"},
            "releases": [{"moniker": moniker, "version": version, "iseol": over} for moniker, version, over in rows],
        }
    )


def test_the_shipped_list_is_sorted_and_dated(tmp_path: Path) -> None:
    known = read_longterm(DATA, tmp_path)
    assert known.file == DATA / NAME
    assert known.read <= datetime.date.today()
    numbers = [tuple(map(int, one.series.split("."))) for one in known.series]
    assert numbers == sorted(numbers, reverse=True)
    assert all(one.end is not None and one.end > known.read for one in known.series)


def test_a_series_past_its_end_and_one_that_is_none_are_warned_of(tmp_path: Path) -> None:
    known = read_longterm(DATA, tmp_path)
    assert known.warning("6.12.117+deb13-amd64", TODAY) == ""
    assert known.warning("5.15.200", datetime.date(2026, 12, 31)) == ""
    late = known.warning("5.15.200", datetime.date(2027, 1, 1))
    assert late == "longterm series 5.15 is past its end of life since 2026-12-31"
    assert known.warning("7.3.4+deb13-amd64", TODAY).startswith("7.3 is not a longterm series")


def test_days_left_count_to_the_last_day_of_the_month(tmp_path: Path) -> None:
    entry = read_longterm(DATA, tmp_path).of("5.10.1")
    assert entry is not None
    assert entry.days_left(datetime.date(2026, 12, 1)) == 30


def test_a_refresh_is_kept_in_the_lab_and_leaves_the_shipped_list_alone(tmp_path: Path) -> None:
    shipped = (DATA / NAME).read_bytes()
    file = tmp_path / "releases.json"
    file.write_text(
        releases(
            ("mainline", "7.4-rc1", False),
            ("stable", "7.3.4", False),
            ("longterm", "7.3.9", False),
            ("longterm", "6.18.40", False),
            ("longterm", "6.12.117", False),
            ("longterm", "6.6.200", True),
        )
    )
    home = tmp_path / "home"
    fresh = refresh(read_longterm(DATA, home), str(file), home, TODAY)
    assert read_longterm(DATA, home) == fresh
    assert (DATA / NAME).read_bytes() == shipped
    assert fresh.read == TODAY
    by_name = {one.series: one for one in fresh.series}
    assert (by_name["7.3"].end, by_name["7.3"].latest) == (None, "7.3.9")
    assert by_name["6.12"].end == datetime.date(2028, 12, 31)
    assert by_name["6.6"].is_over(TODAY)
    assert by_name["5.10"].is_over(TODAY)  # no longer listed
    assert "6.6 is past its end of life" in fresh.warning("6.6.200", TODAY)


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("<html>", "is not a list of kernel releases"),
        ("[]", "is not a list of kernel releases"),
        ('{"releases": [{"moniker": "longterm"}]}', "is not a list of kernel releases"),
        (releases(("stable", "7.3.4", False)), "names no longterm kernels"),
        (releases(("longterm", "next", False)), "names no longterm kernels"),
    ],
)
def test_what_is_no_list_of_releases_changes_nothing(tmp_path: Path, text: str, phrase: str) -> None:
    (tmp_path / "releases.json").write_text(text)
    with pytest.raises(InfraError, match=phrase) as caught:
        refresh(read_longterm(DATA, tmp_path), str(tmp_path / "releases.json"), tmp_path, TODAY)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / NAME).exists()


def test_a_list_out_of_reach_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InfraError, match="cannot be read") as caught:
        refresh(read_longterm(DATA, tmp_path), "http://127.0.0.1:9/releases.json", tmp_path, TODAY)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("read: 2026-11-22", "must be a mapping with read, source and series"),
        ("read: soon\nseries: {}", "read: must be a date"),
        ("read: 2026-11-22\nseries: {6.10: {end: 2028-12}}", "write it in quotes"),
        ("read: 2026-11-22\nseries: {'6.10': {end: soon}}", "neither a month"),
        ("read: 2026-11-22\nseries: {'6.10': {end: 2028-13}}", "is not a date"),
        ("read: 2026-11-22\nseries: {'6.10': {till: 2028-12}}", "must be a mapping of end"),
        ("read: [", "cannot be read"),
    ],
)
def test_wrong_data_is_told_with_its_file(tmp_path: Path, text: str, phrase: str) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(UserError, match=phrase):
        read_longterm(DATA, tmp_path)
