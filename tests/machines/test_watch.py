"""A slow guest is told from a stuck one by what its CPUs do while the console is silent."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.machines.watch import CpuSample, Stall, StallDetector, parse_registers

RECORDED = (Path(__file__).parent / "recorded/registers-two-cpus.txt").read_text()
"""``info registers -a`` of QEMU 7.2 with a Debian 6.12 guest on two CPUs."""

IDLE = CpuSample(0xFFFFFFFF81D12E2F, interrupts_enabled=True, halted=True)
BUSY = CpuSample(0xFFFFFFFF81ABF910, interrupts_enabled=True, halted=False)
SPINS = CpuSample(0xFFFFFFFF81ABF910, interrupts_enabled=False, halted=False)
BIOS = CpuSample(0x60E, interrupts_enabled=False, halted=False)
OFFLINE = CpuSample(0xFFFFFFFF81ABF910, interrupts_enabled=False, halted=True)


def test_real_output_of_two_cpus_is_read() -> None:
    assert parse_registers(RECORDED) == (
        CpuSample(0xFFFFFFFF81D12E2F, interrupts_enabled=True, halted=False),
        CpuSample(0xFFFFFFFF81ABF910, interrupts_enabled=True, halted=False),
    )


def test_each_cpu_has_its_own_halt_state_even_beside_one_in_real_mode() -> None:
    text = (
        "CPU#0\r\nEIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=1\r\n"
        "CPU#1\r\nRIP=ffffffff81000000 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0\r\n"
    )
    assert parse_registers(text) == (
        CpuSample(0xFFF0, interrupts_enabled=False, halted=True),
        CpuSample(0xFFFFFFFF81000000, interrupts_enabled=True, halted=False),
    )


@given(st.text())
def test_no_answer_of_the_monitor_is_an_error(text: str) -> None:
    assert isinstance(parse_registers(text), tuple)
    assert parse_registers("") == ()


def judge(*samples: tuple[CpuSample, ...], needed: int = 3) -> list[Stall]:
    detector = StallDetector(needed)
    return [detector.add(sample) for sample in samples]


@pytest.mark.parametrize(
    ("cpus", "verdict"),
    [
        ((IDLE,), Stall.IDLE),
        ((IDLE, IDLE), Stall.IDLE),
        ((IDLE, OFFLINE), Stall.IDLE),
        ((SPINS,), Stall.SPINNING),
        ((IDLE, SPINS), Stall.SPINNING),
        ((BUSY, SPINS), Stall.SPINNING),
        ((BUSY,), Stall.NONE),
        ((BUSY, IDLE), Stall.NONE),
        ((BUSY, OFFLINE), Stall.NONE),
        ((BIOS,), Stall.NONE),
        ((), Stall.NONE),
    ],
)
def test_cpus_that_do_the_same_in_every_sample_are_judged(cpus: tuple[CpuSample, ...], verdict: Stall) -> None:
    assert judge(cpus, cpus, cpus) == [Stall.NONE, Stall.NONE, verdict]


@pytest.mark.parametrize("still", [(IDLE,), (SPINS,)])
def test_one_sign_of_life_among_the_samples_is_enough(still: tuple[CpuSample, ...]) -> None:
    assert set(judge(still, (BUSY,), still, still)) == {Stall.NONE}
    assert judge(still, (BUSY,), still, still, still)[-1] is not Stall.NONE


def test_two_cpus_that_take_turns_with_interrupts_off_do_not_spin() -> None:
    assert set(judge((SPINS, BUSY), (BUSY, SPINS), (SPINS, BUSY), (BUSY, SPINS))) == {Stall.NONE}


def test_output_on_the_console_starts_the_count_again() -> None:
    detector = StallDetector(2)
    detector.add((IDLE,))
    detector.reset()
    assert detector.add((IDLE,)) is Stall.NONE
    assert detector.add((IDLE,)) is Stall.IDLE
    assert detector.where == "0xffffffff81d12e2f"
    assert StallDetector().where == "unknown"
