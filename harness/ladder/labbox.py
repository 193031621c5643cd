"""The ladder of a cell on a lab box: its kernel booted once, the same rungs over SSH, then its default kernel again."""

from __future__ import annotations

import contextlib
import io
import tarfile
import time
from collections.abc import Collection
from dataclasses import replace

from harness.errors import InfraError, UserError
from harness.images.recipe import StackRecipe
from harness.journal import Entry
from harness.ladder.binding import COMPUTING, pci_functions
from harness.ladder.cell import Ladder, Stopped, with_evidence
from harness.ladder.loading import kernel_name
from harness.ladder.rungs import Rung
from harness.ladder.workshop import Workshop
from harness.machines.guest import Guest, GuestLost
from harness.machines.labbox.box import LabBoxMachine, NoAnswer, Running
from harness.machines.labbox.claim import alone, give_back, take
from harness.machines.labbox.console import BoxConsole, attached, judge_silence
from harness.machines.labbox.entries import BootEntry
from harness.machines.labbox.home import KIND, bring_home, hurry_home, record
from harness.machines.labbox.identity import Identity
from harness.machines.labbox.oneshot import one_shot
from harness.machines.labbox.remains import Remains, remains
from harness.machines.labbox.remote import Remote
from harness.model.cell import Cell, InstalledKernel
from harness.model.machine import LabBox
from harness.model.outcome import Outcome
from harness.model.records import Attempt, TestResult
from harness.model.stage import Stage
from harness.model.taint import letters

_OWN = "the box's own installation is used"
_ANSWERS = 60.0
"""Seconds in which a box that nobody uses answers."""
_TESTS = "/run/kdmatrix"
"""On the box, in memory: a reboot takes it away."""
_MAKE_ROOM = f"mkdir -p {_TESTS} && mount -t tmpfs -o mode=755,nosuid,nodev,exec kdmatrix {_TESTS}"
_CONFIG = 'cat "/boot/config-$1" 2>/dev/null || cat "/lib/modules/$1/config" 2>/dev/null || zcat /proc/config.gz'
_DIGEST = 'for one in "$1" "/boot$1"; do [ -f "$one" ] && exec sha256sum "$one"; done; :'
_MODULES = 'for name; do modinfo -k "$RELEASE" -F filename -- "$name" >/dev/null 2>&1 || echo "$name"; done'


def execute_on_box(cell: Cell, number: int, shop: Workshop) -> Attempt:
    """Climb the ladder once on the cell's lab box. Raises nothing but :class:`Stopped`."""
    # A box is real hardware: nothing in it is slowed down by this host's emulation.
    return _BoxLadder(cell, number, replace(shop, accelerator="kvm")).climb()


