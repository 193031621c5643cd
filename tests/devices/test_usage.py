"""What the host does with a device is found through whatever lies between: partitions, volumes, hubs, bridges."""

from __future__ import annotations

from pathlib import Path

from devices.recorded import RecordedMachine, machine
from harness.devices.pci import read_function
from harness.devices.usage import Disk, HostUse, Interface, Screen


def look(recorded: RecordedMachine, root: Path, address: str) -> tuple[tuple[Disk, ...], tuple[Interface, ...], Screen]:
    recorded.unfold(root)
    use, function = HostUse(root), read_function(root, address)
    return use.disks(function), use.interfaces(function), use.screen(function)


def test_mounted_partitions_and_swap_are_uses_of_their_disk(tmp_path: Path) -> None:
    disks, _, _ = look(machine("x58-no-remapping"), tmp_path, "0000:00:1f.2")
    assert disks == (Disk("sda", ("/", "swap")),)


def test_a_volume_made_of_a_partition_is_a_use_too(tmp_path: Path) -> None:
    disks, _, _ = look(machine("laptop-hybrid"), tmp_path, "0000:02:00.0")
    assert disks[0].name == "nvme0n1"
    assert set(disks[0].uses) == {"/", "/boot"}


def test_a_volume_that_is_not_mounted_is_a_use_by_its_name(tmp_path: Path) -> None:
    recorded = machine("laptop-hybrid")
    recorded.recording["mounts"] = []
    assert look(recorded, tmp_path, "0000:02:00.0")[0] == (Disk("nvme0n1", ("dm-0",)),)


def test_a_disk_with_several_paths_is_found_through_each(tmp_path: Path) -> None:
    disks, _, _ = look(machine("hgx-h100"), tmp_path, "0000:e2:00.0")
    assert disks == (Disk("nvme0n1", ("/",)),)


def test_btrfs_names_one_of_its_disks_and_sysfs_the_others(tmp_path: Path) -> None:
    recorded = machine("arc-only-screen")
    assert look(recorded, tmp_path / "a", "0000:06:00.0")[0] == (Disk("nvme0n1", ("/",)),)
    recorded.recording["mounts"] = []
    recorded.unfold(tmp_path / "b")
    (tmp_path / "b/sys/fs/btrfs/uuid/devices/nvme0n1p1").mkdir(parents=True)
    function = read_function(tmp_path / "b", "0000:06:00.0")
    assert HostUse(tmp_path / "b").disks(function) == (Disk("nvme0n1", ("a Btrfs file system",)),)


def test_a_drive_without_a_medium_is_no_disk(tmp_path: Path) -> None:
    recorded = machine("chipset-slot")
    recorded.unfold(tmp_path)
    (tmp_path / "sys/class/block/sdb/size").write_text("0\n")
    assert [disk.name for disk in HostUse(tmp_path).disks(read_function(tmp_path, "0000:01:00.1"))] == ["sda"]


def test_a_mount_point_is_told_in_printable_characters(tmp_path: Path) -> None:
    recorded = machine("x58-no-remapping")
    recorded.recording["mounts"] = [r"sda1 /mnt/a\040b\033[2J ext4"]
    assert look(recorded, tmp_path, "0000:00:1f.2")[0][0].uses == ("/mnt/a b?[2J", "swap")


def test_interfaces_are_up_or_down_and_may_lead_to_the_world(tmp_path: Path) -> None:
    _, up, _ = look(machine("workstation-shared-group"), tmp_path / "a", "0000:02:00.0")
    assert up == (Interface("enp2s0", True, True),)
    _, down, _ = look(machine("chipset-slot"), tmp_path / "b", "0000:03:00.0")
    assert down == (Interface("enp3s0", False, False),)


def test_the_default_route_through_a_bridge_is_that_of_its_ports(tmp_path: Path) -> None:
    recorded = machine("workstation-shared-group")
    recorded.recording["default_routes"] = ["br0"]
    root = recorded.unfold(tmp_path)
    bridge = root / "sys/devices/virtual/net/br0"
    bridge.mkdir(parents=True)
    (root / "sys/class/net/br0").symlink_to(bridge)
    (root / "sys/class/net/enp2s0/upper_br0").symlink_to(bridge)
    assert HostUse(root).interfaces(read_function(root, "0000:02:00.0")) == (Interface("enp2s0", True, True),)


def test_a_default_route_of_ipv6_counts(tmp_path: Path) -> None:
    recorded = machine("workstation-shared-group")
    recorded.recording["default_routes"] = []
    root = recorded.unfold(tmp_path)
    zero = "0" * 32
    line = f"{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003   enp2s0\n"
    (root / "proc/net/ipv6_route").write_text(line)
    assert HostUse(root).interfaces(read_function(root, "0000:02:00.0"))[0].default_route


def test_usb_devices_are_named_and_hubs_are_not(tmp_path: Path) -> None:
    root = machine("apu-shared-slot").unfold(tmp_path)
    assert HostUse(root).usb(read_function(root, "0000:04:00.3")) == ("USB Receiver", "Integrated Camera")
    assert HostUse(root).usb(read_function(root, "0000:04:00.0")) == ()


def test_mediated_devices_belong_to_the_gpu_that_they_were_made_on(tmp_path: Path) -> None:
    root = machine("vgpu-t4").unfold(tmp_path)
    name = "aa618089-8b16-4d01-a136-25a0f3c73123"
    assert HostUse(root).mediated(read_function(root, "0000:3b:00.0")) == (name,)
    assert HostUse(root).mediated(read_function(root, "0000:d8:00.0")) == ()


def test_a_screen_is_what_boots_what_has_a_framebuffer_and_what_is_connected(tmp_path: Path) -> None:
    root = machine("workstation-shared-group").unfold(tmp_path)
    assert HostUse(root).screen(read_function(root, "0000:05:00.0")) == Screen(True, ("fb0",), ("DP-1",))
    assert not HostUse(root).screen(read_function(root, "0000:01:00.0")).used


def test_the_framebuffer_that_firmware_left_belongs_to_the_gpu_that_booted(tmp_path: Path) -> None:
    recorded = machine("workstation-shared-group")
    del recorded.functions["0000:05:00.0"]["fb"]
    root = recorded.unfold(tmp_path)
    left = root / "sys/devices/platform/efi-framebuffer.0/graphics/fb0"
    left.mkdir(parents=True)
    (root / "sys/class/graphics").mkdir(parents=True)
    (root / "sys/class/graphics/fb0").symlink_to(left)
    assert HostUse(root).screen(read_function(root, "0000:05:00.0")).framebuffers == ("fb0",)
    assert HostUse(root).screen(read_function(root, "0000:01:00.0")).framebuffers == ()
