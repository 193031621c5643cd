from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.errors import InfraError, UserError
from harness.suites import build
from harness.suites.build import MACHINES, build_runner, find_compiler


def test_the_directory_is_ready_to_be_copied_into_a_guest(built: Path) -> None:
    assert (built / "bin" / "gtrun").stat().st_mode & 0o777 == 0o755
    assert (built / "kernels" / "gt_lang.h").is_file()
    assert (built / "tests" / "triad" / "test.yaml").is_file()
    assert not (built / "fakes").exists()
    assert built.stat().st_mode & 0o777 == 0o755


def test_the_runner_starts_on_an_old_c_library(built: Path) -> None:
    if "ziglang" not in find_compiler():
        pytest.skip("ziglang is not installed: the runner is built for this host's C library")
    dump = shutil.which("objdump")
    if dump is None:
        pytest.skip("no objdump on this host (Debian package: binutils)")
    symbols = subprocess.run([dump, "-T", built / "bin/gtrun"], capture_output=True, check=True, text=True).stdout
    versions = {
        tuple(map(int, word.split("_")[1].strip(")").split("."))) for word in symbols.split() if "GLIBC_" in word
    }
    assert versions
    assert max(versions) <= (2, 17)
    assert "GLIBCXX" not in symbols


def test_the_same_sources_give_the_same_bytes_anywhere(tiny: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(tiny, copy)
    first, second = build_runner(tiny, tmp_path / "one"), build_runner(copy, tmp_path / "two")
    assert first.name == second.name
    assert (first / "bin/gtrun").read_bytes() == (second / "bin/gtrun").read_bytes()


def test_a_second_build_compiles_nothing_and_leaves_nothing_behind(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build_runner(tiny, tmp_path / "out")

    def never(*_: object, **__: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(build, "compile_cxx", never)
    assert build_runner(tiny, tmp_path / "out") == first
    assert list((tmp_path / "out").iterdir()) == [first]


@pytest.mark.parametrize("changed", ["host/gtrun.cpp", "kernels/a.inc"])
def test_a_changed_source_is_another_directory(tiny: Path, tmp_path: Path, changed: str) -> None:
    before = build_runner(tiny, tmp_path / "out")
    with (tiny / changed).open("a") as file:
        file.write("\n")
    after = build_runner(tiny, tmp_path / "out")
    assert before != after
    assert before.is_dir()


def test_sources_that_do_not_compile_are_told_in_one_line(tiny: Path, tmp_path: Path) -> None:
    (tiny / "host" / "gtrun.cpp").write_text("int main() { return nonsense; }\n")
    with pytest.raises(UserError, match=r"do not compile: .*nonsense") as caught:
        build_runner(tiny, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_what_is_no_directory_of_compute_tests_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lacks host/gtrun"):
        build_runner(tmp_path, tmp_path / "out")
    shutil.rmtree(tiny / "kernels")
    with pytest.raises(UserError, match="lacks kernels"):
        build_runner(tiny, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("machine", "number"), [("x86_64", 62), ("aarch64", 183)])
def test_there_is_a_runner_for_each_architecture(machine: str, number: int, sources: Path, cache: Path) -> None:
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("ziglang is not installed: only this host's architecture can be built for")
    runner = (build_runner(sources, cache, machine=machine) / "bin/gtrun").read_bytes()
    assert runner[:4] == b"\x7fELF"
    assert int.from_bytes(runner[18:20], "little") == number  # e_machine


def test_an_architecture_that_nobody_has_is_refused_in_one_line(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="for x86_64 and aarch64, not for vax"):
        build_runner(tiny, tmp_path / "out", machine="vax")


def test_without_zig_the_hosts_compiler_is_used_and_without_any_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}" if name == "c++" else None)
    assert find_compiler() == ["c++", "-static-libstdc++", "-static-libgcc"]
    other = next(machine for machine in MACHINES if machine != platform.machine())
    with pytest.raises(InfraError, match=f"a runner for {other} takes zig"):
        find_compiler(other)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(InfraError, match="no C\\+\\+ compiler"):
        find_compiler()
