"""Resets between cells, so that what one guest did to a device is not found by the next.

The kernel knows several ways for most devices and publishes those that a function has, in the order in which it would
try them (``reset_method``, since 5.15): what its vendor wrote for it, ACPI, a function level reset, power management,
the bus. It stops at the first that does not fail. Here each is tried by name, and the device looked at after it: a
reset that succeeds and leaves a device that does not answer has failed. What is left then is reset with its whole bus,
where nothing but the unit is on it. When that does not help either, the functions are removed from the bus and found
again.

The kernel waits 65 s for a device that does not come back from a function level reset ("not ready 65535ms after FLR;
giving up"), deaf to signals. The patience here is longer, so that its own verdict is heard.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from harness.devices import sysfs
from harness.devices.binding import RESCAN, LeasedUnit, accepts_reset_methods, set_reset_methods
from harness.devices.pci import is_address

PATIENCE = 100.0
"""Seconds for one reset."""
NO_METHOD = "no reset method"
_WHOLE_BUS = "reset_subordinate"
"""Of a bridge, since Linux 6.13 and in the stable kernels of its time (sysfs-bus-pci in Documentation/ABI/testing)."""


@dataclass(frozen=True, slots=True)
class ResetReport:
    """What was tried, and what came of it."""

    done: tuple[tuple[str, str], ...]
    """Address and the method that worked (``bus of 0000:00:01.0`` for all behind that bridge), :data:`NO_METHOD`, or
    empty when none did."""
    failed: tuple[str, ...] = ()
    """Attempts that failed, with the kernel's reason or what the device showed after it."""
    sick: tuple[str, ...] = ()
    """What is wrong with the device after all of it; empty when it is well."""
    rediscovered: bool = False
    """Whether it had to be removed from the bus and found again."""

    def describe(self) -> str:
        """``flr``, ``no reset method``; with addresses where the functions differ."""
        words = {how or "failed" for _, how in self.done}
        each = (f"{how or 'failed'} ({address})" for address, how in self.done)
        text = words.pop() if len(words) == 1 else ", ".join(each)
        return f"{text}, then removed from the bus and found again" if self.rediscovered else text


def reset(unit: LeasedUnit, sick: Callable[[str], tuple[str, ...]], patience: float = PATIENCE) -> ResetReport:
    """Reset every function of a leased unit that can be, and say how it is then. Nobody may use it meanwhile.

    Args:
        unit: the leased unit; without a valid lease nothing is written.
        sick: what is wrong with a function now; empty when it is well.
        patience: seconds for each reset.

    Raises:
        InfraError: the lease is lost.
        Stuck: the kernel has not come back from a reset; the device must be left alone.
    """
    done: list[tuple[str, str]] = []
    failed: list[str] = []
    for address in unit.functions:
        done.append((address, _reset(unit, address, sick, patience, failed)))
    done = _reset_with_bus(unit, done, sick, patience, failed)
    wrong = _all(unit, sick)
    if not wrong:
        return ResetReport(tuple(done), tuple(failed))
    _rediscover(unit, patience, failed)
    return ResetReport(tuple(done), tuple(failed), _all(unit, sick), rediscovered=True)


def _reset(
    unit: LeasedUnit, address: str, sick: Callable[[str], tuple[str, ...]], patience: float, failed: list[str]
) -> str:
    path = unit.path(address)
    if not (path / "reset").exists():
        return NO_METHOD
    chooser = path / "reset_method"
    order = unit.read(chooser) if chooser.exists() else ""
    worked = ""
    for name, choice in _attempts(unit, address, order):
        try:
            if choice:
                unit.write(chooser, choice)
            unit.write(path / "reset", "1", patience)
        except OSError as error:
            failed.append(f"{address} {name}: {error.strerror}")
            continue
        wrong = sick(address)
        if not wrong:
            worked = name
            break
        failed.append(f"{address} {name}: {'; '.join(wrong)}")
    set_reset_methods(unit, address, order)  # what ends the loop early leaves this to the restoring of the originals
    return worked


def _reset_with_bus(
    unit: LeasedUnit,
    done: list[tuple[str, str]],
    sick: Callable[[str], tuple[str, ...]],
    patience: float,
    failed: list[str],
) -> list[tuple[str, str]]:
    """Reset the whole bus of functions that nothing else has reset, as the sound of a GPU, which has no reset.

    For one function of several the kernel resets no bus. It does so for all together when its bridge is asked.
    """
    how = dict(done)
    left = [address for address, worked in done if worked in ("", NO_METHOD)]
    for bridge, behind in groupby(left, lambda address: unit.path(address).resolve().parent):
        if not _is_all_ours(unit, bridge):
            continue
        attempt = f"bus of {bridge.name}"
        try:
            unit.write(bridge / _WHOLE_BUS, "1", patience)
        except OSError as error:
            failed.append(f"{attempt}: {error.strerror}")
            continue
        for address in behind:
            if wrong := sick(address):
                failed.append(f"{address} {attempt}: {'; '.join(wrong)}")
            else:
                how[address] = attempt
    return list(how.items())


def _is_all_ours(unit: LeasedUnit, bridge: Path) -> bool:
    """Whether a bridge can reset its bus, and all that is behind it, more than one function, belongs to the unit."""
    behind = {name for name in sysfs.names(bridge) if is_address(name)}
    return (bridge / _WHOLE_BUS).exists() and len(behind) > 1 and behind <= set(unit.functions)


def _attempts(unit: LeasedUnit, address: str, order: str) -> list[tuple[str, str]]:
    """What to try: a name for the report, and what to write to ``reset_method`` before; empty for nothing."""
    methods = order.split()
    if len(methods) < 2:
        return [(order or "the kernel's choice", "")]
    by_name = [(method, method) for method in methods]
    if accepts_reset_methods(unit, address, order):
        return by_name
    # Who chooses could not choose all of them again, so the kernel is let do what it can first.
    return [(f"the kernel's choice of {order}", ""), *by_name]


def _rediscover(unit: LeasedUnit, patience: float, failed: list[str]) -> None:
    """Remove all functions from the bus and look for them; their drivers are asked anew, and overrides are gone."""
    for address in reversed(unit.functions):
        if unit.present(address):
            try:
                unit.write(unit.path(address) / "remove", "1", patience)
            except OSError as error:
                failed.append(f"{address} remove: {error.strerror}")
    try:
        unit.write(unit.root / RESCAN, "1", patience)
    except OSError as error:
        failed.append(f"rescan: {error.strerror}")


def _all(unit: LeasedUnit, sick: Callable[[str], tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(word for address in unit.functions for word in sick(address))
