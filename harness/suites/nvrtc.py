"""Compiles one CUDA source with a given NVRTC library: a process of its own, so that a crash in it is only a failure.

Run as ``python nvrtc.py LIBRARY SOURCE OUTPUT OPTION...``. It writes PTX when the options name a virtual architecture
(``--gpu-architecture=compute_52``) and a cubin otherwise. Functions and status 0 (success): ``nvrtc.h`` of CUDA 11.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path


def compile_source(library: str, source: Path, options: list[str]) -> bytes:
    """Return the PTX (without its closing zero byte) or the cubin of ``source``.

    Raises:
        ValueError: NVRTC refuses the source or an option; its log is the message.
        OSError: the library cannot be loaded, or the source cannot be read.

    """
    nvrtc = ctypes.CDLL(library)
    nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
    program = ctypes.c_void_p()
    text = source.read_bytes()

    def call(function: str, *arguments: object) -> None:
        status = getattr(nvrtc, function)(*arguments)
        if status != 0:
            raise ValueError(f"{function}: {nvrtc.nvrtcGetErrorString(status).decode('utf-8', 'replace')}")

    def fetch(what: str) -> bytes:
        size = ctypes.c_size_t()
        call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        call(f"nvrtcGet{what}", program, buffer)
        return buffer.raw

    call("nvrtcCreateProgram", ctypes.byref(program), text, source.name.encode(), 0, None, None)
    words = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    try:
        call("nvrtcCompileProgram", program, len(options), words)
    except ValueError as error:
        log = fetch("ProgramLog").rstrip(b"\0").decode("utf-8", "replace").strip()
        raise ValueError(log or str(error)) from None
    if any("compute_" in option for option in options):
        return fetch("PTX").rstrip(b"\0")
    return fetch("CUBIN")


def main(words: list[str]) -> int:
    """Compile as the words say; a refusal goes to standard error."""
    library, source, output, *options = words
    try:
        Path(output).write_bytes(compile_source(library, Path(source), options))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
