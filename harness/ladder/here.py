"""The ladder of a cell on this very machine: its kernel and drivers as they run, with the same compute tests on them.

Nothing is installed, booted, loaded or removed, and no right is needed beyond those of whoever computes on the device.
What may not be looked at is not collected, and said to be so.
"""

from __future__ import annotations

import platform
from dataclasses import replace

from harness.devices.names import PciNames
from harness.devices.pci import read_functions
from harness.foresight import running_config
from harness.images.recipe import StackRecipe
from harness.ladder.cell import Ladder
from harness.ladder.rungs import Rung
from harness.ladder.testwatch import TestWatch, query_of
from harness.ladder.workshop import Workshop
from harness.machines.guest import Guest
from harness.machines.here import ThisMachine as Machine
from harness.model.cell import Cell, RunningKernel
from harness.model.device import PciFunction
from harness.model.machine import ThisMachine
from harness.model.outcome import Outcome
from harness.model.prediction import IssueMatch
from harness.model.records import Attempt, Kind, StageResult
from harness.model.stage import Stage
from harness.model.taint import letters
from harness.suites.offers import Offer, ask

_OWN = "this machine's own installation is used"
_FACTS = ("sh", "-c", "uname -r; cat /proc/version /proc/cmdline; head -n 1 /proc/driver/nvidia/version 2>/dev/null; :")


def execute_here(cell: Cell, number: int, shop: Workshop) -> Attempt:
    """Climb the ladder once on this machine. Raises nothing but :class:`Stopped`."""
    # Whatever the VMs of this run need, nothing here is emulated.
    return _HereLadder(cell, number, replace(shop, accelerator="kvm")).climb()


class _HereLadder(Ladder):
    def __init__(self, cell: Cell, number: int, shop: Workshop) -> None:
        super().__init__(cell, number, shop)
        assert isinstance(cell.machine, ThisMachine)
        assert isinstance(cell.kernel.source, RunningKernel)
        self.here = cell.machine
        self.wanted = cell.kernel.source.running
        self.guest: Guest = Guest(Machine(shop.stop))
        self.offer = Offer(cell.stack)
        self.tests_device = cell.machine.device

    def climb(self) -> Attempt:
        self.facts |= {"machine": f"this machine, {self.here.hostname}", "accelerator": "none: this machine"}
        self._rung(Stage.IMAGE, self._installed)
        self.debugging = self.shop.knowledge.debugging(running_config(self.wanted))
        for stage, act in (
            (Stage.BUILD, lambda: Rung(Outcome.SKIP, _OWN)),
            (Stage.BOOT, self._running),
            (Stage.LOAD, self._drivers),
        ):
            if self._alive and self._wanted(stage):
                self._rung(stage, act)
        if self._alive:
            stack = StackRecipe(description=self.cell.stack, backends=(self.cell.stack,), kind=self._kind())
            self._run_tests(stack, self._watch(stack))
        if self._alive and self._wanted(Stage.UNLOAD):
            self._rung(Stage.UNLOAD, self._left_alone)
        attempt = self._attempt()
        if attempt.outcome is Outcome.SKIP and self.offer.absent:
            # Of all the rungs that did not apply, this is the one that somebody can do something about.
            return replace(attempt, rung=Stage.LOAD, reason=self.offer.absent)
        return attempt

    def _installed(self) -> Rung:
        """The kernel is that of the cell, and the tests are at hand."""
        now = platform.release()
        rung = Rung(Outcome.SKIP, _OWN)
        rung.facts = {
            "kernel.release": now,
            "kernel.source": "the running kernel of this machine",
            "kernel.series": self.cell.kernel.series.value,
        }
        if now != self.wanted:
            rung.outcome = Outcome.MISS
            rung.reason = f"this machine runs {now} by now, not {self.wanted}: nothing is known of the cell's kernel"
        self.tests_dir = str(self.shop.images.tests_folder([self.cell.stack]).resolve())
        return rung

    def _running(self) -> Rung:
        said = self.guest.must(_FACTS, timeout=60)
        release, version, cmdline, *rest = [*said.split("\n"), "", ""]
        rung = Rung(Outcome.SKIP, "it runs already")
        rung.facts = {"uname_release": release, "kernel.version": version, "kernel.cmdline": cmdline}
        if rest and rest[0].startswith("NVRM version:"):
            rung.facts["driver.nvidia"] = rest[0].partition(":")[2].strip()
        change = self.guest.change()  # what was said and tainted before the tests is nobody's finding
        rung.facts["taint.boot"] = letters(change.taint_after)
        rung.facts["kernel.log"] = f"not collected: {change.unread}" if change.unread else "collected around each test"
        return rung

    def _drivers(self) -> Rung:
        """Which drivers hold the GPUs, and what the cell's backend offers."""
        rung = Rung(Outcome.SKIP, "the drivers that are loaded are used as they are")
        names = PciNames.of()
        for one in read_functions():
            if one.is_gpu:
                rung.facts |= _facts_of(one, names.device_name(one.vendor, one.device))
        self.offer = ask(self.guest, self.cell.stack, self.tests_dir)
        if self.offer.absent:
            rung.facts["offer"] = rung.reason = self.offer.absent
        return rung

    def _excused(self, stage: Stage) -> str:
        return self.offer.absent or (self.debugging if stage is Stage.THROUGHPUT else "")

    def _kind(self) -> Kind:
        """What the tests will compute on: what is to be opened, else what the driver lists first."""
        mine = [one for one in self.offer.devices if self.here.device in (one.bdf, str(one.index))]
        kinds = [one.kind for one in mine or self.offer.devices]
        return "gpu" if "gpu" in kinds else kinds[0] if kinds else "gpu"

    def _watch(self, stack: StackRecipe) -> TestWatch:
        query = query_of(self.guest, self.tests_dir) if stack.kind == "gpu" else None
        return TestWatch(self.guest, self.shop.scale, query=query, shared=True, among=frozenset(self.here.functions))

    def _left_alone(self) -> Rung:
        rung = Rung(Outcome.SKIP, "nothing was loaded that could be removed")
        rung.facts["taint.end"] = letters(self.guest.last.taint)
        return rung

    def _explain(self) -> tuple[list[StageResult], tuple[IssueMatch, ...]]:
        return self.stages, ()  # what is known of stacks speaks of recipes, and there is none here


def _facts_of(function: PciFunction, name: str) -> dict[str, str]:
    """What sysfs tells of a GPU and of the driver that holds it."""
    key = f"device.{function.address}"
    facts = {f"{key}.id": function.ids, f"{key}.driver": function.driver or "none"}
    if name:
        facts[f"{key}.name"] = name
    if function.driver_version:
        facts[f"{key}.driver_version"] = function.driver_version
    if function.link is not None and function.link.width:
        facts[f"{key}.link"] = f"{function.link.speed:g} GT/s x{function.link.width}"
    return facts
