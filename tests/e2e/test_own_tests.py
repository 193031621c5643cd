"""Tests of the user's own: programs in a folder that a cell runs, and Python tests against a booted cell."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from harness.model.outcome import Outcome

from .installation import Installation, Running

pytestmark = [pytest.mark.vm, pytest.mark.xdist_group("e2e"), pytest.mark.timeout(900)]

MATRIX = """
version: 1
kernels: [{name: lts-6.12, series: longterm, debian: trixie}]
guests: [debian-13]
stacks: [cpu-opencl]
tests: [enumerate, selftest, checked, status]
"""
PLAIN = MATRIX.replace("[enumerate, selftest, checked, status]", "[enumerate]")
OPENCL = "debian-13/lts-6.12/cpu-opencl/none"

PROGRAMS = {
    "selftest": (
        {"format": "ktap", "run": ["./run", "one"]},
        'echo "KTAP version 1"; echo 1..2; echo "ok 1 $1 on $KDMATRIX_BACKEND"; echo "ok 2 peer # SKIP one device"',
    ),
    "checked": (
        {"format": "junit", "run": ["./run"], "output": "out/report.xml"},
        "mkdir out; echo \"<testsuite><testcase name='$(uname -r)'/></testsuite>\" >out/report.xml",
    ),
    "status": (
        {"run": ["./run"], "backends": ["opencl"]},
        "cat data/expected; grep -q 'Debian GNU/Linux' /etc/os-release",
    ),
}

PYTEST = """
import pytest


def test_the_kernel_is_the_cells(guest):
    assert guest.run("uname", "-r").stdout.strip() == guest.release
    assert guest.release.startswith("6.12.")
    assert guest.cell == "debian-13/lts-6.12/cpu-opencl/none"


def test_files_go_there_and_back(guest, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "script").write_text("#!/bin/sh\\necho \\"$1\\" >out\\n")
    (tmp_path / "folder" / "script").chmod(0o755)
    guest.put(tmp_path / "folder", "/tmp/there")
    guest.run("sh", "-c", "cd /tmp/there && ./script 'it came'")
    assert guest.get("/tmp/there/out", tmp_path / "back") == b"it came\\n"
    guest.put(b"\\x00\\xff" * 100_000, "/tmp/bytes")
    assert guest.get("/tmp/bytes") == b"\\x00\\xff" * 100_000


def test_the_kernels_words_of_this_test_are_at_hand(guest):
    guest.run("sh", "-c", "echo 'kdmatrix: a word' >/dev/kmsg")
    assert [line for line in guest.dmesg() if "a word" in line]


def test_words_of_the_test_before_are_not(guest):
    assert not [line for line in guest.dmesg() if "a word" in line]


def test_a_command_that_fails_fails_the_test(guest):
    guest.run("sh", "-c", "echo why >&2; exit 3")


def test_unless_the_test_looks_itself(guest):
    assert guest.run("false", check=False).status == 1


def test_a_command_that_does_not_end_fails_the_test(guest):
    guest.run("sleep", "600", timeout=0.5)
"""


@pytest.fixture(scope="module")
def run(module_installation: Installation) -> Running:
    """One run with tests of the user's own beside a shipped one."""
    for name, (manifest, script) in PROGRAMS.items():
        folder = module_installation.home.own_tests / name
        (folder / "data").mkdir(parents=True)
        (folder / "data" / "expected").write_text("lies beside the program\n")
        common = {"schema": 1, "name": name, "title": f"The user's {name}", "stage": "compute", "timeout": 30}
        (folder / "test.yaml").write_text(yaml.safe_dump({**common, **manifest}))
        (folder / "run").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "run").chmod(0o755)
    return module_installation.run("run", module_installation.matrix(MATRIX))


def test_own_programs_run_in_a_cell_beside_the_shipped_tests(module_installation: Installation, run: Running) -> None:
    assert run.code == 0, run.out + run.err
    (attempt,) = module_installation.stored().attempts
    assert attempt.outcome is Outcome.PASS
    release = attempt.facts["uname_release"]
    seen = {test.name: test.outcome for test in attempt.tests}
    assert (
        seen
        | {
            "enumerate": Outcome.PASS,
            "selftest/one on opencl": Outcome.PASS,
            "selftest/peer": Outcome.SKIP,
            "selftest": Outcome.PASS,
            f"checked/{release}": Outcome.PASS,
            "checked": Outcome.PASS,
            "status": Outcome.PASS,
        }
        == seen
    )
    assert "lies beside the program" in module_installation.evidence(attempt, "opencl-status.txt")
    assert "<testcase" in module_installation.evidence(attempt, "opencl-checked.txt")


def test_the_script_that_reproduces_a_cell_brings_own_tests_along(
    module_installation: Installation, run: Running
) -> None:
    script = module_installation.root / "again.sh"
    assert module_installation.run("repro", OPENCL, "-o", script).code == 0
    assert "own_test " in script.read_text()
    starter = module_installation.root / "starter.py"
    starter.write_text("import subprocess, sys\nsys.exit(subprocess.call(sys.argv[1:]))\n")
    again = module_installation.run(script, program=starter)
    assert again.code == 0, again.out + again.err
    assert "ok 1 one on opencl" in again.out


def test_python_tests_run_against_a_booted_cell(module_installation: Installation, tmp_path: Path) -> None:
    module_installation.matrix(PLAIN, "other.yaml")
    tests = module_installation.root / "test_guest.py"
    tests.write_text(PYTEST)
    starter = module_installation.root / "starter.py"
    starter.write_text("import sys, pytest\nsys.exit(pytest.main(sys.argv[1:]))\n")
    report = tmp_path / "report.xml"
    words = ["-q", "-p", "no:cacheprovider", f"--junit-xml={report}", tests]
    ran = module_installation.run(*words, "--kdmatrix", "cpu-opencl", "--kdmatrix-file", "other.yaml", program=starter)
    cases = {case.get("name"): [child.tag for child in case] for case in ElementTree.parse(report).iter("testcase")}
    failed = {name for name, tags in cases.items() if tags}
    assert failed == {
        "test_a_command_that_fails_fails_the_test",
        "test_a_command_that_does_not_end_fails_the_test",
    }, ran.out + ran.err
    assert len(cases) == 7
    assert "why" in ran.out
    assert module_installation.domains() == []


def test_without_the_option_such_tests_are_skipped_and_a_wrong_cell_is_one_line(
    module_installation: Installation,
) -> None:
    module_installation.matrix(PLAIN)
    tests = module_installation.root / "test_one.py"
    tests.write_text("def test_one(guest):\n    pass\n")
    starter = module_installation.root / "starter.py"
    starter.write_text("import sys, pytest\nsys.exit(pytest.main(sys.argv[1:]))\n")
    without = module_installation.run("-q", "-rs", "-p", "no:cacheprovider", tests, program=starter)
    assert without.code == 0
    assert "pytest --kdmatrix CELL" in without.out
    wrong = module_installation.run("-q", "-p", "no:cacheprovider", "--kdmatrix", "cpu-opncl", tests, program=starter)
    assert wrong.code != 0
    assert "did you mean" in wrong.out + wrong.err
