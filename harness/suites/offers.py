"""What the drivers of a machine offer: which backends have their library there, and the devices that they list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from harness.errors import InfraError
from harness.model.records import Kind
from harness.model.shell import Shell
from harness.suites.judge import EXIT_STATUS, KINDS
from harness.suites.run import list_devices, not_built
from harness.suites.wire import parse

_ASK = 60.0
"""Seconds within which a driver lists its devices at first: one that starts eight GPUs takes long."""


@dataclass(frozen=True, slots=True)
class Offered:
    """A device as a backend lists it."""

    index: int
    kind: Kind
    name: str
    bdf: str
    """PCI address; empty where the driver does not tell, or there is none."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What came of asking one backend for its devices."""

    backend: str
    devices: tuple[Offered, ...] = ()
    absent: str = ""
    """Why the driver's library is not there; then nothing can be said of the driver."""
    trouble: str = ""
    """What went wrong although the library is there."""


def backends_of(shell: Shell, gpu_tests_dir: str) -> tuple[str, ...]:
    """The backends that the runner has built in.

    Raises:
        InfraError: the runner does not start on this machine.
    """
    done = shell.run([f"{gpu_tests_dir}/bin/gtrun", "list"], timeout=_ASK)
    if not done.ok:
        said = done.stderr.decode("utf-8", "replace").strip()[-200:] or f"exit status {done.exit_status}"
        raise InfraError(f"the compute tests' runner does not start here: {said}")
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    return tuple(line.removeprefix("backend ") for line in lines if line.startswith("backend "))


def ask(shell: Shell, backend: str, gpu_tests_dir: str) -> Offer:
    """Have the driver behind ``backend`` list its devices, in a process of its own that may crash or hang."""
    why = not_built(shell, backend, timeout=_ASK, gpu_tests_dir=gpu_tests_dir)
    if why:
        return Offer(backend, absent=why)
    done = list_devices(shell, backend=backend, timeout=_ASK, gpu_tests_dir=gpu_tests_dir)
    wire = parse(done.stdout)
    devices: dict[int, Offered] = {}
    for record in wire.of("device"):
        index, kind = record.number("index"), record.text("kind")
        if index is not None and kind in KINDS:
            named = (record.text("name", limit=200), record.text("bdf", limit=20))
            devices.setdefault(int(index), Offered(int(index), cast(Kind, kind), *named))
    reason = next((" ".join(record.text("reason").split()) for record in wire.of("result")), "")
    if done.exit_status == EXIT_STATUS["skip"]:
        return Offer(backend, absent=reason or "its library is not there")
    if done.ok:
        return Offer(backend, tuple(devices.values()))
    ended = "did not end" if done.timed_out else f"ended with status {done.exit_status}"
    return Offer(backend, tuple(devices.values()), trouble=reason or f"listing the devices {ended}")
