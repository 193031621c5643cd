"""May a unit be lent to a VM; if not, exactly why, and what to change.

A VM's guest is hostile, and the host must survive the lending. What no one could give back is never lent: data on a
disk, the way into the host, a kernel that hangs, another VM's device. What the host's owner may give, a user may force:
the screen, a USB keyboard, a network card that is down. Nothing here changes the host, sets
``allow_unsafe_interrupts`` or edits a boot line.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import final

from harness.devices import fabric, sysfs
from harness.devices.holders import Holders, holders_of
from harness.devices.inventory import is_real_group, same_slot, units_of
from harness.devices.iommu import read_iommu, read_vfio
from harness.devices.names import PciNames
from harness.devices.objection import Code, Examined, Level, Objection
from harness.devices.pci import DEVICES, read_functions
from harness.devices.usage import Disk, HostUse, Interface
from harness.model.device import PassthroughUnit, PciFunction

_COMPANIONS = frozenset({0x0403, 0x0C03, 0x0C80})
"""Classes of the other functions of a GPU: audio, USB, the controller of a USB-C port."""
_FORWARDING = frozenset({0x0604, 0x0607, 0x0609})
"""Bridges that only pass on what is behind them; the kernel lets them stay with their drivers (vfio_dev_viable)."""
_VGA = 0x0300
_MEDIATED = "/sys/bus/mdev/devices"
_WORDS = {
    0x0106: "the SATA controller",
    0x0108: "the NVMe drive",
    0x0280: "the network card",
    0x0300: "the GPU",
    0x0302: "the GPU",
    0x0380: "the GPU",
    0x0403: "the audio device",
    0x0680: "the switch",
    0x0C03: "the USB controller",
    0x0C05: "the SMBus controller",
    0x1080: "the encryption controller",
    0x1200: "the accelerator",
}
_BASE_WORDS = {0x01: "the disk controller", 0x02: "the network card", 0x04: "the audio device", 0x06: "the bridge"}
_SERVICES = {
    "nvidia-persiste": "sudo systemctl stop nvidia-persistenced",  # the kernel keeps 15 letters of a name
    "nv-fabricmanage": "sudo systemctl stop nvidia-fabricmanager",
    "nv-hostengine": "sudo systemctl stop nvidia-dcgm",
    **dict.fromkeys(
        ("Xorg", "Xwayland", "gnome-shell", "kwin_wayland", "sddm-greeter", "gdm-wayland-ses", "weston", "sway"),
        "sudo systemctl stop display-manager",
    ),
}


@final
class HostView:
    """One look at a host, on which any number of units are judged."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self.functions = read_functions(root)
        self.units = units_of(self.functions)
        self.iommu = read_iommu(root)
        self.vfio = read_vfio(root)
        self.use = HostUse(root)

    @cached_property
    def holders(self) -> dict[str, Holders]:
        """Who holds each unit, by its address."""
        return holders_of(self.units, self.root)

    @cached_property
    def fabric_managed(self) -> bool:
        """Whether somebody could set up an NVLink fabric of this host for a guest."""
        return fabric.manager_runs(self.root)

    @cached_property
    def names(self) -> PciNames:
        """The host's list of PCI ids."""
        return PciNames.of(self.root)

    def survey(self) -> tuple[Examined, ...]:
        """Every unit of the host, judged."""
        return tuple(
            Examined(
                unit,
                examine(unit, self.root, self),
                {one.address: self.names.device_name(one.vendor, one.device) for one in unit.functions},
                {one.address: self.names.vendor_name(one.vendor) for one in unit.functions},
                fabric.no_nvlink(fabric.switches_beside(unit, self.functions), self.fabric_managed),
            )
            for unit in self.units
        )


def survey(root: Path = Path("/")) -> tuple[Examined, ...]:
    """Look at the host below ``root`` and judge every unit of it, by address."""
    return HostView(root).survey()


def examine(unit: PassthroughUnit, root: Path = Path("/"), view: HostView | None = None) -> tuple[Objection, ...]:
    """Return everything that speaks against lending a unit, the heaviest first.

    ``view`` is a look at the host that was taken for other units, too; without it the host is looked at now.
    """
    host = view or HostView(root)
    found = [
        *_host(unit, host),
        *_gone(unit, host),
        *_contents(unit, host),
        *_screen(unit, host),
        *_held(unit, host),
        *_notes(unit, host),
    ]
    return tuple(sorted(map(_printable, found), key=lambda one: list(Level).index(one.level)))


def _printable(found: Objection) -> Objection:
    """Names of interfaces, drivers and nodes are other people's text."""
    reason, fix = ("".join(c if c.isprintable() else "?" for c in text) for text in (found.reason, found.fix))
    return replace(found, reason=reason, fix=fix)


