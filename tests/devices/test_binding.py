"""Functions go to vfio-pci and come back to exactly what they were, wherever it is interrupted."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest

from devices.host import ADMINS, BARE, GPU, SOUND, Host, leased
from devices.simulator import SimulatedKernel
from harness.devices import binding
from harness.devices.binding import VFIO, LeasedUnit
from harness.devices.leases import LeaseLost, Original
from harness.devices.writes import Stuck
from harness.errors import InfraError


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def given_to_vfio(host: Host, address: str) -> tuple[LeasedUnit, tuple[Original, ...]]:
    unit = leased(host, address)
    originals = binding.read_originals(unit)
    unit.lease.touching(originals)
    binding.bind(unit)
    return unit, originals


def refuse(kernel: SimulatedKernel, act: str, subject: str, number: int) -> None:
    """Have the kernel refuse an act from now on."""

    def before(now: str, about: str) -> None:
        if (now, about) == (act, subject):
            raise OSError(number, "refused by the test")

    kernel.before = before


def test_every_function_goes_to_vfio_and_back(host: Host) -> None:
    before = host.kernel.state()
    unit, originals = given_to_vfio(host, GPU)
    assert {address: host.kernel.driver(address) for address in unit.functions} == {GPU: VFIO, SOUND: VFIO}
    assert host.kernel.state()[ADMINS] == before[ADMINS], "another device was touched"
    assert binding.restore(unit, originals) == "given back to nouveau, snd_hda_intel"
    assert host.kernel.state() == before


def test_originals_have_all_that_is_changed(host: Host) -> None:
    assert binding.read_originals(leased(host, GPU)) == (
        Original(GPU, "nouveau", "", "flr bus"),
        Original(SOUND, "snd_hda_intel", "", ""),
    )
    assert binding.read_originals(leased(host, ADMINS))[0] == Original(ADMINS, VFIO, VFIO, "pm bus")
    assert binding.read_originals(leased(host, BARE)) == (Original(BARE, "", "", ""),)


def test_a_function_without_a_driver_stays_without(host: Host) -> None:
    unit, originals = given_to_vfio(host, BARE)
    assert host.kernel.driver(BARE) == VFIO
    assert binding.restore(unit, originals) == "given back to no driver"
    assert (host.kernel.driver(BARE), host.kernel.override(BARE)) == ("", "")


def test_what_the_administrator_gave_to_vfio_is_left_alone_both_ways(host: Host) -> None:
    host.kernel.acts.clear()
    unit, originals = given_to_vfio(host, ADMINS)
    binding.restore(unit, originals)
    assert host.kernel.acts == []
    assert host.kernel.override(ADMINS) == VFIO


def test_the_module_is_loaded_when_it_is_not_there(host: Host) -> None:
    for address in (ADMINS, "0000:02:00.1"):
        host.kernel._detach(address)
    shutil.rmtree(host.root / "sys/bus/pci/drivers" / VFIO)
    given_to_vfio(host, GPU)
    assert host.kernel.driver(GPU) == VFIO


def test_a_kernel_without_vfio_is_said(host: Host) -> None:
    shutil.rmtree(host.root / "sys/bus/pci/drivers" / VFIO)
    refuse(host.kernel, "load", VFIO, errno.ENOENT)
    with pytest.raises(InfraError, match="the module vfio-pci cannot be loaded: is it built for this host's kernel"):
        given_to_vfio(host, GPU)


def test_binding_is_believed_only_when_it_is_read_back(host: Host) -> None:
    # drivers_probe reports success although the driver's probe failed.
    host.kernel.after = lambda act, about: host.kernel._detach(GPU) if (act, about) == ("probe", GPU) else None
    with pytest.raises(InfraError, match=f"{GPU} was given to vfio-pci, and has no driver"):
        given_to_vfio(host, GPU)


def test_a_function_that_is_taken_away_again_meanwhile_is_noticed(host: Host) -> None:
    def rule_of_udev(act: str, about: str) -> None:
        if (act, about) == ("probe", GPU):
            host.kernel._detach(SOUND)

    host.kernel.after = rule_of_udev
    with pytest.raises(InfraError, match=f"{SOUND} had vfio-pci, and has no driver now"):
        given_to_vfio(host, GPU)


@pytest.mark.parametrize(
    ("act", "number", "said"),
    [
        ("driver_override", errno.EINVAL, f"setting driver_override of {GPU} failed: refused"),
        ("unbind", errno.EBUSY, f"taking {GPU} from nouveau failed: refused"),
        ("probe", errno.EINVAL, f"giving {GPU} to vfio-pci failed: refused"),
    ],
)
def test_a_refusal_names_step_function_and_reason_and_can_be_undone(
    host: Host, act: str, number: int, said: str
) -> None:
    before = host.kernel.state()
    refuse(host.kernel, act, GPU, number)
    unit = leased(host, GPU)
    originals = binding.read_originals(unit)
    with pytest.raises(InfraError, match=said):
        binding.bind(unit)
    host.kernel.before = lambda _act, _about: None
    binding.restore(unit, originals)
    assert host.kernel.state() == before


def test_the_original_driver_gets_it_back_although_another_knows_the_device_too(host: Host) -> None:
    unit, originals = given_to_vfio(host, GPU)
    boot = host.kernel.boot
    boot[GPU]["known_to"] = ["nvidia", "nouveau"]
    host.kernel.make_driver("nvidia")
    (host.root / "boot.json").write_text(json.dumps(boot))
    binding.restore(unit, originals)
    assert host.kernel.driver(GPU) == "nouveau"


def test_the_override_is_cleared_first_so_that_a_failure_later_is_mended_by_the_driver(host: Host) -> None:
    unit, originals = given_to_vfio(host, GPU)
    refuse(host.kernel, "bind", GPU, errno.ENODEV)
    with pytest.raises(InfraError, match=f"giving {GPU} back to nouveau failed: refused"):
        binding.restore(unit, originals)
    assert host.kernel.override(GPU) == ""
    assert host.kernel.driver(SOUND) == "snd_hda_intel", "one function does not keep the others from going back"
    host.kernel.before = lambda _act, _about: None
    binding.restore(unit, originals)
    assert host.kernel.driver(GPU) == "nouveau"


def test_a_driver_that_was_unloaded_meanwhile_is_no_failure(host: Host) -> None:
    unit, originals = given_to_vfio(host, GPU)
    shutil.rmtree(host.root / "sys/bus/pci/drivers/nouveau")
    said = binding.restore(unit, originals)
    assert said == "given back to no driver, as nouveau is not loaded any more, snd_hda_intel"
    assert (host.kernel.driver(GPU), host.kernel.override(GPU)) == ("", "")


def test_a_function_that_was_removed_from_the_bus_is_found_again(host: Host) -> None:
    before = host.kernel.state()
    unit, originals = given_to_vfio(host, GPU)
    unit.write(unit.path(GPU) / "remove", "1")
    assert not unit.present(GPU)
    binding.restore(unit, originals)
    assert host.kernel.state() == before


def test_one_that_is_not_found_again_is_said_and_the_others_go_back(host: Host) -> None:
    unit, originals = given_to_vfio(host, GPU)
    unit.write(unit.path(GPU) / "remove", "1")
    host.kernel._rescan = lambda *_: None  # type: ignore[method-assign]
    with pytest.raises(InfraError, match=f"{GPU} is gone from the bus and was not found again"):
        binding.restore(unit, originals)
    assert host.kernel.driver(SOUND) == "snd_hda_intel"


def test_the_order_of_reset_methods_is_restored(host: Host) -> None:
    before = host.kernel.state()
    unit, originals = given_to_vfio(host, GPU)
    unit.write(unit.path(GPU) / "reset_method", "bus")
    binding.restore(unit, originals)
    assert host.kernel.state() == before


def test_a_reset_method_that_is_not_possible_any_more_keeps_no_device_from_its_driver(host: Host) -> None:
    unit, originals = given_to_vfio(host, GPU)
    unit.write(unit.path(GPU) / "reset_method", "bus")
    host.kernel.refused_methods = {"bus"}
    binding.restore(unit, originals)
    assert host.kernel.state()[GPU] == ("nouveau", "", "flr")
    host.kernel.refused_methods = {"bus", "flr"}
    unit.path(GPU).joinpath("reset_method").write_text("bus\n")
    binding.restore(unit, originals)
    assert host.kernel.driver(GPU) == "nouveau"


def test_nothing_is_written_without_a_valid_lease(host: Host) -> None:
    unit, originals = given_to_vfio(host, GPU)
    unit.lease.release()
    host.kernel.acts.clear()
    with pytest.raises(LeaseLost):
        binding.restore(unit, originals)
    with pytest.raises(LeaseLost):
        unit.write(unit.path(GPU) / "reset", "1")
    assert host.kernel.acts == []


def test_a_kernel_that_does_not_come_back_stops_everything(host: Host) -> None:
    def stuck(act: str, about: str) -> None:
        if act == "unbind":
            raise Stuck("the write did not come back")

    unit, originals = given_to_vfio(host, GPU)
    host.kernel.before = stuck
    host.kernel.acts.clear()
    with pytest.raises(Stuck):
        binding.restore(unit, originals)
    assert [act for act, _, _ in host.kernel.acts] == ["driver_override"], "further writes would hang as well"


def test_the_nodes_that_a_vm_uses_are_named(host: Host) -> None:
    unit, _ = given_to_vfio(host, GPU)
    assert binding.vfio_nodes(unit) == "group 14; cdev vfio2, vfio3"


def test_a_kernel_without_cdevs_has_the_group_and_one_without_groups_has_cdevs(host: Host) -> None:
    unit, _ = given_to_vfio(host, GPU)
    (host.root / "dev/vfio/14").unlink()
    assert binding.vfio_nodes(unit) == "cdev vfio2, vfio3"
    (host.root / "dev/vfio/devices/vfio3").unlink()
    with pytest.raises(InfraError, match=f"{GPU} has vfio-pci, and there is neither /dev/vfio/14 nor a cdev for each"):
        binding.vfio_nodes(unit)
    (host.root / "dev/vfio/14").touch()
    assert binding.vfio_nodes(unit) == "group 14"


def test_a_variant_of_vfio_pci_counts_as_one(host: Host) -> None:
    (host.kernel.device(BARE) / "vfio-dev/vfio9").mkdir(parents=True)
    assert binding.has_vfio_driver(host.kernel.device(BARE))
    assert not binding.has_vfio_driver(host.kernel.device(GPU))
