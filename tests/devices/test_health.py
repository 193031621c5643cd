"""A device that does not answer, or lost a part, is told from one that is well."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from devices.host import ADMINS, BARE, GPU, Host
from harness.devices.health import Health, probe
from harness.devices.pci import read_function

WELL = Health(())


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def put(host: Host, name: str, text: str, address: str = GPU) -> None:
    (host.kernel.device(address) / name).write_text(f"{text}\n")


def test_a_device_as_it_was_is_well(host: Host) -> None:
    for address in (GPU, ADMINS, BARE):
        assert probe(host.root, address, read_function(host.root, address)) == WELL


def test_a_device_that_reads_as_all_ones_does_not_answer(host: Host) -> None:
    host.kernel.fall_off(GPU)
    assert probe(host.root, GPU).sick == (f"{GPU} does not answer: its configuration space reads as ffffffff",)


def test_a_header_of_an_impossible_type_is_no_answer(host: Host) -> None:
    config = host.kernel.device(GPU) / "config"
    data = bytearray(config.read_bytes())
    data[14] = 0xFF
    config.write_bytes(data)
    assert probe(host.root, GPU).sick == (f"{GPU} does not answer: its header type reads as 7f",)


def test_a_virtual_function_has_no_numbers_and_is_well(host: Host) -> None:
    config = host.kernel.device(GPU) / "config"
    data = bytearray(config.read_bytes())
    data[:4] = b"\xff" * 4
    config.write_bytes(data)
    (host.kernel.device(GPU) / "physfn").symlink_to(host.kernel.device(ADMINS).resolve())
    assert probe(host.root, GPU) == WELL
    host.kernel.fall_off(GPU)
    assert "header type reads as 7f" in probe(host.root, GPU).sick[0]


def test_one_that_left_the_bus_is_gone(host: Host) -> None:
    host.kernel.device(GPU).unlink()
    assert probe(host.root, GPU).sick == (f"{GPU} is gone from the bus",)


def test_a_configuration_space_that_cannot_be_read_is_not_well(host: Host) -> None:
    (host.kernel.device(GPU) / "config").write_bytes(b"\x00" * 16)
    assert probe(host.root, GPU).sick == (f"{GPU}: its configuration space cannot be read",)


def test_lanes_that_were_lost_are_a_sickness_and_an_idle_links_speed_is_none(host: Host) -> None:
    before = read_function(host.root, GPU)
    put(host, "current_link_speed", "2.5 GT/s PCIe")
    slow = probe(host.root, GPU, before)
    assert slow.sick == ()
    assert slow.notes == (f"{GPU}: its link runs at 2.5 GT/s x16; before: 16 GT/s x16",)
    put(host, "current_link_width", "8")
    assert probe(host.root, GPU, before).sick == (f"{GPU}: its link has x8; before: x16",)
    assert probe(host.root, GPU) == WELL, "without a record there is nothing to lose"


def test_a_link_that_is_faster_and_wider_than_recorded_is_well(host: Host) -> None:
    put(host, "current_link_width", "8")
    put(host, "current_link_speed", "2.5 GT/s PCIe")
    before = read_function(host.root, GPU)
    put(host, "current_link_width", "16")
    put(host, "current_link_speed", "16.0 GT/s PCIe")
    assert probe(host.root, GPU, before) == WELL


def test_a_link_that_is_down_is_a_sickness_unless_it_was_before(host: Host) -> None:
    before = read_function(host.root, GPU)
    put(host, "current_link_speed", "Unknown")
    put(host, "current_link_width", "63")
    assert probe(host.root, GPU, before).sick == (f"{GPU}: its link is down; before: 16 GT/s x16",)
    asleep = read_function(host.root, GPU)
    assert probe(host.root, GPU, asleep) == WELL


def test_windows_must_all_be_there_in_their_size(host: Host) -> None:
    before = read_function(host.root, GPU)
    resource = host.kernel.device(GPU) / "resource"
    lines = resource.read_text().splitlines()
    none = "0x0000000000000000 0x0000000000000000 0x0000000000000000"
    resource.write_text("\n".join([lines[0], none, *lines[2:]]))
    assert probe(host.root, GPU, before).sick == (f"{GPU} lost its window 1 of {256 << 20} bytes",)
    start, _, flags = lines[1].split()
    resource.write_text("\n".join([lines[0], f"{start} {int(start, 16) + (1 << 20) - 1:#018x} {flags}", *lines[2:]]))
    assert "had 268435456 bytes and has 1048576" in probe(host.root, GPU, before).sick[0]


def test_another_device_in_its_place_is_noticed(host: Host) -> None:
    before = read_function(host.root, GPU)
    put(host, "device", "0x2330")
    assert probe(host.root, GPU, before).sick == (f"{GPU} was 10de:2684 and is 10de:2330",)


def test_a_power_state_that_the_kernel_cannot_tell_is_a_sickness_and_that_of_a_driverless_device_is_none(
    host: Host,
) -> None:
    put(host, "power_state", "unknown")
    assert probe(host.root, GPU) == WELL
    put(host, "power_state", "error")
    assert probe(host.root, GPU).sick == (f"{GPU}: its power state is unknown to the kernel",)


@pytest.mark.skipif(not Path("/sys/bus/pci/devices").is_dir(), reason="this host has no PCI bus")
def test_the_devices_of_this_host_are_well() -> None:
    found = [path.name for path in Path("/sys/bus/pci/devices").iterdir() if os.access(path / "config", os.R_OK)]
    for address in found:
        assert probe(Path("/"), address, read_function(Path("/"), address)).sick == ()
