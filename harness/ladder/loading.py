"""Loads and removes a stack's modules in a guest: what they are, whether the kernel takes them, whether they all go.

Without a device, a driver may refuse to load; a recipe says by which words, and then that refusal is the pass. Any
other refusal is the driver's or the kernel's failure, told in the kernel's own words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from harness.images.recipe import Module, StackRecipe
from harness.ladder.binding import misbound
from harness.ladder.leaks import Traces, holders, leaks, needed_by, traces
from harness.ladder.watching import Acted, Details, Turn, act, in_turn, last_words
from harness.machines.guest import Guest, GuestLost
from harness.machines.refusal import refusal
from harness.model.kmsg import KernelMessage
from harness.model.outcome import DECIDING, Outcome
from harness.model.records import TestResult
from harness.model.stage import Stage

_FIELDS = ("filename", "version", "srcversion", "vermagic", "license", "signer", "sig_key", "intree")
_MODINFO = 'for name; do echo "@module $name"; modinfo -- "$name" 2>&1; echo "@status $?"; done; uname -r'

_KERNELS_WORDS = re.compile(
    r"Unknown symbol|disagrees about version of symbol|no symbol version|version magic|is rejected|Lockdown: "
    r"|exports duplicate symbol|GPL-only symbol|GPL-incompatible|Invalid relocation|Unknown rela|Exec format"
)
"""What the kernel says of a module that it does not take (kernel/module/main.c, version.c, signing.c)."""
_NOT_THE_DEVICE = re.compile(
    r"Key was rejected|Required key not available|Operation not permitted|Unknown symbol|Invalid module format"
    r"|Exec format error|version magic|disagrees about version|Cannot allocate memory|Invalid argument"
)
"""Refusals that are never about a missing device, whatever a recipe expects."""


@dataclass(frozen=True, slots=True)
class ModuleFacts:
    """What a module's file says of itself, as the guest that is to load it sees it."""

    status: int
    said: dict[str, str]

    @property
    def builtin(self) -> bool:
        """Part of the kernel's image: there is nothing to load."""
        return self.said.get("filename") == "(builtin)"

    def details(self) -> dict[str, str]:
        """The fields that the file has, and whether anybody signed it."""
        named = {name: self.said[name] for name in _FIELDS if self.said.get(name)}
        return named if self.builtin else {**named, "signer": self.said.get("signer") or "unsigned"}


def kernel_name(module: Module) -> str:
    """The name that a module has once it is loaded."""
    return (module.loads_as or module.name).replace("-", "_")


