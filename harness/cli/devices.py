"""``kdmatrix devices``: the GPUs of this host, whether each may be lent to a VM, and if not, why and what to change."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from harness.cli.output import out, reported, say, show_json
from harness.cli.runs import AsJson
from harness.devices.hostwide import lending_directory
from harness.devices.iommu import Iommu
from harness.devices.leases import LeaseRecord, Leases
from harness.devices.matching import in_bytes
from harness.devices.objection import Examined, Level, Objection
from harness.devices.quarantine import Quarantine, Quarantined
from harness.devices.safety import HostView
from harness.model.device import Link, PciFunction

FORMAT = "kdmatrix-devices-1"
_HOST = Path("/")


@dataclass(frozen=True, slots=True)
class _Row:
    examined: Examined
    lease: LeaseRecord | None
    quarantine: Quarantined | None

    def refusals(self, force: bool = False) -> tuple[Objection, ...]:
        return self.examined.refusals(force, leased=self.lease is not None)

    @property
    def may_pass(self) -> bool:
        return not self.refusals() and self.quarantine is None

    @property
    def may_be_forced(self) -> bool:
        return bool(self.refusals()) and not self.refusals(force=True) and self.quarantine is None


@reported
def devices(
    as_json: AsJson = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Also show every function that goes along, and notes.")
    ] = False,
    lift: Annotated[
        str | None,
        typer.Option("--lift", metavar="ADDRESS", help="End the quarantine of a device first.", show_default=False),
    ] = None,
    root: Annotated[
        Path,
        typer.Option(
            "--root",
            metavar="DIR",
            help="Look at a copy of a host's /sys, /proc and /dev instead.",
            exists=True,
            file_okay=False,
            show_default=False,
        ),
    ] = _HOST,
) -> None:
    """List the GPUs of this host, whether each may be passed through to a VM, and if not, why and what to change."""
    lifted = Quarantine(lending_directory()).lift(lift) if lift else []
    view = HostView(root)
    rows = _rows(view)
    if as_json:
        show_json(_json(view, rows))
        return
    if lift:
        for one in lifted:
            say(_printable(f"{one.address}: quarantine ended ({one.reason})"))
        if not lifted:
            say(f"{lift}: is in no quarantine")
    _show_host(view)
    if not rows:
        say("no GPU that could be passed through")
        return
    out.print(_table(rows))
    for row in rows:
        _explain(row, everything)


def _rows(view: HostView) -> list[_Row]:
    """Leases and quarantines are this host's, so a copy of another host has none."""
    here = view.root == _HOST
    leases = {one.unit: one for one in Leases(lending_directory()).held()} if here else {}
    quarantine = Quarantine(lending_directory())
    rows = []
    for examined in view.survey():
        addresses = tuple(function.address for function in examined.unit.functions)
        kept = quarantine.of(addresses) if here else None
        rows.append(_Row(examined, leases.get(examined.unit.address), kept))
    return rows


def _show_host(view: HostView) -> None:
    say(f"IOMMU: {iommu_in_words(view.iommu)}")
    if view.iommu.fix:
        say(f"  fix: {view.iommu.fix}")
    say(f"vfio-pci: {view.vfio.found}")
    if view.vfio.fix:
        say(f"  fix: {view.vfio.fix}")


def iommu_in_words(iommu: Iommu) -> str:
    """``on, 23 groups, interrupts are remapped``."""
    if not iommu.on:
        return "off"
    remapping = {True: ", interrupts are remapped", False: ", interrupts are not remapped", None: ""}
    return f"on, {iommu.groups} groups{remapping[iommu.remapping]}"


def _table(rows: list[_Row]) -> Table:
    table = Table(
        "address", "device", "driver", "group", "memory", "link", "node", "passthrough", box=None, pad_edge=False
    )
    for row in rows:
        unit = row.examined.unit
        gpu = unit.gpus[0]
        verdict, style = _verdict(row)
        cells = (
            unit.address,
            row.examined.label(unit.address),
            gpu.driver or "–",
            "–" if unit.group is None else str(unit.group),
            in_bytes(unit.memory),
            _link_in_words(gpu.link),
            "–" if gpu.numa_node is None else str(gpu.numa_node),
        )
        table.add_row(*(Text(_printable(cell)) for cell in cells), Text(verdict, style=style))
    return table


def _verdict(row: _Row) -> tuple[str, str]:
    if row.quarantine is not None:
        return "quarantine", "yellow"
    if row.lease is not None:
        return "lent", "cyan"
    if row.may_pass:
        return "yes", "green"
    return ("no, unless forced", "yellow") if row.may_be_forced else ("no", "red")


