"""What a host needs to execute cells."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.devices.lending import Desk
from harness.drivers.build import Drivers
from harness.errors import UserError
from harness.images.builder import Images
from harness.images.recipe import Recipes
from harness.journal import Journal
from harness.knowledge.diagnosis import Knowledge
from harness.machines.domain import Accelerator
from harness.machines.hypervisor import Hypervisor
from harness.machines.ssh import KeyPair
from harness.model.stage import LADDER, Stage
from harness.store.evidence import EvidenceStore
from harness.suites.manifest import TestSpec

EMULATION_FACTOR = 4.0
"""How much longer everything in a guest may take without hardware acceleration."""


_SLOWEST = 1000.0


def emulation_factor() -> float:
    """:data:`EMULATION_FACTOR`, or what ``$KDMATRIX_EMULATION_FACTOR`` says of a host that is slower than most.

    Raises:
        UserError: that is no number from 1 to 1000.
    """
    said = os.environ.get("KDMATRIX_EMULATION_FACTOR", "")
    if not said:
        return EMULATION_FACTOR
    try:
        factor = float(said)
    except ValueError:
        factor = 0.0
    if not 1.0 <= factor <= _SLOWEST:
        raise UserError(f"KDMATRIX_EMULATION_FACTOR={said}: write a number from 1 to {_SLOWEST:.0f}, such as 10")
    return factor


@dataclass(slots=True)
class Workshop:
    """What a host needs to execute cells; shared by all cells of a run on it."""

    run_id: str
    images: Images
    recipes: Recipes
    hypervisor: Hypervisor | None
    """None where no rung of the run boots anything."""
    journal: Journal
    evidence: EvidenceStore
    tests: Mapping[str, TestSpec]
    drivers: Drivers
    work: Path
    accelerator: Accelerator = "qemu"
    desk: Desk | None = None
    """Where devices are had; None where nothing is passed through."""
    until: Stage = LADDER[-1]
    """The last rung that is climbed."""
    knowledge: Knowledge = field(default_factory=Knowledge)
    memory: int = 1 << 30
    vcpus: int = 1
    host_facts: Mapping[str, str] = field(default_factory=dict)
    client_key: KeyPair = field(default_factory=lambda: KeyPair.generate("kdmatrix-run"))
    on_rung: Callable[[str, int, Stage], None] = lambda _cell, _number, _stage: None
    stop: threading.Event = field(default_factory=threading.Event)
    """Set when the run is to end: cells stop at their next rung and leave no result."""

    @property
    def scale(self) -> float:
        """Factor on every time-out inside a guest."""
        return emulation_factor() if self.accelerator == "qemu" else 1.0
