"""Devices that could be passed through: GPUs, and the IOMMU before them."""

from __future__ import annotations

from harness.doctor.host import Answer, Host, State, read


def iommu(host: Host) -> Answer:
    """Whether the IOMMU is on."""
    groups = host.root / "sys/kernel/iommu_groups"
    count = len(list(groups.iterdir())) if groups.is_dir() else 0
    if count:
        return State.OK, f"on, {count} groups", ""
    return State.OK, "off: no device can be passed through (only needed for GPU cells)", ""


def gpus(host: Host) -> Answer:
    """Every GPU with its driver and IOMMU group."""
    found = []
    for device in sorted((host.root / "sys/bus/pci/devices").glob("*")):
        code = read(device / "class")
        # Display controllers, and processing accelerators (PCI Code and ID Assignment Specification).
        if code.startswith(("0x03", "0x12")):
            ids = f"{read(device / 'vendor')[2:]}:{read(device / 'device')[2:]}"
            driver = device / "driver"
            bound = f", driver {driver.readlink().name}" if driver.is_symlink() else ", no driver"
            group = device / "iommu_group"
            where = f", IOMMU group {group.readlink().name}" if group.is_symlink() else ""
            found.append(f"{device.name} [{ids}]{bound}{where}")
    return State.OK, "; ".join(found) or "none: cells without a device run all the same", ""
