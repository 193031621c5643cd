"""Resets go up the kernel's own ladder, believe nothing without looking, and touch nothing without a lease."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from devices.host import BARE, GPU, SOUND, Host, leased
from harness.devices import binding, health
from harness.devices.binding import LeasedUnit
from harness.devices.leases import LeaseLost
from harness.devices.reset import ResetReport, reset
from harness.devices.writes import Stuck
from harness.model.device import PassthroughUnit


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def reset_of(host: Host, unit: LeasedUnit) -> ResetReport:
    host.kernel.acts.clear()
    return reset(unit, lambda address: health.probe(host.root, address).sick, 1.0)


def acts(host: Host) -> list[str]:
    return [f"{act} {text}" for act, _, text in host.kernel.acts]


def test_the_first_method_that_works_is_taken_and_the_order_restored(host: Host) -> None:
    before = host.kernel.state()
    report = reset_of(host, leased(host, GPU))
    assert report == ResetReport(((GPU, "flr"), (SOUND, "no reset method")))
    assert report.describe() == f"flr ({GPU}), no reset method ({SOUND})"
    assert acts(host) == ["reset_method flr bus", "reset_method flr", "reset 1", "reset_method flr bus"]
    assert host.kernel.state() == before


def test_a_method_that_the_kernel_fails_is_followed_by_the_next(host: Host) -> None:
    tried = []

    def before(act: str, about: str) -> None:
        if act == "reset":
            tried.append((host.kernel.device(about) / "reset_method").read_text().strip())
            if tried[-1] == "flr":
                raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")

    host.kernel.before = before
    report = reset_of(host, leased(host, GPU))
    assert tried == ["flr", "bus"]
    assert report.done[0] == (GPU, "bus")
    assert report.failed == (f"{GPU} flr: Inappropriate ioctl for device",)
    assert not report.sick


def test_a_reset_that_succeeds_and_leaves_a_dead_device_has_failed(host: Host) -> None:
    def after(act: str, about: str) -> None:
        if act == "reset":
            dead = (host.kernel.device(about) / "reset_method").read_text().strip() == "flr"
            (host.kernel.fall_off if dead else host.kernel.recover)(about)

    host.kernel.after = after
    report = reset_of(host, leased(host, GPU))
    assert report.done[0] == (GPU, "bus")
    assert "flr: " in report.failed[0]
    assert "ffffffff" in report.failed[0]
    assert not report.rediscovered


PORT = "0000:00:01.1"


def test_a_function_that_has_no_reset_is_reset_with_its_bus_when_all_of_it_is_in_the_unit(host: Host) -> None:
    (host.kernel.device(PORT) / "reset_subordinate").touch()
    report = reset_of(host, leased(host, GPU))
    assert report == ResetReport(((GPU, "flr"), (SOUND, f"bus of {PORT}")))
    assert host.kernel.acts[-1] == ("reset_subordinate", PORT, "1")


def test_the_bus_is_not_reset_when_each_function_was_by_itself_or_something_else_is_on_it(host: Host) -> None:
    (host.kernel.device(PORT) / "reset_subordinate").touch()
    unit = leased(host, GPU)
    neighbour = host.kernel.device(SOUND).resolve().parent / "0000:01:00.2"
    neighbour.mkdir()
    assert reset_of(host, unit).done == ((GPU, "flr"), (SOUND, "no reset method"))
    neighbour.rmdir()
    host.kernel._replace(host.kernel.device(SOUND) / "reset", "")
    assert reset_of(host, unit).done == ((GPU, "flr"), (SOUND, "the kernel's choice"))
    assert "reset_subordinate 1" not in acts(host)


def test_a_function_alone_on_its_bus_has_that_among_its_own_methods_and_is_not_made_to_wait_twice(host: Host) -> None:
    (host.kernel.device(PORT) / "reset_subordinate").touch()
    shutil.rmtree(host.kernel.device(SOUND).resolve())
    host.kernel.device(SOUND).unlink()
    host.units[GPU] = PassthroughUnit(host.units[GPU].functions[:1])
    host.kernel.fall_off(GPU)
    assert reset_of(host, leased(host, GPU)).sick
    assert "reset_subordinate 1" not in acts(host)


def test_a_bus_reset_that_fails_or_kills_counts_for_nothing(host: Host) -> None:
    (host.kernel.device(PORT) / "reset_subordinate").touch()
    unit = leased(host, GPU)
    host.kernel.after = lambda act, _about: host.kernel.fall_off(SOUND) if act == "reset_subordinate" else None
    report = reset_of(host, unit)
    assert report.done == ((GPU, "flr"), (SOUND, "no reset method"))
    assert "ffffffff" in report.failed[0]
    assert report.sick
    host.kernel.recover(SOUND)

    def before(act: str, _about: str) -> None:
        if act == "reset_subordinate":
            raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")

    host.kernel.before = before
    report = reset_of(host, unit)
    assert report.failed == (f"bus of {PORT}: Inappropriate ioctl for device",)
    assert acts(host).count("reset_subordinate 1") == 0
    assert not report.sick


def test_a_gpu_whose_own_resets_all_fail_is_reset_with_its_bus(host: Host) -> None:
    (host.kernel.device(PORT) / "reset_subordinate").touch()
    host.kernel.fall_off(GPU)
    host.kernel.after = lambda act, _about: host.kernel.recover(GPU) if act == "reset_subordinate" else None
    report = reset_of(host, leased(host, GPU))
    assert report.done == ((GPU, f"bus of {PORT}"), (SOUND, f"bus of {PORT}"))
    assert (report.sick, report.rediscovered) == ((), False)


def test_what_no_reset_mends_is_removed_from_the_bus_and_found_again(host: Host) -> None:
    unit = leased(host, GPU)
    originals = binding.read_originals(unit)
    unit.lease.touching(originals)
    binding.bind(unit)
    host.kernel.fall_off(GPU)
    host.kernel.after = lambda act, _about: host.kernel.recover(GPU) if act == "rescan" else None
    report = reset_of(host, unit)
    assert (report.sick, report.rediscovered) == ((), True)
    assert report.describe().endswith("then removed from the bus and found again")
    assert [act for act in acts(host) if act in ("remove 1", "rescan 1")] == ["remove 1", "remove 1", "rescan 1"]
    binding.restore(unit, originals)
    assert host.kernel.driver(GPU) == "nouveau"


def test_what_nothing_mends_is_reported_sick(host: Host) -> None:
    host.kernel.fall_off(GPU)
    report = reset_of(host, leased(host, GPU))
    assert report.sick == (f"{GPU} does not answer: its configuration space reads as ffffffff",)
    assert report.describe().startswith(f"failed ({GPU})")


def test_a_device_without_reset_method_is_allowed_and_said(host: Host) -> None:
    report = reset_of(host, leased(host, BARE))
    assert report.describe() == "no reset method"
    assert acts(host) == []


def test_a_kernel_without_the_choice_is_asked_for_its_own(host: Host) -> None:
    (host.kernel.device(GPU) / "reset_method").unlink()
    report = reset_of(host, leased(host, GPU))
    assert report.done[0] == (GPU, "the kernel's choice")
    assert acts(host) == ["reset 1"]


def test_where_a_listed_method_could_not_be_chosen_again_the_kernel_chooses_and_its_list_stays(host: Host) -> None:
    host.kernel.refused_methods = {"bus"}
    report = reset_of(host, leased(host, GPU))
    assert report.done[0] == (GPU, "the kernel's choice of flr bus")
    assert (host.kernel.device(GPU) / "reset_method").read_text() == "flr bus\n"


def test_when_the_kernels_choice_does_not_help_each_is_tried_that_can_be(host: Host) -> None:
    host.kernel.refused_methods = {"flr"}

    def after(act: str, about: str) -> None:
        if act == "reset":
            chosen = (host.kernel.device(about) / "reset_method").read_text() == "bus\n"
            (host.kernel.recover if chosen else host.kernel.fall_off)(about)

    host.kernel.after = after
    report = reset_of(host, leased(host, GPU))
    assert report.done[0] == (GPU, "bus")
    assert report.failed[-1] == f"{GPU} flr: Invalid argument"
    assert (host.kernel.device(GPU) / "reset_method").read_text() == "bus\n"


def test_the_only_method_needs_no_choice(host: Host) -> None:
    host.kernel._reset_method(GPU, host.kernel.device(GPU) / "reset_method", "bus")
    assert reset_of(host, leased(host, GPU)).done[0] == (GPU, "bus")
    assert acts(host) == ["reset 1"]


def test_a_reset_that_never_returns_ends_all_attempts(host: Host) -> None:
    def before(act: str, _about: str) -> None:
        if act == "reset":
            raise Stuck("the write to reset did not come back")

    host.kernel.before = before
    with pytest.raises(Stuck):
        reset_of(host, leased(host, GPU))
    assert acts(host) == ["reset_method flr bus", "reset_method flr"], "whatever is written now waits for the same lock"


def test_the_patience_for_a_reset_is_longer_than_the_kernels_own_65_s(host: Host) -> None:
    waited = {}

    class Patient:
        def write(self, path: Path, text: str, *, timeout: float, hold: int) -> None:
            waited[path.name] = timeout
            host.kernel.write(path, text, timeout=timeout, hold=hold)

        def read(self, path: Path, *, timeout: float, hold: int) -> str:
            return host.kernel.read(path, timeout=timeout, hold=hold)

        def load(self, module: str, *, timeout: float, hold: int) -> None:
            pytest.fail(module)

    unit = leased(host, GPU)
    reset(LeasedUnit(host.root, unit.lease, Patient()), lambda _address: ())
    assert waited["reset"] > 70
    assert waited["reset_method"] < waited["reset"]


def test_a_device_that_is_not_leased_is_never_reset(host: Host) -> None:
    unit = leased(host, GPU)
    unit.lease.release()
    with pytest.raises(LeaseLost):
        reset_of(host, unit)
    assert acts(host) == []
