"""The kernel's log is read by sequence number, and its complaints are told from what drivers say of devices."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.machines.guest import LOOK
from harness.machines.kmsg import complaints, of_drivers, since
from harness.model.kmsg import KernelMessage, parse_kmsg


def test_only_what_came_after_is_new() -> None:
    log = tuple(KernelMessage(number, 6, 0.0, "") for number in (0, 1, 370, 371))
    assert [message.sequence for message in since(log, 1)] == [370, 371]
    assert since(log, 371) == ()


def said(text: str, level: int = 4) -> tuple[KernelMessage, ...]:
    return (KernelMessage(1, level, 0.0, text),)


@pytest.mark.parametrize(
    "text",
    [
        "WARNING: CPU: 0 PID: 311 at drivers/gpu/drm/drm_mm.c:999 drm_mm_takedown+0x51/0x100 [drm]",
        "WARNING: possible circular locking dependency detected",
        "WARNING: suspicious RCU usage",
        "BUG: sleeping function called from invalid context at kernel/locking/mutex.c:580",
        "BUG: KASAN: slab-use-after-free in amdgpu_x+0x1/0x2",
        "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [modprobe:99]",
        "Oops: 0002 [#1] PREEMPT SMP",
        "kernel BUG at mm/slub.c:1",
        "general protection fault, probably for non-canonical address 0xdead: 0000 [#1]",
        "UBSAN: array-index-out-of-bounds in drivers/gpu/drm/radeon/x.c:1:2",
    ],
)
def test_the_kernels_complaints_are_found(text: str) -> None:
    assert complaints(said(text))


@pytest.mark.parametrize(
    "text",
    [
        "amdgpu 0000:00:05.0: amdgpu: Fatal error during GPU init",
        "nouveau: unknown chipset (deadbeef)",
        "traps: vecadd[412] general protection fault ip:401136 sp:7ffd2b0 error:0 in vecadd[401000+1000]",
        "RETBleed: WARNING: Spectre v2 mitigation leaves CPU vulnerable to RETBleed attacks, data leaks possible!",
        "Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on, data leaks possible",
        "[drm] *ERROR* something about the device",
        "This is not a bug.",
    ],
)
def test_what_a_driver_says_of_its_device_is_no_complaint(text: str) -> None:
    assert complaints(said(text, level=3)) == ()


LOGS = sorted((Path(__file__).parent / "kernel_logs").glob("*.txt"))


@pytest.mark.parametrize("log", LOGS, ids=[log.stem for log in LOGS])
def test_of_a_drivers_messages_exactly_its_complaints_are_found(log: Path) -> None:
    lines = [line for line in log.read_text().splitlines() if line and not line.startswith("#")]
    messages = tuple(KernelMessage(number, 4, 0.0, line.removeprefix("! ")) for number, line in enumerate(lines))
    found = {message.text for message in complaints(messages)} | {message.text for _, message in of_drivers(messages)}
    assert found == {line.removeprefix("! ") for line in lines if line.startswith("! ")}
    assert len(found) >= 5


@pytest.mark.parametrize("log", LOGS, ids=[log.stem for log in LOGS])
def test_a_drivers_complaint_is_told_as_that_drivers(log: Path) -> None:
    whose = {
        "nvidia": {"nvidia"},
        "nouveau": {"nouveau"},
        "amdgpu": {"amdgpu", "radeon", "a driver"},
        "intel": {"i915", "xe"},
    }
    lines = [line.removeprefix("! ") for line in log.read_text().splitlines() if line.startswith("! ")]
    named = {who for line in lines for who, _ in of_drivers(said(line))}
    assert named == whose.get(log.stem, {"the bus", "the machine"})


def test_what_a_program_writes_into_the_log_is_not_the_kernels_word() -> None:
    written = (KernelMessage(1, 4, 0.0, "WARNING: CPU: 0 PID: 1 at x.c:1", facility=1),)
    xid = (KernelMessage(1, 4, 0.0, "NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.", facility=3),)
    assert complaints(written) == ()
    assert of_drivers(xid) == ()


def test_this_hosts_own_log_is_read_by_the_command_that_guests_run() -> None:
    done = subprocess.run(LOOK, capture_output=True, check=False)
    log = done.stdout.partition(b"@log\n")[2]
    if not log:
        pytest.skip("this host does not show its kernel log")
    found = parse_kmsg(log)
    sequences = [message.sequence for message in found]
    assert sequences == sorted(set(sequences))
    assert len(found) == sum(not line.startswith(b" ") for line in log.split(b"\n") if line)
