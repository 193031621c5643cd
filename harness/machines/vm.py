"""A guest while its domain runs: reached over SSH, watched on its console, and asked why when it is silent."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import InfraError
from harness.machines.console import Console, Trouble, judge_panic
from harness.machines.daemon import import_libvirt
from harness.machines.domain import Accelerator, Domain
from harness.machines.firmware import SecureBoot
from harness.machines.hypervisor import Ending, Hypervisor
from harness.machines.passthrough import Passthrough
from harness.machines.silence import Silence, compare
from harness.machines.ssh import KeyPair, SshShell
from harness.machines.sysrq import BlockedTask, SysRq
from harness.machines.watch import CpuSample, Stall, parse_registers
from harness.model.image import Image
from harness.model.outcome import Outcome

_GRACE_AFTER_PANIC = 2.0
_SSH_TRY = 10.0
_SYSRQ = 30.0


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
    """A running domain. Use :func:`harness.machines.booting.boot`, which ends it in every way out."""

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

    def unanswered(self, seen: str) -> tuple[Outcome, str]:
        """Ask the kernel, over the serial line, about a guest whose VM runs and which does not answer otherwise."""
        sysrq = self.sysrq()
        if not self._is_executing() or sysrq is None:
            return Outcome.MISS, seen
        patience = _SYSRQ * self._request.patience
        answers: list[tuple[BlockedTask, ...]] = []
        for _ in range(2):
            blocked = sysrq.blocked(patience)
            if dead := self.death():
                return dead
            if blocked is None:
                return Outcome.FAIL, f"{seen}, and its kernel does not answer SysRq: it hangs"
            answers.append(blocked)
            if len(answers) < 2:
                self.ending.stopped.wait(patience / 3)
        stuck, said = compare(*answers)
        return (Outcome.FAIL if stuck else Outcome.MISS), f"{seen}; {said}"

    def _is_executing(self) -> bool:
        """QEMU pauses a VM whose disk cannot be written, and an operator may."""
        with contextlib.suppress(Exception):  # a domain that is gone executes nothing
            return bool(self._handle.state()[0] == import_libvirt().VIR_DOMAIN_RUNNING)
        return False

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
            f"in phase {self.console.phase}: when last looked at, {said}"
            if said
            else f"still working in phase {self.console.phase}: slow host or kernel"
        )
        return BootFailure(Outcome.MISS, f"not up within {seconds:.0f} s, {last}")
