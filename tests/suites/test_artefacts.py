"""Device code compiled ahead of time: the shipped code for all targets, and how the list of digests is kept true."""

from __future__ import annotations

import os
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from harness.suites import build
from harness.suites.artefact_list import read_list, write_list
from harness.suites.artefact_spec import load_spec
from harness.suites.artefacts import Outcome, State, build_artefacts, find_set, update_lists
from harness.suites.build import ARTEFACTS, build_runner

SPEC = """compilers:
  upper:
    programs: {sh: {package: dash, command: sh}}
    source: kernel.c
    output: out
    steps: [["{sh}", -c, "grep -q BROKEN kernel.c && { echo error: BROKEN >&2; exit 1; }; tr a-z A-Z <kernel.c >out"]]
  lacking:
    programs: {cc: {package: nothing, command: no-such-compiler}}
    source: kernel.c
    output: out
    steps: [["{cc}"]]
targets:
  - {name: one, arch: o, form: binary, extension: bin, compiler: upper, format: f, hardware: h}
  - {name: two, arch: t, form: binary, extension: bin, compiler: lacking, format: f, hardware: h}
kernels:
  sum: {not_for: [{targets: [two], why: two cannot add}]}
gaps:
  - {targets: [three], why: nobody knows it}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A ``gpu_tests`` with a compiler that takes no time, and one that is not there."""
    root = tmp_path / "tiny"
    for folder in ("host", "kernels", "tests"):
        (root / folder).mkdir(parents=True)
    (root / "wire.schema.json").write_text("{}")
    (root / "host/gtrun.cpp").write_text("int main() {}\n")
    (root / "kernels/gt_lang.h").write_text("words\n")
    (root / "kernels/sum.inc").write_text("sum\n")
    (root / "kernels/mul.inc").write_text("mul\n")
    (root / "artefacts.yaml").write_text(SPEC)
    return root


def states(outcome: Outcome) -> dict[str, State]:
    return {result.path: result.state for result in outcome.results}


@pytest.fixture(scope="module")
def shipped(sources: Path, shared_cache: Path) -> Outcome:
    return build_artefacts(sources, shared_cache / "gpu_tests" / ARTEFACTS, jobs=len(os.sched_getaffinity(0)))


def compiler_names() -> list[str]:
    return list(load_spec(Path(__file__).parents[2] / "gpu_tests").compilers)


@pytest.mark.parametrize("compiler", compiler_names())
def test_all_device_code_compiles_and_comes_out_as_listed(shipped: Outcome, compiler: str) -> None:
    of_it = [result for result in shipped.results if result.compiler == compiler]
    absent = [result for result in of_it if result.state is State.ABSENT]
    if absent:
        pytest.skip(f"{len(absent)} artefacts not built: {absent[0].detail}")
    wrong = [str(result) for result in of_it if result.state is not State.SAME]
    assert not wrong, "new or changed device code is listed by 'kdmatrix artefacts --update':\n" + "\n".join(wrong)
    assert of_it


def test_nothing_is_listed_that_is_not_made_any_more(shipped: Outcome) -> None:
    assert [str(result) for result in shipped.of(State.STALE)] == []


AMD_MACHINES = {
    **{"gfx803": 0x2A, "gfx900": 0x2C, "gfx906": 0x2F, "gfx908": 0x30, "gfx90a": 0x3F, "gfx942": 0x4C, "gfx950": 0x4F},
    **{"gfx1010": 0x33, "gfx1030": 0x36, "gfx1100": 0x41, "gfx1101": 0x46, "gfx1102": 0x47, "gfx1151": 0x4A},
    **{"gfx1200": 0x48, "gfx1201": 0x4E},
}
"""EF_AMDGPU_MACH_* of LLVM's AMDGPU ABI."""
EM_CUDA, EM_INTELGT, EM_AMDGPU = 190, 205, 224
NAMES = {"magic": "gt_magic", "triad": "gt_triad", "vecadd": "gt_vecadd"}


def elf(content: bytes) -> tuple[int, int, int]:
    """ABI version, machine and flags of an ELF file."""
    assert content[:4] == b"\x7fELF"
    return content[8], *struct.unpack_from("<H", content, 18), *struct.unpack_from("<I", content, 48)


