"""The console is kept within bounds, and what the kernel says of itself is told from what merely looks like it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.machines import console
from harness.machines.console import Console, Sighting, Trouble

RECORDED = (Path(__file__).parent / "recorded/console-7.3.txt").read_bytes()


def fed(*pieces: bytes) -> Console:
    made = Console()
    for piece in pieces:
        made.feed(piece)
    return made


# What kernels from 5.10 to 7.x print: kernel/panic.c, arch/x86/mm/fault.c, arch/x86/kernel/traps.c, lib/bug.c,
# kernel/watchdog.c, kernel/watchdog_perf.c, kernel/rcu/tree_stall.h, kernel/hung_task.c.
TROUBLE = [
    (Trouble.PANIC, "Kernel panic - not syncing: sysrq triggered crash"),
    (Trouble.PANIC, "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000300"),
    (Trouble.PANIC, "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"),
    (Trouble.PANIC, "Kernel panic - not syncing: Fatal exception in interrupt"),
    (Trouble.PANIC, "Kernel panic - not syncing: Hard LOCKUP"),
    (Trouble.PANIC, "Kernel panic - not syncing: hung_task: blocked tasks"),
    (Trouble.OOPS, "BUG: kernel NULL pointer dereference, address: 0000000000000008"),
    (Trouble.OOPS, "BUG: unable to handle page fault for address: ffffc90000a00000"),
    (Trouble.OOPS, "BUG: unable to handle kernel paging request at ffffffffc0a5e000"),
    (Trouble.OOPS, "Oops: 0000 [#1] PREEMPT SMP NOPTI"),
    (Trouble.OOPS, "Oops: general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP"),
    (Trouble.OOPS, "general protection fault, probably for non-canonical address 0xdead000000000108: 0000 [#1] SMP"),
    (Trouble.OOPS, "general protection fault: 0000 [#1] SMP PTI"),
    (Trouble.OOPS, "kernel BUG at drivers/gpu/drm/amd/amdgpu/amdgpu_vm.c:1234!"),
    (Trouble.OOPS, "invalid opcode: 0000 [#1] PREEMPT SMP NOPTI"),
    (Trouble.OOPS, "stack segment: 0000 [#1] SMP"),
    (Trouble.SOFT_LOCKUP, "watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [modprobe:311]"),
    (Trouble.HARD_LOCKUP, "NMI watchdog: Watchdog detected hard LOCKUP on cpu 3"),
    (Trouble.HARD_LOCKUP, "watchdog: Watchdog detected hard LOCKUP on cpu 0"),
    (Trouble.HARD_LOCKUP, "CPU3: Watchdog detected hard LOCKUP on cpu 3"),
    (Trouble.RCU_STALL, "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:"),
    (Trouble.RCU_STALL, "rcu: INFO: rcu_preempt self-detected stall on CPU"),
    (Trouble.RCU_STALL, "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-.... } 21 jiffies s: 45"),
    (Trouble.HUNG_TASK, "INFO: task modprobe:311 blocked for more than 120 seconds."),
    (Trouble.HUNG_TASK, "INFO: task kworker/u8:2:43 blocked for more than 241 seconds."),
    (Trouble.HUNG_TASK, "INFO: task Web Content:4711 blocked for more than 120 seconds."),
    (Trouble.HUNG_TASK, "INFO: task dd:12 blocked in I/O wait for more than 120 seconds."),
    (Trouble.HARNESS, "kdmatrix-initramfs: cannot mount layer root"),
    (Trouble.HARNESS, "kdmatrix-initramfs: no disk with serial tests"),
]


@pytest.mark.parametrize(("trouble", "text"), TROUBLE)
@pytest.mark.parametrize("prefix", ["", "[    4.224467] ", "[    4.224467][  T311] "])
def test_a_kernels_own_words_are_recognised(trouble: Trouble, text: str, prefix: str) -> None:
    made = fed(f"[    0.0] fine\r\n{prefix}{text}\r\n".encode())
    assert [(one.trouble, one.line) for one in made.sightings] == [(trouble, 2)]
    assert made.sightings[0].text in text
    assert made.panicked.is_set() == (trouble is Trouble.PANIC)


HARMLESS = [
    "NMI watchdog: Enabled. Permanently consumes one hw-PMU counter.",
    "NMI watchdog: Perf NMI watchdog permanently disabled",
    "watchdog: Delayed init of the lockup detector failed: -19",
    "Kernel command line: console=ttyS0,115200 panic=-1 softlockup_panic=1 hardlockup_panic=1 oops=panic",
    "rcu: Hierarchical SRCU implementation.",
    "rcu: RCU calculated value of scheduler-enlistment delay is 25 jiffies.",
    "\tRCU CPU stall warnings timeout set to 60 (rcu_cpu_stall_timeout).",
    "workqueue: round-robin CPU selection forced, expect performance impact",
    "RIP: 0033:0x7f034139c3a7",
    "AMD-Vi: AMD IOMMUv2 functionality not available on this system - This is not a bug.",
    'PCI: Using host bridge windows from ACPI; if necessary, use "pci=nocrs" and report a bug',
    "traps: vecadd[412] general protection fault ip:401136 sp:7ffd2b0 error:0 in vecadd[401000+1000]",
    "traps: vecadd[412] trap invalid opcode ip:401136 sp:7ffd2b0 error:0 in vecadd[401000+1000]",
    "vecadd[412]: segfault at 0 ip 0000000000401136 sp 00007ffd2b0 error 4 in vecadd[401000+1000]",
    "x86/split lock detection: #DB: warning on user-space bus_locks",
    "RETBleed: WARNING: Spectre v2 mitigation leaves CPU vulnerable to RETBleed attacks, data leaks possible!",
    "hung_task: INFO: khungtaskd is watching, tasks blocked for more than a while are told",
    "kdmatrix-initramfs: start 6.12.107+deb13-amd64",
    "kdmatrix-initramfs: insmod crc32c-intel.ko failed",
    "kdmatrix-initramfs: handing over to /usr/sbin/kdmatrix-init",
    "kdmatrix-guest: starting sshd",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_lines_that_only_look_like_trouble_are_not(text: str) -> None:
    assert fed(f"[    1.5] {text}\r\n".encode()).sightings == []


def test_a_recorded_healthy_boot_shows_no_trouble_and_every_phase() -> None:
    made = Console()
    phases = [made.phase]
    for line in RECORDED.splitlines(keepends=True):
        made.feed(line)
        phases.append(made.phase)
    assert made.sightings == []
    assert [first for first, second in pairwise([*phases, ""]) if first != second] == [
        *("firmware", "kernel", "initramfs", "guest init", "SSH server")
    ]
    assert made.ssh_begun.is_set()
    assert made.content() == RECORDED
    assert not made.truncated


def record(made: Console) -> tuple[bytes, tuple[Sighting, ...], str, bool, bool]:
    return made.content(), tuple(made.sightings), made.phase, made.panicked.is_set(), made.truncated


texts = st.lists(
    st.sampled_from(
        [
            *(text.encode() for _, text in TROUBLE[::4]),
            *(text.encode() for text in HARMLESS[::5]),
            "Grüße ünd \N{SNOWMAN}".encode(),
            *(b"\r\n", b"\n", b"\r", b"\r\r\n", b"\xff\xfe", b"\0", b"x" * 50, b"", b"Linux version 6"),
        ]
    ),
    max_size=25,
).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(texts, st.lists(st.integers(0, 2000), max_size=8), st.sampled_from([10, 64, 1 << 20]))
def test_however_the_bytes_arrive_the_record_is_the_same(data: bytes, cuts: list[int], limit: int) -> None:
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(console, "HEAD_LIMIT", limit)
        patch.setattr(console, "TAIL_LIMIT", limit)
        whole = record(fed(data))
        assert record(fed(*(data[start:end] for start, end in pairwise(edges)))) == whole
        assert record(fed(*(bytes([byte]) for byte in data))) == whole


def test_what_firmware_draws_into_a_box_is_read_without_any_end_of_line() -> None:
    edge = "│".encode()
    rows = b"".join(b"\x1b[%02d;01H%s%s%s" % (row, edge, b" " * 78, edge) for row in range(1, 50))
    text = b"\x1b[22;18H" + edge + b" Verification failed: (0x1A) Security Violation " + edge
    seen = fed(b"BdsDxe: starting Boot0001\r\n", rows + text, rows)
    worst = seen.worst(Trouble.HARNESS)
    assert worst is not None
    assert worst.text == "Verification failed: (0x1A) Security Violation"
    assert seen.phase == "firmware"


def test_of_a_long_console_the_head_and_the_tail_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "HEAD_LIMIT", 10)
    monkeypatch.setattr(console, "TAIL_LIMIT", 6)
    made = fed(b"0123456789", b"abc", b"defghij", b"k")
    assert made.content() == b"0123456789\n[... 5 bytes not kept ...]\nfghijk"
    assert made.truncated
    assert fed(b"0123456789abcdef").content() == b"0123456789abcdef"


def test_a_flood_without_line_ends_takes_bounded_memory_and_hides_nothing_after_it() -> None:
    made = Console()
    chunk = b"A" * (1 << 20)
    for _ in range(12):
        made.feed(chunk)
    made.feed(b"\nKernel panic - not syncing: after the flood\n")
    assert len(made.content()) < console.HEAD_LIMIT + console.TAIL_LIMIT + 100
    assert len(made._line) == 0
    assert made.worst() == Sighting(Trouble.PANIC, "after the flood", 2)


def test_a_flood_of_one_trouble_is_cut_but_a_worse_one_after_it_is_kept() -> None:
    made = fed(b"Oops: 0000 [#1]\n" * 10_000, b"Kernel panic - not syncing: at last\n")
    assert len(made.sightings) == 201
    assert made.worst() == Sighting(Trouble.PANIC, "at last", 10_001)


def test_the_worst_sighting_is_the_first_of_the_worst_kind() -> None:
    made = fed(b"INFO: task a:1 blocked for more than 120 seconds.\nOops: 1\nOops: 2\n")
    assert made.worst() == Sighting(Trouble.OOPS, "Oops: 1", 2)
    assert made.worst(Trouble.HUNG_TASK) == Sighting(
        Trouble.HUNG_TASK, "task a:1 blocked for more than 120 seconds.", 1
    )
    assert made.worst(Trouble.PANIC) is None


def test_the_time_of_the_last_byte_is_known() -> None:
    now = [5.0]
    made = Console(clock=lambda: now[0])
    assert made.last_byte == 5.0
    now[0] = 9.0
    made.feed(b"x")
    assert made.last_byte == 9.0
