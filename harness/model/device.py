"""PCI devices as data: what can be passed through to a VM, and what a matrix asks for.

The fields are what the kernel publishes below ``/sys/bus/pci/devices``; sources: sysfs-bus-pci and sysfs-bus-vfio in
Documentation/ABI/testing of the kernel, and the PCI Code and ID Assignment Specification for class codes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

VENDORS = {"nvidia": 0x10DE, "amd": 0x1002, "intel": 0x8086}
"""The vendors that a matrix may name; any other is given by its number."""
_GPU_CLASSES = frozenset({0x0300, 0x0302, 0x0380, 0x1200})
"""VGA controller, 3D controller, other display controller, processing accelerator."""
_BRIDGE = 0x06


@dataclass(frozen=True, slots=True)
class Bar:
    """One memory window of a function; expansion ROM and I/O ports are not among them."""

    index: int
    size: int
    """Bytes."""
    wide: bool = False
    """Whether it may lie above 4 GiB."""
    prefetchable: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """A PCI Express link as it is, and as it could be; zero is unknown."""

    speed: float = 0.0
    """GT/s per lane."""
    width: int = 0
    """Lanes."""
    max_speed: float = 0.0
    max_width: int = 0


@dataclass(frozen=True, slots=True)
class MdevType:
    """A kind of mediated device that a function can make."""

    id: str
    name: str
    available: int
    """How many more could be made now."""


@dataclass(frozen=True, slots=True)
class PciFunction:
    """One function of a PCI device."""

    address: str
    """``0000:01:00.0``: domain, bus, slot, function."""
    vendor: int
    device: int
    class_code: int
    """24 bits: class, subclass, programming interface."""
    subsystem: tuple[int, int] = (0, 0)
    """Vendor and device number of the board."""
    revision: int = 0
    driver: str = ""
    """Name of the bound driver; empty when none is."""
    override: str = ""
    """``driver_override``; empty when unset, and where no driver is bound, as then it may not be looked at."""
    group: int | None = None
    """IOMMU group; None when the IOMMU is off."""
    reset_methods: tuple[str, ...] = ()
    """What the kernel would try, in its order: ``flr``, ``pm``, ``bus``, ``acpi``, ``device_specific``, …"""
    bars: tuple[Bar, ...] = ()
    resizable: bool = False
    """Whether a window's size can be changed (``resourceN_resize``)."""
    link: Link | None = None
    numa_node: int | None = None
    boot_vga: bool = False
    """Whether firmware's messages are on its screen."""
    power_state: str = ""
    """``D0``, ``D3hot``, ``D3cold``, ``unknown``; empty when the kernel does not say."""
    bridges: tuple[str, ...] = ()
    """Addresses of the bridges above, from the root down."""
    total_vfs: int = 0
    """How many virtual functions it could have (SR-IOV)."""
    vfs: tuple[str, ...] = ()
    physical: str = ""
    """Address of the physical function, for a virtual one."""
    mdev_types: tuple[MdevType, ...] = ()
    driver_version: str = ""
    """What the driver's module says of itself; empty where it says nothing, as modules of the kernel's own do."""

    @property
    def is_gpu(self) -> bool:
        """Whether it displays or computes, by its class."""
        return self.class_code >> 8 in _GPU_CLASSES

    @property
    def is_bridge(self) -> bool:
        """Whether it leads to other devices; such a function stays with the host."""
        return self.class_code >> 16 == _BRIDGE

    @property
    def ids(self) -> str:
        """``10de:2330``, as lspci prints it."""
        return f"{self.vendor:04x}:{self.device:04x}"


@dataclass(frozen=True, slots=True)
class PassthroughUnit:
    """What can only be passed through together: all functions of one IOMMU group, bridges left out."""

    functions: tuple[PciFunction, ...]
    """By address. Without an IOMMU, the functions of one slot."""

    @property
    def gpus(self) -> tuple[PciFunction, ...]:
        """The functions that make it worth passing through."""
        return tuple(function for function in self.functions if function.is_gpu)

    @property
    def address(self) -> str:
        """Address of its first GPU: its name."""
        return self.gpus[0].address

    @property
    def group(self) -> int | None:
        """Number of the IOMMU group."""
        return self.functions[0].group

    @property
    def memory(self) -> int:
        """Bytes of the largest window of its first GPU: its memory, where all of it can be seen at once."""
        return max((bar.size for bar in self.gpus[0].bars), default=0)


@dataclass(frozen=True, slots=True)
class DeviceRequest:
    """What an entry of the ``devices`` axis asks for; every field that is set must hold."""

    name: str
    """Part of the cell's id; the address itself where one is named."""
    address: str = ""
    vendor: int | None = None
    device: int | None = None
    model: str = ""
    """Part of the device's name in the list of PCI ids, in any case: ``H100``."""
    architecture: str = ""
    """Part of the chip's name there, in any case: ``GA102``, ``Navi 31``."""
    memory: int = 0
    """Bytes that the largest window must have at least."""
    virtual: bool = False
    """A virtual function (SR-IOV) instead of a physical one."""
    mdev: str = ""
    """Kind of mediated device to make (``nvidia-63``), by id or name."""
    nvlink: bool = False
    """Whether its GPUs have to reach each other over an NVLink fabric."""
    count: int = 1
    """How many such units the cell needs."""
    display: bool = False
    """Give the VM an emulated display as well; without it the GPU is the only one."""
    force: bool = field(default=False)
    """Take it although it is not safe: the user named the device for that."""
