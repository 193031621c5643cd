"""Devices that could be passed through: the IOMMU before them, the driver that holds them, and the GPUs.

Only cells with a device need any of this, so nothing here is a failure; what is off is told with how to turn it on.
"""

from __future__ import annotations

from harness.devices.objection import Examined
from harness.devices.safety import HostView, survey
from harness.doctor.host import Answer, Host, State


def iommu(host: Host) -> Answer:
    """Whether the IOMMU keeps devices and their interrupts apart, and with which kernel argument it would."""
    view = HostView(host.root)
    found = view.iommu
    if not found.on:
        # Without a GPU there is nothing to turn it on for.
        wanted = State.WARN if view.units else State.OK
        return wanted, "off: no device can be passed through (only needed for GPU cells)", found.fix
    groups = f"on, {found.groups} groups"
    if found.unsafe:
        fix = "remove allow_unsafe_interrupts from the options of vfio_iommu_type1 in /etc/modprobe.d, then reboot"
        return State.WARN, f"{groups}, but vfio was told to lend devices whose interrupts are not remapped", fix
    if found.remapping is False:
        return State.WARN, f"{groups}, but interrupts are not remapped: no device can be passed through", found.fix
    return State.OK, groups + (", interrupts are remapped" if found.remapping else ""), ""


def vfio(host: Host) -> Answer:
    """Whether there is the driver that holds a device while it is lent."""
    view = HostView(host.root)
    state = State.OK if view.vfio.there or not view.units else State.WARN
    return state, view.vfio.found, view.vfio.fix if state is State.WARN else ""


def gpus(host: Host) -> Answer:
    """Every GPU, and whether it may be passed through or the first reason why not."""
    surveyed = survey(host.root)
    if not surveyed:
        return State.OK, "none: cells without a device run all the same", ""
    refused = any(one.refusals() for one in surveyed)
    fix = "kdmatrix devices tells all reasons, and what to change" if refused else ""
    return State.OK, "; ".join(_in_words(one) for one in surveyed), fix


def _in_words(one: Examined) -> str:
    unit = one.unit
    gpu = unit.gpus[0]
    group = "" if unit.group is None else f", IOMMU group {unit.group}"
    refused = one.refusals()
    verdict = f"not to be passed through: {refused[0].reason}" if refused else "may be passed through"
    return f"{unit.address} {one.label(unit.address)}, driver {gpu.driver or 'none'}{group}: {verdict}"
