"""Runs a test of the user's own: brings its folder to the machine, starts its program there, reads its report."""

from __future__ import annotations

import io
import re
import shlex
import tarfile
from pathlib import Path

from harness.errors import UserError
from harness.model.outcome import Outcome, summarise
from harness.model.records import Kind, TestResult
from harness.model.shell import Completed, Shell
from harness.suites.formats import FORMATS, Case, Unreadable
from harness.suites.judge import judge, violent_end
from harness.suites.manifest import EXIT, WIRE, Program, TestSpec
from harness.suites.wire import Wire, parse

OUTPUT_LIMIT = 1 << 20
"""Bytes kept of each output stream; a test writes some tens of kilobytes."""
REPORT_LIMIT = 8 << 20
"""Bytes of a report that a program writes to a file or, where its format is not ours, to standard output."""
FOLDER_LIMIT = 256 << 20
"""Bytes of a test's folder: it travels through SSH into the memory of a machine."""
SKIP, BROKEN = 77, 99
"""Exit statuses with which programs say that they do not apply, or broke themselves (GNU Automake's test protocol)."""

# A new folder for each execution, with a name that nobody can foretell: on this very machine others may be at home.
_BRING = 'place=$(mktemp -d "${TMPDIR:-/tmp}/kdmatrix-own-XXXXXX") && tar -x -C "$place" && printf %s "$place"'
_RUN = 'cd -- "$1" && shift && exec env "$@"'
_REPORT = 'exec head -c "$2" -- "$1"'
_PLACE = re.compile(rb"/[^\0\n]{1,200}/kdmatrix-own-[A-Za-z0-9]{6}")
_TRANSFER_SECONDS = 300.0


def run_program(
    shell: Shell, test: TestSpec, program: Program, *, backend: str, timeout: float
) -> tuple[list[TestResult], bytes]:
    """Run the program and return (results, raw output for the evidence).

    The program is told where it is by its environment: ``KDMATRIX_BACKEND``, ``KDMATRIX_BUDGET`` (seconds that it
    should spend) and ``KDMATRIX_TIMEOUT`` (seconds after which it is killed). Nothing that the machine does raises.

    Raises:
        UserError: the folder cannot be read, or is too large.

    """
    archive = packed(program.folder)
    patience = max(timeout, _TRANSFER_SECONDS)
    brought = shell.run(["sh", "-c", _BRING], timeout=patience, stdin=archive, limit=4096)
    if not brought.ok or not _PLACE.fullmatch(brought.stdout):
        reason = f"its folder could not be brought to the machine: {_last_line(brought.stderr) or 'no answer'}"
        return [_result(test, Outcome.MISS, reason, brought.seconds, backend)], brought.stderr
    place = brought.stdout.decode("utf-8", "surrogateescape")
    argv = ["sh", "-c", _RUN, "sh", place, *environment(test, backend=backend, timeout=timeout), *program.run]
    limit = OUTPUT_LIMIT if program.format in (WIRE, EXIT) else REPORT_LIMIT
    completed = shell.run(argv, timeout=timeout, limit=limit)
    report, raw = completed.stdout, raw_output(list(program.run), completed)
    if program.output and not completed.lost:
        asked = ["sh", "-c", _REPORT, "sh", f"{place}/{program.output}", str(REPORT_LIMIT + 1)]
        fetched = shell.run(asked, timeout=_TRANSFER_SECONDS, limit=REPORT_LIMIT + 1)
        report = fetched.stdout if fetched.ok else b""
        raw += f"\n--- {program.output} ---\n".encode() + report
    if not completed.lost:
        shell.run(["rm", "-rf", "--", place], timeout=_TRANSFER_SECONDS)
    return judge_program(test, program, completed, report, backend=backend, timeout=timeout), raw


def environment(test: TestSpec, *, backend: str, timeout: float) -> list[str]:
    """Return what the program is told, as ``NAME=VALUE``."""
    return [f"KDMATRIX_BACKEND={backend}", f"KDMATRIX_BUDGET={test.budget:g}", f"KDMATRIX_TIMEOUT={timeout:g}"]


def packed(folder: Path) -> bytes:
    """A folder as a tar archive in which everything belongs to root; links are followed, so it stands on its own.

    Raises:
        UserError: it cannot be read, or is larger than FOLDER_LIMIT.

    """
    archive = io.BytesIO()
    size = 0
    try:
        with tarfile.open(fileobj=archive, mode="w", dereference=True) as tar:
            for path in sorted(folder.rglob("*")):
                if not path.is_file() and not path.is_dir():
                    continue
                size += path.stat().st_size if path.is_file() else 0
                if size > FOLDER_LIMIT:
                    raise UserError(
                        f"{folder}: is larger than {FOLDER_LIMIT >> 20} MiB, which a test's folder may have"
                    )
                tar.add(path, arcname=path.relative_to(folder).as_posix(), recursive=False, filter=_of_root)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error.strerror or error}") from error
    return archive.getvalue()


