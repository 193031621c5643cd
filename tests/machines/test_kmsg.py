"""The kernel's log is read by sequence number, and its complaints are told from what drivers say of devices."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.machines.guest import LOOK
from harness.machines.kmsg import KernelMessage, complaints, parse_kmsg, since

RECORDS = (
    b"5,0,0,-;Linux version 6.12.107+deb13-amd64 (debian-kernel@lists.debian.org)\n"
    b"6,1,0,-;Command line: console=ttyS0,115200; panic=-1\n"
    b"4,370,3982431,-;WARNING: CPU: 0 PID: 1 at kernel/x.c:1\n"
    b" SUBSYSTEM=pci\n DEVICE=+pci:0000:00:02.0\n"
    b"12,371,3982536,-,caller=T311;from user space\n"
)


def test_records_are_read_with_level_time_and_text() -> None:
    found = parse_kmsg(RECORDS)
    assert [message.sequence for message in found] == [0, 1, 370, 371]
    assert [message.level for message in found] == [5, 6, 4, 4]
    assert found[1].text == "Command line: console=ttyS0,115200; panic=-1"
    assert found[2].seconds == pytest.approx(3.982431)
    assert found[2].line() == "<4>[    3.982431] WARNING: CPU: 0 PID: 1 at kernel/x.c:1"


def test_only_what_came_after_is_new() -> None:
    assert [message.sequence for message in since(parse_kmsg(RECORDS), 1)] == [370, 371]
    assert since(parse_kmsg(RECORDS), 371) == ()


@given(st.binary(max_size=200))
def test_no_bytes_of_a_guest_can_raise(data: bytes) -> None:
    parse_kmsg(data)
    parse_kmsg(b"6,1,2,-;" + data)


@pytest.mark.parametrize("line", [b"6,1;short", b"x,1,2,-;text", b"6,1,2,-", b"-;x", b"6,1,,-;x", b"\xff,1,2;x"])
def test_what_is_no_record_is_skipped(line: bytes) -> None:
    assert [message.text for message in parse_kmsg(line + b"\n6,9,0,-;good\n")] == ["good"]


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


def test_this_hosts_own_log_is_read_by_the_command_that_guests_run() -> None:
    done = subprocess.run(LOOK, capture_output=True, check=False)
    log = done.stdout.partition(b"@log\n")[2]
    if not log:
        pytest.skip("this host does not show its kernel log")
    found = parse_kmsg(log)
    sequences = [message.sequence for message in found]
    assert sequences == sorted(set(sequences))
    assert len(found) == sum(not line.startswith(b" ") for line in log.split(b"\n") if line)
