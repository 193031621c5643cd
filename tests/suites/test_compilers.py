"""Compilers of device code: found, versioned, run."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import InfraError
from harness.suites.artefact_spec import CompilerSpec, Program, Target
from harness.suites.compilers import Compiler, DoesNotCompile, find_compiler, package_version

TARGET = Target(
    name="one", arch="sm_1", form="binary", extension="bin", compiler="c", flags=("-n",), format="f", hardware="h"
)


def spec(*steps: tuple[str, ...], **programs: Program) -> CompilerSpec:
    return CompilerSpec(programs=programs, source="kernel.c", output="out", steps=steps)


def shell(script: str) -> Compiler:
    found = spec(("{sh}", "-c", script, "{arch}", "{flags}"), sh=Program(package="dash", command="sh"))
    return find_compiler(found, Path("unused"))


def test_a_step_sees_the_source_the_target_and_its_flags(tmp_path: Path) -> None:
    assert shell('cat kernel.c > out; echo "$0 $1" >> out').compile(b"text\n", TARGET, tmp_path) == b"text\nsm_1 -n\n"


def test_a_refusal_quotes_the_first_error_line(tmp_path: Path) -> None:
    with pytest.raises(DoesNotCompile, match=r"^kernel.c:1: error: no$"):
        shell("echo note >&2; echo 'kernel.c:1: error: no' >&2; echo more >&2; exit 1").compile(b"", TARGET, tmp_path)


def test_a_compiler_that_makes_nothing_has_failed(tmp_path: Path) -> None:
    with pytest.raises(DoesNotCompile, match="made no out"):
        shell("exit 0").compile(b"", TARGET, tmp_path)


def test_the_version_names_every_package(tmp_path: Path) -> None:
    if package_version("dash") is None:
        pytest.skip("no Debian host")
    found = find_compiler(spec(sh=Program(package="dash", command="sh"), libc=Program(package="libc6")), tmp_path)
    assert found.version == f"dash {package_version('dash')}, libc6 {package_version('libc6')}"


def test_a_program_that_is_missing_names_its_package(tmp_path: Path) -> None:
    with pytest.raises(InfraError, match=r"no-such-cc is not installed \(Debian package nothing\)"):
        find_compiler(spec(cc=Program(package="nothing", command="no-such-cc")), tmp_path)


def test_a_wheel_whose_digest_is_another_is_not_taken(tmp_path: Path) -> None:
    program = Program(wheel="six==1.16.0", sha256="0" * 64, file="six.py")
    with pytest.raises(InfraError, match=r"pip could not download six==1\.16\.0"):
        find_compiler(spec(six=program), tmp_path)
    assert not list(tmp_path.rglob("six.py"))
