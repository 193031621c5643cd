"""Recorded machines: a compact YAML of what a host is made of, unfolded into its ``/sys``, ``/proc`` and ``/dev``.

The tree has the shape of the real one, links included: functions lie below their bridges in ``sys/devices``, and
``sys/bus/pci/devices``, ``driver``, ``iommu_group`` and the classes are links. Files that are written to on a real host
(``unbind``, ``drivers_probe``, ``driver_override``, ``reset``, …) are plain files here: what writing does is for a
simulator. Every value of the YAML is text; numbers are converted where they are used.

A function: ``id`` (vendor:device), ``class`` (4 or 6 digits) and ``name`` (as in pci.ids); and, as it has them,
``under`` (the bridge above), ``driver``, ``override``, ``group``, ``sub``, ``rev``, ``reset`` (methods), ``bars``
(``1 128G wide prefetch``), ``rebar``, ``link`` (``16.0 x16 of 32.0 x16``), ``numa``, ``boot_vga``, ``power``, ``vfs``
(how many it could have), ``physfn``, ``mdev`` (id: [name, available]), ``mediated`` (UUIDs of such devices), ``gone``
(config space reads as all ones), and below it ``drm`` (node: {connector: status}), ``sound`` (nodes), ``fb``, ``net``
(interface: up or down), ``block`` (disk: [partitions]) with ``subsystem`` for an NVMe disk with several paths,
``usb`` (name: class and product), ``nvidia`` (its minor number).
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

MACHINES = Path(__file__).parent / "machines"
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_VENDORS = {
    "1000": "Broadcom / LSI",
    "1002": "Advanced Micro Devices, Inc. [AMD/ATI]",
    "1022": "Advanced Micro Devices, Inc. [AMD]",
    "10b5": "PLX Technology, Inc.",
    "10de": "NVIDIA Corporation",
    "144d": "Samsung Electronics Co Ltd",
    "10ec": "Realtek Semiconductor Co., Ltd.",
    "15b3": "Mellanox Technologies",
    "1a03": "ASPEED Technology, Inc.",
    "8086": "Intel Corporation",
}


class _Plain(yaml.SafeLoader):
    """Text only: ``0604`` is no octal and ``0000:01:00.0`` no number to base 60. Merge keys stay."""

    yaml_implicit_resolvers = {"<": [("tag:yaml.org,2002:merge", re.compile("^<<$"))]}  # noqa: RUF012  as in PyYAML


def machine_names() -> list[str]:
    """Names of all recorded machines."""
    return sorted(path.stem for path in MACHINES.glob("*.yaml"))


def machine(name: str) -> RecordedMachine:
    """The recorded machine of that name."""
    return RecordedMachine(MACHINES / f"{name}.yaml")


@dataclass
class RecordedMachine:
    """One file of ``machines/``; change :attr:`recording` before unfolding to make a variant."""

    path: Path
    recording: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.recording = yaml.load(self.path.read_text(encoding="utf-8"), Loader=_Plain)  # a safe loader

    @property
    def functions(self) -> dict[str, dict[str, Any]]:
        """By address."""
        functions: dict[str, dict[str, Any]] = self.recording["functions"]
        return functions

    def unfold(self, root: Path) -> Path:
        """Make the tree below ``root``, which may exist, and return it."""
        _Tree(root, self.recording).make()
        return root


def size(text: str) -> int:
    """Bytes of ``256M``."""
    return int(text[:-1]) * _UNITS[text[-1]] if text[-1] in _UNITS else int(text)


class _Tree:
    def __init__(self, root: Path, recording: dict[str, Any]) -> None:
        self.root = root
        self.machine = recording
        self.functions: dict[str, dict[str, Any]] = recording["functions"]
        self.numbers: dict[str, str] = {}
        """Block device → ``major:minor``."""
        self.disks: dict[str, Path] = {}
        self.bar = 0x40_0000_0000

    def make(self) -> None:
        for path in (
            "sys/bus/pci/devices",
            "sys/kernel/iommu_groups",
            "sys/class/iommu",
            "dev",
            "proc",
            "sys/class/drm",
        ):
            (self.root / path).mkdir(parents=True, exist_ok=True)
        for name in ("drivers_probe", "rescan"):
            self.write(f"sys/bus/pci/{name}", "")
        for address, spec in self.functions.items():
            self.function(address, spec)
        for address, spec in self.functions.items():  # now that all are there to be linked to
            self.links(address, spec)
            self.below(address, spec)
        self.storage()
        self.kernel()
        self.network()
        self.processes()
        self.names()

    # What every function has

    def home(self, address: str) -> Path:
        """The real directory of a function, below its bridges."""
        above = self.functions[address].get("under")
        parent = self.home(above) if above else self.root / "sys/devices" / f"pci{address.rpartition(':')[0]}"
        return parent / address

    def function(self, address: str, spec: dict[str, Any]) -> None:
        home = self.home(address)
        vendor, device = spec["id"].split(":")
        board = spec.get("sub", "0000:0000").split(":")
        code = spec["class"].ljust(6, "0")
        for name, text in {
            "vendor": f"0x{vendor}",
            "device": f"0x{device}",
            "class": f"0x{code}",
            "subsystem_vendor": f"0x{board[0]}",
            "subsystem_device": f"0x{board[1]}",
            "revision": f"0x{spec.get('rev', '00')}",
            "driver_override": spec.get("override", "(null)"),
            "numa_node": spec.get("numa", "-1"),
            "power_state": spec.get("power", "D0"),
            "enable": "1" if spec.get("driver") else "0",
            "resource": self.resource(spec),
            "modalias": f"pci:v0000{vendor.upper()}d0000{device.upper()}",
        }.items():
            self.write(home / name, f"{text}\n")
        for name in ("remove", "rescan"):
            self.write(home / name, "")
        if reset := spec.get("reset"):
            self.write(home / "reset_method", f"{reset}\n")
            self.write(home / "reset", "")
        (home / "config").write_bytes(self.config(spec, int(vendor, 16), int(device, 16), int(code, 16)))
        if "link" in spec:
            self.link_files(home, spec["link"])
        if "boot_vga" in spec or code.startswith("0300"):
            self.write(home / "boot_vga", f"{spec.get('boot_vga', '0')}\n")
        if "rebar" in spec:
            self.write(home / f"resource{spec['rebar']}_resize", "0000000000007fc0\n")
        if "vfs" in spec:
            self.write(home / "sriov_totalvfs", f"{spec['vfs']}\n")
            count = sum(other.get("physfn") == address for other in self.functions.values())
            self.write(home / "sriov_numvfs", f"{count}\n")
        for kind, (name, available) in spec.get("mdev", {}).items():
            self.write(home / "mdev_supported_types" / kind / "name", f"{name}\n")
            self.write(home / "mdev_supported_types" / kind / "available_instances", f"{available}\n")

    def resource(self, spec: dict[str, Any]) -> str:
        lines = ["0x0000000000000000 0x0000000000000000 0x0000000000000000"] * 13
        for words in map(str.split, spec.get("bars", [])):
            index, length = int(words[0]), size(words[1])
            self.bar = -(-self.bar // length) * length  # a window is aligned to its size
            flags = 0x40100 if "io" in words else 0x40200
            flags |= (0x100000 if "wide" in words else 0) | (0x2000 if "prefetch" in words else 0)
            lines[index] = f"0x{self.bar:016x} 0x{self.bar + length - 1:016x} 0x{flags:016x}"
            self.bar += length
        return "\n".join(lines)

    @staticmethod
    def config(spec: dict[str, Any], vendor: int, device: int, code: int) -> bytes:
        """The first 64 bytes: PCI Local Bus Specification, 6.1."""
        if "gone" in spec:
            return b"\xff" * 64
        header = bytearray(64)
        struct.pack_into("<HH", header, 0, vendor, device)
        header[8] = int(spec.get("rev", "0"), 16)
        header[9:12] = code.to_bytes(3, "little")
        header[14] = 1 if code >> 8 == 0x0604 else 0
        return bytes(header)

    def link_files(self, home: Path, text: str) -> None:
        now, _, most = text.partition(" of ")
        for prefix, words in (("current", now.split()), ("max", (most or now).split())):
            speed = words[0] if words[0] == "Unknown" else f"{words[0]} GT/s PCIe"
            self.write(home / f"{prefix}_link_speed", f"{speed}\n")
            self.write(home / f"{prefix}_link_width", f"{words[1].lstrip('x')}\n")

    def links(self, address: str, spec: dict[str, Any]) -> None:
        home = self.home(address)
        self.link(self.root / "sys/bus/pci/devices" / address, home)
        self.link(home / "subsystem", self.root / "sys/bus/pci")
        if group := spec.get("group"):
            folder = self.root / "sys/kernel/iommu_groups" / group
            self.write(folder / "type", "DMA-FQ\n")
            self.link(folder / "devices" / address, home)
            self.link(home / "iommu_group", folder)
        if driver := spec.get("driver"):
            folder = self.root / "sys/bus/pci/drivers" / driver
            for name in ("bind", "unbind", "new_id", "remove_id"):
                self.write(folder / name, "")
            self.link(folder / address, home)
            self.link(home / "driver", folder)
            self.loaded(driver.replace("-", "_"))
        if driver == "vfio-pci":
            self.write(self.root / "dev/vfio/vfio", "")
            self.write(self.root / "dev/vfio" / group, "")
        if above := spec.get("physfn"):
            self.link(home / "physfn", self.home(above))
            number = len(list(self.home(above).glob("virtfn*")))
            self.link(self.home(above) / f"virtfn{number}", home)

    # What drivers make below it

    def below(self, address: str, spec: dict[str, Any]) -> None:
        home = self.home(address)
        for node, connectors in spec.get("drm", {}).items():
            number = node.removeprefix("card").removeprefix("renderD")
            self.classed("drm", home / "drm" / node, node, f"226:{number}")
            self.write(self.root / "dev/dri" / node, "")
            for connector, status in (connectors or {}).items():
                self.classed("drm", home / "drm" / node / f"{node}-{connector}", f"{node}-{connector}", None)
                self.write(home / "drm" / node / f"{node}-{connector}/status", f"{status}\n")
        for number, node in enumerate(spec.get("sound", [])):
            self.classed("sound", home / "sound/card" / node, node, f"116:{number}")
            self.write(self.root / "dev/snd" / node, "")
        if node := spec.get("fb"):
            self.classed("graphics", home / "graphics" / node, node, f"29:{node.removeprefix('fb')}")
            self.link(home / "graphics" / node / "device", home)
            self.write(self.root / "dev" / node, "")
        for name, state in spec.get("net", {}).items():
            folder = home / "net" / name
            self.classed("net", folder, name, None)
            self.write(folder / "operstate", f"{state}\n")
            self.write(folder / "flags", "0x1003\n" if state == "up" else "0x1002\n")
        for name, words in spec.get("usb", {}).items():
            code, _, product = words.partition(" ")
            folder = home / f"usb{name.partition('-')[0]}" / name
            self.write(folder / "bDeviceClass", f"{code}\n")
            self.write(folder / "product", f"{product}\n")
            self.link(self.root / "sys/bus/usb/devices" / name, folder)
        if minor := spec.get("nvidia"):
            self.write(f"proc/driver/nvidia/gpus/{address}/information", f"Model: \t x\nDevice Minor: \t {minor}\n")
            self.write(self.root / "dev" / f"nvidia{minor}", "")
        for name in spec.get("mediated", []):
            self.write(home / name / "available", "")
            self.link(self.root / "sys/bus/mdev/devices" / name, home / name)
        for disk, partitions in spec.get("block", {}).items():
            self.disk(home, spec, disk, partitions)

    def disk(self, home: Path, spec: dict[str, Any], disk: str, partitions: list[str]) -> None:
        if not disk.startswith("nvme"):
            folder = home / "ata1/host0/target0:0:0/0:0:0:0/block" / disk
        elif subsystem := spec.get("subsystem"):
            controller = disk[: disk.index("n", 4)]
            (home / "nvme" / controller).mkdir(parents=True)
            folder = self.root / "sys/devices/virtual/nvme-subsystem" / subsystem / disk
            self.link(folder.parent / controller, home / "nvme" / controller)
        else:
            folder = home / "nvme" / disk[: disk.index("n", 4)] / disk
        for name, path in ((disk, folder), *((part, folder / part) for part in partitions)):
            self.numbers[name] = f"{259 if disk.startswith('nvme') else 8}:{len(self.numbers)}"
            self.classed("block", path, name, self.numbers[name])
            (path / "holders").mkdir()
            self.write(path / "size", "1953525168\n")
            if name != disk:
                self.write(path / "partition", f"{len(self.numbers)}\n")
            self.disks[name] = path

    def storage(self) -> None:
        for name, parts in self.machine.get("mapped", {}).items():
            self.numbers[name] = f"254:{name.removeprefix('dm-')}"
            self.disks[name] = self.root / "sys/devices/virtual/block" / name
            self.classed("block", self.disks[name], name, self.numbers[name])
            (self.disks[name] / "holders").mkdir()
            known = re.search(rf"^{name} .*/dev/mapper/(\S+)$", "\n".join(self.machine.get("mounts", [])), re.MULTILINE)
            self.write(self.disks[name] / "dm/name", f"{known[1] if known else name}\n")
            for part in parts:
                self.link(self.disks[part] / "holders" / name, self.disks[name])
                self.link(self.disks[name] / "slaves" / part, self.disks[part])
        lines = ["21 1 0:20 / /proc rw,nosuid - proc proc rw"]
        for number, words in enumerate(self.machine.get("mounts", []), 22):
            device, point, kind, *source = words.split()
            where = self.numbers[device] if kind != "btrfs" else f"0:{number}"
            lines.append(f"{number} 1 {where} / {point} rw - {kind} {(source or [f'/dev/{device}'])[0]} rw")
        self.write("proc/self/mountinfo", "\n".join(lines) + "\n")
        swaps = [f"/dev/{device}  partition\t99\t0\t-2\n" for device in self.machine.get("swaps", [])]
        self.write("proc/swaps", "Filename\t\tType\t\tSize\tUsed\tPriority\n" + "".join(swaps))

    # What is true of the whole machine

    def kernel(self) -> None:
        release = self.machine.get("release", "6.12.43+deb13-amd64")
        self.write("proc/sys/kernel/osrelease", f"{release}\n")
        self.write("proc/cmdline", f"{self.machine.get('cmdline', 'quiet')}\n")
        self.write("proc/cpuinfo", f"processor\t: 0\nvendor_id\t: {self.machine['cpu']}\n")
        intel = self.machine["cpu"] == "GenuineIntel"
        if "table" not in self.machine or self.machine["table"] != "no":
            self.write(f"sys/firmware/acpi/tables/{'DMAR' if intel else 'IVRS'}", "")
        if any("group" in spec for spec in self.functions.values()):
            name = "dmar0" if intel else "ivhd0"
            folder = self.root / "sys/devices/virtual/iommu" / name
            self.classed("iommu", folder, name, None)
        prefix = "" if self.machine.get("remapping") == "no" else "IR-"
        for number, chip in enumerate(("IO-APIC", "PCI-MSI-0000:00:1f.2", "PCI-MSIX-0000:01:00.0")):
            self.write(f"sys/kernel/irq/{number}/chip_name", f"{prefix}{chip}\n")
        for module in self.machine.get("modules", []):
            self.loaded(module)
        here = self.root / "lib/modules" / release
        shipped = "kernel/drivers/vfio/pci/vfio-pci.ko.xz: kernel/drivers/vfio/vfio.ko.xz\n"
        self.write(here / "modules.dep", "" if self.machine.get("vfio") == "no" else shipped)
        self.write(here / "modules.builtin", "kernel/drivers/pci/pci-stub.ko\n")

    def loaded(self, module: str) -> None:
        (self.root / "sys/module" / module).mkdir(parents=True, exist_ok=True)

    def network(self) -> None:
        lines = ["Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"]
        for name in self.machine.get("default_routes", []):
            lines.append(f"{name}\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0")
        self.write("proc/net/route", "\n".join(lines) + "\n")
        self.write("proc/net/ipv6_route", "")

    def processes(self) -> None:
        # The inode of the first PID name space is fixed: PROC_PID_INIT_INO in the kernel's proc_ns.h.
        inside = self.machine.get("container") == "yes"
        self.link_text(self.root / "proc/self/ns/pid", f"pid:[{4026532198 if inside else 4026531836}]")
        for spec in self.machine.get("processes", []):
            folder = self.root / "proc" / spec["pid"]
            self.write(folder / "comm", f"{spec['name']}\n")
            self.write(folder / "status", f"Name:\t{spec['name']}\nUid:\t{spec.get('uid', '0')}\t0\t0\t0\n")
            if "hidden" in spec:
                continue
            self.link_text(folder / "fd/0", "/dev/null")
            self.link_text(folder / "fd/1", "socket:[4711]")
            for number, node in enumerate(spec.get("holds", []), 2):
                self.link_text(folder / "fd" / str(number), node)

    def names(self) -> None:
        """A list of PCI ids with what this machine has."""
        if self.machine.get("names") == "no":
            return
        known: dict[str, dict[str, str]] = {}
        for spec in self.functions.values():
            vendor, device = spec["id"].split(":")
            known.setdefault(vendor, {})[device] = spec["name"]
        lines = ["# excerpt"]
        for vendor, devices in sorted(known.items()):
            lines.append(f"{vendor}  {_VENDORS[vendor]}")
            lines += [f"\t{device}  {name}" for device, name in sorted(devices.items())]
        self.write("usr/share/misc/pci.ids", "\n".join([*lines, "", "# classes", "C 03  Display controller", ""]))

    # Writing

    def write(self, path: str | Path, text: str) -> None:
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def link(self, path: Path, target: Path) -> None:
        self.link_text(path, os.path.relpath(target, path.parent))

    def link_text(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(text)

    def classed(self, name: str, folder: Path, member: str, number: str | None) -> None:
        """A member of a class: its directory, its link below sys/class, its device number."""
        folder.mkdir(parents=True, exist_ok=True)
        self.link(self.root / "sys/class" / name / member, folder)
        if number:
            self.write(folder / "dev", f"{number}\n")