def judge_program(
    test: TestSpec, program: Program, completed: Completed, report: bytes, *, backend: str, timeout: float
) -> list[TestResult]:
    """From what a program left to results: one for the program, before it one for each case that it reported.

    An exit status that contradicts the report is an ERROR: one of the two is wrong. Pure.
    """
    if program.format == WIRE:
        return judge(test, completed, parse(report), backend=backend, timeout=timeout)
    seconds, kind = completed.seconds, program.kind
    ended = violent_end(completed, Wire(), timeout)
    if ended is not None:
        return [_result(test, *ended, seconds, backend, kind)]
    status = completed.exit_status
    if program.format == EXIT:
        return [_result(test, *_by_status(completed, (SKIP,)), seconds, backend, kind)]
    reader = FORMATS[program.format]
    if len(report) > REPORT_LIMIT or completed.truncated:
        reason = f"its report is longer than {REPORT_LIMIT >> 20} MiB"
        return [_result(test, Outcome.ERROR, reason, seconds, backend, kind)]
    try:
        cases = reader.read(report)
    except Unreadable as error:
        # A program that could not start, or that does not apply, has no report; its status says which.
        outcome, reason = _by_status(completed, (SKIP, *reader.skip_statuses))
        if outcome not in (Outcome.SKIP, Outcome.ERROR):
            outcome, reason = Outcome.ERROR, f"its report ({reader.title}) is unreadable: {error}"
            if status:
                reason += f"; it returned {status}: {_last_line(completed.stderr) or 'no error output'}"
        return [_result(test, outcome, reason, seconds, backend, kind)]
    return [
        *(_of_case(test, case, backend, kind) for case in cases),
        _whole(test, cases, status, seconds, backend, kind),
    ]


def raw_output(argv: list[str], completed: Completed) -> bytes:
    """Put everything that was seen into one file: the command, both streams as they came, and how it ended."""
    if completed.lost:
        ended = "the connection broke"
    elif completed.timed_out:
        ended = "timed out"
    else:
        ended = f"exit status {completed.exit_status}"
    cut = ", output cut" if completed.truncated else ""
    return b"".join(
        [
            f"$ {shlex.join(argv)}\n".encode(),
            completed.stdout,
            b"\n--- stderr ---\n" if completed.stderr else b"",
            completed.stderr,
            f"\n--- {ended} after {completed.seconds:.3f} s{cut} ---\n".encode(),
        ]
    )


def _by_status(completed: Completed, skips: tuple[int, ...]) -> tuple[Outcome, str]:
    status, words = completed.exit_status, _last_line(completed.stderr) or _last_line(completed.stdout)
    if status == 0:
        return Outcome.PASS, ""
    if status in skips:
        return Outcome.SKIP, words or f"it does not apply here (exit status {status})"
    if status in (BROKEN, 126, 127):
        what = "the program could not be started" if status != BROKEN else "the test itself broke"
        return Outcome.ERROR, f"{what} (exit status {status}){f': {words}' if words else ''}"
    return Outcome.FAIL, f"returned {status}{f': {words}' if words else ''}"


def _whole(
    test: TestSpec, cases: list[Case], status: int | None, seconds: float, backend: str, kind: Kind
) -> TestResult:
    """The result of the program as a whole."""
    outcome = summarise(case.outcome for case in cases) if cases else Outcome.ERROR
    counted = {one: sum(case.outcome is one for case in cases) for one in dict.fromkeys(case.outcome for case in cases)}
    reason = ", ".join(f"{count} {one}" for one, count in counted.items())
    if not cases:
        reason = "its report has no case"
    elif outcome in (Outcome.FAIL, Outcome.ERROR):
        worst = next(case for case in cases if case.outcome is outcome)
        reason = f"{worst.name}: {worst.reason or 'failed'} ({reason})"
    elif status not in (0, SKIP):
        outcome, reason = Outcome.ERROR, f"no case of its report failed and yet it returned {status}"
    if outcome is Outcome.PASS:
        reason = ""
    return _result(test, outcome, reason, seconds, backend, kind, cases=len(cases))


def _of_case(test: TestSpec, case: Case, backend: str, kind: Kind) -> TestResult:
    details: dict[str, str | int | float | bool] = {"backend": backend, **case.details}
    return TestResult(
        name=f"{test.name}/{case.name}",
        stage=test.stage,
        outcome=case.outcome,
        reason=case.reason,
        kind=kind,
        metrics=case.metrics,
        details=details,
    )


def _result(
    test: TestSpec,
    outcome: Outcome,
    reason: str,
    seconds: float,
    backend: str,
    kind: Kind = "none",
    **details: str | int | float | bool,
) -> TestResult:
    more: dict[str, str | int | float | bool] = {"backend": backend, **details}
    return TestResult(test.name, test.stage, outcome, reason, seconds, kind, details=more)


def _last_line(text: bytes) -> str:
    lines = [line.strip() for line in text.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
