"""Whether this host accelerates VMs. ``/dev/kvm`` being there proves nothing: only a booted kernel does.

On some hosts (nested virtualisation without full support) KVM opens, creates a VM, and a stock kernel hangs before
its first line. So a stock kernel is booted with a short deadline, and the answer is kept until the host reboots.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError
from harness.machines.domain import Accelerator
from harness.machines.hypervisor import emulator
from harness.placing import locked, write_atomically

DEADLINE = 15.0
"""Seconds for a stock kernel to reach its initramfs; with working KVM it takes about one."""
_VARIABLE = "KDMATRIX_ACCELERATOR"
_MARK = b"kdmatrix-initramfs: start"


@dataclass(frozen=True, slots=True)
class Acceleration:
    """What VMs run on, and how that is known."""

    accelerator: Accelerator
    reason: str


def prove(kernel: Path, initramfs: Path, cache: Path) -> Acceleration:
    """Return KVM if a stock kernel boots under it on this host, else emulation with the reason.

    ``KDMATRIX_ACCELERATOR`` (``kvm``, ``tcg`` or ``auto``) decides without a proof.
    """
    wanted = os.environ.get(_VARIABLE, "auto").strip().lower()
    if wanted in ("kvm", "tcg"):
        return Acceleration("kvm" if wanted == "kvm" else "qemu", f"{_VARIABLE}={wanted}")
    if wanted != "auto":
        raise UserError(f"{_VARIABLE}={wanted!r}: expected kvm, tcg or auto")
    unusable = cannot_open()
    if unusable:
        return Acceleration("qemu", unusable)
    answer = cache / "acceleration.json"
    with locked(cache / "acceleration.lock", timeout=120):
        key = [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), emulator()]
        known = _read(answer)
        if known.get("key") != key:
            boots, detail = _boots(kernel, initramfs)
            known = {"key": key, "kvm": boots, "detail": detail}
            write_atomically(answer, json.dumps(known).encode())
    return Acceleration("kvm" if known["kvm"] else "qemu", str(known["detail"]))


def cannot_open() -> str | None:
    """Why ``/dev/kvm`` cannot be used at all; None when it opens."""
    device = Path("/dev/kvm")
    if not device.exists():
        return "/dev/kvm is missing: no virtualisation extensions, or the kvm module is not loaded"
    if not os.access(device, os.R_OK | os.W_OK):
        return "/dev/kvm may not be opened by this user: add the user to the group kvm"
    return None


def _boots(kernel: Path, initramfs: Path) -> tuple[bool, str]:
    argv = [emulator(), "-accel", "kvm", "-cpu", "host", "-machine", "q35", "-m", "512", "-nodefaults", "-no-reboot"]
    argv += ["-display", "none", "-serial", "stdio", "-kernel", str(kernel), "-initrd", str(initramfs)]
    argv += ["-append", "console=ttyS0 panic=-1"]
    deadline = time.monotonic() + DEADLINE
    seen = b""
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        try:
            while _MARK not in seen and time.monotonic() < deadline:
                ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
                data = os.read(process.stdout.fileno(), 65536) if ready else b""
                if ready and not data:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(5)  # its own exit status tells a refusal from a hang
                    break
                seen = (seen + data)[-262144:]
        finally:
            process.kill()
    if _MARK in seen:
        return True, "a stock kernel booted under KVM"
    if process.returncode not in (-9, 0) and not seen.strip().startswith(b"["):
        last = seen.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no output"]
        # QEMU's own name and a source position of its build say nothing to a reader.
        why = re.sub(r"^qemu-[\w-]+: (?:\S+:\d+: )?", "", last[0])
        return False, f"QEMU cannot use KVM here: {why[:200]}"
    return False, f"/dev/kvm opens, but a stock kernel did not reach its initramfs within {DEADLINE:.0f} s"


def _read(path: Path) -> dict[str, object]:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
