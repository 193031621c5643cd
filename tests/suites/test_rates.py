"""The table of arithmetic rates, against the data sheets that it was made from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.suites.build import compile_cxx, find_compiler

CHECK = Path(__file__).resolve().parent / "rates_check.cpp"


def _run(sources: Path, folder: Path, change: tuple[str, str] = ("", "")) -> subprocess.CompletedProcess[str]:
    table = (sources / "host" / "rates.cpp").read_text()
    assert change[0] in table
    (folder / "rates.cpp").write_text(table.replace(*change))
    root = sources.resolve()
    arguments = ["-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror", f"-I{root}", f"-I{root / 'host'}"]
    program = folder / "rates_check"
    compile_cxx(find_compiler(), [*arguments, str(CHECK), str(folder / "rates.cpp"), "-o", str(program)], cwd=folder)
    return subprocess.run([str(program)], capture_output=True, text=True, timeout=60, check=False)


def test_rates_times_units_and_clock_are_what_the_data_sheets_state(sources: Path, tmp_path: Path) -> None:
    done = _run(sources, tmp_path)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (('"sm_90", 128, 64, 256', '"sm_90", 128, 64, 128'), "NVIDIA H100 80GB HBM3: fp16: the table makes 66.91 T"),
        (("kFp64) return told", "kFp32) return told"), "NVIDIA H100 80GB HBM3: matrix fp64: the table makes 61.84 T"),
        (("? 0.5 : 1.0", "? 1.0 : 1.0"), "NVIDIA GeForce RTX 4090: matrix fp8: the table makes 660.60 T"),
        (('{"gfx942"', '{"gfx94"'), "AMD Instinct MI300X: no row for gfx942"),
        (
            ('"gfx1201", 128, 0, 0, 0, 0, 0, 512', '"gfx1201", 128, 0, 0, 0, 0, 0, 256'),
            "AMD Radeon RX 9070 XT: matrix fp16: the table makes 97.32 T",
        ),
    ],
)
def test_a_wrong_rate_is_noticed(sources: Path, tmp_path: Path, change: tuple[str, str], told: str) -> None:
    done = _run(sources, tmp_path, change)
    assert done.returncode == 1
    assert told in done.stdout


UNITS = """#include <cstdio>
#include "pci.h"
int main(int, char **words) { std::printf("%u\\n", gt::kfd_compute_units(words[1], words[2])); }
"""


def test_the_units_of_an_amd_gpu_are_those_of_the_kernels_topology(sources: Path, tmp_path: Path) -> None:
    root = sources.resolve() / "host"
    (tmp_path / "units.cpp").write_text(UNITS)
    arguments = ["-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror", f"-I{root}", "units.cpp", str(root / "pci.cpp")]
    compile_cxx(find_compiler(), [*arguments, "-o", "units"], cwd=tmp_path)
    nodes = {
        "0": "cpu_cores_count 16\nsimd_count 0\nsimd_per_cu 0\nlocation_id 0\ndomain 0\n",
        "1": "cpu_cores_count 0\nsimd_count 192\nsimd_per_cu 2\nlocation_id 768\ndomain 0\n",
        "2": "cpu_cores_count 0\nsimd_count 128\nsimd_per_cu 2\nlocation_id 768\ndomain 1\n",
    }
    for name, properties in nodes.items():
        node = tmp_path / "sys/class/kfd/kfd/topology/nodes" / name
        node.mkdir(parents=True)
        (node / "properties").write_text(properties)

    def units(bdf: str, tree: str = "sys") -> str:
        return subprocess.run([tmp_path / "units", tmp_path / tree, bdf], capture_output=True, text=True).stdout.strip()

    assert [units("0000:03:00.0"), units("0001:03:00.0"), units("0000:04:00.0")] == ["96", "64", "0"]
    assert units("0000:03:00.0", "none") == "0"
