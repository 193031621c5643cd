"""Functions are read as the kernel publishes them; what is odd or missing is unknown and breaks nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from devices.recorded import machine, machine_names
from harness.devices.pci import is_address, read_function, read_functions
from harness.errors import InfraError
from harness.model.device import Bar, Link

GPU = "0000:01:00.0"


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    return machine("workstation-shared-group").unfold(tmp_path)


def test_a_gpu_is_read_in_full(shared: Path) -> None:
    gpu = read_function(shared, GPU)
    assert (gpu.vendor, gpu.device, gpu.class_code, gpu.ids) == (0x10DE, 0x2684, 0x030000, "10de:2684")
    assert (gpu.subsystem, gpu.revision) == ((0x1043, 0x889A), 0xA1)
    assert (gpu.driver, gpu.override, gpu.group) == ("nvidia", "", 1)
    assert gpu.reset_methods == ("flr",)
    assert gpu.bars == (Bar(0, 16 << 20), Bar(1, 32 << 30, True, True), Bar(3, 32 << 20, True, True))
    assert gpu.resizable
    assert gpu.link == Link(2.5, 8, 16.0, 16)
    assert gpu.numa_node is None
    assert not gpu.boot_vga
    assert gpu.power_state == "D0"
    assert gpu.is_gpu
    assert not gpu.is_bridge


def test_bridges_are_named_from_the_root_down(shared: Path) -> None:
    assert read_function(shared, "0000:05:00.0").bridges == ("0000:00:1b.0", "0000:03:00.0", "0000:04:00.0")
    assert read_function(shared, "0000:00:01.0").bridges == ()


def test_io_ports_and_the_rom_are_no_windows(shared: Path) -> None:
    assert all(bar.index != 5 for bar in read_function(shared, GPU).bars)


@pytest.mark.parametrize("name", machine_names())
def test_every_function_of_a_recorded_machine_is_found(name: str, tmp_path: Path) -> None:
    recorded = machine(name)
    found = read_functions(recorded.unfold(tmp_path))
    assert [function.address for function in found] == sorted(recorded.functions)
    for function in found:
        spec = recorded.functions[function.address]
        assert function.ids == spec["id"]
        assert function.driver == spec.get("driver", "")
        assert function.group == (int(spec["group"]) if "group" in spec else None)


def test_a_device_that_is_not_there_is_an_error_of_the_host(shared: Path) -> None:
    for address in ("0000:0f:00.0", "../../../etc", ""):
        with pytest.raises(InfraError, match="there is no PCI device"):
            read_function(shared, address)


def test_a_host_without_pci_has_no_functions(tmp_path: Path) -> None:
    assert read_functions(tmp_path) == ()


@pytest.mark.parametrize(
    "odd",
    [b"", b"\xff" * 9000, b"0x" + b"f" * 9000, b"-1\n", b"nonsense", b"1" * 5000, b"\x1b[2J\n", b"(null)\n"],
    ids=["empty", "binary", "too long", "negative", "nonsense", "too large", "escape", "null"],
)
def test_no_content_of_any_file_breaks_the_reading(shared: Path, odd: bytes) -> None:
    device = shared / "sys/bus/pci/devices" / GPU
    for path in list(device.iterdir()):
        if path.is_file() and not path.is_symlink():
            path.write_bytes(odd)
    found = read_function(shared, GPU)
    assert found.address == GPU
    assert 0 <= found.vendor <= 0xFFFF
    assert found.link is not None
    assert (found.link.speed, found.link.max_speed) == (0.0, 0.0)
    assert "\\x1b" not in repr(found)


def test_what_is_no_plain_file_is_not_read(shared: Path) -> None:
    device = shared / "sys/bus/pci/devices" / GPU
    for name in ("vendor", "numa_node", "power_state"):
        (device / name).unlink()
    os.mkfifo(device / "vendor")
    (device / "numa_node").mkdir()
    (device / "power_state").symlink_to("power_state")
    found = read_function(shared, GPU)
    assert (found.vendor, found.numa_node, found.power_state) == (0, None, "")


def test_an_override_and_a_group_that_is_no_number(shared: Path) -> None:
    device = shared / "sys/bus/pci/devices" / GPU
    (device / "driver_override").write_text("vfio-pci\n")
    (device / "iommu_group").unlink()
    (device / "iommu_group").symlink_to("../../kernel/iommu_groups/²")
    found = read_function(shared, GPU)
    assert (found.override, found.group) == ("vfio-pci", None)
    # Without a driver it is not read: a kernel may be about to take one away, and the reader would wait with it.
    (device / "driver").unlink()
    assert read_function(shared, found.address).override == ""


def test_other_names_among_the_devices_are_left_alone(shared: Path) -> None:
    devices = shared / "sys/bus/pci/devices"
    (devices / "slots").mkdir()
    (devices / "0000:99:00.0").symlink_to("nowhere")
    assert {function.address for function in read_functions(shared)} == set(
        machine("workstation-shared-group").functions
    )


def test_addresses() -> None:
    assert is_address("0000:01:00.0")
    assert is_address("10000:e1:1f.7")
    for word in ("01:00.0", "0000:01:00.8", "0000:01:20.0", "0000:01:00.0\n", "0000:01:00.0/..", ""):
        assert not is_address(word)


def test_a_variant_of_a_machine_leaves_the_machine_as_it_is(tmp_path: Path) -> None:
    variant = machine("workstation-shared-group")
    variant.functions[GPU]["driver"] = "nouveau"
    assert read_function(variant.unfold(tmp_path), GPU).driver == "nouveau"
    assert machine("workstation-shared-group").functions[GPU]["driver"] == "nvidia"
