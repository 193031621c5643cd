"""A device that did not come back well is not lent for a while, and everybody is told why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from harness.devices.quarantine import Quarantine
from harness.errors import InfraError, UserError

GPU, OTHER = "0000:01:00.0", "0000:02:00.0"


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def quarantine(tmp_path: Path, clock: Clock) -> Quarantine:
    return Quarantine(tmp_path / "leases", now=clock)


def test_a_record_names_the_reason_and_ends_by_itself_after_a_day(quarantine: Quarantine, clock: Clock) -> None:
    assert quarantine.active() == []
    quarantine.add(GPU, "config space reads as ffffffff")
    clock.now += timedelta(hours=23, minutes=59)
    (found,) = quarantine.active()
    assert (found.address, found.reason) == (GPU, "config space reads as ffffffff")
    assert found.describe() == (
        f"{GPU} is in quarantine until 2025-03-02 12:00 UTC: config space reads as ffffffff; "
        f"to end that: kdmatrix devices --lift {GPU}"
    )
    clock.now += timedelta(minutes=1)
    assert quarantine.active() == []


def test_it_outlives_the_process_that_said_so(quarantine: Quarantine, tmp_path: Path, clock: Clock) -> None:
    quarantine.add(GPU, "x", length=timedelta(days=3))
    clock.now += timedelta(days=2)
    (found,) = Quarantine(tmp_path / "leases", now=clock).active()
    assert found.until == datetime(2025, 3, 4, 12, 0, tzinfo=UTC)


def test_a_later_word_replaces_an_earlier_one(quarantine: Quarantine, clock: Clock) -> None:
    quarantine.add(GPU, "first")
    clock.now += timedelta(hours=20)
    quarantine.add(GPU, "second")
    clock.now += timedelta(hours=20)
    assert [found.reason for found in quarantine.active()] == ["second"]


def test_a_unit_is_in_quarantine_with_any_of_its_functions(quarantine: Quarantine) -> None:
    quarantine.add("0000:01:00.1", "x")
    assert quarantine.of((GPU, "0000:01:00.1")) is not None
    assert quarantine.of((OTHER,)) is None


def test_it_can_be_lifted_and_that_says_what_was(quarantine: Quarantine) -> None:
    quarantine.add(GPU, "x")
    quarantine.add(OTHER, "y")
    assert [found.reason for found in quarantine.lift(GPU)] == ["x"]
    assert [found.address for found in quarantine.active()] == [OTHER]
    assert quarantine.lift(GPU) == []


def test_only_an_address_can_be_lifted(quarantine: Quarantine) -> None:
    with pytest.raises(UserError, match=r"\.\./x is no PCI address; one looks like 0000:01:00\.0"):
        quarantine.lift("../x")


def test_a_record_that_cannot_be_read_keeps_the_device_until_it_is_lifted(quarantine: Quarantine, clock: Clock) -> None:
    path = quarantine.add(GPU, "x").path
    for broken in ("{", path.read_text().replace(GPU, OTHER), path.read_text().replace('"x"', '"\\u001b[2J"')):
        path.write_text(broken)
        clock.now += timedelta(days=365)
        (found,) = quarantine.active()
        assert (found.address, found.until) == (GPU, None)
        assert "\x1b" not in found.describe()
    assert len(quarantine.lift(GPU)) == 1
    assert quarantine.active() == []


def test_a_reason_is_one_printable_line(quarantine: Quarantine) -> None:
    assert quarantine.add(GPU, "gone\n\x1b[31m" + "x" * 999).reason.startswith("gone??[31mxxx")


def test_where_it_cannot_be_written_that_is_said_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InfraError, match=r"cannot be made: .*; once as root: install -d -m 1775 -g libvirt"):
        Quarantine(tmp_path / "file/leases").add(GPU, "x")
