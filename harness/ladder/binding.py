"""Which driver holds the device: the one that the stack expects, a rival, or none."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from harness.machines.guest import Guest
from harness.model.outcome import Outcome

COMPUTING = (0x03, 0x12)
"""PCI base classes of displays and accelerators (PCI Code and ID Assignment Specification)."""
_ROOT_BUS = "0000:00:"
"""What the VM itself brings lies there; what is handed in lies behind a root port."""

_READ = (
    "for device in /sys/bus/pci/devices/*; do"
    ' read -r class <"$device/class"; read -r vendor <"$device/vendor"; read -r id <"$device/device";'
    ' driver=; [ ! -e "$device/driver" ] || driver=$(readlink "$device/driver");'
    ' echo "${device##*/} $class $vendor $id ${driver##*/}"; done'
)


@dataclass(frozen=True, slots=True)
class PciFunction:
    """One function of a PCI device as the guest sees it."""

    address: str
    base_class: int
    vendor: int
    device: int
    driver: str
    """Name of the driver that is bound to it; empty for none."""

    def __str__(self) -> str:
        return f"{self.address} ({self.vendor:04x}:{self.device:04x})"

    @property
    def computes(self) -> bool:
        """A display or an accelerator that was handed in, not one that the VM itself brings."""
        return self.base_class in COMPUTING and not self.address.startswith(_ROOT_BUS)


def pci_functions(guest: Guest, timeout: float) -> list[PciFunction]:
    """All PCI functions of the guest.

    Raises:
        GuestLost: the guest is gone, or cannot say.
    """
    found = []
    for line in guest.must(["sh", "-c", _READ], timeout=timeout).splitlines():
        address, code, vendor, device, driver = [*line.split(), ""][:5]
        found.append(PciFunction(address, int(code, 16) >> 16, int(vendor, 16), int(device, 16), driver))
    return found


def misbound(
    guest: Guest, drivers: Collection[str], timeout: float, among: Sequence[str] | None = None
) -> tuple[Outcome, str, dict[str, str]]:
    """Hold the bound drivers against those expected: (outcome, reason, driver by address).

    ``among`` names the addresses to look at; by default, every display and accelerator that was handed in.
    """
    functions = [
        one for one in pci_functions(guest, timeout) if (one.computes if among is None else one.address in among)
    ]
    seen = {one.address: one.driver or "none" for one in functions}
    expected = " or ".join(sorted(drivers))
    if not functions:
        return Outcome.MISS, "the guest sees no display device or accelerator that was handed in", seen
    right = {_key(driver) for driver in drivers}
    wrong = [one for one in functions if _key(one.driver) not in right]
    if not wrong:
        return Outcome.PASS, "", seen
    told = "; ".join(f"{one} is {f'held by {one.driver}' if one.driver else 'bound to no driver'}" for one in wrong)
    return Outcome.FAIL, f"{told}; expected {expected}", seen


def _key(driver: str) -> str:
    return driver.replace("-", "_")
