"""What the control groups of a process leave it of the host's memory."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.suites.build import compile_cxx, find_compiler

ASK = """#include <cstdio>
#include "hostmem.h"
int main(int, char **words) { std::printf("%llu", (unsigned long long)gt::cgroup_room(words[1], words[2])); }
"""
UNLIMITED = 2**64 - 1


@pytest.fixture(scope="module")
def program(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostmem")
    root = sources.resolve() / "host"
    (folder / "ask.cpp").write_text(ASK)
    arguments = ["-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror", f"-I{root}", "ask.cpp", str(root / "hostmem.cpp")]
    compile_cxx(find_compiler(), [*arguments, "-o", "ask"], cwd=folder)
    return folder / "ask"


def room(program: Path, mount: Path, membership: str) -> int:
    done = subprocess.run([str(program), membership, str(mount)], capture_output=True, text=True, check=True)
    return int(done.stdout)


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"memory.{name}").write_text(text + "\n")


def test_the_tightest_group_from_the_own_one_to_the_root_counts(program: Path, tmp_path: Path) -> None:
    group(tmp_path / "a/b/c", max="max", current="100")
    group(tmp_path / "a/b", max="1000", current="700", stat="anon 500\ninactive_file 200")
    group(tmp_path / "a", max="2000", current="1900")
    assert room(program, tmp_path, "0::/a/b/c\n") == 100
    group(tmp_path / "a", max="5000", current="1900")
    assert room(program, tmp_path / "a", "0::/b/c\n") == 500
    assert room(program, tmp_path / "a/b/c", "0::/\n") == UNLIMITED


def test_the_older_hierarchy_is_read_by_its_own_names(program: Path, tmp_path: Path) -> None:
    files = {"limit_in_bytes": "1000", "usage_in_bytes": "800", "stat": "inactive_file 1\ntotal_inactive_file 50"}
    group(tmp_path / "memory/box", **files)
    group(tmp_path / "memory", limit_in_bytes="9223372036854771712", usage_in_bytes="5000")
    assert room(program, tmp_path, "9:name=systemd:/\n4:cpu,memory:/box\n0::/\n") == 250


def test_a_group_beyond_its_limit_leaves_nothing_and_one_that_cannot_be_seen_has_no_say(
    program: Path, tmp_path: Path
) -> None:
    group(tmp_path / "full", max="1000", current="1100")
    assert room(program, tmp_path, "0::/full\n") == 0
    for membership in ("0::/elsewhere\n", "", "0::\n", "nonsense", "4:memory:/gone\n"):
        assert room(program, tmp_path, membership) == UNLIMITED
