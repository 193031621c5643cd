"""One connection to libvirt: its event loop, its lifecycle events, and domains by name."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import InfraError
from harness.machines.daemon import choose_uri, import_libvirt

_loop_guard = threading.Lock()
_loop_running = False


def _run_event_loop(libvirt: Any) -> None:
    """Register libvirt's event loop once per process, before the first connection, and turn it in a daemon thread."""
    global _loop_running
    with _loop_guard:
        if _loop_running:
            return
        libvirt.virEventRegisterDefaultImpl()
        # libvirt prints every error it also raises; ours are told once.
        libvirt.registerErrorHandler(lambda _context, _error: None, None)

        def turn() -> None:
            while True:
                libvirt.virEventRunDefaultImpl()

        threading.Thread(target=turn, daemon=True, name="libvirt-events").start()
        _loop_running = True


@dataclass(slots=True)
class Ending:
    """How a domain ended, filled by the event loop."""

    stopped: threading.Event = field(default_factory=threading.Event)
    reason: str = ""
    """``shutdown``, ``destroyed``, ``crashed``, ``failed`` or ``panicked``; empty while it runs."""


class Hypervisor:
    """A libvirt connection shared by all VMs of this process."""

    def __init__(self, connection: Any, uri: str) -> None:
        self._libvirt = import_libvirt()
        self.connection = connection
        self.uri = uri
        self._endings: dict[str, Ending] = {}
        self._guard = threading.Lock()
        connection.domainEventRegisterAny(None, self._libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle, None)
        with contextlib.suppress(self._libvirt.libvirtError):  # not every driver has keepalive
            connection.setKeepAlive(5, 6)

    @classmethod
    @contextlib.contextmanager
    def connect(cls, state: Path) -> Iterator[Hypervisor]:
        """Connect to this host's libvirt; bring a private daemon up where none runs.

        Raises:
            InfraError: no libvirt can be reached.
        """
        libvirt = import_libvirt()
        _run_event_loop(libvirt)
        uri, daemon = choose_uri(state)
        if daemon is not None:
            daemon.ensure()
        try:
            connection = libvirt.open(uri)
        except libvirt.libvirtError as error:
            raise InfraError(f"libvirt at {uri} does not answer: {error}") from error
        hypervisor = cls(connection, uri)
        try:
            yield hypervisor
        finally:
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()

    @property
    def versions(self) -> dict[str, str]:
        """libvirt's and QEMU's versions, as recorded with each result."""
        return {
            "host.libvirt": _dotted(self.connection.getLibVersion()),
            "host.qemu": _dotted(self.connection.getVersion()),
        }

    def expect_end(self, uuid: str) -> Ending:
        """Note how the domain with this uuid ends; to be called before it is created."""
        with self._guard:
            return self._endings.setdefault(uuid, Ending())

    def forget(self, uuid: str) -> None:
        """Drop what :meth:`expect_end` made."""
        with self._guard:
            self._endings.pop(uuid, None)

    def destroy(self, uuid: str) -> bool:
        """End a domain by uuid and remove its definition; False when there is none."""
        try:
            domain = self.connection.lookupByUUIDString(uuid)
        except self._libvirt.libvirtError:
            return False
        with contextlib.suppress(self._libvirt.libvirtError):
            domain.destroy()
        with contextlib.suppress(self._libvirt.libvirtError):  # transient domains have none
            domain.undefine()
        return True

    def destroy_all_of_this_process(self) -> None:
        """End every VM that this connection waits for: what a second look at a stopped run would find."""
        with self._guard:
            uuids = list(self._endings)
        for uuid in uuids:
            self.destroy(uuid)

    def domain_names(self) -> list[str]:
        """Names of all domains, running or not."""
        return [domain.name() for domain in self.connection.listAllDomains()]

    def _on_lifecycle(self, _connection: Any, domain: Any, event: int, detail: int, _opaque: object) -> None:
        libvirt = self._libvirt
        with self._guard:
            ending = self._endings.get(domain.UUIDString())
        if ending is None:
            return
        if event == libvirt.VIR_DOMAIN_EVENT_CRASHED:
            ending.reason = "panicked" if detail == libvirt.VIR_DOMAIN_EVENT_CRASHED_PANICKED else "crashed"
        elif event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
            names = {
                libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: "shutdown",
                libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: "destroyed",
                libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: "crashed",
                libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED: "failed",
            }
            ending.reason = ending.reason or names.get(detail, "stopped")
            ending.stopped.set()


def emulator() -> str:
    """Path of the QEMU that libvirt starts.

    Raises:
        InfraError: there is none.
    """
    for candidate in ("qemu-system-x86_64", "/usr/libexec/qemu-kvm"):
        found = shutil.which(candidate)
        if found:
            return os.path.realpath(found) if candidate.startswith("/") else found
    raise InfraError("QEMU is not installed on this host (Debian and Ubuntu: qemu-system-x86; Fedora: qemu-kvm)")


def _dotted(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
