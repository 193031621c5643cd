"""What speaks against lending a unit: how heavily, why, and what to change.

*Never*: it cannot work, or it would cost what no one can give back; the fix is always an act of the user's own.
*Refused*: it costs the host something that its owner may give; a user who names the device may force it. A *note*
refuses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.model.device import PassthroughUnit


class Level(StrEnum):
    """How much an objection weighs."""

    NEVER = "never"
    """No force helps; the fix must come first."""
    REFUSED = "refused"
    """Not unasked: a user who names the device may force it."""
    NOTE = "note"
    """To be known; it refuses nothing."""


class Code(StrEnum):
    """What an objection is about; stable, for programs."""

    IOMMU_OFF = "iommu-off"
    NO_REMAPPING = "no-interrupt-remapping"
    NO_VFIO = "no-vfio-pci"
    GONE = "gone"
    DISK = "disk"
    NETWORK = "network"
    GROUP = "group-shared"
    USB = "usb-devices"
    SCREEN = "screen"
    IN_USE = "in-use"
    LENT = "lent-to-a-vm"
    HOLDERS = "holders-unknown"
    VFS = "virtual-functions"
    MEDIATED = "mediated-devices"
    NO_RESET = "no-reset"
    APART = "functions-apart"
    TOGETHER = "several-gpus"
    FABRIC = "nvlink-fabric"


_PASSING = frozenset({Code.GONE, Code.IN_USE, Code.LENT, Code.HOLDERS})
"""What a lease brings about for a while: a VM has the device, or it is just being reset."""


@dataclass(frozen=True, slots=True)
class Objection:
    """One thing that speaks against lending a unit."""

    code: Code
    level: Level
    reason: str
    fix: str

    @property
    def forceable(self) -> bool:
        """Whether the user may decide against it."""
        return self.level is not Level.NEVER


@dataclass(frozen=True, slots=True)
class Examined:
    """A unit with all that is known about it."""

    unit: PassthroughUnit
    objections: tuple[Objection, ...]
    names: dict[str, str]
    """Of each function by address, as in the list of PCI ids; empty where the list does not know it."""
    vendors: dict[str, str]
    """Likewise, of its vendor."""
    no_nvlink: str = ""
    """Why its GPUs could not reach others over NVLink in a guest; empty when they may."""

    def refusals(self, force: bool = False, leased: bool = False) -> tuple[Objection, ...]:
        """What keeps it from being lent; the heaviest first.

        ``force`` leaves out what the user may decide against, ``leased`` what follows from its being leased now: that
        a VM has it is then no reason to give up, but one to wait.
        """
        kept = (Level.NEVER,) if force else (Level.NEVER, Level.REFUSED)
        passing = _PASSING if leased else ()
        return tuple(one for one in self.objections if one.level in kept and one.code not in passing)

    def label(self, address: str) -> str:
        """The name of a function; its vendor and numbers where it has none that is known."""
        ids = next(function.ids for function in self.unit.functions if function.address == address)
        return self.names[address] or " ".join(word for word in (self.vendors[address], f"[{ids}]") if word)

    @property
    def notes(self) -> tuple[Objection, ...]:
        """What should be known and refuses nothing."""
        return tuple(one for one in self.objections if one.level is Level.NOTE)
