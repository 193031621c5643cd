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
def run(name, n, *values):
    ok(cu.cuModuleLoadData(byref(module), PTX.replace(b"gt_vecadd", name)))
    ok(cu.cuModuleGetFunction(byref(function), module, name))
    values = [c_uint(n), *values]
    pointers = (c_void_p * len(values))(*[ctypes.addressof(value) for value in values])
    ok(cu.cuLaunchKernel(function, (n + 63) // 64, 1, 1, 64, 1, 1, 0, stream, pointers, None))
    return cu.cuStreamSynchronize(stream)
def add(n, a, b, c): return run(b"gt_vecadd", n, a, c_uint(0), b, c_uint(0), c, c_uint(0))
"""


def _child(library: Path, script: str, *arguments: str, **env: str) -> str:
    argv = [sys.executable, "-c", PRELUDE + script, str(library), *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env={**os.environ, **env}, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


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


def test_every_later_call_returns_what_broke_the_context(fake_cuda: Path) -> None:
    script = """
a, b, event, other = memory(4096), memory(64), c_void_p(), c_void_p()
zeros = (ctypes.c_ubyte * 64)()
def launch(): return cu.cuLaunchKernel(function, 1, 1, 1, 64, 1, 1, 0, stream, None, None)
def copy(): return cu.cuMemcpyAsync(b, c_ulonglong(ctypes.addressof(zeros)), c_size_t(64), stream)
ok(copy()); ok(cu.cuEventCreate(byref(event), 0))
assert run(sys.argv[2].encode(), 64, b) == int(sys.argv[3])
size, total, more, low, high = c_size_t(), c_size_t(), c_ulonglong(), c_int(), c_int()
later = [
    cu.cuCtxSynchronize(), cu.cuCtxGetLimit(byref(size), 1), cu.cuMemGetInfo_v2(byref(size), byref(total)),
    cu.cuMemAlloc_v2(byref(more), c_size_t(64)), cu.cuMemHostAlloc(byref(other), c_size_t(64), 0),
    cu.cuMemAllocManaged(byref(more), c_size_t(64), 1), copy(), cu.cuMemFree_v2(a),
    cu.cuModuleLoadData(byref(other), PTX), cu.cuModuleGetFunction(byref(other), module, sys.argv[2].encode()),
    cu.cuStreamCreateWithPriority(byref(other), 1, 0), cu.cuCtxGetStreamPriorityRange(byref(low), byref(high)),
    cu.cuStreamSynchronize(stream), cu.cuStreamWaitEvent(stream, event, 0), cu.cuStreamBeginCapture_v2(stream, 2),
    cu.cuEventCreate(byref(other), 0), cu.cuEventRecord(event, stream), cu.cuEventSynchronize(event),
    cu.cuEventDestroy_v2(event), cu.cuModuleUnload(module), cu.cuStreamDestroy_v2(stream),
]
assert set(later) == {int(sys.argv[3])}, later
"""
    for kernel, error in (("gt_assert", "710"), ("gt_trap", "719")):
        _child(fake_cuda, script, kernel, error)


def test_what_kernels_print_is_written_when_somebody_waits_and_the_oldest_lines_are_lost(fake_cuda: Path) -> None:
    few, many = (_child(fake_cuda, _PRINT, count).splitlines() for count in ("5", "9000"))
    assert few[0] == "before"
    assert sorted(line.split()[1] for line in few[1:]) == list("01234")
    kept = [line for line in many if line.startswith("gt_print ")]
    assert 1000 < len(kept) < 9000
    assert sum(len(line) + 1 for line in kept) <= 64 << 10
    assert not any(line.startswith("gt_print 0 ") for line in kept)


_PRINT = """
n = int(sys.argv[2]); out = memory(4 * n)
print("before", flush=True)
assert run(b"gt_print", n, out, c_uint(0)) == 0
"""


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


MANAGED = """
def now():
    free, total = c_size_t(), c_size_t(); ok(cu.cuMemGetInfo_v2(byref(free), byref(total))); return free.value >> 20
def managed(mebibytes):
    address = c_ulonglong(); ok(cu.cuMemAllocManaged(byref(address), c_size_t(mebibytes << 20), 1)); return address
def floats(address, n): return (ctypes.c_float * n).from_address(address.value)
"""


def test_managed_memory_goes_to_whoever_touches_it_or_asks_for_it(fake_cuda: Path) -> None:
    script = """
a = managed(8); assert now() == 48
words = floats(a, 2 << 20); words[1 << 20] = 3.0; assert now() == 48
assert add(2 << 20, a, a, a) == 0 and now() == 40
assert words[1 << 20] == 6.0 and now() == 42
ok(cu.cuMemPrefetchAsync(a, c_size_t(8 << 20), -1, stream)); ok(cu.cuStreamSynchronize(stream)); assert now() == 48
ok(cu.cuMemPrefetchAsync(a, c_size_t(8 << 20), 0, stream)); ok(cu.cuStreamSynchronize(stream)); assert now() == 40
assert words[1 << 20] == 6.0
ok(cu.cuMemFree_v2(a)); assert now() == 48
"""
    _child(fake_cuda, MANAGED + script, GT_FAKE_MEMORY="64")


EVICTED = """
a, b = managed(32), managed(32)
blocks = [(words, at) for words in (floats(a, 8 << 20), floats(b, 8 << 20)) for at in range(0, 8 << 20, 512 << 10)]
for words, at in blocks: words[at] = 1.0
for turn in range(2):
    assert add(8 << 20, a, a, a) == 0 and add(8 << 20, b, b, b) == 0 and now() == 0
ok(cu.cuMemFree_v2(memory(48 << 20))); assert now() == 48
whole = all(words[at] == 4.0 for words, at in blocks)
"""


def test_managed_memory_beyond_the_devices_leaves_it_and_comes_back_whole(fake_cuda: Path) -> None:
    _child(fake_cuda, MANAGED + EVICTED + "assert whole", GT_FAKE_MEMORY="64")
    _child(fake_cuda, MANAGED + EVICTED + "assert not whole", GT_FAKE_MEMORY="64", GT_FAKE_FAULT="lost_eviction")
