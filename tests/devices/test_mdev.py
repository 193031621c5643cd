"""Mediated devices are made on a parent that has one left, written down first, and taken back."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.devices import mdev
from harness.devices.mdev import mediated, remove
from harness.errors import InfraError
from harness.journal import Journal
from harness.model.device import MdevType, PciFunction

HALF = MdevType("nvidia-63", "GRID A40-24Q", 1)
CARD = PciFunction("0000:01:00.0", 0x10DE, 0x2235, 0x030200, mdev_types=(HALF,))
OTHER = replace(CARD, address="0000:02:00.0")
FULL = replace(CARD, address="0000:03:00.0", mdev_types=(replace(HALF, available=0),))


class Driver:
    """A driver that makes and removes devices when its files are written: each is a pipe that it reads."""

    def __init__(self, root: Path, *parents: PciFunction) -> None:
        self.root = root
        self.made: list[tuple[str, str]] = []
        self.removed: list[str] = []
        for parent in parents:
            kind = root / "sys/bus/pci/devices" / parent.address / "mdev_supported_types/nvidia-63"
            kind.mkdir(parents=True)
            os.mkfifo(kind / "create")
            threading.Thread(target=self._serve, args=(kind / "create", parent.address), daemon=True).start()

    def _serve(self, create: Path, parent: str) -> None:
        name = create.read_text().strip()
        place = self.root / mdev.BUS / name
        place.mkdir(parents=True)
        os.mkfifo(place / "remove")
        self.made.append((parent, name))
        threading.Thread(target=self._end, args=(place,), daemon=True).start()

    def _end(self, place: Path) -> None:
        if (place / "remove").read_text() == "1\n":
            self.removed.append(place.name)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "journal")
    yield made
    assert made.entries() == [], "something is still written down as made"


def until(what: object) -> None:
    deadline = threading.Event()
    for _ in range(500):
        if what():  # type: ignore[operator]  # a function without arguments
            return
        deadline.wait(0.01)
    raise AssertionError("it did not happen")


def test_it_is_made_on_the_first_parent_with_one_left_and_removed_after(tmp_path: Path, journal: Journal) -> None:
    driver = Driver(tmp_path, CARD)
    with mediated("nvidia-63", [FULL, CARD], journal, tmp_path) as name:
        until(lambda: driver.made)
        assert driver.made == [("0000:01:00.0", name)]
        (entry,) = journal.entries()
        assert (entry.kind, entry.name, entry.details) == ("mdev", name, {"parent": "0000:01:00.0"})
    until(lambda: driver.removed)
    assert driver.removed == [name]


def test_it_may_be_asked_for_by_name_and_goes_away_with_a_failure_too(tmp_path: Path, journal: Journal) -> None:
    driver = Driver(tmp_path, CARD)
    with contextlib.suppress(ZeroDivisionError), mediated("GRID A40-24Q", [CARD], journal, tmp_path):
        until(lambda: driver.made)
        raise ZeroDivisionError
    until(lambda: driver.removed)


def test_a_parent_whose_driver_refuses_is_told_with_the_others(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with (
        pytest.raises(InfraError, match=r"0000:03:00\.0 has none left; 0000:01:00\.0 has none left \(No space left"),
        mediated("nvidia-63", [FULL, CARD], journal, tmp_path),
    ):
        pass


def test_a_kind_that_no_parent_makes_and_a_user_who_may_not_are_told(tmp_path: Path, journal: Journal) -> None:
    with pytest.raises(InfraError, match=r"0000:01:00\.0 makes no nvidia-99"), mediated("nvidia-99", [CARD], journal):
        pass
    with (
        pytest.raises(InfraError, match=r"no nvidia-63 can be made on 0000:02:00\.0: No such file"),
        mediated("nvidia-63", [OTHER], journal, tmp_path),
    ):
        pass


def test_one_that_is_gone_already_is_no_trouble(tmp_path: Path) -> None:
    assert remove("8a2f3a5e-7d1c-4b0e-9a57-000000000001", tmp_path) is False
