"""Runs a host program: argument vector, deadline, and errors of ours instead of Python's."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import InfraError

_SBIN = ("/usr/sbin", "/sbin")
_SETPRIV = shutil.which("setpriv")
_running: set[subprocess.Popen[bytes]] = set()


def run(
    argv: Sequence[str | Path], *, timeout: float, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run ``argv`` in the C locale with ``env`` added, and return it whatever its exit status.

    Raises:
        InfraError: the program is not installed, or it ran longer than ``timeout`` seconds (it is killed then).
    """
    words, environment = _prepared(argv, env)
    name = Path(str(argv[0])).name
    pipe = subprocess.PIPE
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=environment, cwd=cwd
    ) as process:
        _running.add(process)
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise InfraError(f"{name} did not finish within {timeout:.0f} s: {' '.join(map(str, argv[:4]))}") from error
        finally:
            process.kill()  # nothing but a time-out or an interrupt comes here with the process alive
            _running.discard(process)
    return subprocess.CompletedProcess(words, process.returncode, stdout, stderr)


def start(argv: Sequence[str | Path]) -> subprocess.Popen[bytes]:
    """Start ``argv`` and return it while it runs: its output, both streams as one, is the caller's to read.

    Its input stays open and empty: a program that ends with its input goes on. The caller ends it.

    Raises:
        InfraError: the program is not installed.
    """
    words, environment = _prepared(argv, None)
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, env=environment)


def _prepared(argv: Sequence[str | Path], env: Mapping[str, str] | None) -> tuple[list[str], dict[str, str]]:
    words = [str(word) for word in argv]
    # depmod lives in sbin, which a user's PATH lacks on Debian.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SBIN])
    environment = {**os.environ, "LC_ALL": "C", "PATH": path, **(env or {})}
    if shutil.which(words[0], path=path) is None:
        raise InfraError(f"{words[0]} is not installed on this host")
    if _SETPRIV:
        # Whatever kills this process, its children go with it: none is left to be found.
        words = [_SETPRIV, "--pdeathsig", "KILL", *words]
    return words, environment


def kill_all() -> None:
    """Kill every program that :func:`run` waits for in any thread; each caller sees it fail."""
    for process in list(_running):
        process.kill()


def must(
    argv: Sequence[str | Path], *, timeout: float, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> bytes:
    """Run ``argv`` and return its standard output.

    Raises:
        InfraError: as :func:`run`, or the program returned non-zero; its last line of error output is quoted.
    """
    done = run(argv, timeout=timeout, env=env, cwd=cwd)
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no error output")
        raise InfraError(f"{argv[0]} returned {done.returncode}: {last[:300]}")
    return done.stdout
