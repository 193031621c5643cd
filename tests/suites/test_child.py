"""Children of the runner: how each end of a process is told, and that neither its length nor its output has none."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest

from harness.suites.build import compile_cxx, find_compiler

CHECK = Path(__file__).resolve().parent / "child_check.cpp"
UNITS = ("child", "test", "gt_api", "wire", "telemetry", "telemetry_nvml", "pci")


@pytest.fixture(scope="module")
def check(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = sources.resolve()
    program = tmp_path_factory.mktemp("child") / "child_check"
    units = [str(root / "host" / f"{unit}.cpp") for unit in UNITS]
    flags = ["-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror", f"-I{root}", f"-I{root / 'host'}"]
    compile_cxx(find_compiler(), [*flags, str(CHECK), *units, "-o", str(program), "-pthread", "-ldl"], cwd=root)
    return program


def watch(check: Path, what: str, *argv: str) -> tuple[str, dict[str, float], str]:
    """What became of a child: its story, the numbers, and all that was printed."""
    done = subprocess.run([check, what, *argv], capture_output=True, text=True, timeout=60, check=True)
    told = done.stdout.splitlines()
    numbers = {key: float(value) for line in told[-2:] for key, value in re.findall(r"(\w+) (-?[\d.]+)", line)}
    return told[-3], numbers, done.stdout


def python(script: str) -> tuple[str, ...]:
    return (sys.executable, "-c", script)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def test_an_exit_status_is_told_with_the_last_line_of_its_complaint(check: Path) -> None:
    story, ended, _ = watch(check, "wait", "sh", "-c", "echo first >&2; echo the reason >&2; exit 3")
    assert story == "exit status 3: the reason"
    assert (ended["status"], ended["signal"], ended["timed_out"], ended["passed"]) == (3, 0, 0, 0)
    story, ended, _ = watch(check, "wait", "true")
    assert (story, ended["passed"]) == ("exit status 0", 1)
    story, ended, _ = watch(check, "wait", "/no/such/program")
    assert (story, ended["status"]) == ("exit status 127", 127)


def test_a_signal_is_told_by_its_name(check: Path) -> None:
    story, ended, _ = watch(check, "wait", "sh", "-c", "kill -SEGV $$")
    assert story == "killed by SIGSEGV (11)"
    assert (ended["status"], ended["signal"], ended["passed"]) == (-1, 11, 0)


def test_a_child_that_does_not_end_in_time_is_killed_with_all_that_it_started(check: Path, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    story, ended, _ = watch(check, "short", "sh", "-c", f"sleep 50 & echo $! $$ > {pids}; wait")
    assert re.fullmatch(r"no end within 0\.[5-9] s", story)
    assert (ended["timed_out"], ended["signal"], ended["stuck"], ended["passed"]) == (1, 9, 0, 0)
    numbers = [int(word) for word in pids.read_text().split()]
    until = time.monotonic() + 10
    while any(alive(pid) for pid in numbers) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(alive(pid) for pid in numbers)


def test_a_child_that_does_not_die_of_sigterm_dies_of_sigkill(check: Path) -> None:
    deaf = python("import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(50)")
    story, ended, _ = watch(check, "terminate", *deaf)
    assert story.startswith("no end within 1.")
    assert (ended["timed_out"], ended["signal"]) == (1, 9)
    obedient = python("import time; print('ready', flush=True); time.sleep(50)")
    story, ended, _ = watch(check, "terminate", *obedient)
    assert (story, ended["timed_out"]) == ("killed by SIGTERM (15)", 0)


def test_a_child_dies_with_its_parent(check: Path, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    parent = subprocess.Popen([check, "wait", "sh", "-c", f"echo $$ > {pid}; exec sleep 50"], stdout=subprocess.DEVNULL)
    until = time.monotonic() + 10
    while not (pid.exists() and pid.read_text().strip()) and time.monotonic() < until:
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    while alive(int(pid.read_text())) and time.monotonic() < until:
        time.sleep(0.01)
    assert not alive(int(pid.read_text()))


def test_what_a_child_prints_is_bounded_and_its_records_are_kept(check: Path, tmp_path: Path) -> None:
    def record(text: str) -> str:
        return f"@GT1 {text} {zlib.crc32(text.encode()):08x}"

    good = record('{"ev":"check","name":"seen","ok":true}')
    script = tmp_path / "chatter.py"
    script.write_text(
        "import os\n"
        "for _ in range(64): os.write(1, b'x' * (1 << 20)); os.write(2, b'y' * (1 << 20))\n"
        "os.write(1, b'\\n')\n"
        f"for _ in range(9000): os.write(1, b'{good}\\n')\n"
        f"os.write(1, b'{good[:-1]}0\\n')\n"
        "os.write(2, b'\\nlast words\\n')\n"
        "raise SystemExit(1)\n"
    )
    story, ended, _ = watch(check, "wait", sys.executable, str(script))
    assert story == "exit status 1: last words"
    assert ended["records"] == 4096
    assert 0 < ended["mebibytes"] < 20


def test_a_child_that_never_stops_to_print_has_its_deadline_all_the_same(check: Path) -> None:
    for argv in (["yes"], ["sh", "-c", "yes >&2"]):
        story, ended, _ = watch(check, "short", *argv)
        assert re.match(r"no end within 0\.[5-9] s", story)
        assert ended["mebibytes"] < 20


def test_its_output_is_a_pipe_of_words_and_its_input_one_that_ends(check: Path) -> None:
    _, ended, out = watch(check, "said", *python("print('ready'); print('steady')"))
    assert (out.splitlines()[0], ended["status"]) == ("said 1", 0)
    _, _, out = watch(check, "said", "true")
    assert out.splitlines()[0] == "said 0"
    story, ended, _ = watch(check, "release", "sh", "-c", "cat; exit 7")
    assert (story, ended["status"]) == ("exit status 7", 7)


def test_a_child_has_no_file_of_its_parents(check: Path) -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    try:
        done = subprocess.run(
            [check, "wait", "sh", "-c", f"test ! -e /proc/self/fd/{write}"],
            stdout=subprocess.PIPE,
            pass_fds=[write],
            text=True,
            timeout=60,
            check=True,
        )
    finally:
        os.close(read), os.close(write)
    assert done.stdout.startswith("exit status 0")
