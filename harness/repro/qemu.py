"""The machine of a libvirt domain in QEMU's own words.

It is what libvirt makes of the domain's XML, less what only libvirt needs (its monitor, its memory object).
``restrict=on`` shuts the guest in here as there.
"""

from __future__ import annotations

import json
from pathlib import Path

from harness.machines.domain import EMULATED_CPU, EMULATED_FEATURES, Disk, Domain
from harness.machines.passthrough import HostFunction

CONSOLE = Path("console.log")
"""Where the serial port goes when nothing else is said."""


def qemu_argv(domain: Domain, console: Path = CONSOLE) -> list[str]:
    """Return the argument vector of a QEMU that is the same machine as the libvirt domain.

    The serial port goes to the file ``console``.
    """
    argv = [domain.emulator, "-name", f"guest={domain.name}", "-uuid", domain.uuid]
    argv += ["-machine", "q35,usb=off,dump-guest-core=off", "-accel", "kvm" if domain.accelerator == "kvm" else "tcg"]
    host = "host,migratable=off" + (",host-phys-bits=on" if domain.passthrough.ports else "")
    emulated = ",".join((EMULATED_CPU, *(f"{feature}=on" for feature in EMULATED_FEATURES)))
    argv += ["-cpu", host if domain.accelerator == "kvm" else emulated]
    argv += ["-m", str(-(-domain.memory >> 20)), "-overcommit", "mem-lock=off"]
    argv += ["-smp", f"{domain.vcpus},sockets={domain.vcpus},cores=1,threads=1"]
    argv += ["-display", "none", "-no-user-config", "-nodefaults", "-rtc", "base=utc", "-boot", "strict=on"]
    # What <on_reboot>destroy does; a guest that powers itself off ends QEMU anyway.
    argv += ["-no-reboot"]
    if domain.loader is not None and domain.variables is not None:
        argv += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={domain.loader}"]
        # What the firmware remembers goes with this QEMU.
        argv += ["-drive", f"if=pflash,unit=1,format=raw,snapshot=on,file={domain.variables}"]
    argv += ["-kernel", str(domain.kernel), "-initrd", str(domain.initramfs), "-append", domain.cmdline]
    for port in domain.passthrough.ports:
        argv += ["-device", _json(**_root_port(port))]
    for number, function in enumerate(domain.passthrough.functions):
        argv += ["-device", _json(**_lent(function, f"hostdev{number}"))]
    for number, mediated in enumerate(domain.passthrough.mediated):
        where = {"bus": f"pci.{mediated.port}", "addr": "0x0", "display": "off"}
        path = f"/sys/bus/mdev/devices/{mediated.uuid}"
        argv += ["-device", _json(driver="vfio-pci", id=f"mdev{number}", sysfsdev=path, **where)]
    for disk in domain.disks:
        argv += _disk(disk)
    if domain.passthrough.display:
        argv += ["-device", _json(driver="VGA", id="video0", vgamem_mb=16, bus="pcie.0", addr="0x1")]
    argv += ["-chardev", f"file,id=charserial0,path={console}"]
    argv += ["-device", _json(driver="isa-serial", chardev="charserial0", id="serial0", index=0)]
    argv += ["-object", _json(**{"qom-type": "rng-random"}, id="objrng0", filename="/dev/urandom")]
    argv += ["-device", _json(driver="virtio-rng-pci", rng="objrng0", id="rng0", bus="pcie.0", addr="0x3")]
    argv += domain.qemu_arguments
    argv += ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
    return [*argv, "-device", _json(driver="pvpanic"), "-msg", "timestamp=on"]


def _root_port(port: int) -> dict[str, object]:
    slot, function = divmod(port - 1, 8)
    device: dict[str, object] = {"driver": "pcie-root-port", "port": port, "chassis": port, "id": f"pci.{port}"}
    device |= {"bus": "pcie.0", "addr": f"{16 + slot:#x}" + (f".{function:#x}" if function else "")}
    return device | ({} if function else {"multifunction": True})


def _lent(function: HostFunction, name: str) -> dict[str, object]:
    device: dict[str, object] = {"driver": "vfio-pci", "host": function.address, "id": name}
    place = f"0x0.{function.guest_function:#x}" if function.guest_function else "0x0"
    device |= {"bus": f"pci.{function.port}", "addr": place}
    if function.multifunction:
        device["multifunction"] = True
    return device if function.rom else device | {"rombar": 0}


def _disk(disk: Disk) -> list[str]:
    cache = {"direct": False, "no-flush": True}
    node = f"layer-{disk.serial}"
    source = {"driver": "file", "filename": str(disk.path), "cache": cache, "auto-read-only": True}
    device = {
        "driver": "virtio-blk-pci",
        "bus": "pcie.0",
        "addr": f"{disk.slot:#x}",
        "share-rw": True,
        "drive": node,
        "id": f"disk-{disk.serial}",
        "write-cache": "on",
        "serial": disk.serial,
    }
    return [
        "-blockdev",
        _json(driver="raw", **{"node-name": node, "read-only": True}, cache=cache, file=source),
        "-device",
        _json(**device),
    ]


def _json(**values: object) -> str:
    return json.dumps(values, separators=(",", ":"))