def test_every_artefact_is_for_the_hardware_and_of_the_format_that_its_target_names(
    shipped: Outcome, sources: Path
) -> None:
    looked_at = 0
    for target in load_spec(sources).targets:
        for kernel, name in NAMES.items():
            path = shipped.directory / target.name / f"{kernel}.{target.extension}"
            if not path.is_file():
                continue
            content = path.read_bytes()
            looked_at += 1
            assert name.encode() in content, path
            if target.extension == "ptx":
                assert f".version {target.format.removeprefix('PTX ISA ')}\n" in content.decode(), path
                assert f".target {target.arch.replace('compute', 'sm')}\n" in content.decode(), path
            elif target.extension == "cubin":
                abi, machine, flags = elf(content)
                number = flags >> 8 & 0xFF if abi >= 8 else flags & 0xFF
                assert (machine, number) == (EM_CUDA, int(target.arch.strip("sm_a"))), path
            elif target.extension == "hsaco":
                version = int(target.format.removeprefix("code object ")) - 2
                assert elf(content)[:2] == (version, EM_AMDGPU), path
                assert elf(content)[2] & 0xFF == AMD_MACHINES[target.arch], path
                assert f"\0{name}.kd\0".encode() in content, path
            elif target.extension == "spv":
                assert struct.unpack_from("<II", content) == (0x07230203, 0x00010000), path
            elif target.format == "zebin":
                assert elf(content)[1] == EM_INTELGT, path
            else:
                assert b"Intel" in content, path
    assert looked_at or shipped.of(State.ABSENT)


def test_the_same_bytes_come_out_again_elsewhere(shipped: Outcome, sources: Path, tmp_path: Path) -> None:
    """From another path, with nothing cached but the unpacked compilers."""
    root, cache = tmp_path / "a longer path of sources", tmp_path / "cache"
    (root / "kernels").mkdir(parents=True)
    for name in ("kernels/gt_lang.h", "kernels/vecadd.inc"):
        shutil.copyfile(sources / name, root / name)
    shutil.copytree(sources / "digests", root / "digests")
    (root / "artefacts.yaml").write_text(_without_rules((sources / "artefacts.yaml").read_text()))
    cache.mkdir()
    (cache / "compilers").symlink_to(shipped.directory.parents[1] / "compilers")
    again = build_artefacts(root, cache, jobs=2)
    first = {result.path: result.made for result in shipped.results if result.path.split("/")[1].startswith("vecadd.")}
    second = {result.path: result.made for result in again.results if result.state is not State.STALE}
    assert second == first
    assert any(first.values())


def _without_rules(spec: str) -> str:
    """The rules name kernels that a copy of one kernel lacks."""
    start = spec.find("\nkernels:")
    return spec if start < 0 else spec[:start] + spec[spec.index("\ngaps:") :]


def test_what_a_missing_compiler_leaves_has_its_reason(tiny: Path, tmp_path: Path) -> None:
    outcome = build_artefacts(tiny, tmp_path / "cache", jobs=2)
    assert states(outcome) == {"one/mul.bin": State.NEW, "two/mul.bin": State.ABSENT, "one/sum.bin": State.NEW}
    assert (outcome.directory / "one/sum.bin").read_bytes() == b"WORDS\n\nSUM\n"
    assert (outcome.directory / "absent.tsv").read_text().splitlines() == [
        "two\tmul\tnot built: no-such-compiler is not installed (Debian package nothing)",
        "two\tsum\ttwo cannot add",
        "three\t*\tnobody knows it",
    ]


def test_a_list_makes_artefacts_known_and_keeps_what_was_not_built(tiny: Path, tmp_path: Path) -> None:
    outcome = build_artefacts(tiny, tmp_path / "cache", jobs=2)
    assert update_lists(tiny, outcome) == ["mul", "sum"]
    elsewhere = replace(read_list(tiny, "mul")["one/mul.bin"], path="two/mul.bin", compiler="lacking")
    write_list(tiny, "mul", {**read_list(tiny, "mul"), elsewhere.path: elsewhere})
    again = build_artefacts(tiny, tmp_path / "cache", jobs=2)
    assert states(again) == {"one/mul.bin": State.SAME, "two/mul.bin": State.ABSENT, "one/sum.bin": State.SAME}
    assert update_lists(tiny, again) == []
    assert read_list(tiny, "mul")["two/mul.bin"] == elsewhere


