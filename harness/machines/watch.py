"""What a silent guest's processors do, seen from outside.

QEMU's monitor shows each virtual CPU's instruction pointer, interrupt flag and halt state. One that runs with
interrupts off in every sample spins. Where all are halted in every sample, everything waits, and who is to blame for
that is for :mod:`harness.machines.silence` to find out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

_REGISTERS = re.compile(r"\b[RE]IP=([0-9a-f]{8,16}) [RE]FL=([0-9a-f]{8}).*\bHLT=([01])", re.IGNORECASE)
"""One line per CPU; a CPU in 32-bit or real mode, such as one that was never started, has EIP and EFL."""
_INTERRUPT_FLAG = 1 << 9
"""EFLAGS.IF (Intel SDM vol. 1, 3.4.3)."""

_REAL_MODE = 1 << 20

SAMPLES = 6


class Stall(StrEnum):
    """What samples of a silent guest show."""

    NONE = "none"
    IDLE = "idle"
    SPINNING = "spinning with interrupts off"


@dataclass(frozen=True, slots=True)
class CpuSample:
    """One look at one virtual CPU."""

    instruction_pointer: int
    interrupts_enabled: bool
    halted: bool


def parse_registers(text: str) -> tuple[CpuSample, ...]:
    """Read the output of QEMU's ``info registers -a`` (x86-64)."""
    return tuple(
        CpuSample(int(pointer, 16), bool(int(flags, 16) & _INTERRUPT_FLAG), halted == "1")
        for pointer, flags, halted in _REGISTERS.findall(text)
    )


class StallDetector:
    """Judges a run of samples taken while the console was silent."""

    def __init__(self, needed: int = SAMPLES) -> None:
        self._needed = needed
        self._samples: list[tuple[CpuSample, ...]] = []

    def reset(self) -> None:
        """The guest showed life."""
        self._samples.clear()

    def add(self, cpus: tuple[CpuSample, ...]) -> Stall:
        """Add one sample of all CPUs and say what all of them together show."""
        if not cpus:
            return Stall.NONE
        self._samples.append(cpus)
        if len(self._samples) < self._needed:
            return Stall.NONE
        recent = self._samples[-self._needed :]
        if all(cpu.halted for sample in recent for cpu in sample):
            return Stall.IDLE
        for number in range(min(len(sample) for sample in recent)):
            # A CPU taken offline is halted with interrupts off, and does no harm. Below the first megabyte a BIOS is at
            # work in real mode, silent and with interrupts off; no kernel runs there.
            if all(
                not sample[number].interrupts_enabled
                and not sample[number].halted
                and sample[number].instruction_pointer >= _REAL_MODE
                for sample in recent
            ):
                return Stall.SPINNING
        return Stall.NONE

    @property
    def where(self) -> str:
        """Instruction pointers of the last sample."""
        return ", ".join(f"{cpu.instruction_pointer:#x}" for cpu in self._samples[-1]) if self._samples else "unknown"