class _BoxLadder(Ladder):
    def __init__(self, cell: Cell, number: int, shop: Workshop) -> None:
        super().__init__(cell, number, shop)
        assert isinstance(cell.machine, LabBox)
        assert isinstance(cell.kernel.source, InstalledKernel)
        self.box = cell.machine
        self.wanted = cell.kernel.source
        self.way = one_shot(self.box.boot)
        self.machine: LabBoxMachine | None = None
        self.journalled: Entry | None = None
        self.default = self.before = ""
        """The default kernel's release, and the boot of it from which the box was taken away."""
        self.release = ""
        self.entry = BootEntry("")
        self.away = False
        self.claimed = self.finished = False
        self.unanswered = False
        """The box was waited for after its boot, and did not answer."""

    def climb(self) -> Attempt:
        try:
            stack = self.shop.recipes.stack(self.cell.guest, self.cell.stack)
        except UserError as error:
            self._note(Stage.IMAGE, Rung(Outcome.MISS, str(error)), 0.0)
            return self._attempt()
        self.facts |= {"machine": f"lab box {self.box}", "accelerator": "none: a lab box"}
        boots = self._wanted(Stage.BOOT)
        with contextlib.ExitStack() as keeper:
            self._rung(Stage.IMAGE, (lambda: self._reach(keeper)) if boots else lambda: Rung(Outcome.SKIP, _OWN))
            self._look_ahead()
            if self._alive and self._wanted(Stage.BUILD):
                self._rung(Stage.BUILD, lambda: self._own_modules(stack, boots))
            if self._alive and boots:
                self._rung(Stage.BOOT, lambda: self._boot_once(keeper, stack))
            if self._alive and self.guest is not None:
                self._climb_in(self.guest, stack, self.shop.recipes.guest(self.cell.guest).packages)
            self._finish()
        return self._attempt()

    def _reach(self, keeper: contextlib.ExitStack) -> Rung:
        """Have the box alone, in its default kernel, and know what would be booted."""
        box, stopping = self.box, self.shop.stop.is_set
        identity = Identity.read(box)
        patience = self.cell.timeouts.cell
        keeper.enter_context(alone(self.shop.journal.root.parent / "boxes", box, patience, stopping))
        machine = self.machine = LabBoxMachine(identity, stopping)
        keeper.callback(machine.close)
        running = machine.arrive(_ANSWERS)
        assert machine.shell is not None, "it has just answered"
        # Written before anything is made on the box; who comes after a killed run finds both.
        self.journalled = self.shop.journal.add(KIND, box.name, **record(box, running.release, running.boot_id))
        keeper.callback(self._leave_box)
        mine, dead = take(machine.shell, running.release, running.boot_id, self.shop.run_id, patience, stopping)
        self.claimed = True
        # Others may have had it for long: the cell's time begins here.
        self.deadline = time.monotonic() + self.cell.timeouts.cell
        self.default, self.before = mine.default, running.boot_id
        self.journalled.note(default=mine.default)
        if dead is not None:
            self.facts["box.taken_over"] = f"from {dead}, which died"
            self.way.disarm(machine.shell)
            if running.release != self.default:
                self.away = True
                bring_home(machine, self.default, running.boot_id)
                self.away = False
        if self.way.armed(machine.shell):
            raise InfraError(f"{box}: somebody has chosen a kernel for its next boot; it is not ours to undo")
        assert machine.running is not None
        self.before = machine.running.boot_id
        self.release, self.entry = self.way.find(machine.shell, self.wanted)
        return self._known(machine.shell)

    def _known(self, remote: Remote) -> Rung:
        digest = remote.script(_DIGEST, self.entry.kernel).split()[:1] if self.entry.kernel.startswith("/") else []
        rung = Rung(Outcome.SKIP, _OWN)
        rung.facts = {
            "kernel.release": self.release,
            "kernel.source": f"installed on {self.box.name}",
            "kernel.series": self.cell.kernel.series.value,
            "box.default": self.default,
            "box.boot": self.box.boot,
            "box.entry": self.entry.id,
        }
        if digest:
            rung.facts["kernel.digest"] = digest[0]
        config = remote.run(["sh", "-c", _CONFIG, "sh", self.release], timeout=60)
        if config.ok:
            rung.files["kernel.config"] = config.stdout
        return rung

    def _own_modules(self, stack: StackRecipe, reached: bool) -> Rung:
        """Modules that the stack brings must lie on the box: that they do not is the lab's fault and not theirs."""
        if stack.build is None or not reached:
            return Rung(Outcome.SKIP, _OWN)
        assert self.machine is not None
        assert self.machine.shell is not None
        names = [module.name for module in stack.modules if module.required]
        missing = self.machine.shell.ask(
            ["env", f"RELEASE={self.release}", "sh", "-c", _MODULES, "sh", *names], timeout=60
        ).split()
        if missing:
            reason = f"{self.box.name} has no module {', '.join(missing)} for {self.release}; install {self.cell.stack}"
            return Rung(Outcome.MISS, f"{reason} on it")
        return Rung(Outcome.SKIP, _OWN)

    def _boot_once(self, keeper: contextlib.ExitStack, stack: StackRecipe) -> Rung:
        machine = self.machine
        assert machine is not None
        assert machine.shell is not None
        serial = BoxConsole(self.release)
        keeper.enter_context(attached(self.box.console, serial))
        machine.listen(serial)
        blacklist = f"modprobe.blacklist={','.join(stack.blacklist)}" if stack.blacklist else ""
        asked = f"{stack.cmdline} {self.cell.kernel.cmdline}".split()
        self.away = True
        chosen = self.way.arm(machine.shell, self.release, self.entry, " ".join([blacklist, *asked]))
        started = time.monotonic()
        try:
            running = machine.boot(chosen)
        except NoAnswer as error:
            self.unanswered = True
            raise InfraError(str(error)) from error
        rung = Rung(Outcome.PASS, facts={"uname_release": running.release, "kernel.cmdline": running.cmdline})
        rung.facts["boot.seconds_to_ssh"] = f"{time.monotonic() - started:.2f}"
        self._check(running, asked, rung)
        if rung.outcome is not Outcome.PASS:
            if running.release == self.default:
                self.away = False
                self.facts["box.returned"] = "it came back by itself"
            return rung
        assert machine.shell is not None
        if self.way.armed(machine.shell):
            self.way.disarm(machine.shell)
            rung.facts["box.oneshot"] = "the boot loader did not forget it; it was taken back"
        guest = self.guest = Guest(machine)
        rung.facts["taint.boot"] = letters(guest.change().taint_after)
        rung.files["dmesg-boot.txt"] = guest.last.log
        self._clear(guest, stack)
        self._find_devices(guest)
        if stack.backends:
            self._bring_tests(machine.shell, stack.backends)
        return rung

    def _check(self, running: Running, asked: list[str], rung: Rung) -> None:
        """Is this the kernel of the cell, and was it started as the cell wants?"""
        if running.release == self.default != self.release:
            rung.outcome = Outcome.MISS
            rung.reason = (
                f"the box came up in its default kernel {running.release}: either the one-time boot was not taken, or "
                f"{self.release} restarted the box before it could be reached"
            )
        elif running.release != self.release:
            rung.outcome = Outcome.MISS
            rung.reason = f"the box runs {running.release}, not {self.release}: nothing is known of the cell's kernel"
        elif missing := [word for word in asked if word not in running.cmdline.split()]:
            rung.outcome = Outcome.MISS
            rung.reason = f"the box was booted without {' '.join(missing)}; add it to the entry {self.entry.id}"

    def _find_devices(self, guest: Guest) -> None:
        """The box' own devices that fit what the cell asks for, which it needs ``count`` of."""
        request = self.cell.request
        if request is None:
            return
        found = tuple(
            one.address
            for one in pci_functions(guest, 60)
            if (one.address == request.address if request.address else one.base_class in COMPUTING)
            and request.vendor in (None, one.vendor)
            and request.device in (None, one.device)
        )
        if len(found) < request.count:
            raise InfraError(
                f"{self.box.name} has {len(found)} devices that fit {self.cell.device}, not {request.count}"
            )
        self.addresses = found[: request.count]

    def _clear(self, guest: Guest, stack: StackRecipe) -> None:
        """Remove what the box' own start loaded already: that the modules come is to be seen on ``load``."""
        there = [kernel_name(module) for module in stack.modules if kernel_name(module) in guest.last.module_names]
        for name in reversed(there):
            done = guest.run(["modprobe", "--remove", "--", name], timeout=60)
            guest.check(done)
            if not done.ok:
                raise InfraError(
                    f"{self.box.name} loads {name} when it starts and does not let it go; keep it from being loaded: "
                    f"modprobe.blacklist={name} in the boot entry, and whoever uses it"
                )
        if there:
            guest.change()

    def _bring_tests(self, remote: Remote, backends: Collection[str]) -> None:
        """Copy the compute tests into the box' memory."""
        folder = self.shop.images.tests_folder(backends).resolve()
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(folder, arcname="gpu_tests", filter=_of_root)
        remote.script(f"{_MAKE_ROOM} && exec tar -x -C {_TESTS}", stdin=packed.getvalue(), timeout=300)
        self.tests_dir = f"{_TESTS}/gpu_tests"

    def _finish(self) -> None:
        """Bring the box home, then complete the record with what only its end, or the box itself, could tell."""
        machine = self.machine
        if machine is None or self.journalled is None:
            return
        failed = not self._alive
        if failed and self.guest is not None and self.away and machine.death() is None:
            with contextlib.suppress(GuestLost):
                log = self.shop.evidence.put(self.guest.look().log, "dmesg.txt")
                self.stages[-1] = with_evidence(self.stages[-1], log)
        silent = machine.serial.silent
        # A panic on the console is the end of it; a box that only stopped answering may yet come back by itself.
        home = self._go_home(hopeless=self.unanswered or machine.console.panicked.is_set())
        kept = Remains()
        if home and failed and machine.shell is not None and self.release:
            kept = remains(machine.shell, self.release, self.before)
        self._conclude(kept, home, silent)
        if machine.serial.attached:
            content, cut = machine.serial.record.content(), machine.serial.record.truncated
            console = self.shop.evidence.put(content, "console.log", "text/plain", truncated=cut)
            index = next((i for i, one in enumerate(self.stages) if one.stage is Stage.BOOT), len(self.stages) - 1)
            self.stages[index] = with_evidence(self.stages[index], console)
        if home:
            self._give_back()
        # Else the journal keeps it, and the box says who had it: whoever comes next brings it home.
        self.finished = True

    def _go_home(self, *, hopeless: bool) -> bool:
        if not self.away:
            return True
        assert self.machine is not None
        started = time.monotonic()
        try:
            how = bring_home(self.machine, self.default, self.before, hopeless=hopeless)
        except (InfraError, UserError) as error:
            if self.shop.stop.is_set():
                raise Stopped(f"{self.cell.id}: interrupted on the way home") from error
            self.facts["box.returned"] = "no"
            self.facts["box.trouble"] = str(error)
            outcome, reason = Outcome.MISS, str(error)
        else:
            self.away = False
            self.facts["box.returned"] = how
            outcome, reason = Outcome.PASS, ""
        seconds = time.monotonic() - started
        name = f"{self.box.name} back in its default kernel"
        self.tests.append(TestResult(name, Stage.BOOT, outcome, reason, seconds, details={"default": self.default}))
        return outcome is Outcome.PASS

    def _conclude(self, kept: Remains, home: bool, silent: float) -> None:
        """Say FAIL where something was seen that speaks against the kernel; without that, a loss stays MISS."""
        assert self.machine is not None
        last = self.stages[-1]
        for name, content in kept.files.items():
            last = with_evidence(last, self.shop.evidence.put(content, name))
        if last.outcome is Outcome.MISS and kept.complaint:
            last = replace(last, outcome=Outcome.FAIL, reason=f"{kept.complaint}; {last.reason}")
        elif last.outcome is Outcome.MISS and self.unanswered:
            verdict = judge_silence(self.machine.serial, silent, answers_now=home)
            last = replace(last, outcome=verdict[0], reason=f"{last.reason}; {verdict[1]}")
        self.stages[-1] = last

    def _give_back(self) -> None:
        assert self.machine is not None
        assert self.journalled is not None
        if self.claimed:
            try:
                shell = self.machine.shell
                give_back(shell if shell is not None and shell.alive else self.machine.connect(30.0))
            except (InfraError, UserError) as error:
                self.facts["box.trouble"] = f"it is not free for others, as it was not given back: {error}"
                return
        self.journalled.done()

    def _leave_box(self) -> None:
        """The way out when the ladder did not come to its end."""
        if self.finished or self.machine is None:
            return
        if self.away:
            assert self.journalled is not None
            hurry_home(self.machine, self.journalled)
        else:
            self._give_back()


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
