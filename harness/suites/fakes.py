"""Builds the fake drivers of the tests of the tests, unit by unit, each once per content."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.errors import UserError
from harness.suites.build import compile_cxx, find_compiler

_FLAGS = ("-std=c++17", "-O2", "-fPIC", "-Wall", "-Wextra", "-Ihost")
_SIMULATION = (
    "fibers",
    "sim_devices",
    "sim_groups",
    "sim_memory",
    "sim_pages",
    "sim_print",
    "sim_queue",
    "images",
)
"""The units of the simulated GPU."""
_UNITS = {
    "cuda": (*_SIMULATION, "sim_blas", "sim_cublas"),
    "hip": (*_SIMULATION, "sim_blas", "sim_rocblas"),
    "ze": (*_SIMULATION, "ze_images", "ze_memory", "ze_code", "ze_queues", "ze_sysman"),
}
"""What a fake is linked of beside its own unit; the kernels come with the simulated GPU."""
_NAMES = {"level-zero": "ze"}
"""Fakes whose files are called by their library's prefix and not by their backend."""
_KERNEL = re.compile(r'extern "C" void (gt_\w+)')


def build_fake(of: str, sources: Path, into: Path) -> Path:
    """Compile the fake driver of a backend (or ``nvml``) to a shared library and return its absolute path.

    A fake that stands on the simulated GPU carries every kernel of ``kernels/*.inc``, compiled for the CPU. Objects and
    libraries are named after what they are made of, so what has not changed is not compiled again. Safe to call from
    several processes at once.

    Raises:
        UserError: there is no such fake, or the code does not compile.
        InfraError: there is no C++ compiler, or it hangs.

    """
    name = _NAMES.get(of, of)
    own = f"fakes/fake_{name}.cpp"
    if not (sources / own).is_file():
        raise UserError(f"{sources}: there is no fake driver {own}")
    compiler = find_compiler()
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fake-", dir=into) as temporary:
        work = Path(temporary).resolve()
        units = [own, *(f"fakes/{unit}.cpp" for unit in _UNITS.get(name, ()))]
        if name in _UNITS:
            # From the text that the preprocessor leaves: which kernels there are can depend on the language.
            for kernels in sorted((sources / "kernels").glob("*.inc")):
                units.append(str(_generate(compiler, kernels, sources, work)))
        with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
            objects = list(pool.map(lambda unit: _object(compiler, unit, sources, into, work), units))
        digest = hashlib.sha256(repr([compiler, *(made.name for made in objects)]).encode()).hexdigest()
        library = into.resolve() / f"fake_{name}-{digest[:20]}.so"
        if not library.exists():
            linked = [str(made) for made in objects]
            made = work / library.name
            compile_cxx(compiler, ["-shared", *linked, "-o", str(made), "-pthread", "-ldl"], cwd=sources)
            made.rename(library)
    return library


def _generate(compiler: list[str], kernels: Path, sources: Path, work: Path) -> Path:
    """Write a unit that compiles one file of kernels for the CPU and registers each of them by its name."""
    name = kernels.stem
    unit = work / f"kernels_{name}.cpp"
    headers = ("../fakes/gt_cpu.h", "../fakes/sim_kernel.h", "../kernels/gt_lang.h", f"../kernels/{name}.inc")
    lines = ["#define GT_CPU", *(f'#include "{header}"' for header in headers)]
    unit.write_text("\n".join(lines) + "\n")
    found = _KERNEL.findall(_preprocessed(compiler, str(unit), sources, work))
    lines += [f'static const gt_sim::RegisterKernel<&{kernel}> registered_{kernel}("{kernel}");' for kernel in found]
    unit.write_text("\n".join(lines) + "\n")
    return unit


def _preprocessed(compiler: list[str], unit: str, sources: Path, work: Path) -> str:
    output = work / f"{Path(unit).stem}.ii"
    compile_cxx(compiler, [*_FLAGS, "-E", "-P", unit, "-o", str(output)], cwd=sources)
    return output.read_text()


def _object(compiler: list[str], unit: str, sources: Path, into: Path, work: Path) -> Path:
    text = _preprocessed(compiler, unit, sources, work)
    digest = hashlib.sha256(repr((compiler, _FLAGS, text)).encode()).hexdigest()
    target = into.resolve() / "fake-objects" / f"{Path(unit).stem}-{digest[:20]}.o"
    if not target.exists():
        made = work / target.name
        compile_cxx(compiler, [*_FLAGS, "-c", unit, "-o", str(made)], cwd=sources)
        target.parent.mkdir(exist_ok=True)
        made.rename(target)
    return target