@dataclass(slots=True)
class Modules:
    """The modules of one stack in one guest, from before they are loaded until they are gone."""

    guest: Guest
    stack: StackRecipe
    timeout: float
    """Bounds each command, in seconds."""
    device: str = "none"
    """What is attached to the guest, as the cell names it."""
    refused: str = ""
    """What a driver that found no device said, once it has."""
    facts: dict[str, str] = field(default_factory=dict)
    loaded: list[Module] = field(default_factory=list)
    among: tuple[str, ...] | None = None
    """The addresses whose drivers are looked at; every display and accelerator that was handed in, where it is None."""
    _release: str = ""
    _before: Traces | None = None
    _known: dict[str, ModuleFacts] = field(default_factory=dict)

    def load(self) -> tuple[list[TestResult], bool]:
        """Load one after the other, then see what is bound; return results and whether the guest was lost."""
        if not self.stack.modules:
            return [], False
        results, lost = in_turn(Stage.LOAD, [("look at the modules", self._look)])
        if lost or results[0].outcome is not Outcome.PASS:
            return results, lost
        turns: list[Turn] = [(f"load {module.name}", partial(self._load, module)) for module in self.stack.modules]
        results, lost = in_turn(Stage.LOAD, turns)
        if not lost and self.device != "none" and not any(result.outcome in DECIDING for result in results):
            more, lost = in_turn(Stage.LOAD, [("bound driver", self._bound)])
            results += more
        return results, lost

    def unload(self) -> list[TestResult]:
        """Remove all, load and remove them once more, then hold what is left against what was there before."""
        if not self.loaded:
            return []
        # What the modules need and may leave behind; seen while they are there.
        names = {kernel_name(module) for module in self.loaded}
        needed = needed_by(names, self.guest.last.modules)
        rounds: list[list[Turn]] = [
            [(f"unload {module.name}", self._remover(module)) for module in reversed(self.loaded)],
            [(f"reload {module.name}", self._reloader(module)) for module in self.loaded],
            [(f"unload {module.name} again", self._remover(module, " again")) for module in reversed(self.loaded)],
            [("nothing is left behind", lambda: self._left(names, needed))],
        ]
        results: list[TestResult] = []
        for turns in rounds:
            found, lost = in_turn(Stage.UNLOAD, turns)
            results += found
            if lost or any(result.outcome in DECIDING for result in found):
                break
        return results

    def _look(self) -> TestResult:
        """Read what all modules say of themselves, and what the kernel holds before they come."""
        said = self.guest.must(
            ["sh", "-c", _MODINFO, "sh", *(module.name for module in self.stack.modules)], timeout=self.timeout
        )
        self._known, self._release = _parse_modinfo(said)
        for module in self.stack.modules:
            for name, value in self._known[module.name].details().items():
                self.facts[f"module.{module.name}.{name}"] = value
        self._before = traces(self.guest, self.timeout, fresh=True)
        return TestResult("look at the modules", Stage.LOAD, Outcome.PASS)

    def _load(self, module: Module) -> TestResult:
        name, known = f"load {module.name}", self._known[module.name]
        if self.refused:
            return TestResult(name, Stage.LOAD, Outcome.SKIP, f"no device: {self.refused}")
        if known.status not in (0, 1):  # it returns 1 for a module that it does not find
            raise GuestLost(Outcome.MISS, f"modinfo in the guest ended with status {known.status}")
        if known.status:
            outcome = Outcome.FAIL if module.required else Outcome.SKIP
            return TestResult(name, Stage.LOAD, outcome, f"this kernel has no module {module.name}")
        if known.builtin:
            return TestResult(name, Stage.LOAD, Outcome.PASS, details={"builtin": True})
        made_for = known.said.get("vermagic", "").partition(" ")[0]
        if made_for != self._release:
            reason = f"the module is made for {made_for or 'no kernel that it names'}, the guest runs {self._release}"
            return TestResult(name, Stage.LOAD, Outcome.FAIL, reason, details={**known.details()})
        there = self.guest.last.module_names
        acted = act(self.guest, ["modprobe", "--", module.name, *module.parameters], self.timeout)
        result = TestResult(
            name, Stage.LOAD, acted.outcome, acted.reason, acted.seconds, details={**acted.details(), **known.details()}
        )
        if acted.outcome is Outcome.PASS:
            return self._arrived(module, result, there, acted)
        return self._not_taken(module, result, acted)

    def _arrived(self, module: Module, result: TestResult, there: frozenset[str], acted: Acted) -> TestResult:
        wanted = kernel_name(module)
        if wanted not in acted.change.modules:
            came = ", ".join(sorted(acted.change.modules - there)) or "none"
            reason = f"modprobe succeeded but {wanted} is not there; modules that came: {came}"
            return replace(result, outcome=Outcome.FAIL, reason=reason)
        if wanted in there:
            result.details["already_loaded"] = True
        if not any(kernel_name(one) == wanted for one in self.loaded):
            self.loaded.append(module)
        return result

    def _not_taken(self, module: Module, result: TestResult, acted: Acted) -> TestResult:
        if acted.done.timed_out or acted.reason != last_words(acted.done):
            return result  # it did not end, or the kernel itself complained: no refusal
        found = want_of_device(module.refusal, acted) if self.device == "none" and module.refusal else ""
        if found:
            self.refused = found
            result.details["refused"] = found
            return replace(result, outcome=Outcome.PASS, reason="")
        words = kernels_words(acted.change.messages)
        reason = f"{acted.reason}; the kernel says: {words}" if words else acted.reason
        said = "\n".join(message.text for message in acted.change.messages)
        signer = self._known[module.name].said.get("signer", "")
        why = refusal(acted.done.stderr.decode("utf-8", "replace"), said, signer)
        return replace(result, reason=f"{why} ({reason})" if why else reason)

    def _bound(self) -> TestResult:
        wanted = [module.driver for module in self.stack.modules if module.driver]
        # Not every module of a stack is a PCI driver: where the recipe does not say which, any of them will do.
        drivers = wanted or [kernel_name(module) for module in self.stack.modules]
        outcome, reason, seen = misbound(self.guest, drivers, self.timeout, self.among)
        self.facts |= {f"device.{address}.driver": driver for address, driver in seen.items()}
        return TestResult("bound driver", Stage.LOAD, outcome, reason, details={**seen})

    def _remover(self, module: Module, suffix: str = "") -> Callable[[], TestResult]:
        return lambda: self._remove(module, f"unload {module.name}{suffix}")

    def _reloader(self, module: Module) -> Callable[[], TestResult]:
        return lambda: self._reload(module)

    def _remove(self, module: Module, name: str) -> TestResult:
        there = kernel_name(module)
        # modprobe looks for a file of that name, and a renamed file has none; it would not remove what is loaded.
        argv = ["rmmod", there] if module.loads_as else ["modprobe", "--remove", "--", module.name]
        acted = act(self.guest, argv, self.timeout)
        result = TestResult(name, Stage.UNLOAD, acted.outcome, acted.reason, acted.seconds, details=acted.details())
        if acted.outcome is Outcome.PASS and there in acted.change.modules:
            result = replace(result, outcome=Outcome.FAIL, reason=f"{argv[0]} succeeded but the module is still there")
        if result.outcome is Outcome.FAIL and there in acted.change.modules:
            return replace(result, reason=f"{result.reason} ({holders(there, self.guest.last.modules)})")
        return result

    def _reload(self, module: Module) -> TestResult:
        acted = act(self.guest, ["modprobe", "--", module.name, *module.parameters], self.timeout)
        name = f"reload {module.name}"
        result = TestResult(name, Stage.UNLOAD, acted.outcome, acted.reason, acted.seconds, details=acted.details())
        if acted.outcome is Outcome.PASS and kernel_name(module) not in acted.change.modules:
            return replace(result, outcome=Outcome.FAIL, reason="modprobe succeeded but the module did not come back")
        return result

    def _left(self, names: set[str], needed: set[str]) -> TestResult:
        assert self._before is not None, "what was there before is read before anything is loaded"
        found = leaks(self._before, traces(self.guest, self.timeout, fresh=False), names, needed)
        outcome = Outcome.FAIL if found else Outcome.PASS
        details: Details = {f"leak.{number}": leak for number, leak in enumerate(found, 1)}
        return TestResult("nothing is left behind", Stage.UNLOAD, outcome, "; ".join(found)[:400], details=details)


