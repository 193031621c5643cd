"""The simulated GPU by itself, through the CUDA driver's ABI: what it does without a fault, and how it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PRELUDE = """
import ctypes, sys, threading
from ctypes import byref, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
cu = ctypes.CDLL(sys.argv[1])
PTX = b".version 7.8\\n.target sm_52\\n.visible .entry gt_vecadd()\\n{\\n}\\n"
context, module, function, stream = c_void_p(), c_void_p(), c_void_p(), c_void_p()
def ok(status): assert status == 0, status
ok(cu.cuInit(0)); ok(cu.cuCtxCreate_v2(byref(context), 0, 0))
ok(cu.cuStreamCreateWithPriority(byref(stream), 1, 0))
def memory(size):
    address = c_ulonglong(); ok(cu.cuMemAlloc_v2(byref(address), c_size_t(size))); return address
def add(n, a, b, c):
    ok(cu.cuModuleLoadData(byref(module), PTX)); ok(cu.cuModuleGetFunction(byref(function), module, b"gt_vecadd"))
    values = [c_uint(n), a, c_uint(0), b, c_uint(0), c, c_uint(0)]
    pointers = (c_void_p * 7)(*[ctypes.addressof(value) for value in values])
    ok(cu.cuLaunchKernel(function, (n + 63) // 64, 1, 1, 64, 1, 1, 0, stream, pointers, None))
    return cu.cuStreamSynchronize(stream)
"""


def _child(library: Path, script: str, **env: str) -> None:
    argv = [sys.executable, "-c", PRELUDE + script, str(library)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env={**os.environ, **env}, check=False)
    assert done.returncode == 0, done.stderr


def test_a_kernel_that_leaves_its_memory_breaks_its_context_and_is_in_the_kernel_log(
    fake_cuda: Path, tmp_path: Path
) -> None:
    log = tmp_path / "kmsg"
    script = """
a = memory(4096); far = c_ulonglong(a.value + 4096 + 65536)
assert add(64, a, a, a) == 0
assert add(64, a, a, far) == 700
assert cu.cuStreamSynchronize(stream) == 700 and cu.cuMemAlloc_v2(byref(c_ulonglong()), c_size_t(64)) == 700
ok(cu.cuCtxDestroy_v2(context)); ok(cu.cuCtxCreate_v2(byref(context), 0, 0)); memory(64)
"""
    _child(fake_cuda, script, GT_FAKE_KMSG=str(log))
    assert log.read_text().startswith("NVRM: Xid (PCI:0000:f1:00): 31,")


def test_memory_runs_out_and_comes_back(fake_cuda: Path) -> None:
    script = """
free, total, more = c_size_t(), c_size_t(), c_ulonglong()
def now(): ok(cu.cuMemGetInfo_v2(byref(free), byref(total))); return free.value
start = now(); most = memory(start)
assert cu.cuMemAlloc_v2(byref(more), c_size_t(4096)) == 2
ok(cu.cuMemFree_v2(most)); assert now() == start
assert cu.cuMemFree_v2(most) == 1
"""
    _child(fake_cuda, script)


def test_work_that_nobody_waited_for_has_not_happened(fake_cuda: Path) -> None:
    script = """
gate = threading.Event()
hold = ctypes.CFUNCTYPE(None, c_void_p)(lambda _: gate.wait())
device, host = memory(64), (ctypes.c_ubyte * 64)(*range(64))
back = (ctypes.c_ubyte * 64)()
ok(cu.cuLaunchHostFunc(stream, hold, None))
ok(cu.cuMemcpyAsync(device, c_ulonglong(ctypes.addressof(host)), c_size_t(64), stream))
ok(cu.cuMemcpyAsync(c_ulonglong(ctypes.addressof(back)), device, c_size_t(64), stream))
assert bytes(back) == bytes(64)
gate.set(); ok(cu.cuStreamSynchronize(stream)); assert bytes(back) == bytes(range(64))
"""
    _child(fake_cuda, script)


def test_device_code_is_refused_with_the_documented_error(fake_cuda: Path) -> None:
    script = """
def load(image): return cu.cuModuleLoadData(byref(module), image)
assert load(PTX) == 0 and cu.cuModuleGetFunction(byref(function), module, b"gt_triad") == 500
assert load(PTX.replace(b"7.8", b"99.9")) == 222
assert load(PTX + b"} {") == 218
assert load(bytes(200)) == 200
cubin = bytearray(b"\\x7fELF\\x02\\x01\\x01\\x41\\x08" + bytes(55)); cubin[18] = 190; cubin[49] = 80
assert load(bytes(cubin)) == 209  # made for sm_80
cubin[49] = 90; assert load(bytes(cubin)) == 0
cubin[18] = 224; assert load(bytes(cubin)) == 200  # AMD's
"""
    _child(fake_cuda, script)
