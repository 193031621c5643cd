"""All checks in the order in which a run needs what they look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.doctor import devices, programs, resources, virtualisation
from harness.doctor.host import Host, State
from harness.doctor.mirror import Mirror, date_of
from harness.lab import Lab


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the answer."""

    name: str
    state: State
    found: str
    fix: str = ""
    """What to do; empty when there is nothing to do."""


def examine(lab: Lab, root: Path = Path("/"), fetch_date: Callable[[str], str] | None = None) -> list[Check]:
    """Look at everything that a run needs from this host, in the order in which it needs it.

    ``root`` is where /proc, /sys, /etc, /boot, /run and /usr are looked for. ``fetch_date`` asks a URL and returns its
    answer's ``Date`` header ("" when it has none) or raises OSError.
    """
    host = Host(lab, root)
    mirror = Mirror(host, fetch_date or date_of)
    checks: list[Check] = []
    for name, look in (
        ("Python", programs.python),
        ("libvirt-python", partial(virtualisation.binding, host)),
        ("libvirt", partial(virtualisation.libvirt, host)),
        ("QEMU", partial(virtualisation.qemu, host)),
        ("KVM", partial(virtualisation.kvm, host)),
        ("Secure Boot firmware", partial(virtualisation.secure_boot, host)),
        ("network", partial(virtualisation.network, host)),
        ("buildah", partial(programs.buildah, host)),
        ("mmdebstrap", partial(programs.program, host, "mmdebstrap", "makes a Debian guest's root")),
        ("mkfs.erofs", partial(programs.program, host, "mkfs.erofs", "makes the read-only layers")),
        ("busybox", partial(programs.busybox, host)),
        ("apt-get", partial(programs.program, host, "apt-get", "reads the signed package index")),
        ("dpkg-deb", partial(programs.program, host, "dpkg-deb", "unpacks kernel packages")),
        ("depmod", partial(programs.program, host, "depmod", "indexes a kernel's modules")),
        ("Debian keyring", partial(programs.keyring, host)),
        ("Debian mirror", mirror.answer),
        ("C++ compiler", partial(programs.compiler, host)),
        ("home directory", partial(resources.home, host)),
        ("disk space", partial(resources.space, host)),
        ("processors and memory", partial(resources.capacity, host)),
        ("open files", partial(resources.open_files, host)),
        ("clock", mirror.clock),
        ("IOMMU", partial(devices.iommu, host)),
        ("vfio-pci", partial(devices.vfio, host)),
        ("GPUs", partial(devices.gpus, host)),
    ):
        try:
            state, found, fix = look()
        except Exception as error:  # one odd host must not hide what is wrong with the rest of it
            state, found, fix = State.WARN, f"could not be looked at: {type(error).__name__}: {error}", ""
        checks.append(Check(name, state, " ".join(found.split()), fix))
    return checks


def exit_code(checks: list[Check]) -> int:
    """Return 4 when something that every run needs is missing, else 0."""
    return 4 if any(check.state is State.FAIL for check in checks) else 0
