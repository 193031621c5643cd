"""Brings a lab box back to its default kernel, whatever became of the one that was tested."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from datetime import UTC, datetime

from harness.errors import InfraError, UserError
from harness.journal import Entry
from harness.machines.labbox.box import LabBoxMachine, NoAnswer
from harness.machines.labbox.claim import give_back, held_by
from harness.machines.labbox.identity import Identity
from harness.machines.labbox.oneshot import one_shot
from harness.model.machine import LabBox

KIND = "lab box"
"""Of its entries in the journal."""
_REBOOT = ("systemctl", "reboot")
_QUICK = 15.0
_ANSWERS = 60.0
"""Seconds in which a box that nobody uses answers."""


def bring_home(machine: LabBoxMachine, default: str, before: str, *, hopeless: bool = False) -> str:
    """Have the box run its ``default`` kernel, and say how it got there.

    ``before`` is the boot in which it was before it was booted once; ``hopeless`` says that there is no use in waiting
    for it to come back by itself.

    Raises:
        InfraError: it is not back. What stands on the box and in the journal has to stay then.
    """
    remote = None if hopeless else machine.reconnect(_QUICK)
    after, how = before, "it came back by itself"
    if remote is not None and machine.running is not None:
        after, how = machine.running.boot_id, "it was rebooted"
        one_shot(machine.box.boot).disarm(remote)
        machine.leave(_REBOOT)
    try:
        if hopeless and machine.box.power:
            raise NoAnswer(f"{machine.box} hangs")
        running = machine.arrive(machine.box.patience, after=after)
    except NoAnswer as error:
        try:
            machine.cycle_power()
        except InfraError as trouble:
            raise InfraError(f"{error}; {trouble}") from error
        how = "its power was cycled"
        running = machine.arrive(machine.box.patience, after=after)
    if running.release != default:
        assert machine.shell is not None, "it has just answered"
        one_shot(machine.box.boot).disarm(machine.shell)
        machine.leave(_REBOOT)
        how += f", ran {running.release}, and was rebooted"
        running = machine.arrive(machine.box.patience, after=running.boot_id)
    if running.release != default:
        raise InfraError(f"{machine.box} runs {running.release} after a reboot; its default kernel was {default}")
    return how


def hurry_home(machine: LabBoxMachine, entry: Entry) -> None:
    """Start the way home and wait for nothing: the run is to end. Whoever comes next sees whether it got there."""
    with contextlib.suppress(InfraError, UserError):
        entry.note(left=datetime.now(UTC).isoformat(timespec="seconds"))
        one_shot(machine.box.boot).disarm(machine.connect(_QUICK))
        machine.leave(_REBOOT)


def record(box: LabBox, default: str, boot_id: str) -> dict[str, str]:
    """What an entry of the journal has to hold so that :func:`undo` can do with it."""
    return {"box": json.dumps(asdict(box)), "default": default, "boot_id": boot_id, "name": str(box)}


def undo(entry: Entry) -> str:
    """Bring home what a killed run left away; the state is told as ``clean`` tells it."""
    said = json.loads(entry.details["box"])
    box = LabBox(**{**said, "power": tuple(said["power"]), "console": tuple(said["console"])})
    default, before = entry.details["default"], entry.details["boot_id"]
    machine = LabBoxMachine(Identity.read(box), lambda: False)
    try:
        try:
            running = machine.arrive(box.patience if _on_its_way(entry, box) else _ANSWERS)
        except NoAnswer:
            if not box.power:
                raise
            running = None
        if running is None or running.release != default:
            bring_home(machine, default, before, hopeless=running is None)
        assert machine.shell is not None, "it has just answered"
        one_shot(box.boot).disarm(machine.shell)
        if held_by(machine.shell, entry.owner):
            give_back(machine.shell)
            return "removed"
        return "removed" if running is None or running.boot_id != before else "was gone already"
    finally:
        machine.close()


def _on_its_way(entry: Entry, box: LabBox) -> bool:
    """Whether whoever left the box had it rebooted so lately that it may still be starting."""
    left = entry.details.get("left")
    return left is not None and (datetime.now(UTC) - datetime.fromisoformat(left)).total_seconds() < box.patience
