"""One boot of a guest as a libvirt domain: started paused, console attached, resumed, and ended in every way out."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import InfraError
from harness.images.initramfs import GUEST_INIT, Seed, write_seed
from harness.images.uki import UkiParts
from harness.journal import Journal
from harness.machines.console import Console
from harness.machines.daemon import import_libvirt
from harness.machines.domain import Domain, disks_for, firmware_disk, kernel_cmdline
from harness.machines.firmware import SecureStart, find_firmware, plain_firmware, prepare
from harness.machines.hypervisor import Hypervisor, emulator
from harness.machines.ssh import KeyPair
from harness.machines.vm import BootRequest, VirtualMachine

_PORT_TRIES = 5


@contextlib.contextmanager
def boot(
    hypervisor: Hypervisor, request: BootRequest, journal: Journal, client_key: KeyPair
) -> Iterator[VirtualMachine]:
    """Start a VM and end it when the block ends, whatever happens in it.

    Raises:
        InfraError: libvirt refuses the domain.
    """
    host_key = KeyPair.generate("kdmatrix-guest")
    request.work.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        work = Path(tempfile.mkdtemp(prefix="boot-", dir=request.work))
        stack.enter_context(journal.entry("path", str(work))).undo(_remove, work)
        work.chmod(0o711)  # QEMU of a system daemon runs as another user and has to reach the initramfs in it
        initramfs = _initramfs(request, host_key, client_key, work)
        secure = _secure_start(request, initramfs, work)
        uefi = _uefi(work) if secure is None and request.passthrough.uefi else None
        last: Exception | None = None
        for _ in range(_PORT_TRIES):
            domain = _domain(hypervisor, request, initramfs, secure, uefi)
            with contextlib.ExitStack() as one:
                entry = one.enter_context(journal.entry("domain", domain.uuid, uri=hypervisor.uri, name=domain.name))
                ending = hypervisor.expect_end(domain.uuid)
                entry.undo(hypervisor.forget, domain.uuid)
                entry.undo(hypervisor.destroy, domain.uuid)
                console = Console()
                try:
                    handle, stream = _start(hypervisor, domain, console, one)
                except InfraError as error:
                    last = error
                    # libvirt does not always pass on what QEMU said, so the port itself is asked, too.
                    if "hostfwd" in str(error) or not _is_free(domain.ssh_port):
                        continue  # somebody took the port in between
                    raise
                machine = VirtualMachine(hypervisor, request, domain, handle, console, ending, stream)
                machine.host_key, machine.client_key = host_key, client_key
                try:
                    yield machine
                finally:
                    if machine.shell is not None:
                        machine.shell.close()
                return
        raise InfraError(f"no free port for SSH after {_PORT_TRIES} tries: {last}")


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _start(hypervisor: Hypervisor, domain: Domain, console: Console, stack: contextlib.ExitStack) -> tuple[Any, Any]:
    libvirt = import_libvirt()
    flags = libvirt.VIR_DOMAIN_START_PAUSED | libvirt.VIR_DOMAIN_START_AUTODESTROY | libvirt.VIR_DOMAIN_START_VALIDATE
    try:
        handle = hypervisor.connection.createXML(domain.xml(), flags)
        stream = hypervisor.connection.newStream(0)
        handle.openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_FORCE)
        reader = threading.Thread(target=_pump, args=(stream, console), daemon=True, name=f"console {domain.name}")
        reader.start()
        # Runs after the domain is destroyed, so that the last bytes are in.
        stack.callback(reader.join, 5.0)
        stack.callback(hypervisor.destroy, domain.uuid)
        handle.resume()
    except libvirt.libvirtError as error:
        raise InfraError(f"libvirt did not start the VM: {error}") from error
    return handle, stream


def _pump(stream: Any, console: Console) -> None:
    while True:
        try:
            data = stream.recv(32 << 10)
        except Exception:  # the stream breaks when the domain goes
            return
        if not data or data == -2:
            return
        console.feed(data)


def _initramfs(request: BootRequest, host_key: KeyPair, client_key: KeyPair, work: Path) -> Path:
    seed = Seed(
        host_key=host_key.private,
        authorized_key=client_key.public,
        layers=tuple(layer.serial for layer in request.image.layers),
        hostname="guest",
        init=GUEST_INIT if request.init == "minimal" else "/sbin/init",
    )
    archive = work / "seed.cpio"
    write_seed(seed, request.boot_dir, archive)
    whole = work / "initramfs"
    with whole.open("wb") as out:
        for part in (request.image.kernel.initramfs, archive):
            with part.open("rb") as source:
                shutil.copyfileobj(source, out)
    whole.chmod(0o644)  # the guest's own key, of use only on this host's loopback while the VM lives
    archive.unlink()
    return whole


def _secure_start(request: BootRequest, initramfs: Path, work: Path) -> SecureStart | None:
    if request.secure_boot is None:
        return None
    kernel = request.image.kernel
    firmware = find_firmware()
    cmdline = kernel_cmdline(request.accelerator, request.cmdline)
    parts = UkiParts(firmware.stub, kernel.vmlinuz, initramfs, cmdline, kernel.identity.release)
    return prepare(firmware, parts, request.secure_boot, work)


def _uefi(work: Path) -> tuple[Path, Path]:
    """Firmware for large windows, and a copy of its variables for this boot."""
    code, empty = plain_firmware()
    variables = work / "variables.fd"
    shutil.copyfile(empty, variables)
    return code, variables


def _domain(
    hypervisor: Hypervisor,
    request: BootRequest,
    initramfs: Path,
    secure: SecureStart | None,
    uefi: tuple[Path, Path] | None,
) -> Domain:
    kernel = request.image.kernel
    disks = disks_for(tuple((layer.serial, layer.path) for layer in request.image.layers))
    if secure is not None:
        disks = (*disks, firmware_disk(secure.partition, disks))
    # UEFI starts an image for UEFI, which the ELF file is not.
    direct = kernel.vmlinux if request.accelerator == "qemu" and kernel.vmlinux and uefi is None else kernel.vmlinuz
    if secure is not None:
        uefi = secure.code, secure.variables
    port = free_port()
    return Domain(
        name=f"kdmatrix-{port}-{time.time_ns() % 10**9:09d}",
        cell_id=request.cell_id,
        run_id=request.run_id,
        accelerator=request.accelerator,
        emulator=emulator(),
        kernel=direct,
        initramfs=initramfs,
        cmdline=kernel_cmdline(request.accelerator, request.cmdline),
        disks=disks,
        ssh_port=port,
        memory=request.memory,
        vcpus=request.vcpus,
        loader=uefi[0] if uefi else None,
        variables=uefi[1] if uefi else None,
        secure=secure is not None,
        passthrough=request.passthrough,
        privileged=not hypervisor.uri.endswith("/session"),
    )


def free_port() -> int:
    """A port on 127.0.0.1 that is free now; whoever uses it must be ready to lose the race for it."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
