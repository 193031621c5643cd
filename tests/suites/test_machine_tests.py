"""What tests of tier 3 do to a machine, against a planted tree of sysfs: whom they ask, and what they write where."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.model.outcome import Outcome
from harness.model.records import TestResult
from harness.model.shell import Completed
from harness.suites.manifest import load_tests
from harness.suites.run import run_test
from harness.suites.wire import parse

from .conftest import LocalShell
from .test_enumerate import plant

OURS, ANOTHER = "0000:f1:00.0", "0000:f2:00.0"
"""Where the first simulated GPU is, which the runner opens, and another device."""
CLOSE_WRITE = 0x8
"""IN_CLOSE_WRITE of inotify(7)."""


class Written:
    """Which files of a tree are written, in order (inotify)."""

    def __init__(self, tree: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._queue = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self._queue >= 0
        self._tree = tree
        self._folders: dict[int, Path] = {}
        for folder, _, _ in os.walk(tree):
            number = self._libc.inotify_add_watch(self._queue, os.fsencode(folder), CLOSE_WRITE)
            assert number >= 0
            self._folders[number] = Path(folder)

    def names(self) -> list[str]:
        data = b""
        while True:
            try:
                data += os.read(self._queue, 65536)
            except BlockingIOError:
                break
        os.close(self._queue)
        out, at = [], 0
        while at < len(data):
            number, _, _, length = struct.unpack_from("iIII", data, at)
            name = data[at + 16 : at + 16 + length].rstrip(b"\0").decode()
            out.append(str((self._folders[number] / name).relative_to(self._tree)))
            at += 16 + length
        return out


@dataclass(frozen=True, slots=True)
class Powerless:
    """The same shell without any capability: root is refused there what others are refused."""

    shell: LocalShell

    def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"", limit: int = 4 << 20) -> Completed:
        drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"] if os.geteuid() == 0 else []
        return self.shell.run([*drop, *argv], timeout=timeout, stdin=stdin, limit=limit)


@dataclass(frozen=True, slots=True)
class Machine:
    """A planted machine with a simulated GPU, whose module another one uses."""

    tree: Path
    programs: Path
    called: Path
    sources: Path
    built: Path
    fake: Path

    @property
    def device(self) -> Path:
        return self.tree / "bus/pci/devices" / OURS

    def shell(self) -> LocalShell:
        path = f"{self.programs}:{os.environ['PATH']}"
        return LocalShell({"GT_LIBRARY": str(self.fake), "GT_FAKE_FAULT": "", "GT_SYSFS": str(self.tree), "PATH": path})

    def run(self, name: str, *, powerless: bool = False) -> tuple[TestResult, list[Mapping[str, object]]]:
        test = load_tests(self.sources)[name]
        shell = Powerless(self.shell()) if powerless else self.shell()
        results, raw = run_test(shell, test, backend="cuda", timeout=120, gpu_tests_dir=str(self.built))
        return results[0], [record.data for record in parse(raw).records]

    def calls(self) -> list[str]:
        return self.called.read_text().splitlines() if self.called.exists() else []


PROGRAM = """#!/bin/sh
echo "$(basename $0) $1" >> {called}
case "$(basename $0) $1" in
"{broken}") echo "$1 is stuck" >&2; exit 1 ;;
"rmmod nvidia") rm {device}/driver ;;
"modprobe nvidia") ln -s {driver} {device}/driver ;;
esac
"""


def _programs(machine: Machine, broken: str = "") -> None:
    for name in ("rmmod", "modprobe"):
        driver = machine.tree / "bus/pci/drivers/nvidia"
        text = PROGRAM.format(called=machine.called, device=machine.device, driver=driver, broken=broken)
        (machine.programs / name).write_text(text)
        (machine.programs / name).chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path, sources: Path, built: Path, fake_cuda: Path) -> Machine:
    tree = plant(tmp_path / "sys", OURS)
    module = tree / "module/nvidia"
    (module / "refcnt").write_text("1\n")
    (module / "holders").mkdir()
    user = tree / "module/nvidia_uvm"
    user.mkdir()
    (user / "refcnt").write_text("0\n")
    (module / "holders/nvidia_uvm").symlink_to(user)
    device = tree / "bus/pci/devices" / OURS
    (tree / "bus/pci/drivers/nvidia" / OURS).symlink_to(device)
    plant(tree, ANOTHER, driver="other")
    for address in (OURS, ANOTHER):
        folder = tree / "bus/pci/devices" / address
        (folder / "reset").write_text("")
        (folder / "reset_method").write_text("flr bus\n")
        (folder / "power").mkdir()
        (folder / "power/control").write_text("on\n")
        (folder / "power/runtime_status").write_text("active\n")
    (tree / "power").mkdir()
    (tree / "power/state").write_text("freeze mem disk\n")
    (tree / "power/mem_sleep").write_text("s2idle [deep]\n")
    (tree / "class/rtc/rtc0").mkdir(parents=True)
    (tree / "class/rtc/rtc0/wakealarm").write_text("")
    (tmp_path / "bin").mkdir()
    made = Machine(tree, tmp_path / "bin", tmp_path / "called", sources, built, fake_cuda)
    _programs(made)
    return made


ROUND = ["rmmod nvidia_uvm", "rmmod nvidia", "modprobe nvidia", "modprobe nvidia_uvm"]


def test_modules_are_removed_users_first_and_loaded_the_other_way_round(machine: Machine) -> None:
    written = Written(machine.tree)
    result, records = machine.run("reload")
    assert result.outcome is Outcome.PASS, result.reason
    assert machine.calls() == ROUND * 5
    assert written.names() == []
    names = [record["name"] for record in records if record["ev"] == "check"]
    assert [name for name in names if str(name).startswith("computes")] == [
        "computes_before",
        *(f"computes_after_{number}" for number in range(1, 6)),
    ]


@pytest.mark.parametrize("broken", ["rmmod nvidia", "modprobe nvidia_uvm"])
def test_a_module_that_does_not_come_or_go_fails_and_all_are_loaded_again(machine: Machine, broken: str) -> None:
    _programs(machine, broken)
    result, _ = machine.run("reload")
    assert result.outcome is Outcome.FAIL
    assert f"{broken} - exit status 1: {broken.split()[1]} is stuck" in result.reason
    assert machine.calls() == ROUND


def test_a_driver_that_does_not_take_its_device_again_fails(machine: Machine) -> None:
    _programs(machine, "modprobe nvidia")
    (machine.programs / "modprobe").write_text("#!/bin/sh\n")
    result, _ = machine.run("reload")
    assert result.outcome is Outcome.FAIL
    assert f"{OURS} has no driver nvidia" in result.reason


@pytest.mark.parametrize("name", ["reload", "reset"])
def test_a_module_in_use_by_somebody_is_left_alone(machine: Machine, name: str) -> None:
    (machine.tree / "module/nvidia_uvm/refcnt").write_text("2\n")
    written = Written(machine.tree)
    result, _ = machine.run(name)
    assert result.outcome is Outcome.SKIP
    assert "the module nvidia_uvm is in use (2 references beside those of other modules)" in result.reason
    assert (machine.calls(), written.names()) == ([], [])


@pytest.mark.parametrize("name", ["reload", "reset"])
def test_a_module_that_drives_another_device_is_left_alone(machine: Machine, name: str) -> None:
    (machine.tree / "bus/pci/drivers/nvidia" / ANOTHER).symlink_to(machine.tree / "bus/pci/devices" / ANOTHER)
    written = Written(machine.tree)
    result, _ = machine.run(name)
    assert result.outcome is Outcome.SKIP
    assert f"the module nvidia drives {ANOTHER}, too" in result.reason
    assert (machine.calls(), written.names()) == ([], [])


def test_a_driver_that_is_built_in_is_not_reloaded(machine: Machine) -> None:
    (machine.tree / "bus/pci/drivers/nvidia/module").unlink()
    result, _ = machine.run("reload")
    assert result.outcome is Outcome.SKIP
    assert "the driver nvidia is no module: it is built into the kernel" in result.reason


def test_the_opened_device_alone_is_reset(machine: Machine) -> None:
    written = Written(machine.tree)
    result, records = machine.run("reset")
    assert result.outcome is Outcome.PASS, result.reason
    assert written.names() == [f"bus/pci/devices/{OURS}/reset"]
    assert (machine.device / "reset").read_text() == "1"
    (check,) = [record for record in records if record.get("name") == "resets"]
    assert check["detail"] == "methods: flr bus"


def test_a_device_without_reset_is_skipped(machine: Machine) -> None:
    (machine.device / "reset").unlink()
    result, _ = machine.run("reset")
    assert result.outcome is Outcome.SKIP
    assert "the kernel offers no reset of this device" in result.reason


def test_who_may_not_write_is_told_that_it_takes_root(machine: Machine) -> None:
    (machine.device / "reset").chmod(0o444)
    (machine.tree / "module/nvidia").chmod(0o555)
    (machine.device / "power/control").chmod(0o444)
    (machine.tree / "power/state").chmod(0o444)
    written = Written(machine.tree)
    reasons = {"reload": "a module is removed by root only", "reset": "this takes root", "suspend": "this takes root"}
    for name, reason in reasons.items():
        result, _ = machine.run(name, powerless=True)
        assert result.outcome is Outcome.SKIP
        assert reason in result.reason
    assert (machine.calls(), written.names()) == ([], [])


@pytest.mark.parametrize("name", ["reload", "reset", "suspend"])
def test_a_device_that_is_not_on_this_machine_is_skipped(machine: Machine, name: str) -> None:
    machine.device.rename(machine.device.with_name("0000:f3:00.0"))
    written = Written(machine.tree)
    result, _ = machine.run(name)
    assert result.outcome is Outcome.SKIP
    assert f"there is no PCI device {OURS} here" in result.reason
    assert (machine.calls(), written.names()) == ([], [])


def test_the_alarm_is_set_before_the_machine_sleeps_and_settings_are_put_back(machine: Machine) -> None:
    control = f"bus/pci/devices/{OURS}/power/control"
    alarm = "class/rtc/rtc0/wakealarm"
    written = Written(machine.tree)
    result, records = machine.run("suspend")
    # The control is written twice, which inotify tells once.
    assert written.names() == [control, alarm, "power/state", alarm]
    assert (machine.device / "power/control").read_text().startswith("on")  # a plain file keeps what is longer
    assert (machine.tree / "power/state").read_text().startswith("mem")
    checks = {record["name"]: record["ok"] for record in records if record["ev"] == "check"}
    assert checks["runtime_keeps_memory"]
    assert checks["runtime_next_process_computes"]
    # No planted tree sends the machine to sleep, and the test notices.
    assert result.outcome is Outcome.FAIL
    assert "machine_sleeps" in result.reason


@pytest.mark.parametrize("spoilt", ["no alarm", "taken alarm", "no sleep"])
def test_a_machine_that_would_not_wake_is_not_sent_to_sleep(machine: Machine, spoilt: str) -> None:
    alarm = machine.tree / "class/rtc/rtc0/wakealarm"
    if spoilt == "no alarm":
        alarm.unlink()
    elif spoilt == "taken alarm":
        alarm.write_text("1700000000\n")
    else:
        (machine.tree / "power/state").write_text("freeze disk\n")
    written = Written(machine.tree)
    result, records = machine.run("suspend")
    assert result.outcome is Outcome.PASS, result.reason
    assert set(written.names()) == {f"bus/pci/devices/{OURS}/power/control"}
    (part,) = [record for record in records if record["ev"] == "part" and record["name"] == "machine"]
    reasons = {
        "no alarm": "no alarm to be woken by",
        "taken alarm": "somebody has set the alarm",
        "no sleep": "cannot suspend to memory",
    }
    assert reasons[spoilt] in str(part["reason"])
