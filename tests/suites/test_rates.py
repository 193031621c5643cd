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
    ],
)
def test_a_wrong_rate_is_noticed(sources: Path, tmp_path: Path, change: tuple[str, str], told: str) -> None:
    done = _run(sources, tmp_path, change)
    assert done.returncode == 1
    assert told in done.stdout
