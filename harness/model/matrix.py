"""The matrix as data: axes, rules, limits and presets, exactly as the matrix file states them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from fnmatch import translate
from functools import lru_cache

from harness.model.cell import KernelSpec, Timeouts
from harness.model.device import DeviceRequest
from harness.model.machine import LabBox


@dataclass(frozen=True, slots=True)
class Limits:
    """What the virtual machines of a run may take from their host."""

    vms: int | None = None
    """Virtual machines at a time; None lets the engine choose by the host's processors and memory."""
    vm_memory: int = 1 << 30
    """Bytes of memory for each virtual machine."""
    vm_cpus: int = 1
    """Virtual processors of each virtual machine."""


def is_glob(pattern: str) -> bool:
    """Whether a pattern holds a wildcard."""
    return any(character in pattern for character in "*?[")


@lru_cache(maxsize=1 << 14)
def _globs(patterns: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(translate(pattern)) for pattern in patterns if is_glob(pattern))


def _any_matches(patterns: tuple[str, ...], value: str) -> bool:
    # Most rules name entries outright; only what holds a wildcard needs a regular expression, compiled once.
    return value in patterns or any(glob.match(value) for glob in _globs(patterns))


@dataclass(frozen=True, slots=True)
class Rule:
    """Which combinations a rule speaks of: per axis a choice of case-sensitive globs, all four axes together."""

    guest: tuple[str, ...] = ("*",)
    kernel: tuple[str, ...] = ("*",)
    stack: tuple[str, ...] = ("*",)
    device: tuple[str, ...] = ("*",)

    def speaks_of_kernel(self, kernel: str) -> bool:
        """Whether the rule can match any combination with this kernel."""
        return _any_matches(self.kernel, kernel)

    def matches(self, guest: str, kernel: str, stack: str, device: str) -> bool:
        """Whether one combination, given by its four names, falls under the rule."""
        return (
            _any_matches(self.kernel, kernel)
            and _any_matches(self.stack, stack)
            and _any_matches(self.guest, guest)
            and _any_matches(self.device, device)
        )


@dataclass(frozen=True, slots=True)
class Exclude:
    """A rule that takes combinations out of the matrix. It wins over every include."""

    when: Rule
    reason: str
    line: int
    """Line of the matrix file at which the rule starts."""


@dataclass(frozen=True, slots=True)
class Include:
    """A rule that changes the cells it matches and, where it names entries outside the axes, adds combinations."""

    when: Rule
    line: int
    adds_guests: tuple[str, ...] = ()
    """Guests that the rule names though the axis lacks them; likewise stacks and devices."""
    adds_stacks: tuple[str, ...] = ()
    adds_devices: tuple[str, ...] = ()
    tests: tuple[str, ...] | None = None
    boots: int | None = None
    timeouts: tuple[tuple[str, float], ...] = ()
    """(field of :class:`Timeouts`, seconds): only what the rule names."""

    @property
    def adds(self) -> bool:
        """Whether the rule can add combinations at all."""
        return bool(self.adds_guests or self.adds_stacks or self.adds_devices)


@dataclass(frozen=True, slots=True)
class Preset:
    """A named, smaller or different choice from the same file; None leaves the file's own value."""

    name: str
    description: str = ""
    kernels: tuple[str, ...] | None = None
    guests: tuple[str, ...] | None = None
    stacks: tuple[str, ...] | None = None
    devices: tuple[str, ...] | None = None
    tests: tuple[str, ...] | None = None
    boots: int | None = None
    timeouts: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Matrix:
    """A validated matrix file. Every name in it is known, every list is free of duplicates and not empty."""

    kernels: tuple[KernelSpec, ...]
    guests: tuple[str, ...]
    stacks: tuple[str, ...]
    devices: tuple[str, ...] = ("none",)
    requests: tuple[DeviceRequest, ...] = ()
    """What stands behind the names of ``devices``; ``none`` has none, and any other name is an address."""
    machines: tuple[LabBox, ...] = ()
    """What stands behind those names of ``guests`` that are lab boxes."""
    tests: tuple[str, ...] = ()
    """Names of the compute tests, spelled out also where the file says nothing, ``all`` or a tier."""
    boots: int = 1
    timeouts: Timeouts = field(default_factory=Timeouts)
    limits: Limits = field(default_factory=Limits)
    excludes: tuple[Exclude, ...] = ()
    includes: tuple[Include, ...] = ()
    presets: tuple[Preset, ...] = ()
    preset: str | None = None
    """The preset that this matrix was narrowed to, if any."""
    source: str = ""
    """The file's path, as the user gave it."""
    source_text: str = ""
    sha256: str = ""
    """Lower-case hex digest of the file's bytes."""

    def request(self, device: str) -> DeviceRequest | None:
        """What a name of the devices axis asks for; None where no device is wanted."""
        if device == "none":
            return None
        return next((one for one in self.requests if one.name == device), DeviceRequest(device, address=device))

    def machine(self, guest: str) -> LabBox | None:
        """The lab box that a name of the guests axis stands for; None for a guest."""
        return next((one for one in self.machines if one.name == guest), None)


def override(timeouts: Timeouts, changes: tuple[tuple[str, float], ...]) -> Timeouts:
    """Return ``timeouts`` with the named fields changed."""
    return replace(timeouts, **dict(changes)) if changes else timeouts


def with_preset(matrix: Matrix, preset: Preset) -> Matrix:
    """Return the matrix as the preset wants it. What a preset names, it has the last word on.

    So an axis that the preset names is exactly that list (no include adds to it), and ``tests``, ``boots`` and the
    ``timeouts`` that it names are no longer changed by an include. A quick preset stays quick.
    """
    chosen = set(preset.kernels) if preset.kernels is not None else None
    fixed = {name for name, _ in preset.timeouts}
    includes = tuple(
        replace(
            include,
            adds_guests=include.adds_guests if preset.guests is None else (),
            adds_stacks=include.adds_stacks if preset.stacks is None else (),
            adds_devices=include.adds_devices if preset.devices is None else (),
            tests=include.tests if preset.tests is None else None,
            boots=include.boots if preset.boots is None else None,
            timeouts=tuple(item for item in include.timeouts if item[0] not in fixed),
        )
        for include in matrix.includes
    )
    return replace(
        matrix,
        kernels=tuple(kernel for kernel in matrix.kernels if chosen is None or kernel.name in chosen),
        guests=matrix.guests if preset.guests is None else preset.guests,
        stacks=matrix.stacks if preset.stacks is None else preset.stacks,
        devices=matrix.devices if preset.devices is None else preset.devices,
        tests=matrix.tests if preset.tests is None else preset.tests,
        boots=matrix.boots if preset.boots is None else preset.boots,
        timeouts=override(matrix.timeouts, preset.timeouts),
        includes=includes,
        preset=preset.name,
    )
