"""Which units are what a matrix asks for, and of each other one, why it is not.

Whether a fitting unit may be lent is another question (:mod:`harness.devices.safety`), and whether it is free a third.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.devices.names import chip_and_model
from harness.devices.objection import Examined
from harness.devices.safety import is_lent
from harness.model.device import DeviceRequest, PassthroughUnit, PciFunction

_NAMES = "the list of PCI ids is not installed or does not know it (package pci.ids, hwdata on Fedora and Arch)"


@dataclass(frozen=True, slots=True)
class Choice:
    """The answer to a request."""

    fitting: tuple[Examined, ...]
    """The best first: one GPU alone before several, what needs no other driver before what does, then by address."""
    refused: dict[str, str]
    """Of every other unit, by address: what does not fit."""

    @property
    def units(self) -> tuple[PassthroughUnit, ...]:
        """The units that fit."""
        return tuple(one.unit for one in self.fitting)


def choose(request: DeviceRequest, found: Sequence[Examined]) -> Choice:
    """Hold all units of a host against a request; every field of it that is set must hold for one and the same GPU."""
    fitting = []
    refused = {}
    for one in found:
        reasons = [_differs(request, gpu, one) for gpu in one.unit.gpus]
        if "" in reasons:
            fitting.append(one)
        else:
            several = len(reasons) > 1
            told = (
                f"{gpu.address}: {why}" if several else why for gpu, why in zip(one.unit.gpus, reasons, strict=True)
            )
            refused[one.unit.address] = "; ".join(told)
    return Choice(tuple(sorted(fitting, key=_rank)), refused)


def _rank(one: Examined) -> tuple[int, bool, str]:
    held = any(function.driver and not is_lent(function) for function in one.unit.functions)
    return len(one.unit.gpus), held, one.unit.address


def _differs(request: DeviceRequest, gpu: PciFunction, one: Examined) -> str:
    """Why a GPU is not what is asked for; empty when it is."""
    return next(filter(None, _differences(request, gpu, one)), "")


def _differences(request: DeviceRequest, gpu: PciFunction, one: Examined) -> Iterable[str]:
    if request.address and gpu.address != request.address:
        part = any(function.address == request.address for function in one.unit.functions)
        yield (
            f"{request.address} belongs to it and only goes along; ask for {gpu.address}" if part else "another address"
        )
    if request.vendor is not None and gpu.vendor != request.vendor:
        yield f"its vendor is {one.vendors[gpu.address] or f'{gpu.vendor:04x}'}"
    if request.device is not None and gpu.device != request.device:
        yield f"it is {gpu.ids}"
    yield _named_otherwise(request, one.names[gpu.address])
    yield _is_part(request, gpu)
    size = max((bar.size for bar in gpu.bars), default=0)
    if size < request.memory:
        larger = (
            "; its window can be made larger: turn on Resizable BAR in the firmware's setup" if gpu.resizable else ""
        )
        yield f"its largest window shows {in_bytes(size)}, not {in_bytes(request.memory)}{larger}"
    yield _makes_no(request, gpu)
    if request.nvlink:
        yield one.no_nvlink


def _named_otherwise(request: DeviceRequest, name: str) -> str:
    if not request.model and not request.architecture:
        return ""
    if not name:
        return f"its name is not known: {_NAMES}"
    chip, model = chip_and_model(name)
    if request.model and request.model.casefold() not in model.casefold():
        return f"it is {name}"
    if request.architecture and request.architecture.casefold() not in chip.casefold():
        return f"its chip is {chip}"
    return ""


def _is_part(request: DeviceRequest, gpu: PciFunction) -> str:
    if request.virtual and not gpu.physical:
        if gpu.vfs:
            return "it is the physical function of virtual ones"
        how = f"; it could have {gpu.total_vfs}: sriov_numvfs" if gpu.total_vfs else ""
        return f"it is no virtual function{how}"
    if gpu.physical and not request.virtual and not request.address:
        return f"it is a virtual function of {gpu.physical}; ask for virtual: true"
    return ""


def _makes_no(request: DeviceRequest, gpu: PciFunction) -> str:
    if not request.mdev:
        return ""
    kinds = [kind for kind in gpu.mdev_types if request.mdev.casefold() in (kind.id.casefold(), kind.name.casefold())]
    if any(kind.available for kind in kinds):
        return ""
    if kinds:
        return f"it can make no more {kinds[0].id} ({kinds[0].name}) now"
    known = ", ".join(f"{kind.id} ({kind.name})" for kind in gpu.mdev_types)
    return f"it makes mediated devices of other kinds: {known}" if known else "it makes no mediated devices"


def in_bytes(size: int) -> str:
    """A size as the matrix file writes it: ``256MiB``."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor and size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}B"
