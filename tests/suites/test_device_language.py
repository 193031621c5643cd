"""Words of the device language that are more than another spelling."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

PROGRAM = r"""
#include <cmath>
#include <cstdio>
#define GT_FUNCTION static inline
typedef unsigned int gt_uint;
@SINE@
int main() {
    double worst = 0.0;
    for (int i = -2000000; i <= 2000000; ++i) {
        const float angle = (float)i * 0.005f;
        for (gt_uint quarter = 0; quarter < 2; ++quarter) {
            const double right = quarter ? std::cos((double)angle) : std::sin((double)angle);
            const double off = std::fabs((double)gt_amd_sine(angle, quarter) - right);
            // Units in the last place of the right answer; NaN counts as the worst.
            const double ulps = off / std::ldexp(1.0, std::ilogb(right) - 23);
            if (!(ulps <= worst)) worst = ulps;
        }
    }
    std::printf("%.3f\n", worst);
}
"""


def test_the_sine_that_amd_code_brings_along_is_right_to_two_units_in_the_last_place(
    sources: Path, tmp_path: Path
) -> None:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler on this host (Debian package: g++)")
    found = re.search(r"^GT_FUNCTION float gt_amd_sine.*?^}$", (sources / "kernels/gt_lang.h").read_text(), re.M | re.S)
    assert found is not None
    (tmp_path / "sine.cpp").write_text(PROGRAM.replace("@SINE@", found[0]))
    subprocess.run([compiler, "-O2", "-std=c++17", "sine.cpp", "-o", "sine"], cwd=tmp_path, check=True)
    worst = subprocess.run([tmp_path / "sine"], capture_output=True, check=True, text=True).stdout
    assert float(worst) < 2.0
