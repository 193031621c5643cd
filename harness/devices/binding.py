"""Functions of a leased unit go to vfio-pci, and back to what they were.

Both ways are done here and not by libvirt (``managed='yes'``): its daemon would hang with a driver that does not let
go, and forgets what to give back when it dies in between. What each function was like is on disk before anything is
touched, and each step is read back, for a write that succeeds is no proof: a driver may fail to take the device, and
another may be faster.

Source for the files: sysfs-bus-pci in Documentation/ABI/testing of the kernel.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.devices import sysfs
from harness.devices.leases import Lease, LeaseLost, Original
from harness.devices.pci import DEVICES
from harness.devices.writes import Stuck, Writes
from harness.errors import InfraError

VFIO = "vfio-pci"
_DRIVERS = "sys/bus/pci/drivers"
_PROBE = "sys/bus/pci/drivers_probe"
RESCAN = "sys/bus/pci/rescan"


@dataclass(frozen=True, slots=True)
class LeasedUnit:
    """A unit and the right to change it: every write to a device goes through here, and none without the lease."""

    root: Path
    lease: Lease
    writes: Writes
    patience: float = 30.0
    """Seconds that the kernel may take for one write; a driver that lets go of a GPU may take several."""

    @property
    def functions(self) -> tuple[str, ...]:
        """Addresses, in order."""
        return self.lease.record.functions

    def path(self, address: str) -> Path:
        """Directory of a function in sysfs."""
        return self.root / DEVICES / address

    def present(self, address: str) -> bool:
        """Whether the kernel knows the function now."""
        return self.path(address).exists()

    def driver(self, address: str) -> str:
        """Name of the driver that has it now; empty when none has."""
        return sysfs.link_name(self.path(address) / "driver")

    def override(self, address: str) -> str:
        """``driver_override``; empty when unset."""
        found = self.read(self.path(address) / "driver_override")
        return "" if found == "(null)" else found

    def read(self, path: Path) -> str:
        """Read a file that the kernel may show only when the device's lock is free. Raises InfraError."""
        self.lease.check()
        try:
            return self.writes.read(path, timeout=self.patience, hold=self.lease.hold)
        except OSError as error:
            raise InfraError(f"{path} cannot be read: {error.strerror}") from error

    def write(self, path: Path, text: str, patience: float | None = None) -> None:
        """Write, if the lease is still ours.

        Raises:
            OSError: the kernel refused.
            InfraError: the lease is lost.
            Stuck: the kernel has not come back.
        """
        self.lease.check()
        self.writes.write(path, text, timeout=patience or self.patience, hold=self.lease.hold)

    def load(self, module: str) -> None:
        """Load a module of the host's kernel. Raises like :meth:`write`."""
        self.lease.check()
        self.writes.load(module, timeout=self.patience, hold=self.lease.hold)


def is_vfio(unit: LeasedUnit, address: str) -> bool:
    """Whether a VM can have a function of a unit as it is."""
    return has_vfio_driver(unit.path(address))


def has_vfio_driver(function: Path) -> bool:
    """Whether vfio-pci has the function of that directory, or a variant of vfio-pci that its vendor made."""
    return sysfs.link_name(function / "driver") == VFIO or bool(sysfs.names(function / "vfio-dev"))


def read_originals(unit: LeasedUnit) -> tuple[Original, ...]:
    """Return what the functions are like.

    Raises:
        InfraError: one is gone, or the kernel does not answer.
    """
    found = []
    for address in unit.functions:
        if not unit.present(address):
            raise InfraError(f"{address} is gone from the bus")
        methods = unit.path(address) / "reset_method"
        found.append(
            Original(
                address,
                unit.driver(address),
                unit.override(address),
                unit.read(methods) if methods.exists() else "",
            )
        )
    return tuple(found)


def bind(unit: LeasedUnit) -> None:
    """Give all functions to vfio-pci; one that has it already is left alone. Their originals must be on disk.

    Raises:
        InfraError: which function, which step, and what the kernel said; what was done must be undone.
        Stuck: the kernel has not come back from a step.
    """
    if not (unit.root / _DRIVERS / VFIO).exists() and not all(is_vfio(unit, address) for address in unit.functions):
        try:
            unit.load(VFIO)
        except OSError as error:
            raise InfraError(f"the module {VFIO} cannot be loaded: is it built for this host's kernel?") from error
    # The sound of a GPU goes before the GPU, which it depends on.
    for address in reversed(unit.functions):
        if is_vfio(unit, address):
            continue
        _set_override(unit, address, VFIO)
        _unbind(unit, address)
        _attempt(unit, f"giving {address} to {VFIO}", unit.root / _PROBE, address)
        if unit.driver(address) != VFIO:
            raise InfraError(f"{address} was given to {VFIO}, and has {unit.driver(address) or 'no driver'}")
    # Something on the host (a rule of udev, an administrator) may have taken one back meanwhile.
    for address in unit.functions:
        if not is_vfio(unit, address):
            raise InfraError(f"{address} had {VFIO}, and has {unit.driver(address) or 'no driver'} now")


