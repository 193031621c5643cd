"""How lent devices are put into a domain: slots, firmware's window for their memory, processors and memory beside them.

Each slot of the host becomes a slot of the guest behind a PCIe root port of its own, with its functions where drivers
expect them: the audio function of a GPU is function 1 of the same slot. Sources: libvirt's domain format
(``<hostdev>``, ``<controller type='pci'>``), OVMF's ``opt/ovmf/X-PciMmio64Mb``, PCI Express Base Specification for
multi-function devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from harness.model.device import PassthroughUnit, PciFunction

_SMALL = 512 << 20
"""Bytes of windows that any firmware finds room for below 4 GiB."""
_DEFAULT_WINDOW = 32 << 10
"""MiB above 4 GiB that OVMF sets aside unasked."""
_COMPUTE_ONLY = frozenset({0x0302, 0x1200})
"""Classes without a screen: their option ROM would only cost time."""
_PAGES = (1 << 20, 2048)
"""Sizes of huge pages in KiB, the larger first."""


@dataclass(frozen=True, slots=True)
class HostFunction:
    """One function of the host at its place in the guest."""

    domain: int
    bus: int
    slot: int
    function: int
    port: int
    """Number of the root port, which is the guest's bus, too."""
    guest_function: int
    multifunction: bool
    rom: bool

    @property
    def address(self) -> str:
        """As sysfs and ``lspci -D`` write it."""
        return f"{self.domain:04x}:{self.bus:02x}:{self.slot:02x}.{self.function}"


@dataclass(frozen=True, slots=True)
class Mediated:
    """A mediated device (vGPU) by its UUID, behind a root port."""

    uuid: str
    port: int


@dataclass(frozen=True, slots=True)
class Placement:
    """Processors and memory of the host that the VM is kept to."""

    node: int | None = None
    """NUMA node; None where the host has one only, or does not say where the device is."""
    cpus: str = ""
    """Processors as cpuset(7) lists them; empty for any."""
    page: int = 0
    """KiB of the huge pages that back the memory; zero for ordinary ones."""


@dataclass(frozen=True, slots=True)
class Passthrough:
    """Everything that lent devices add to a domain."""

    functions: tuple[HostFunction, ...] = ()
    mediated: tuple[Mediated, ...] = ()
    window: int = 0
    """MiB of addresses above 4 GiB that firmware is told to set aside; zero leaves it to the firmware."""
    uefi: bool = False
    """Whether the windows are too large for a BIOS."""
    placement: Placement = field(default_factory=Placement)
    display: bool = False
    """Whether the VM has an emulated display as well."""

    @property
    def ports(self) -> tuple[int, ...]:
        """Numbers of the root ports, from 1."""
        return tuple(sorted({one.port for one in self.functions} | {one.port for one in self.mediated}))


def passthrough_of(
    units: Sequence[PassthroughUnit],
    mediated: Sequence[str] = (),
    placement: Placement | None = None,
    display: bool = False,
) -> Passthrough:
    """Put units, and mediated devices by their UUIDs, behind root ports in their order."""
    functions: list[HostFunction] = []
    port = 0
    for unit in units:
        for _, slot in groupby(sorted(unit.functions, key=lambda one: one.address), key=lambda one: one.address[:-2]):
            port += 1
            functions += _slot(list(slot), port)
    bars = [bar for unit in units for function in unit.functions for bar in function.bars]
    return Passthrough(
        functions=tuple(functions),
        mediated=tuple(Mediated(uuid, port + 1 + place) for place, uuid in enumerate(mediated)),
        window=_window(sum(bar.size for bar in bars if bar.wide)),
        uefi=sum(bar.size for bar in bars) > _SMALL,
        placement=placement or Placement(),
        display=display,
    )


def _slot(functions: Sequence[PciFunction], port: int) -> list[HostFunction]:
    # A guest looks at further functions of a slot only where it finds function 0.
    numbers = [int(one.address[-1]) for one in functions]
    moved = numbers if 0 in numbers else list(range(len(numbers)))
    return [
        HostFunction(
            domain=int(one.address.split(":")[0], 16),
            bus=int(one.address.split(":")[1], 16),
            slot=int(one.address.split(":")[2].split(".")[0], 16),
            function=number,
            port=port,
            guest_function=place,
            multifunction=len(functions) > 1 and place == 0,
            rom=one.class_code >> 8 not in _COMPUTE_ONLY and not one.physical,
        )
        for one, number, place in zip(functions, numbers, moved, strict=True)
    ]


def _window(wide: int) -> int:
    """MiB: a power of two that holds the windows twice over, because each lies at a multiple of its size."""
    wanted = 1
    while wanted < 2 * wide >> 20:
        wanted *= 2
    return wanted if wanted > _DEFAULT_WINDOW else 0


def place(units: Sequence[PassthroughUnit], memory: int, root: Path = Path("/")) -> Placement:
    """Where the VM belongs on this host: beside its devices, if all of them are at one node of several.

    ``memory`` is the VM's, in bytes; huge pages are used where enough of them are free.
    """
    nodes = {function.numa_node for unit in units for function in unit.gpus}
    several = (root / "sys/devices/system/node/node1").is_dir()
    node = nodes.pop() if len(nodes) == 1 and several else None
    if node is None:
        return Placement(page=_page(root / "sys/kernel/mm/hugepages", memory))
    folder = root / f"sys/devices/system/node/node{node}"
    return Placement(node, _read(folder / "cpulist"), _page(folder / "hugepages", memory))


def _page(folder: Path, memory: int) -> int:
    for size in _PAGES:
        free = _read(folder / f"hugepages-{size}kB" / "free_hugepages")
        if memory % (size << 10) == 0 and free.isdecimal() and int(free) * (size << 10) >= memory:
            return size
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")[:4096].strip()
    except (OSError, UnicodeDecodeError):
        return ""