def describe(function: PciFunction) -> str:
    """A function in words: ``the network card 0000:02:00.0 (e1000e)``."""
    code = function.class_code >> 8
    word = _WORDS.get(code) or _BASE_WORDS.get(code >> 8) or f"the device of class {code:04x}"
    return f"{word} {function.address} ({function.driver or 'no driver'})"


def is_lent(function: PciFunction) -> bool:
    """Whether the host has given a function away: vfio-pci, or a variant of it for one kind of device, holds it."""
    return function.driver.replace("-", "_").endswith("vfio_pci")


def _never(code: Code, reason: str, fix: str) -> Objection:
    return Objection(code, Level.NEVER, reason, fix)


def _host(unit: PassthroughUnit, host: HostView) -> Iterable[Objection]:
    if not is_real_group(host.root, unit.group):
        if host.iommu.on:
            reason = "it is in no IOMMU group, although the IOMMU is on"
            yield _never(Code.IOMMU_OFF, reason, "look in the kernel's log for why its IOMMU was left out")
        else:
            yield _never(Code.IOMMU_OFF, "the IOMMU is off", host.iommu.fix)
    elif host.iommu.remapping is False:
        reason = "interrupts are not remapped, so a guest could forge those of other devices"
        yield _never(Code.NO_REMAPPING, reason, host.iommu.fix)
    if not host.vfio.there:
        yield _never(Code.NO_VFIO, f"vfio-pci: {host.vfio.found}", host.vfio.fix)


def _gone(unit: PassthroughUnit, host: HostView) -> Iterable[Objection]:
    """A device that fell off its bus answers each read of its configuration space with ones."""
    for function in unit.functions:
        if sysfs.data(host.root / DEVICES / function.address / "config", 4) == b"\xff" * 4:
            reason = f"{function.address} does not answer: its configuration space reads as ones"
            yield _never(Code.GONE, reason, "turn the host off and on again; a reboot may not cut the device's power")
    for function in unit.functions:
        if function.vfs:
            some = f"{len(function.vfs)} virtual functions ({function.vfs[0]}, …)"
            path = f"/{DEVICES}/{function.address}/sriov_numvfs"
            fix = f"end what uses them, then: sudo sh -c 'echo 0 > {path}'; or ask for a virtual function instead"
            yield _never(Code.VFS, f"{function.address} has {some}, which would be gone", fix)
        if made := host.use.mediated(function):
            reason = f"{function.address} has mediated devices ({len(made)}: {made[0]}, …), which would be gone"
            fix = f"end the VMs that use them, then remove each: sudo sh -c 'echo 1 > {_MEDIATED}/{made[0]}/remove'"
            yield _never(Code.MEDIATED, reason, fix)


def _contents(unit: PassthroughUnit, host: HostView) -> Iterable[Objection]:
    """What of the host would go along with the GPU."""
    group = f"group {unit.group}" if unit.group is not None else "its slot"
    for function in unit.functions:
        if is_lent(function):
            continue
        found = [
            *_disks(group, function, host.use.disks(function)),
            *_network(group, function, host.use.interfaces(function)),
        ]
        gpu = next((one for one in unit.gpus if same_slot(one, function)), None)
        if usb := host.use.usb(function):
            reason = f"USB devices are plugged in at {function.address}: {', '.join(usb)}"
            found.append(Objection(Code.USB, Level.REFUSED, reason, "plug them into ports of another controller"))
        own = function.is_gpu or (gpu is not None and function.class_code >> 8 in _COMPANIONS)
        if not own and not found:
            reason = f"{group} also holds {describe(function)}, which a guest would get, too"
            found.append(Objection(Code.GROUP, Level.REFUSED, reason, _apart(function, gpu)))
        yield from found
    for function in host.functions:
        if function.group is None or function.group != unit.group or not function.is_bridge:
            continue
        if function.class_code >> 8 not in _FORWARDING and function.driver and not is_lent(function):
            reason = f"{group} also holds {describe(function)}, and the kernel lends no group that a driver is part of"
            fix = (
                f"take its driver away, if the host can do without: driverctl set-override {function.address} vfio-pci"
            )
            yield _never(Code.GROUP, reason, fix)


def _apart(function: PciFunction, gpu: PciFunction | None) -> str:
    if gpu is not None:
        return f"it is part of the same chip as {gpu.address} and cannot be put elsewhere"
    return "move one of the two to another slot, or turn on ACS in the firmware's setup if it has it"


def _disks(group: str, function: PciFunction, disks: tuple[Disk, ...]) -> Iterable[Objection]:
    for disk in disks:
        uses = ", ".join(disk.uses[:4])
        use = f"in use ({uses})" if uses else "and a guest could overwrite it"
        if "/" in disk.uses:
            reason = f"the root file system is on {disk.name} in {group}, behind {describe(function)}"
        else:
            reason = f"the disk {disk.name} is in {group}, behind {describe(function)}, {use}"
        yield _never(Code.DISK, reason, "move the GPU or the disk to another slot or port")


