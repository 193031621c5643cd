"""The ladder of one cell: the only place where images, machines and compute tests meet."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from harness.devices.lending import Lent
from harness.drivers.build import Built, NotBuilt
from harness.errors import InfraError, KdmatrixError, UserError
from harness.foresight import subject_of
from harness.images.buildah import BuildFailed
from harness.images.recipe import StackRecipe
from harness.kernels.source import KernelUnavailable
from harness.ladder import rungs
from harness.ladder.build import build_rung
from harness.ladder.lending import blame_the_host, in_domain, lend
from harness.ladder.loading import Modules
from harness.ladder.rungs import Rung
from harness.ladder.testwatch import TestWatch, watch_over
from harness.ladder.workshop import EMULATION_FACTOR, Workshop
from harness.machines import secured
from harness.machines.booting import boot
from harness.machines.firmware import SecureBoot
from harness.machines.guest import Guest, GuestLost
from harness.machines.vm import BootRequest, GuestFailure, VirtualMachine
from harness.model.cell import Cell, KernelIdentity
from harness.model.image import Image
from harness.model.outcome import DECIDING, Outcome
from harness.model.prediction import IssueMatch, Prediction
from harness.model.records import Attempt, Evidence, StageResult, TestResult, decide, merged
from harness.model.stage import LADDER, Stage
from harness.model.taint import letters
from harness.suites.manifest import LAST_TIER, STAGES, TestSpec, pick_tests
from harness.suites.run import GUEST_DIR

_DEVICE_WAIT = 3600.0
"""Seconds to wait while others have all devices that fit."""
_QUIET = 8.0
"""Seconds of silence on the console of a booting guest before its CPUs are looked at."""


class Stopped(KdmatrixError):
    """The run was interrupted; the cell has no result and will be executed again on resume."""


def execute(cell: Cell, number: int, shop: Workshop) -> Attempt:
    """Climb the ladder once and return what was seen. Raises nothing but :class:`Stopped`."""
    return Ladder(cell, number, shop).climb()


def make_parts(cell: Cell, shop: Workshop) -> None:
    """Make ahead what the cell's first rungs will want; errors are remembered, and the rungs meet them again."""
    if cell.machine is not None:
        return  # a lab box has an installation of its own
    boots = LADDER.index(shop.until) >= LADDER.index(Stage.BOOT)
    if boots:
        shop.images.prepare(cell.guest, cell.stack, cell.kernel, timeout=cell.timeouts.image)
    if shop.recipes.stack(cell.guest, cell.stack).build is not None:
        if boots:
            shop.drivers.build(cell.guest, cell.stack, cell.kernel, timeout=cell.timeouts.build)
        else:
            shop.drivers.prepare(cell.guest, cell.stack, cell.kernel, timeout=cell.timeouts.image)


