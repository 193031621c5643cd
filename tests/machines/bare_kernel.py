"""Kernels of a few bytes, for boots that take a second: they print to the serial port and then do one thing.

An ELF file with the PVH entry that QEMU boots directly (Xen's public/elfnote.h, docs/misc/pvh.pandoc): the processor
is in 32-bit protected mode with interrupts off. They stand in for a real kernel where only QEMU, libvirt and our own
judgement are under test, and are named for what they do.
"""

from __future__ import annotations

import struct

_BASE = 0x100000
_PVH_ENTRY = 18

SPINS_WITH_INTERRUPTS_OFF = bytes.fromhex("fa ebfe")  # cli; jmp .
HALTS = bytes.fromhex("fa f4 ebfd")  # cli; hlt; jmp hlt
WORKS_FOR_EVER = bytes.fromhex("b0ff e621 e6a1 fb ebfe")  # mask both interrupt controllers; sti; jmp .
RESETS = bytes.fromhex("b0fe e664 f4 ebfd")  # out 0x64, 0xfe: the keyboard controller pulls the reset line
TELLS_PVPANIC = bytes.fromhex("66ba0505 b001 ee f4 ebfd")  # out 0x505, 1 (qemu/docs/specs/pvpanic.rst)


def bare_kernel(says: str, then: bytes) -> bytes:
    """An ELF that prints ``says`` on the first serial port and runs the machine code ``then``."""
    printing = bytes.fromhex("66baf803 ac 84c0 7403 ee ebf8")  # mov dx,0x3f8; l: lodsb; test al,al; jz +3; out; jmp l
    code_offset = 0x1000
    size = 5 + len(printing) + len(then)
    text = says.encode() + b"\0"
    code = b"\xbe" + struct.pack("<I", _BASE + size) + printing + then + text
    note = struct.pack("<III4sQ", 4, 8, _PVH_ENTRY, b"Xen\0", _BASE)
    note_offset = 64 + 2 * 56
    header = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, _BASE, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 7, code_offset, _BASE, _BASE, len(code), len(code), 0x1000)
    notes = struct.pack("<IIQQQQQQ", 4, 4, note_offset, 0, 0, len(note), len(note), 4)
    return (header + load + notes + note).ljust(code_offset, b"\0") + code.ljust(0x2000, b"\0")