def test_a_difference_names_the_artefact_and_both_compilers(tiny: Path, tmp_path: Path) -> None:
    update_lists(tiny, build_artefacts(tiny, tmp_path / "cache", jobs=2))
    listed = read_list(tiny, "sum")["one/sum.bin"]
    write_list(tiny, "sum", {listed.path: replace(listed, sha256="0" * 64, version="dash 0.1")})
    (found,) = build_artefacts(tiny, tmp_path / "cache", jobs=2).of(State.DIFFERS)
    assert str(found).startswith("one/sum.bin: differs: made ")
    assert "with dash " in found.detail
    assert found.detail.endswith("listed 0000000000000000 with dash 0.1")


def test_another_version_that_makes_the_same_bytes_is_no_difference(tiny: Path, tmp_path: Path) -> None:
    update_lists(tiny, build_artefacts(tiny, tmp_path / "cache", jobs=2))
    listed = read_list(tiny, "sum")["one/sum.bin"]
    write_list(tiny, "sum", {listed.path: replace(listed, version="dash 0.1")})
    assert not build_artefacts(tiny, tmp_path / "cache", jobs=2).of(State.DIFFERS)
    write_list(tiny, "sum", {listed.path: replace(listed, flags="-O9")})
    (found,) = build_artefacts(tiny, tmp_path / "cache", jobs=2).of(State.DIFFERS)
    assert found.detail == "the same bytes; flags is now '', listed '-O9'"


def test_code_that_does_not_compile_is_told_and_not_carried(tiny: Path, tmp_path: Path) -> None:
    update_lists(tiny, build_artefacts(tiny, tmp_path / "cache", jobs=2))
    (tiny / "kernels/sum.inc").write_text("BROKEN\n")
    outcome = build_artefacts(tiny, tmp_path / "cache", jobs=2)
    assert [str(found) for found in outcome.of(State.FAILED)] == ["one/sum.bin: does not compile: error: BROKEN"]
    assert not (outcome.directory / "one/sum.bin").exists()
    assert "one\tsum\tdoes not compile: error: BROKEN\n" in (outcome.directory / "absent.tsv").read_text()


def test_what_is_not_made_any_more_leaves_the_list(tiny: Path, tmp_path: Path) -> None:
    update_lists(tiny, build_artefacts(tiny, tmp_path / "cache", jobs=2))
    (tiny / "kernels/mul.inc").unlink()
    outcome = build_artefacts(tiny, tmp_path / "cache", jobs=2)
    assert [found.path for found in outcome.of(State.STALE)] == ["one/mul.bin"]
    update_lists(tiny, outcome)
    assert not (tiny / "digests/mul.json").exists()


def test_what_was_compiled_once_is_not_compiled_again(tiny: Path, tmp_path: Path) -> None:
    first = build_artefacts(tiny, tmp_path / "cache", jobs=2)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache/objects").rglob("*.bin")}
    (tiny / "kernels/mul.inc").write_text("other\n")
    second = build_artefacts(tiny, tmp_path / "cache", jobs=2)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache/objects").rglob("*.bin")}
    assert first.directory != second.directory
    assert len(before) == 2
    assert {path: after[path] for path in before} == before
    assert len(after) == 3


def test_the_runner_carries_what_was_built_for_its_sources_without_being_compiled_again(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    into = tmp_path / "into"
    bare = build_runner(tiny, into)
    assert (bare / "artefacts/absent.tsv").read_text().startswith("*\t*\tnot built on the host")
    outcome = build_artefacts(tiny, into / ARTEFACTS, jobs=2)
    assert find_set(tiny, into / ARTEFACTS) == outcome.directory
    with monkeypatch.context() as patch:
        patch.setattr(build, "compile_cxx", lambda *_, **__: pytest.fail("compiled again"))
        carrying = build_runner(tiny, into)
    assert carrying != bare
    assert (carrying / "bin/gtrun").read_bytes() == (bare / "bin/gtrun").read_bytes()
    assert (carrying / "artefacts/one/sum.bin").read_bytes() == b"WORDS\n\nSUM\n"
    (tiny / "kernels/sum.inc").write_text("changed\n")
    assert not (build_runner(tiny, into) / "artefacts/one").exists()