class Ladder:
    """One climb of one cell; on a VM, unless a subclass says otherwise."""

    def __init__(self, cell: Cell, number: int, shop: Workshop) -> None:
        self.cell = cell
        self.number = number
        self.shop = shop
        self.started = datetime.now(UTC)
        self.deadline = time.monotonic() + cell.timeouts.cell * shop.scale
        self.stages: list[StageResult] = []
        self.tests: list[TestResult] = []
        self.facts: dict[str, str] = dict(shop.host_facts)
        self.image: Image | None = None
        self.built: Built | None = None
        self.guest: Guest | None = None
        self.modules: Modules | None = None
        self.lent = Lent()
        self.predictions: tuple[Prediction, ...] = ()
        self.tests_dir = GUEST_DIR
        self.tests_device = ""
        """What the compute tests are told to open; empty where they choose."""
        self.addresses: tuple[str, ...] | None = None
        """Where the cell's devices are, when it is not a VM in which all that was handed in is the cell's."""
        self.debugging = ""
        """Why the kernel's speed must not be measured, if so."""

    def climb(self) -> Attempt:
        """Take one rung after the other, as far as they lead, and return what was seen."""
        try:
            stack = self.shop.recipes.stack(self.cell.guest, self.cell.stack)
        except UserError as error:
            self._note(Stage.IMAGE, Rung(Outcome.MISS, str(error)), 0.0)
            return self._attempt()
        boots = self._wanted(Stage.BOOT)
        self._rung(Stage.IMAGE, self._image if boots else lambda: self._build_root(stack))
        self._look_ahead()
        if self._alive and self._wanted(Stage.BUILD):
            self._rung(Stage.BUILD, lambda: self._build(stack))
        excluded = self.built is not None and self.built.result.outcome is Outcome.SKIP
        if self._alive and boots and not excluded and self.image is not None:
            self._in_guest(stack, self.image)
        return self._attempt()

    def _look_ahead(self) -> None:
        """Predict when the kernel is at hand and before anything of the stack was tried."""
        knowledge = self.shop.knowledge
        subject = subject_of(self.cell, self.shop.images, self.shop.drivers)
        self.predictions = knowledge.predict(subject)
        self.debugging = knowledge.debugging(subject.config)

    def _wanted(self, stage: Stage) -> bool:
        return LADDER.index(stage) <= LADDER.index(self.shop.until)

    @property
    def _alive(self) -> bool:
        return not any(result.outcome in DECIDING for result in self.stages)

    def _image(self) -> Rung:
        cell, shop = self.cell, self.shop
        self.image = shop.images.prepare(cell.guest, cell.stack, cell.kernel, timeout=cell.timeouts.image)
        self._kernel_facts(self.image.kernel.identity)
        self.facts["image.made"] = ", ".join(self.image.made) or "nothing: all parts were cached"
        rung = Rung(Outcome.PASS)
        if self.image.kernel.config.is_file():
            rung.files["kernel.config"] = self.image.kernel.config.read_bytes()
        return rung

    def _build_root(self, stack: StackRecipe) -> Rung:
        """The rung ``image`` of a cell that is not booted: what its modules are built in."""
        cell, shop = self.cell, self.shop
        self._kernel_facts(shop.images.identity(cell.kernel))
        if stack.build is None:
            return Rung(Outcome.SKIP, "nothing is booted, and the stack builds no module")
        shop.drivers.prepare(cell.guest, cell.stack, cell.kernel, timeout=cell.timeouts.image)
        rung = Rung(Outcome.PASS)
        rung.files["kernel.config"] = shop.drivers.headers(cell.kernel).config.read_bytes()
        return rung

    def _kernel_facts(self, identity: KernelIdentity) -> None:
        self.facts |= {
            "kernel.release": identity.release,
            "kernel.version": identity.version,
            "kernel.source": identity.source,
            "kernel.digest": identity.digest,
            "kernel.series": self.cell.kernel.series.value,
        }
        if identity.commit:
            self.facts["kernel.commit"] = identity.commit
        for name, sha256 in identity.parts:
            self.facts[f"kernel.part.{name}"] = sha256

    def _build(self, stack: StackRecipe) -> Rung:
        if stack.build is None:
            return Rung(Outcome.SKIP, "the stack builds no module")
        cell, drivers = self.cell, self.shop.drivers
        self.built = drivers.build(cell.guest, cell.stack, cell.kernel, timeout=cell.timeouts.build)
        rung = build_rung(self.built)
        if self.image is not None and rung.outcome is Outcome.PASS:
            self.image = self.image.with_modules(drivers.layer(self.built, cell.kernel))
        return rung

    def _in_guest(self, stack: StackRecipe, image: Image) -> None:
        cell, shop, hypervisor = self.cell, self.shop, self.shop.hypervisor
        assert hypervisor is not None, "a cell that boots needs a hypervisor"
        self.facts["accelerator"] = "KVM" if shop.accelerator == "kvm" else "emulation (TCG)"
        recipe = shop.recipes.guest(cell.guest)
        blacklist = f"modprobe.blacklist={','.join(stack.blacklist)}" if stack.blacklist else ""
        request = BootRequest(
            cell_id=cell.id,
            run_id=shop.run_id,
            image=image,
            boot_dir=shop.recipes.boot_dir,
            accelerator=shop.accelerator,
            init=stack.init or recipe.init,
            memory=shop.memory,
            vcpus=shop.vcpus,
            cmdline=" ".join(word for word in (blacklist, stack.cmdline, cell.kernel.cmdline) if word),
            work=shop.work,
            secure_boot=self._secure_boot(),
            patience=max(1.0, shop.scale / EMULATION_FACTOR),
        )
        with contextlib.ExitStack() as keeper:
            machine: list[VirtualMachine] = []

            def start() -> Rung:
                self.lent = lend(keeper, shop.desk, cell, shop.run_id, self.facts, _DEVICE_WAIT, shop.stop)
                wanted = replace(request, passthrough=in_domain(self.lent, shop.memory))
                self.lent.check()
                machine.append(keeper.enter_context(boot(hypervisor, wanted, shop.journal, shop.client_key)))
                return self._boot(machine[0])

            self._rung(Stage.BOOT, start)
            if self._alive and self.guest is not None:
                self._climb_in(self.guest, stack, recipe.packages)
            if machine:
                self._close(machine[0])
        self.stages = blame_the_host(self.stages, self.lent)

    def _secure_boot(self) -> SecureBoot | None:
        if not self.cell.kernel.secure_boot:
            return None
        owner = self.shop.drivers.keys().lab
        return SecureBoot(owner, signer=owner)

    def _boot(self, machine: VirtualMachine) -> Rung:
        deadline = min(self.deadline, time.monotonic() + self.cell.timeouts.boot * self.shop.scale)
        quiet = _QUIET if self.shop.accelerator == "kvm" else _QUIET * self.shop.scale / 2
        machine.wait_for_ssh(deadline, quiet)
        guest = self.guest = Guest(machine)
        said = guest.must(["sh", "-c", "uname -r; cat /proc/cmdline /proc/version"], timeout=30 * self.shop.scale)
        seen, cmdline, build = [*said.split("\n"), "", "", ""][:3]
        rung = Rung(Outcome.PASS, facts={"uname_release": seen})
        rung.files["domain.xml"] = machine.domain.xml().encode()
        expected = self.facts["kernel.release"]
        if seen != expected:
            rung.outcome = Outcome.MISS
            rung.reason = f"the guest runs {seen}, not {expected}: nothing is known about the cell's kernel"
            return rung
        if secure := self._secure_boot():
            rung.facts |= secured.look(guest, secure.owner.common_name, 30 * self.shop.scale)
            if rung.facts["secureboot.state"] != "enabled":
                rung.outcome, rung.reason = Outcome.MISS, "Secure Boot was asked for and is not on in the guest"
        taint = guest.change().taint_after
        rung.files["dmesg-boot.txt"] = guest.last.log
        rung.facts |= {
            "boot.seconds_to_ssh": f"{machine.seconds_to_ssh:.2f}",
            "kernel.cmdline": cmdline,
            "kernel.build": build,
            "taint.boot": letters(taint),
        }
        return rung

    def _climb_in(self, guest: Guest, stack: StackRecipe, packages: tuple[str, ...]) -> None:
        scale = self.shop.scale
        limit = self.cell.timeouts.test * scale
        if self._wanted(Stage.LOAD):
            self._rung(Stage.LOAD, lambda: self._load(guest, stack, packages, limit))
        self._run_tests(stack, watch_over(guest, stack, scale, self.tests_dir))
        if self._alive and self._wanted(Stage.UNLOAD):
            self._rung(Stage.UNLOAD, lambda: self._unload(guest))

    def _load(self, guest: Guest, stack: StackRecipe, packages: tuple[str, ...], limit: float) -> Rung:
        activate = self.cell.timeouts.activate * self.shop.scale
        self.modules = Modules(guest, stack, limit, self.cell.device, among=self.addresses)
        rung = rungs.load(self.modules, activate, self.shop.scale)
        if packages and rung.outcome not in DECIDING:
            rung.files["packages.txt"] = guest.must(packages, timeout=60 * self.shop.scale).encode()
        return rung

    def _run_tests(self, stack: StackRecipe, watch: TestWatch) -> None:
        """Climb the rungs of the compute tests."""
        tests = pick_tests(self.shop.tests, self.cell.tests)
        allowed = [self.cell.timeouts.for_test(test.timeout) for test in tests]
        limit = max([self.cell.timeouts.test, *allowed]) * self.shop.scale
        calm = [test for test in tests if test.tier < LAST_TIER]
        for stage in STAGES:
            if self._alive and self._wanted(stage):
                self._rung(stage, partial(self._compute, watch, stack, calm, stage, limit))
        self._last_of_all(watch, stack, [test for test in tests if test.tier == LAST_TIER], limit)

    def _last_of_all(self, watch: TestWatch, stack: StackRecipe, tests: list[TestSpec], limit: float) -> None:
        """Run the tests after which the driver or the machine may be gone; each belongs to its rung all the same."""
        for stage in STAGES:
            own = [test for test in tests if test.stage is stage]
            if own and self._alive and self._wanted(stage) and not self._excused(stage):
                self._rung(stage, partial(self._run, watch, stack, own, stage, limit))
                last = self.stages.pop()
                index = next(place for place, result in enumerate(self.stages) if result.stage is stage)
                self.stages[index] = merged(self.stages[index], last)

    def _compute(self, watch: TestWatch, stack: StackRecipe, tests: list[TestSpec], stage: Stage, limit: float) -> Rung:
        without = self._excused(stage)
        if without:
            return Rung(Outcome.SKIP, without)
        steps = [step for step in stack.verify if step.stage is stage]
        checked, _ = rungs.run_steps(watch.guest, steps, stage, limit, self.shop.scale)
        if any(result.outcome in DECIDING for result in checked):
            return rungs.from_tests(checked, "")
        rung = self._run(watch, stack, tests, stage, limit)
        rung.tests = [*checked, *rung.tests]
        if checked and rung.outcome is Outcome.SKIP:
            rung.outcome, rung.reason = Outcome.PASS, ""  # what the stack itself wanted verified did hold
        return rung

    def _run(self, watch: TestWatch, stack: StackRecipe, tests: list[TestSpec], stage: Stage, limit: float) -> Rung:
        scale, where, device = self.shop.scale, self.tests_dir, self.tests_device
        return rungs.compute(watch, stack, tests, stage, limit, scale, where, device)

    def _excused(self, stage: Stage) -> str:
        """Why no compute test of a rung is to run here, if so."""
        without = rungs.no_device(self.modules) if self.modules is not None else ""
        return self.debugging if not without and stage is Stage.THROUGHPUT else without

    def _unload(self, guest: Guest) -> Rung:
        rung = Rung(Outcome.SKIP, "nothing was loaded")
        if self.modules is not None:
            rung = rungs.unload(self.modules)
        # Every change was looked at right after it, so the last look is the end.
        rung.files["dmesg.txt"] = guest.last.log
        rung.facts["taint.end"] = letters(guest.last.taint)
        return rung

    def _close(self, machine: VirtualMachine) -> None:
        """Add the log of a guest that failed but still answers, then the console, whole only once the VM has ended."""
        if not self._alive and self.stages[-1].stage is not Stage.BOOT and machine.death() is None:
            with contextlib.suppress(GuestLost):
                log = self.shop.evidence.put(Guest(machine).look().log, "dmesg.txt")
                self.stages[-1] = with_evidence(self.stages[-1], log)
        assert self.shop.hypervisor is not None
        self.shop.hypervisor.destroy(machine.domain.uuid)
        machine.ending.stopped.wait(10.0)
        console = self.shop.evidence.put(
            machine.console.content(), "console.log", "text/plain", truncated=machine.console.truncated
        )
        boot_rung = next(index for index, result in enumerate(self.stages) if result.stage is Stage.BOOT)
        self.stages[boot_rung] = with_evidence(self.stages[boot_rung], console)

    def _rung(self, stage: Stage, act: Callable[[], Rung]) -> None:
        if self.shop.stop.is_set():
            raise Stopped(f"{self.cell.id}: interrupted before {stage}")
        self.shop.on_rung(self.cell.id, self.number, stage)
        started = time.monotonic()
        try:
            rung = act()
        except Stopped:
            raise
        except KernelUnavailable as error:
            rung = Rung(Outcome.MISS, str(error))
        except (BuildFailed, NotBuilt) as error:
            rung = Rung(Outcome.MISS, str(error), files={"build.log": error.log})
        except GuestFailure as error:
            rung = Rung(error.outcome, error.reason)
        except (InfraError, UserError) as error:
            rung = Rung(Outcome.MISS, str(error))
        except Exception as error:  # a defect of ours must not look like a finding, nor take the other cells down
            rung = Rung(Outcome.MISS, f"defect in kdmatrix: {type(error).__name__}: {error}")
            rung.files["traceback.txt"] = traceback.format_exc().encode()
        if self.shop.stop.is_set() and rung.outcome in DECIDING:
            raise Stopped(f"{self.cell.id}: interrupted in {stage}")
        if rung.outcome not in DECIDING and time.monotonic() > self.deadline:
            rung.outcome = Outcome.MISS
            rung.reason = f"the cell took longer than its {self.cell.timeouts.cell * self.shop.scale:.0f} s"
        self._note(stage, rung, time.monotonic() - started)

    def _note(self, stage: Stage, rung: Rung, seconds: float) -> None:
        files = tuple(self.shop.evidence.put(content, name) for name, content in rung.files.items() if content)
        self.tests += rung.tests
        self.facts |= rung.facts
        self.stages.append(StageResult(stage, rung.outcome, seconds, rung.reason, files))

    def _attempt(self) -> Attempt:
        issues: tuple[IssueMatch, ...] = ()
        if not self._alive:
            self.stages, issues = self._explain()
        outcome, rung, reason = decide(self.stages)
        reached = {result.stage for result in self.stages}
        why = dict.fromkeys(LADDER, f"blocked: {rung} was {outcome}")
        why |= {
            stage: f"not asked for: the run ends with {self.shop.until}" for stage in LADDER if not self._wanted(stage)
        }
        blocked = tuple(StageResult(stage, Outcome.SKIP, 0.0, why[stage]) for stage in LADDER if stage not in reached)
        return Attempt(
            run_id=self.shop.run_id,
            cell_id=self.cell.id,
            number=self.number,
            started=self.started.isoformat(timespec="milliseconds"),
            finished=datetime.now(UTC).isoformat(timespec="milliseconds"),
            outcome=outcome,
            rung=rung,
            reason=reason,
            stages=(*self.stages, *blocked),
            tests=tuple(self.tests),
            facts=self.facts,
            predictions=self.predictions,
            issues=issues,
        )

    def _explain(self) -> tuple[list[StageResult], tuple[IssueMatch, ...]]:
        """What is known about the rung that failed; a fault of the lab's that is recognised makes it MISS."""
        try:
            subject = subject_of(self.cell, self.shop.images, self.shop.drivers, self.facts)
        except UserError:  # the recipe itself is what is wrong
            return self.stages, ()
        return self.shop.knowledge.explain(self.stages, subject, self.shop.evidence.read)


def with_evidence(result: StageResult, *more: Evidence) -> StageResult:
    """The same rung, backed by more files."""
    return StageResult(result.stage, result.outcome, result.seconds, result.reason, (*result.evidence, *more))
