"""Reports of programs that are not ours, one module per format: bytes from a guest in, cases out. Pure."""

from __future__ import annotations

from harness.suites.formats import babelstream, clpeak, igt, junit, ktap, level_zero, nvbandwidth, opencl_cts, rvs
from harness.suites.formats.case import MAX_CASES, Case, Format, Unreadable

__all__ = ["FORMATS", "MAX_CASES", "Case", "Format", "Unreadable"]

KSFT_SKIP = 4
"""Exit status with which the kernel's own selftests say that they do not apply (kselftest.h)."""

FORMATS = {
    "ktap": Format(ktap.read, "KTAP or TAP", (KSFT_SKIP,)),
    "junit": Format(junit.read, "JUnit XML, also GoogleTest's"),
    "nvbandwidth": Format(nvbandwidth.read, "nvbandwidth --json"),
    "clpeak": Format(clpeak.read, "clpeak --json-file"),
    "babelstream": Format(babelstream.read, "BabelStream --csv"),
    "rvs": Format(rvs.read, "ROCm Validation Suite -j"),
    "opencl-cts": Format(opencl_cts.read, "OpenCL-CTS results files"),
    "igt": Format(igt.read, "IGT GPU Tools", (igt.SKIP_STATUS,)),
    "ze-peak": Format(level_zero.read_peak, "level-zero-tests' ze_peak"),
    "ze-bandwidth": Format(level_zero.read_bandwidth, "level-zero-tests' ze_bandwidth --csv"),
}