def _explain(row: _Row, everything: bool) -> None:
    examined = row.examined
    shown = [*row.refusals(), *(examined.notes if everything else ())]
    if not (shown or everything or row.lease or row.quarantine):
        return
    say()
    say(_printable(f"{examined.unit.address} {examined.label(examined.unit.address)}"), "bold")
    if everything:
        for function in examined.unit.functions:
            say(_printable(f"  {function.address} {_function_in_words(examined, function)}"))
    if row.lease:
        say(_printable(f"  lent to {row.lease.holder()}"))
    if row.quarantine:
        say(_printable(f"  {row.quarantine.describe()}"))
    for one in shown:
        say(_printable(f"  {'note' if one.level is Level.NOTE else 'no'}: {one.reason}"))
        if one.fix:
            say(_printable(f"      fix: {one.fix}"))


def _function_in_words(examined: Examined, function: PciFunction) -> str:
    windows = ", ".join(in_bytes(bar.size) for bar in function.bars)
    parts = [
        f"{examined.label(function.address)} [{function.ids}] class {function.class_code >> 8:04x}",
        f"driver {function.driver or 'none'}",
        f"windows {windows}" if windows else "",
        f"reset {' '.join(function.reset_methods) or 'none'}",
        f"power {function.power_state}" if function.power_state else "",
        f"virtual function of {function.physical}" if function.physical else "",
        f"{len(function.vfs)} of {function.total_vfs} virtual functions" if function.total_vfs else "",
        *(f"{kind.id} ({kind.name}): {kind.available} more" for kind in function.mdev_types),
    ]
    return "; ".join(part for part in parts if part)


def _link_in_words(link: Link | None) -> str:
    """``16 GT/s x8 of 16 GT/s x16``; a GPU at rest may slow its link down."""
    if link is None or not link.max_width:
        return "–"
    now = f"{link.speed:g} GT/s x{link.width}" if link.speed and link.width else "down"
    most = f"{link.max_speed:g} GT/s x{link.max_width}"
    return now if now == most else f"{now} of {most}"


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _json(view: HostView, rows: list[_Row]) -> dict[str, Any]:
    """Documented in docs/passthrough.md; keys are added, never changed, while the format's name stays."""
    return {
        "format": FORMAT,
        "iommu": {
            "on": view.iommu.on,
            "groups": view.iommu.groups,
            "interrupt_remapping": view.iommu.remapping,
            "fix": view.iommu.fix,
        },
        "vfio_pci": {"available": view.vfio.there, "found": view.vfio.found, "fix": view.vfio.fix},
        "units": [_unit_json(row) for row in rows],
    }


def _unit_json(row: _Row) -> dict[str, Any]:
    examined = row.examined
    kept = row.quarantine
    return {
        "address": examined.unit.address,
        "name": examined.names[examined.unit.address],
        "vendor": examined.vendors[examined.unit.address],
        "group": examined.unit.group,
        "memory": examined.unit.memory,
        "may_be_passed": row.may_pass,
        "may_be_forced": row.may_be_forced,
        "objections": [
            {"code": str(one.code), "level": str(one.level), "reason": one.reason, "fix": one.fix}
            for one in examined.objections
        ],
        "lease": None if row.lease is None else {"holder": row.lease.holder(), "since": row.lease.since},
        "quarantine": None
        if kept is None
        else {
            "reason": kept.reason,
            "since": kept.since.isoformat() if kept.since else None,
            "until": kept.until.isoformat() if kept.until else None,
        },
        "functions": [_function_json(examined, function) for function in examined.unit.functions],
    }


def _function_json(examined: Examined, function: PciFunction) -> dict[str, Any]:
    link = function.link
    return {
        "address": function.address,
        "ids": function.ids,
        "subsystem": f"{function.subsystem[0]:04x}:{function.subsystem[1]:04x}",
        "class": f"{function.class_code:06x}",
        "revision": function.revision,
        "name": examined.names[function.address],
        "vendor": examined.vendors[function.address],
        "gpu": function.is_gpu,
        "driver": function.driver or None,
        "driver_override": function.override or None,
        "reset_methods": list(function.reset_methods),
        "windows": [
            {"index": bar.index, "size": bar.size, "wide": bar.wide, "prefetchable": bar.prefetchable}
            for bar in function.bars
        ],
        "resizable": function.resizable,
        "link": None
        if link is None
        else {"speed": link.speed, "width": link.width, "max_speed": link.max_speed, "max_width": link.max_width},
        "numa_node": function.numa_node,
        "boot_vga": function.boot_vga,
        "power_state": function.power_state or None,
        "bridges": list(function.bridges),
        "total_virtual_functions": function.total_vfs,
        "virtual_functions": list(function.vfs),
        "physical_function": function.physical or None,
        "mediated_types": [
            {"id": kind.id, "name": kind.name, "available": kind.available} for kind in function.mdev_types
        ],
    }
