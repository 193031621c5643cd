"""Tests of the user's own, run by a shell on this host the way a machine's shell runs them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.errors import UserError
from harness.model.outcome import Outcome
from harness.model.records import TestResult
from harness.model.shell import Completed
from harness.suites import programs
from harness.suites.manifest import TestSpec, load_own_tests, load_tests
from harness.suites.programs import judge_program, packed
from harness.suites.run import run_test
from harness.suites.wire import encode

from .conftest import LocalShell

MANIFEST: dict[str, Any] = {
    "schema": 1,
    "name": "mine",
    "title": "What only we have",
    "stage": "compute",
    "run": ["./check"],
    "timeout": 20,
}


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[LocalShell]:
    """This host as a machine; nothing may be left in its temporary folder."""
    place = tmp_path / "machine"
    place.mkdir()
    yield LocalShell({"TMPDIR": str(place)})
    assert list(place.iterdir()) == []


def own(tmp_path: Path, script: str, **changes: Any) -> TestSpec:
    folder = tmp_path / "tests" / "mine"
    folder.mkdir(parents=True)
    (folder / "check").write_text("#!/bin/sh\n" + script)
    (folder / "check").chmod(0o755)
    (folder / "test.yaml").write_text(yaml.safe_dump(MANIFEST | changes))
    return load_own_tests([tmp_path / "tests"], ())["mine"]


def run(shell: LocalShell, spec: TestSpec, timeout: float = 20.0) -> tuple[list[TestResult], bytes]:
    return run_test(shell, spec, backend="opencl", timeout=timeout)


@pytest.mark.parametrize(
    ("script", "outcome", "reason"),
    [
        ("exit 0", Outcome.PASS, ""),
        ("echo 'sum is wrong' >&2; exit 1", Outcome.FAIL, "returned 1: sum is wrong"),
        ("echo 'needs two GPUs'; exit 77", Outcome.SKIP, "needs two GPUs"),
        ("exit 99", Outcome.ERROR, "the test itself broke"),
        ("exec ./nothing", Outcome.ERROR, "could not be started"),
        ("kill -SEGV $$", Outcome.FAIL, "SIGSEGV"),
    ],
)
def test_a_plain_exit_status_decides(
    tmp_path: Path, shell: LocalShell, script: str, outcome: Outcome, reason: str
) -> None:
    (result,), _ = run(shell, own(tmp_path, script))
    assert result.outcome is outcome
    assert reason in result.reason
    assert result.kind == "none"


def test_the_program_finds_its_folder_and_its_settings(tmp_path: Path, shell: LocalShell) -> None:
    spec = own(tmp_path, 'test -f data/input && test "$KDMATRIX_BACKEND $KDMATRIX_BUDGET" = "opencl 3"')
    assert spec.program is not None
    (spec.program.folder / "data").mkdir()
    (spec.program.folder / "data" / "input").write_text("x")
    (result,), raw = run(shell, spec)
    assert result.outcome is Outcome.PASS, raw


def test_a_second_run_finds_a_fresh_folder(tmp_path: Path, shell: LocalShell) -> None:
    spec = own(tmp_path, "test ! -e left && touch left")
    assert [run(shell, spec)[0][0].outcome for _ in range(2)] == [Outcome.PASS, Outcome.PASS]


def test_a_program_that_does_not_end_fails_within_its_time(tmp_path: Path, shell: LocalShell) -> None:
    (result,), _ = run(shell, own(tmp_path, "exec sleep 60"), timeout=1.0)
    assert result.outcome is Outcome.FAIL
    assert "no result within 1 s" in result.reason


def test_each_case_of_a_report_is_a_result_and_the_program_is_one_more(tmp_path: Path, shell: LocalShell) -> None:
    script = "echo 1..2; echo 'ok 1 copy'; echo 'not ok 2 map # -22'; exit 1"
    results, raw = run(shell, own(tmp_path, script, format="ktap"))
    assert [(result.name, result.outcome) for result in results] == [
        ("mine/copy", Outcome.PASS),
        ("mine/map", Outcome.FAIL),
        ("mine", Outcome.FAIL),
    ]
    assert results[-1].reason == "map: -22 (1 PASS, 1 FAIL)"
    assert b"not ok 2 map" in raw


def test_a_report_in_a_file_is_fetched_and_kept(tmp_path: Path, shell: LocalShell) -> None:
    script = "echo '<testsuite><testcase name=\"a\"/></testsuite>' >out.xml"
    results, raw = run(shell, own(tmp_path, script, format="junit", output="out.xml"))
    assert [result.outcome for result in results] == [Outcome.PASS, Outcome.PASS]
    assert b"<testcase" in raw


@pytest.mark.parametrize(
    ("script", "form", "outcome", "reason"),
    [
        ("echo 1..1; echo 'ok 1 a'; exit 3", "ktap", Outcome.ERROR, "no case of its report failed and yet"),
        ("echo nonsense", "ktap", Outcome.ERROR, "unreadable"),
        ("echo 'no driver' >&2; exit 4", "ktap", Outcome.SKIP, "no driver"),
        ("exit 127", "ktap", Outcome.ERROR, "could not be started"),
        ("echo broken >&2; exit 1", "nvbandwidth", Outcome.ERROR, "returned 1: broken"),
        ("echo '<testsuite/>'", "junit", Outcome.ERROR, "no case"),
        ("head -c 9000000 /dev/zero", "junit", Outcome.ERROR, "longer than 8 MiB"),
    ],
)
def test_a_report_that_cannot_be_relied_on_is_never_a_pass(
    tmp_path: Path, shell: LocalShell, script: str, form: str, outcome: Outcome, reason: str
) -> None:
    results, _ = run(shell, own(tmp_path, script, format=form))
    assert results[-1].outcome is outcome
    assert reason in results[-1].reason


def test_a_program_that_speaks_our_wire_is_judged_as_our_own_tests_are(tmp_path: Path, shell: LocalShell) -> None:
    device = {"ev": "device", "index": 0, "kind": "cpu-runtime", "name": "x"}
    check = {"ev": "check", "name": "sum", "kind": "cpu-runtime", "ok": True, "checked": 9, "bad": 0}
    metric = {
        **{"ev": "metric", "name": "copy_bw", "kind": "cpu-runtime", "unit": "B/s", "better": "higher", "value": 2},
        **{"n": 1, "min": 2, "p50": 2, "p95": 2, "max": 2, "samples": [2], "clock": "wall"},
    }
    records = [
        {"ev": "hello", "schema": 1, "build": "mine 1.0", "test": "mine", "backend": "opencl"},
        device,
        check,
        metric,
        {"ev": "result", "status": "pass", "kind": "cpu-runtime", "reason": "", "secs": 1},
    ]
    lines = b"".join(map(encode, records)).decode()
    metrics = [{"name": "copy_bw", "unit": "B/s", "better": "higher"}]
    spec = own(tmp_path, f"cat <<'END'\n{lines}END\n", format="wire", metrics=metrics)
    (result,), _ = run(shell, spec)
    assert (result.outcome, result.kind) == (Outcome.PASS, "cpu-runtime"), result.reason
    assert result.metrics[0].value == 2
    silent = judge_program(spec, spec.program, Completed(0, b"", b"", 1), b"", backend="opencl", timeout=9)  # type: ignore[arg-type]
    assert silent[0].outcome is Outcome.ERROR


def test_a_machine_that_takes_no_folder_is_a_miss(tmp_path: Path) -> None:
    class Full:
        def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"", limit: int = 4 << 20) -> Completed:
            return Completed(2, b"", b"tar: ./check: No space left on device\n", 0.1)

    class Lying(Full):
        def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"", limit: int = 4 << 20) -> Completed:
            return Completed(0, b"/etc", b"", 0.1)

    spec = own(tmp_path, "exit 0")
    (result,), _ = run_test(Full(), spec, backend="opencl", timeout=9)
    assert result.outcome is Outcome.MISS
    assert "No space left" in result.reason
    assert run_test(Lying(), spec, backend="opencl", timeout=9)[0][0].outcome is Outcome.MISS


def test_a_folder_that_is_too_large_is_told_before_it_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = own(tmp_path, "exit 0")
    monkeypatch.setattr(programs, "FOLDER_LIMIT", 10)
    assert spec.program is not None
    with pytest.raises(UserError, match="is larger than"):
        packed(spec.program.folder)


def test_links_travel_as_what_they_lead_to(tmp_path: Path) -> None:
    spec = own(tmp_path, "exit 0")
    assert spec.program is not None
    (tmp_path / "elsewhere").write_text("content")
    (spec.program.folder / "link").symlink_to(tmp_path / "elsewhere")
    with tarfile.open(fileobj=io.BytesIO(packed(spec.program.folder))) as tar:
        member = tar.getmember("link")
        assert member.isfile()
        assert (member.uid, member.uname) == (0, "root")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run": []}, "run must be a list of texts"),
        ({"run": ["./chek"]}, "run names './chek', which does not lie in the folder"),
        ({"run": ["./test.yaml"]}, "not executable; chmod +x it"),
        ({"format": "junti"}, "did you mean 'junit'?"),
        ({"output": "/etc/passwd", "format": "junit"}, "output must be a file of the folder"),
        ({"output": "../x", "format": "junit"}, "output must be a file of the folder"),
        ({"output": "x"}, "'exit' has no report"),
        ({"kind": "fake"}, "kind 'fake' is not known"),
        ({"argv": ["run"]}, "unknown key 'argv'"),
        ({"metrics": [{"name": "a", "unit": "s", "better": "lower"}]}, "metrics are promised by a test of the format"),
    ],
)
def test_a_wrong_manifest_of_an_own_test_is_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        own(tmp_path, "exit 0", **change)
    assert message in str(caught.value)
    assert "mine/test.yaml: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_that_is_taken_and_a_folder_without_tests_are_refused(tmp_path: Path, sources: Path) -> None:
    own(tmp_path, "exit 0")
    with pytest.raises(UserError, match="another name"):
        load_own_tests([tmp_path / "tests"], ["mine"])
    with pytest.raises(UserError, match="another name"):
        load_own_tests([tmp_path / "tests", tmp_path / "tests"], load_tests(sources))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no test"):
        load_own_tests([tmp_path / "empty"], ())
