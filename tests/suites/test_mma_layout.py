"""The matrix-unit kernels, on the CPU: their index maps against the documented fragments of the instruction."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.suites.build import compile_cxx, find_compiler

HERE = Path(__file__).resolve().parent


def _run(
    sources: Path,
    folder: Path,
    change: tuple[str, str] = ("", ""),
    kernel: str = "mma_nv",
    emulation: str = "mma",
    definitions: tuple[str, ...] = (),
) -> subprocess.CompletedProcess[str]:
    kernels = sources / "kernels"
    source = (kernels / f"{kernel}.inc").read_text()
    assert change[0] in source
    (folder / "kernels.h").write_text((kernels / "gt_lang.h").read_text() + "\n" + source.replace(*change))
    root = sources.resolve()
    arguments = ["-std=c++17", "-O2", "-w", f"-I{root}", f'-DKERNELS="{folder / "kernels.h"}"', *definitions]
    program = folder / "mma_layout"
    files = [str(HERE / f"{emulation}_layout.cpp"), str(root / "fakes" / "fibers.cpp")]
    compile_cxx(find_compiler(), [*arguments, *files, "-o", str(program)], cwd=folder)
    return subprocess.run([str(program)], capture_output=True, text=True, timeout=120, check=False)


def test_products_by_emulated_matrix_instructions_are_exact(sources: Path, tmp_path: Path) -> None:
    done = _run(sources, tmp_path)
    assert done.returncode == 0, done.stdout
    assert done.stdout.split() == ["bf16", "0", "fp16", "0", "tf32", "0", "int8", "0", "fp8", "0"]


@pytest.mark.parametrize(
    "change",
    [
        ("8u * (r % 2u), word + 4u * (r / 2u)", "8u * (r / 2u), word + 4u * (r % 2u)"),  # two registers of A exchanged
        ("2u * (lane % 4u) + r % 2u", "2u * (lane % 4u) + r / 2u"),
        # The halves of k exchanged in B alone (in both operands alike it would change nothing).
        ("gt_slab(left + 8u * j, word + 4u * r)", "gt_slab(left + 8u * j, word + 4u * (1u - r))"),
    ],
)
def test_a_wrong_index_map_is_noticed(sources: Path, tmp_path: Path, change: tuple[str, str]) -> None:
    assert _run(sources, tmp_path, change).returncode == 1


def test_products_by_emulated_mfma_instructions_are_exact(sources: Path, tmp_path: Path) -> None:
    done = _run(sources, tmp_path, kernel="mma_amd", emulation="mfma")
    assert done.returncode == 0, done.stdout
    formats = ["bf16", "fp16", "fp32", "fp64", "int8", "narrow_int8", "fp8"]
    assert done.stdout.split() == [word for name in formats for word in (name, "0")]


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (("8u * (r / 4u) + 4u * (lane / 32u)", "4u * (r / 4u) + 16u * (lane / 32u)"), "bf16"),
        (("4u * r + lane / 16u", "r + lane / 16u * 4u"), "fp64"),  # as the 16x16 shapes with sums in fp32 have it
        (("fb[i][w] = slab[gt_amd_slab(128u + left + SIDE * i + lane % SIDE, word + w)]",
          "fb[i][w] = slab[gt_amd_slab(128u + left + SIDE * i + lane % SIDE, word + WORDS - 1u - w)]"), "bf16"),
    ],
)  # fmt: skip
def test_a_wrong_map_of_mfma_is_noticed(sources: Path, tmp_path: Path, change: tuple[str, str], wrong: str) -> None:
    done = _run(sources, tmp_path, change, kernel="mma_amd", emulation="mfma")
    assert done.returncode == 1
    words = done.stdout.split()
    assert int(words[words.index(wrong) + 1]) > 0


def test_products_by_emulated_wmma_instructions_are_exact(sources: Path, tmp_path: Path) -> None:
    done = _run(sources, tmp_path, kernel="wmma_amd", emulation="wmma")
    assert done.returncode == 0, done.stdout
    formats = ["bf16", "fp16", "int8", "bf16_gfx12", "fp16_gfx12", "fp8_gfx12", "int8_gfx12"]
    assert done.stdout.split() == [word for name in formats for word in (name, "0")]


@pytest.mark.parametrize(
    ("change", "wrong", "right"),
    [
        # The rows of one generation in the other.
        (("gt_uint r) { return 2u * r + lane / 16u; }", "gt_uint r) { return 8u * (lane / 16u) + r; }"),
         "bf16", "bf16_gfx12"),
        (("gt_uint r) { return 8u * (lane / 16u) + r; }", "gt_uint r) { return 2u * r + lane / 16u; }"),
         "int8_gfx12", "int8"),
        # Lanes above 15 that do not hold what those below hold, in both operands.
        (("gt_uint, gt_uint w) { return w; }", "gt_uint lane, gt_uint w) { return w ^ (lane / 16u * 2u); }"),
         "int8", "int8_gfx12"),
        # The words that a lane of gfx12 holds, in B alone: in both operands alike, another order of k changes nothing.
        (("16u * j + lane % 16u, word)", "16u * j + lane % 16u, word ^ 2u)"), "fp16_gfx12", ""),
    ],
)  # fmt: skip
def test_a_wrong_map_of_wmma_is_noticed(
    sources: Path, tmp_path: Path, change: tuple[str, str], wrong: str, right: str
) -> None:
    done = _run(sources, tmp_path, change, kernel="wmma_amd", emulation="wmma")
    assert done.returncode == 1
    words = done.stdout.split()
    found = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    assert found[wrong] > 0
    assert found.get(right, 0) == 0


@pytest.mark.parametrize("lanes", [8, 16])
def test_products_by_emulated_matrix_functions_of_intels_sub_groups_are_exact(
    sources: Path, tmp_path: Path, lanes: int
) -> None:
    done = _run(sources, tmp_path, kernel="mma_intel", emulation="xmx", definitions=(f"-DGT_XMX_LANES={lanes}",))
    assert done.returncode == 0, done.stdout
    assert done.stdout.split() == ["bf16", "0", "fp16", "0", "int8", "0"]


@pytest.mark.parametrize(
    ("change", "lanes"),
    [
        (("lane * (32u / GT_XMX_LANES)", "lane * 4u"), 16),  # what a lane of 8 holds of a row
        (("fb[4 * at] = four.x, fb[4 * at + 1] = four.y", "fb[4 * at] = four.y, fb[4 * at + 1] = four.x"), 8),
        (("subgroup / 4u * (2u * GT_XMX_LANES)", "subgroup / 4u * 16u"), 16),  # rows as sub-groups of 8 share them
        (("(right + GT_XMX_LANES * j * row_bytes", "(right + 8 * j * row_bytes"), 16),
        (("8u * i + r, place", "8u * i + (r ^ 1u), place"), 8),
    ],
)
def test_a_wrong_map_of_intels_sub_groups_is_noticed(
    sources: Path, tmp_path: Path, change: tuple[str, str], lanes: int
) -> None:
    definitions = (f"-DGT_XMX_LANES={lanes}",)
    assert _run(sources, tmp_path, change, "mma_intel", "xmx", definitions).returncode == 1


def test_items_that_wait_at_different_places_are_told(sources: Path, tmp_path: Path) -> None:
    done = _run(sources, tmp_path, ("GT_BARRIER(); ", "if (lid != 7u) GT_BARRIER(); "), "wgmma_nv", "wgmma")
    assert (done.returncode, done.stdout) == (2, "items wait for each other at different places\n")


def test_products_by_emulated_wgmma_instructions_are_exact(sources: Path, tmp_path: Path) -> None:
    done = _run(sources, tmp_path, kernel="wgmma_nv", emulation="wgmma")
    assert done.returncode == 0, done.stdout
    assert done.stdout.split() == ["bf16", "0", "fp16", "0"]


@pytest.mark.parametrize(
    "change",
    [
        ("(piece ^ (row % 8u))", "(piece ^ (row % 4u))"),  # swizzled by 64 bytes
        ("(gt_ulong)(1024u >> 4) << 32", "(gt_ulong)(512u >> 4) << 32"),
        ("fa + 4u, fb + 4u", "fa + 4u, fb + 6u"),
        ("8u * (r / 2u % 2u)", "8u * (r % 2u)"),
        ("warp / 4u * 8192u", "warp / 4u * 4096u"),  # where the second warpgroup's rows of A begin
        ("warp / 4u * 8192u", "warp / 5u * 8192u"),  # a descriptor that is not the same in all warps of a warpgroup
    ],
)
def test_a_wrong_map_of_wgmma_is_noticed(sources: Path, tmp_path: Path, change: tuple[str, str]) -> None:
    assert _run(sources, tmp_path, change, kernel="wgmma_nv", emulation="wgmma").returncode == 1