def vfio_nodes(unit: LeasedUnit) -> str:
    """Say by which nodes a VM can have the unit: ``group 14``, ``cdev vfio0, vfio1``, or both.

    Raises:
        InfraError: by none.
    """
    group = sysfs.link_name(unit.path(unit.functions[0]) / "iommu_group")
    ways = []
    if group and (unit.root / "dev/vfio" / group).exists():
        ways.append(f"group {group}")
    names = [name for address in unit.functions for name in sysfs.names(unit.path(address) / "vfio-dev")]
    cdevs = [name for name in names if (unit.root / "dev/vfio/devices" / name).exists()]
    if len(cdevs) == len(unit.functions):
        ways.append(f"cdev {', '.join(cdevs)}")
    if not ways:
        node = f"/dev/vfio/{group or 'GROUP'}"
        raise InfraError(f"{unit.functions[0]} has {VFIO}, and there is neither {node} nor a cdev for each function")
    return "; ".join(ways)


def restore(unit: LeasedUnit, originals: Iterable[Original]) -> str:
    """Make the functions what they were, wherever a killed process stopped, and say which drivers they have.

    Harmless when repeated. A function that cannot be restored does not keep the others from it.

    Raises:
        InfraError: which functions are not as they were, and why.
        LeaseLost: the lease is not ours any more; the rest was not tried.
        Stuck: the kernel has not come back; the rest was not tried.
    """
    originals = tuple(originals)
    if not all(unit.present(original.address) for original in originals):
        # Removed from the bus to be found again, and then somebody was killed.
        _attempt(unit, "looking for lost functions", unit.root / RESCAN, "1")
    said, troubles = [], []
    for original in originals:
        try:
            said.append(_restore(unit, original))
        except (Stuck, LeaseLost):
            raise
        except InfraError as error:
            troubles.append(str(error))
    if troubles:
        raise InfraError("; ".join(troubles))
    return f"given back to {', '.join(said)}"


def _restore(unit: LeasedUnit, original: Original) -> str:
    address = original.address
    if not unit.present(address):
        raise InfraError(f"{address} is gone from the bus and was not found again")
    # First of all: with the override in place, nothing but vfio-pci would ever take the function again.
    if unit.override(address) != original.override:
        _set_override(unit, address, original.override)
    loaded = True
    if unit.driver(address) != original.driver:
        _unbind(unit, address)
        driver = unit.root / _DRIVERS / original.driver
        loaded = driver.exists()
        if original.driver and loaded:
            # By name: with two drivers for one device (nouveau, nvidia) drivers_probe takes the first of the list.
            _attempt(unit, f"giving {address} back to {original.driver}", driver / "bind", address)
            if unit.driver(address) != original.driver:
                raise InfraError(f"{address} was given back to {original.driver}, which did not take it")
    set_reset_methods(unit, address, original.reset_method)
    if not loaded:
        return f"no driver, as {original.driver} is not loaded any more"
    return original.driver or "no driver"


def set_reset_methods(unit: LeasedUnit, address: str, order: str) -> None:
    """Have the kernel use these methods again, in this order, as far as it still has them.

    The kernel lists what it found when it met the function, and checks what is written against what is possible now:
    it refuses its own list once a second function came to the bus, which then cannot be reset for one of them.
    """
    path = unit.path(address) / "reset_method"
    if not order or not path.exists() or unit.read(path) == order:
        return
    if not accepts_reset_methods(unit, address, order):
        possible = [method for method in order.split() if accepts_reset_methods(unit, address, method)]
        if possible:
            accepts_reset_methods(unit, address, " ".join(possible))


def accepts_reset_methods(unit: LeasedUnit, address: str, order: str) -> bool:
    """Choose reset methods; False, and nothing changed, when the kernel refuses one of them."""
    try:
        unit.write(unit.path(address) / "reset_method", order)
    except OSError:
        return False
    return True


def _set_override(unit: LeasedUnit, address: str, driver: str) -> None:
    _attempt(unit, f"setting driver_override of {address}", unit.path(address) / "driver_override", driver)
    if unit.override(address) != driver:
        raise InfraError(f"driver_override of {address} was set to '{driver}' and is '{unit.override(address)}'")


def _unbind(unit: LeasedUnit, address: str) -> None:
    driver = unit.driver(address)
    if not driver:
        return
    _attempt(unit, f"taking {address} from {driver}", unit.root / _DRIVERS / driver / "unbind", address)
    if unit.driver(address):
        raise InfraError(f"{address} was taken from {driver}, and has {unit.driver(address)}")


def _attempt(unit: LeasedUnit, what: str, path: Path, text: str) -> None:
    try:
        unit.write(path, text)
    except OSError as error:
        raise InfraError(f"{what} failed: {error.strerror}") from error
