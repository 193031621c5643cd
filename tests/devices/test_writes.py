"""Writing to the kernel in a child: its answer is the kernel's, and one that never comes back is left behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.devices.hostwide import HostDirectory, lock
from harness.devices.writes import ChildWrites, Stuck
from harness.errors import InfraError

SLOW = """
import pathlib, sys, time
path, text = sys.argv[1:]
time.sleep(1.5)
pathlib.Path(path).write_text(text)
print("=", end="")
"""
"""A kernel that takes its time."""


@pytest.fixture
def directory(tmp_path: Path) -> HostDirectory:
    return HostDirectory(tmp_path / "leases")


@pytest.fixture
def hold(directory: HostDirectory) -> Iterator[int]:
    with directory.locked():
        handle = directory.hold("0000:01:00.0")
    assert handle is not None
    yield handle
    os.close(handle)


def free(directory: HostDirectory) -> bool:
    """Whether another could take the lock of the device now."""
    with (directory.path / "0000:01:00.0.hold").open("rb") as stream:
        return lock(stream.fileno())


def test_text_is_written_as_it_is_and_read_without_blanks(tmp_path: Path, hold: int) -> None:
    file = tmp_path / "driver_override"
    file.touch()
    writes = ChildWrites()
    writes.write(file, "vfio-pci", timeout=10, hold=hold)
    assert file.read_bytes() == b"vfio-pci"
    file.write_text("nouveau \n")
    assert writes.read(file, timeout=10, hold=hold) == "nouveau"


def test_an_empty_text_clears_an_attribute_with_a_line_feed(tmp_path: Path, hold: int) -> None:
    file = tmp_path / "driver_override"
    file.touch()
    ChildWrites().write(file, "", timeout=10, hold=hold)
    assert file.read_bytes() == b"\n"


def test_a_refusal_has_the_kernels_own_number(tmp_path: Path, hold: int) -> None:
    with pytest.raises(OSError, match="No such file") as caught:
        ChildWrites().write(tmp_path / "none", "1", timeout=10, hold=hold)
    assert caught.value.errno == errno.ENOENT
    assert not (tmp_path / "none").exists(), "a file of sysfs that is not there is not made"
    with pytest.raises(OSError, match="No space left") as caught:
        ChildWrites().write(Path("/dev/full"), "1", timeout=10, hold=hold)
    assert caught.value.errno == errno.ENOSPC


def test_numbers_that_no_exit_status_can_hold_arrive_whole(tmp_path: Path, hold: int) -> None:
    writes = ChildWrites((sys.executable, "-c", "print(524, end='')"))  # ENOTSUPP, which the kernel lets slip out
    with pytest.raises(OSError) as caught:  # noqa: PT011  the number is asserted
        writes.write(tmp_path / "x", "1", timeout=10, hold=hold)
    assert caught.value.errno == 524


def test_a_child_that_dies_without_an_answer_is_no_success(tmp_path: Path, hold: int) -> None:
    writes = ChildWrites((sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"))
    with pytest.raises(InfraError, match=r"ended without an answer \(exit status -9\)"):
        writes.write(tmp_path / "x", "1", timeout=10, hold=hold)


def test_a_write_that_does_not_come_back_is_given_up(tmp_path: Path, directory: HostDirectory, hold: int) -> None:
    writes = ChildWrites((sys.executable, "-c", "import time; time.sleep(600)"))
    started = time.monotonic()
    with pytest.raises(Stuck, match=r"the write to .*/unbind did not come back for 0.4 s and was killed then"):
        writes.write(tmp_path / "unbind", "1", timeout=0.4, hold=hold)
    assert time.monotonic() - started < 5


def test_one_that_cannot_even_be_killed_keeps_the_device_and_blocks_nobody(
    tmp_path: Path, directory: HostDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What state D looks like from outside: the signal is sent, and nothing happens until the kernel is done.
    monkeypatch.setattr(subprocess.Popen, "kill", lambda _process: None)
    with directory.locked():
        hold = directory.hold("0000:01:00.0")
    assert hold is not None
    writes = ChildWrites((sys.executable, "-c", SLOW))
    with pytest.raises(Stuck, match="waits in the kernel as pid"):
        writes.write(tmp_path / "unbind", "x", timeout=0.1, hold=hold)
    with pytest.raises(Stuck, match=r"the write to .*/unbind still waits in the kernel"):
        writes.write(tmp_path / "driver_override", "y", timeout=0.1, hold=hold)
    os.close(hold)
    assert not free(directory), "the child still has the lock"
    deadline = time.monotonic() + 20
    while not free(directory) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert free(directory)
    assert (tmp_path / "unbind").read_text() == "x", "and did what it was told in the end"
    assert not (tmp_path / "driver_override").exists()


def test_after_an_interrupt_nothing_is_done_before_the_interrupted_write_is_over(
    tmp_path: Path, hold: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "unbind"
    writes = ChildWrites((sys.executable, "-c", SLOW))
    communicate = subprocess.Popen.communicate

    def interrupted(process: subprocess.Popen[bytes], *_args: object, **_more: object) -> None:
        monkeypatch.setattr(subprocess.Popen, "communicate", communicate)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        writes.write(file, "first", timeout=20, hold=hold)
    assert not file.exists()
    writes.write(file, "second", timeout=20, hold=hold)
    assert file.read_text() == "second", "the first came before it, not after"


def test_an_interrupt_at_the_terminal_does_not_reach_the_child(tmp_path: Path, hold: int) -> None:
    writes = ChildWrites((sys.executable, "-c", "import os; print('=', os.getsid(0) == os.getpid(), end='', sep='')"))
    assert writes.read(tmp_path / "x", timeout=10, hold=hold) == "True"


def test_a_module_that_is_not_there_is_no_such_file(hold: int) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011  the number is asserted
        ChildWrites().load("kdmatrix-no-such-module", timeout=20, hold=hold)
    assert caught.value.errno == errno.ENOENT
