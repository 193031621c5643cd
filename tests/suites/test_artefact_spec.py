"""``gpu_tests/artefacts.yaml``: which kernel is compiled for which target."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UserError
from harness.suites.artefact_spec import artefacts_of, device_source, kernel_names, load_spec

COMPILERS = "compilers: {cp: {programs: {cp: {package: coreutils, command: cp}}, source: a, output: b, steps: [[x]]}}\n"
TARGETS = """targets:
  - {name: one, arch: o, form: binary, extension: bin, compiler: cp, format: f, hardware: h}
  - {name: two, arch: t, form: ptx, extension: ptx, compiler: cp, format: f, hardware: h}
  - {name: extra, arch: e, form: binary, extension: bin, compiler: cp, format: f, hardware: h, only_named: true}
"""


def written(root: Path, text: str) -> Path:
    (root / "kernels").mkdir(exist_ok=True)
    (root / "kernels" / "gt_lang.h").write_text("words\n")
    (root / "kernels" / "sum.inc").write_text("sum\n")
    (root / "artefacts.yaml").write_text(text)
    return root


def paths(root: Path, kernel: str = "sum") -> list[str]:
    return [artefact.path for artefact in artefacts_of(load_spec(root), kernel)]


def test_a_kernel_is_for_every_target_but_those_that_want_to_be_named(tmp_path: Path) -> None:
    assert paths(written(tmp_path, COMPILERS + TARGETS)) == ["one/sum.bin", "two/sum.ptx"]


def test_a_kernel_may_be_for_some_targets_and_ask_for_more(tmp_path: Path) -> None:
    rule = "kernels: {sum: {only: ['o*'], also: [extra]}}\n"
    assert paths(written(tmp_path, COMPILERS + TARGETS + rule)) == ["one/sum.bin", "extra/sum.bin"]


def test_a_kernel_may_say_which_targets_it_is_not_for(tmp_path: Path) -> None:
    rule = "kernels: {sum: {not_for: [{targets: [one], why: it has no such unit}]}}\n"
    assert paths(written(tmp_path, COMPILERS + TARGETS + rule)) == ["two/sum.ptx"]


def test_the_source_is_the_language_followed_by_the_kernel(tmp_path: Path) -> None:
    root = written(tmp_path, COMPILERS + TARGETS)
    assert kernel_names(root) == ["sum"]
    assert device_source(root, "sum") == b"words\n\nsum\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (COMPILERS + TARGETS.replace("compiler: cp", "compiler: cc", 1), "there is no compiler 'cc'; known: cp"),
        (COMPILERS + TARGETS.replace("name: two", "name: one"), "two targets are called 'one'"),
        (COMPILERS + TARGETS + "kernels: {summ: {}}\n", "there is no kernels/summ.inc"),
        (COMPILERS + TARGETS + "kernels: {sum: {only: [three]}}\n", "'three' fits no target"),
        (COMPILERS + TARGETS.replace("form: ptx", "form: asm"), "artefacts.yaml:4:"),
        (COMPILERS + TARGETS.replace("arch: o,", ""), "artefacts.yaml:3:5: targets.0.arch is missing"),
        (COMPILERS + TARGETS.replace("hardware: h", "hardware: h, flagz: []", 1), "did you mean flags?"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_spec(written(tmp_path, text))
    assert message in str(caught.value)
    assert str(tmp_path / "artefacts.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_shipped_file_covers_every_vendor_and_says_why_the_rest_is_missing(sources: Path) -> None:
    spec = load_spec(sources)
    there = {target.name for target in spec.targets}
    assert {"compute_52", "compute_80", "sm_52", "sm_90", "sm_90a", "sm_120", "spirv", "dg2-g10", "pvc"} <= there
    assert {"gfx90a", "gfx90a-v5", "gfx942", "gfx950", "gfx1030", "gfx1100", "gfx1201"} <= there
    missing = {name for gap in spec.gaps for name in gap.targets}
    assert {"sm_30", "bmg-g21", "gfx1250"} <= missing
    assert not missing & there
