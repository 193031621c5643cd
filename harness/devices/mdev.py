"""Mediated devices: a GPU's driver makes a part of it a device of its own, and takes it back.

The GPU stays with its driver and is not leased: how many parts it has is for the driver to count. Sources:
Documentation/driver-api/vfio-mediated-device.rst of the kernel. (Newer NVIDIA drivers have none: there a part is a
virtual function, which is asked for as one.)
"""

from __future__ import annotations

import contextlib
import errno
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.devices.pci import DEVICES
from harness.errors import InfraError
from harness.journal import Journal
from harness.model.device import MdevType, PciFunction

BUS = "sys/bus/mdev/devices"
"""Below the root: every mediated device, by UUID."""
KIND = "mdev"
"""Of the journal's entries."""
_GONE_ALREADY = (errno.ENOENT, errno.ENODEV)
_NONE_LEFT = (errno.ENOSPC, errno.EINVAL, errno.EBUSY, errno.EAGAIN, errno.EUSERS)
"""What drivers return when another one took the last part in between."""


def kind_of(function: PciFunction, wanted: str) -> MdevType | None:
    """The kind of mediated device that is called so, by id or by name."""
    return next((one for one in function.mdev_types if wanted in (one.id, one.name)), None)


@contextlib.contextmanager
def mediated(wanted: str, parents: Sequence[PciFunction], journal: Journal, root: Path = Path("/")) -> Iterator[str]:
    """Have a mediated device of a kind for the block, on the first of ``parents`` that has one left; yields its UUID.

    The VM must have ended when the block does.

    Raises:
        InfraError: no parent makes it, none is left, or this user may not.
    """
    tried = []
    for parent in parents:
        kind = kind_of(parent, wanted)
        if kind is None or kind.available < 1:
            tried.append(f"{parent.address} {'has none left' if kind else f'makes no {wanted}'}")
            continue
        name = str(uuid.uuid4())
        entry = journal.entry(KIND, name, parent=parent.address)
        try:
            create = root / DEVICES / parent.address / "mdev_supported_types" / kind.id / "create"
            create.write_text(f"{name}\n", encoding="ascii")
        except OSError as error:
            entry.done()
            if error.errno not in _NONE_LEFT:
                raise InfraError(f"no {wanted} can be made on {parent.address}: {error.strerror}") from error
            tried.append(f"{parent.address} has none left ({error.strerror})")
            continue
        with entry:
            entry.undo(remove, name, root)
            yield name
        return
    raise InfraError(f"no mediated device {wanted}: {'; '.join(tried) or 'no device of this host fits'}")


def remove(name: str, root: Path = Path("/")) -> bool:
    """Take a mediated device back; False when it was gone already.

    Raises:
        InfraError: the driver does not let it go.
    """
    place = root / BUS / name
    if not place.exists():
        return False
    try:
        (place / "remove").write_text("1\n", encoding="ascii")
    except OSError as error:
        if error.errno in _GONE_ALREADY:
            return False
        raise InfraError(f"the mediated device {name} cannot be removed: {error.strerror}") from error
    return True
