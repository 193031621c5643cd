"""One boot of a guest as a libvirt domain: started paused, console attached, resumed, reached over SSH, ended."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import InfraError
from harness.images.initramfs import GUEST_INIT, Seed, write_seed
from harness.images.uki import UkiParts
from harness.journal import Journal
from harness.machines.console import Console, Trouble, judge_panic
from harness.machines.daemon import import_libvirt
from harness.machines.domain import Accelerator, Domain, disks_for, firmware_disk, kernel_cmdline
from harness.machines.firmware import SecureBoot, SecureStart, find_firmware, plain_firmware, prepare
from harness.machines.hypervisor import Ending, Hypervisor, emulator
from harness.machines.passthrough import Passthrough
from harness.machines.silence import Silence
from harness.machines.ssh import KeyPair, SshShell
from harness.machines.sysrq import SysRq
from harness.machines.watch import CpuSample, Stall, parse_registers
from harness.model.image import Image
from harness.model.outcome import Outcome

_PORT_TRIES = 5
_GRACE_AFTER_PANIC = 2.0
_SSH_TRY = 10.0


@dataclass(eq=False)  # neither frozen nor slotted: with statements set attributes of an exception on its way
class GuestFailure(Exception):
    """A guest cannot go on; says whose fault it is and what was seen."""

    outcome: Outcome
    reason: str

    def __str__(self) -> str:
        return self.reason


class BootFailure(GuestFailure):
    """The guest did not come up."""


@dataclass(frozen=True, slots=True)
class BootRequest:
    """What to boot."""

    cell_id: str
    run_id: str
    image: Image
    boot_dir: Path
    accelerator: Accelerator
    init: str
    """``minimal`` or ``systemd``."""
    memory: int
    vcpus: int
    cmdline: str
    work: Path
    """Directory for the files of this boot; removed with the VM."""
    secure_boot: SecureBoot | None = None
    """Start through UEFI with Secure Boot on; None has the kernel handed to QEMU."""
    passthrough: Passthrough = field(default_factory=Passthrough)
    patience: float = 1.0
    """Factor on the wait for one SSH connection, where emulation is slower than usual."""


class VirtualMachine:
    """A running domain. Use :func:`boot`, which ends it in every way out."""

    gone = "the SSH server in the guest stopped answering; the VM still runs"

    def __init__(
        self,
        hypervisor: Hypervisor,
        request: BootRequest,
        domain: Domain,
        handle: Any,
        console: Console,
        ending: Ending,
        stream: Any,
    ) -> None:
        self._hypervisor = hypervisor
        self._request = request
        self._handle = handle
        self._stream = stream
        self.domain = domain
        self.console = console
        self.ending = ending
        self.host_key = KeyPair(b"", b"")
        self.client_key = KeyPair(b"", b"")
        self.shell: SshShell | None = None
        self.seconds_to_ssh = 0.0

    @property
    def running(self) -> bool:
        """Whether the domain still exists."""
        return not self.ending.stopped.is_set()

    def wait_for_ssh(self, deadline: float, quiet_limit: float) -> SshShell:
        """Wait until a command can be run in the guest.

        ``deadline`` is a point of ``time.monotonic``; ``quiet_limit`` is how many seconds of silence on the console
        start the look at the virtual CPUs.

        Raises:
            BootFailure: the kernel panicked, hangs, stopped, or did not get there in time.
        """
        started = time.monotonic()
        silence = Silence(self.console, self._registers, self.sysrq(), quiet_limit)
        failure = ""
        while True:
            self._raise_if_over()
            now = time.monotonic()
            if now > deadline:
                raise self._too_slow(now - started, failure, silence.said)
            if self.console.ssh_begun.is_set():
                try:
                    # Even an idle guest that will never answer keeps the port open: QEMU accepts for it.
                    patience = min(_SSH_TRY * self._request.patience, max(1.0, deadline - now))
                    self.shell = SshShell.connect(
                        self.domain.ssh_port, self.host_key, self.client_key, timeout=patience
                    )
                    self.seconds_to_ssh = time.monotonic() - started
                    return self.shell
                except InfraError as error:
                    failure = str(error)
                    if "host key" in failure:
                        raise BootFailure(Outcome.MISS, failure) from error
            if self._in_uefi:
                silence.broken()
            elif (stall := silence.seen(now)) is not Stall.NONE:
                shell = self.reconnect(1.0)
                if shell is not None:
                    # It answers: what is silent is its console, or the way from it to us.
                    self.seconds_to_ssh = time.monotonic() - started
                    return shell
                if hang := silence.judge(stall, time.monotonic()):
                    raise BootFailure(*hang)
            self.ending.stopped.wait(0.05)

    @property
    def _in_uefi(self) -> bool:
        """Firmware hashes and unpacks a kernel silently, with interrupts off: that it does so says nothing."""
        return self.domain.loader is not None and self.console.phase == "firmware"

    def _registers(self) -> tuple[CpuSample, ...]:
        return parse_registers(self.monitor("info registers -a"))

    def sysrq(self) -> SysRq | None:
        """The way to ask the guest's kernel what its tasks wait for; None where it is built without it."""
        if "\nCONFIG_MAGIC_SYSRQ_SERIAL=y\n" not in self._request.image.kernel.config.read_text("utf-8", "replace"):
            return None
        return SysRq(self.console, lambda: self.monitor("chardev-send-break charserial0"), self._type)

    def _type(self, data: bytes) -> None:
        with contextlib.suppress(Exception):  # the domain may go at any moment, and then there is nobody to ask
            self._stream.send(data)

    def reconnect(self, timeout: float) -> SshShell | None:
        """Try to reach a guest again whose connection broke; None when it cannot be reached."""
        deadline = time.monotonic() + timeout
        while self.running and not self.console.panicked.is_set() and time.monotonic() < deadline:
            try:
                self.shell = SshShell.connect(self.domain.ssh_port, self.host_key, self.client_key, timeout=3.0)
            except InfraError:
                self.ending.stopped.wait(0.2)
            else:
                return self.shell
        return None

    def monitor(self, command: str) -> str:
        """Send a human monitor command to QEMU; an empty answer when the domain is gone."""
        try:
            import libvirt_qemu

            answer = libvirt_qemu.qemuMonitorCommand(
                self._handle, command, libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
            )
        except Exception:  # the domain may go at any moment, and then there is nothing to tell
            return ""
        return str(answer)

    def death(self) -> tuple[Outcome, str] | None:
        """Why the guest is gone or about to go; None while nothing speaks against it."""
        panic = self.console.worst(Trouble.PANIC)
        if panic is not None:
            return judge_panic(panic.text, self.console.phase, self.console.worst(Trouble.OOPS) is not None)
        if not self.running:
            if self.ending.reason == "panicked":
                return Outcome.FAIL, f"kernel panic reported by pvpanic in phase {self.console.phase}"
            if self.ending.reason in ("failed", "crashed"):
                return Outcome.MISS, f"QEMU ended unexpectedly ({self.ending.reason})"
            return (
                Outcome.MISS,
                f"the VM stopped by itself ({self.ending.reason or 'unknown'}) in phase {self.console.phase}",
            )
        return None

    def _raise_if_over(self) -> None:
        harness = self.console.worst(Trouble.HARNESS)
        if harness is not None:
            where = "firmware" if self.console.phase == "firmware" else "initramfs"
            raise BootFailure(Outcome.MISS, f"{where}: {harness.text}")
        if self.console.panicked.is_set():
            self.ending.stopped.wait(_GRACE_AFTER_PANIC)  # let the trace arrive
        dead = self.death()
        if dead is not None:
            raise BootFailure(*dead)

    def _too_slow(self, seconds: float, failure: str, said: str) -> BootFailure:
        seen = self.console.worst(Trouble.SOFT_LOCKUP, Trouble.HARD_LOCKUP, Trouble.OOPS, Trouble.RCU_STALL)
        if seen is not None:
            return BootFailure(Outcome.FAIL, f"{seen.trouble}: {seen.text}")
        last = f" ({failure})" if failure else ""
        if self.console.phase == "SSH server":
            return BootFailure(Outcome.MISS, f"the SSH server did not answer within {seconds:.0f} s{last}")
        last = (
            f"in phase {self.console.phase}: {said}"
            if said
            else f"still working in phase {self.console.phase}: slow host or kernel"
        )
        return BootFailure(Outcome.MISS, f"not up within {seconds:.0f} s, {last}")


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
