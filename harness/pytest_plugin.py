"""A pytest plugin: ``pytest --kdmatrix CELL`` boots a cell of a matrix and gives tests a ``guest`` fixture in it.

Installed with the package (entry point ``pytest11``), so it must cost nothing where the option is not given: what it
needs is imported when a cell is booted.
"""

from __future__ import annotations

import io
import re
import tarfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.machines.guest import Guest
    from harness.model.kmsg import KernelMessage

_FILE_LIMIT = 256 << 20
"""Bytes of a file or folder that is copied: it passes through memory."""
_OUTPUT_LIMIT = 16 << 20
_COPY_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that ended in the guest. Output is text of an untrusted machine, at most 16 MiB of each stream."""

    status: int
    stdout: str
    stderr: str
    seconds: float


class CellGuest:
    """The guest of a booted cell, as tests use it. Paths in the guest are texts, paths of this host are Paths."""

    def __init__(self, guest: Guest, cell_id: str, release: str, scale: float) -> None:
        self._guest = guest
        self._expected: list[re.Pattern[str]] = []
        self._messages: list[KernelMessage] = []
        self.cell = cell_id
        """The cell's id."""
        self.release = release
        """What ``uname -r`` says in the guest."""
        self.scale = scale
        """How much slower this machine is than hardware: time-outs are multiplied by it."""

    def run(self, *argv: str, timeout: float = 60.0, check: bool = True, stdin: bytes = b"") -> Ran:
        """Run an argument vector (no shell) and return what it left.

        ``timeout`` is in seconds on hardware. With ``check``, an exit status other than 0 fails the test, with the
        command's last words. A time-out fails it always, and a guest that dies fails it with what its console said.
        """
        done = self._guest.run(list(argv), timeout=timeout * self.scale, stdin=stdin, limit=_OUTPUT_LIMIT)
        self._guest.check(done)
        if done.timed_out or done.exit_status is None:
            pytest.fail(f"{argv[0]} in the guest did not end within {timeout * self.scale:.0f} s", pytrace=False)
        out, err = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
        if check and done.exit_status != 0:
            words = (err.strip() or out.strip() or "no output")[-2000:]
            pytest.fail(f"{' '.join(argv)} in the guest returned {done.exit_status}:\n{words}", pytrace=False)
        return Ran(done.exit_status, out, err, done.seconds)

    def put(self, source: Path | bytes, target: str, *, executable: bool = False) -> None:
        """Copy bytes, a file, or a folder with all that is in it, to ``target`` in the guest."""
        if isinstance(source, Path) and source.is_dir():
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w", dereference=True) as tar:
                tar.add(source, arcname=".")
            script, content = 'mkdir -p -- "$1" && exec tar -x --no-same-owner -C "$1"', packed.getvalue()
        else:
            content = source.read_bytes() if isinstance(source, Path) else source
            executable = executable or (isinstance(source, Path) and bool(source.stat().st_mode & 0o100))
            script = f'cat >"$1" && chmod {"755" if executable else "644"} "$1"'
        if len(content) > _FILE_LIMIT:
            raise ValueError(f"{source!r:.100} is larger than {_FILE_LIMIT >> 20} MiB")
        self.run("sh", "-c", script, "sh", target, timeout=_COPY_SECONDS, stdin=content)

    def get(self, source: str, target: Path | None = None) -> bytes:
        """Return the bytes of a file of the guest, and write them to ``target`` where one is given."""
        done = self._guest.run(["cat", "--", source], timeout=_COPY_SECONDS * self.scale, limit=_FILE_LIMIT)
        self._guest.check(done)
        if not done.ok or done.truncated:
            why = "is too large" if done.truncated else done.stderr.decode("utf-8", "replace").strip()[-200:]
            pytest.fail(f"{source} of the guest: {why or 'cannot be read'}", pytrace=False)
        if target is not None:
            target.write_bytes(done.stdout)
        return done.stdout

    def dmesg(self) -> tuple[str, ...]:
        """What the kernel has said since the test began, each message with its time."""
        self._look()
        return tuple(message.line() for message in self._messages)

    def expects(self, pattern: str) -> None:
        """Say that the test provokes kernel messages that this regular expression is found in."""
        self._expected.append(re.compile(pattern))

    def begin(self) -> None:
        """Forget what was before: a test begins."""
        self._look()
        self._messages.clear()
        self._expected.clear()

    def complaint(self) -> str:
        """What the kernel complained of since the test began, other than what the test expects; empty if nothing."""
        from harness.machines.kmsg import complaints

        self._look()
        for message in complaints(tuple(self._messages)):
            if not any(pattern.search(message.text) for pattern in self._expected):
                return message.text[:300]
        return ""

    def _look(self) -> None:
        self._messages += self._guest.change().messages


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--kdmatrix`` and ``--kdmatrix-file``."""
    group = parser.getgroup("kdmatrix", "tests in a booted cell of a kernel/driver matrix")
    group.addoption(
        "--kdmatrix", metavar="CELL", help="boot this cell (an id, or a part that only one cell has) for `guest`"
    )
    group.addoption("--kdmatrix-file", metavar="FILE", help="matrix file of the cell; the default matrix if not given")


@pytest.fixture(scope="session")
def kdmatrix_guest(request: pytest.FixtureRequest) -> Iterator[CellGuest]:
    """The guest of the cell that ``--kdmatrix`` names, booted once, its stack loaded."""
    wanted = request.config.getoption("--kdmatrix")
    if not wanted:
        pytest.skip("needs a booted cell: pytest --kdmatrix CELL")
    with ExitStack() as stack:
        yield _boot(stack, str(wanted), request.config.getoption("--kdmatrix-file"))


@pytest.fixture
def guest(kdmatrix_guest: CellGuest) -> Iterator[CellGuest]:
    """The booted guest; a kernel that complained while the test ran fails it, unless the test expects the message."""
    kdmatrix_guest.begin()
    yield kdmatrix_guest
    complaint = kdmatrix_guest.complaint()
    if complaint:
        pytest.fail(f"the kernel complained during the test: {complaint}", pytrace=False)


def _boot(stack: ExitStack, wanted: str, file: str | None) -> CellGuest:
    from harness.errors import KdmatrixError, UserError
    from harness.lab import Lab
    from harness.model.select import pick_cell
    from harness.planning import choose
    from harness.run import hold

    lab = Lab.open()
    try:
        chosen = choose(lab, Path(file) if file else None, preset=None, expression=None)
        cell = pick_cell(chosen.cells, wanted)
        booted, scale = stack.enter_context(hold(lab, cell, chosen.matrix.limits, _note))
    except UserError as error:
        raise pytest.UsageError(str(error)) from None
    except KdmatrixError as error:
        pytest.fail(f"no guest: {error}", pytrace=False)
    release = booted.must(["uname", "-r"], timeout=60).strip()
    return CellGuest(booted, cell.id, release, scale)


def _note(text: str) -> None:
    warnings.warn(f"kdmatrix: {text}", pytest.PytestWarning, stacklevel=2)