def want_of_device(pattern: str, acted: Acted) -> str:
    """The line by which a driver says that it found no device; empty when it was refused for another reason."""
    said = acted.done.stderr.decode("utf-8", "replace").strip().splitlines()
    lines = [*(message.text for message in acted.change.messages), *said]
    if kernels_words(acted.change.messages) or any(_NOT_THE_DEVICE.search(line) for line in lines):
        return ""
    return next((line.strip()[:200] for line in lines if re.search(pattern, line)), "")


def kernels_words(messages: Sequence[KernelMessage]) -> str:
    """The first message in which the kernel says why it does not take a module."""
    return next((message.text[:200] for message in messages if _KERNELS_WORDS.search(message.text)), "")


def _parse_modinfo(said: str) -> tuple[dict[str, ModuleFacts], str]:
    """The answers by module name, and the running kernel's release, which comes last."""
    known: dict[str, ModuleFacts] = {}
    body, _, release = said.rstrip("\n").rpartition("\n")
    for part in body.split("@module ")[1:]:
        name, _, rest = part.partition("\n")
        lines, _, status = rest.rpartition("@status ")
        fields: dict[str, str] = {}
        for line in lines.splitlines():
            key, colon, value = line.partition(":")
            if colon:
                fields.setdefault(key, value.strip())
        known[name] = ModuleFacts(int(status), fields)
    return known, release.strip()