def _network(group: str, function: PciFunction, interfaces: tuple[Interface, ...]) -> Iterable[Objection]:
    for one in interfaces:
        state = "up" if one.up else "down"
        also = ", default route" if one.default_route else ""
        words = describe(function).removesuffix(")")
        reason = f"{group} also holds {words}, interface {one.name}, {state}{also})"
        fix = "move one of the two to another slot"
        if one.up:
            also = "" if one.default_route else f", or if nothing needs it: sudo ip link set {one.name} down"
            yield _never(Code.NETWORK, reason, fix + also)
        else:
            reason += ": a guest would get it, and with it a way to the network"
            yield Objection(Code.NETWORK, Level.REFUSED, reason, fix)


def _screen(unit: PassthroughUnit, host: HostView) -> Iterable[Objection]:
    for gpu in unit.gpus:
        screen = host.use.screen(gpu)
        # Reserved for VMs since boot, it shows nothing of the host's, unless firmware's framebuffer is still there.
        if not screen.used or (is_lent(gpu) and not screen.framebuffers):
            continue
        shown = [
            *(["boot messages"] if screen.boot else []),
            *screen.framebuffers,
            *(f"a screen at {name}" for name in screen.connected),
        ]
        others = [
            one
            for one in host.functions
            if one.is_gpu and one.address != gpu.address and one.class_code >> 8 == _VGA and not is_lent(one)
        ]
        if others:
            reason = f"{gpu.address} has the host's screen ({', '.join(shown)})"
            fix = (
                f"give the host another: plug the screen into {others[0].address} and make it the firmware's first GPU"
            )
        else:
            reason = f"{gpu.address} has the host's only screen ({', '.join(shown)})"
            fix = "add a GPU for the host, or run the host without a screen, over SSH, and force it"
        yield Objection(Code.SCREEN, Level.REFUSED, reason, fix)


def _held(unit: PassthroughUnit, host: HostView) -> Iterable[Objection]:
    answer = host.holders.get(unit.address) or holders_of([unit], host.root)[unit.address]
    lent = all(is_lent(one) or not one.driver for one in unit.functions)
    for holder in answer.found:
        if any(node.startswith("/dev/vfio/") for node in holder.nodes):
            fix = f"shut that VM down, or end process {holder.pid}"
            yield _never(Code.LENT, f"a VM has it: {holder}", fix)
        else:
            fix = _SERVICES.get(holder.command[:15]) or _SERVICES.get(holder.command) or "stop it"
            yield _never(Code.IN_USE, f"in use by: {holder}", fix)
    if answer.unseen and not lent:
        driver = next(one.driver for one in unit.functions if one.driver and not is_lent(one))
        reason = f"who uses it is not known: {answer.unseen}; {driver} could hang when it is taken away in use"
        yield Objection(Code.HOLDERS, Level.REFUSED, reason, "run this as root on the host itself")


def _notes(unit: PassthroughUnit, host: HostView) -> Iterable[Objection]:
    if len(unit.gpus) > 1:
        others = ", ".join(one.address for one in unit.gpus[1:])
        yield Objection(Code.TOGETHER, Level.NOTE, f"{others} can only go to the same VM as {unit.address}", "")
    members = {one.address for one in unit.functions}
    apart = [
        one
        for one in host.functions
        if one.address not in members
        and not one.physical
        and any(same_slot(one, gpu) and not gpu.physical for gpu in unit.gpus)
    ]
    if apart and unit.group is not None:
        some = ", ".join(describe(one) for one in apart)
        reason = f"{some} of the same device is in another IOMMU group and stays with the host"
        yield Objection(Code.APART, Level.NOTE, reason, "")
    for gpu in unit.gpus:
        bus = gpu.address.rpartition(":")[0]
        whole = bool(gpu.bridges) and all(
            one.address in members for one in host.functions if one.address.rpartition(":")[0] == bus
        )
        if not gpu.reset_methods and not whole:
            reason = f"the kernel knows no way to reset {gpu.address}; after a crash it may need the host's power cut"
            yield Objection(Code.NO_RESET, Level.NOTE, reason, "")
    if switches := fabric.switches_beside(unit, host.functions):
        reason = (
            f"it is part of an NVLink fabric ({fabric.describe(switches)}) that stays with the host: "
            "CUDA in a guest says 802, system not yet initialized, until the fabric is set up for it"
        )
        fix = (
            "load nvidia with NVreg_NvLinkDisable=1 in the guest, or activate a partition in the host's Fabric Manager"
        )
        yield Objection(Code.FABRIC, Level.NOTE, reason, fix)
