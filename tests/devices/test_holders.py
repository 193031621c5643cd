"""Whoever has a node of a device open is found; not being able to look is said, and is not 'nobody'."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devices.recorded import RecordedMachine, machine
from harness.devices.holders import Holder, Holders, holders, holders_of
from harness.devices.inventory import units

NOBODY = 65534


def answers(recorded: RecordedMachine, root: Path) -> dict[str, Holders]:
    recorded.unfold(root)
    return holders_of(units(root), root)


@pytest.mark.parametrize(
    ("name", "unit", "pid", "nodes"),
    [
        ("laptop-hybrid", "0000:00:02.0", 2101, ("/dev/dri/card1", "/dev/dri/renderD128")),
        ("hgx-h100", "0000:18:00.0", 3310, ("/dev/nvidia0",)),
        ("mi300x", "0000:46:00.0", 5120, ("/dev/dri/renderD128", "/dev/kfd")),
        ("lab-reserved", "0000:08:00.0", 4242, ("/dev/vfio/19",)),
    ],
)
def test_the_process_and_its_nodes_are_named(
    tmp_path: Path, name: str, unit: str, pid: int, nodes: tuple[str, ...]
) -> None:
    found = answers(machine(name), tmp_path)[unit]
    assert [(one.pid, one.nodes) for one in found.found] == [(pid, nodes)]
    assert found.unseen == ""


def test_a_sound_node_counts_as_much_as_the_gpu(tmp_path: Path) -> None:
    found = answers(machine("apu-shared-slot"), tmp_path)["0000:04:00.0"].found
    assert Holder(990, "pipewire", ("/dev/snd/controlC1",)) in found
    assert str(found[-1]) == "pipewire (pid 990) /dev/snd/controlC1"


def test_other_gpus_of_the_host_are_not_held_by_it(tmp_path: Path) -> None:
    found = answers(machine("hgx-h100"), tmp_path)
    assert [address for address, answer in found.items() if answer.found] == ["0000:18:00.0", "0000:2a:00.0"]


def test_every_client_of_the_driver_counts_when_numbers_of_its_gpus_are_not_known(tmp_path: Path) -> None:
    recorded = machine("hgx-h100")
    for spec in recorded.functions.values():
        spec.pop("nvidia", None)
    found = answers(recorded, tmp_path)["0000:db:00.0"]
    assert [one.pid for one in found.found] == [3310, 70441]


def test_the_kfd_belongs_to_every_gpu_of_its_driver(tmp_path: Path) -> None:
    recorded = machine("mi300x")
    recorded.functions["0000:65:00.0"]["driver"] = "amdgpu"
    assert answers(recorded, tmp_path)["0000:65:00.0"].found == (Holder(5120, "python3", ("/dev/kfd",)),)


def test_processes_that_may_not_be_looked_at_are_said(tmp_path: Path) -> None:
    answer = answers(machine("x58-no-remapping"), tmp_path)["0000:02:00.0"]
    assert answer == Holders((), "2 processes of other users may not be looked at; run as root")


def test_a_container_does_not_see_the_host(tmp_path: Path) -> None:
    assert "container" in answers(machine("vgpu-t4"), tmp_path)["0000:3b:00.0"].unseen


def test_without_proc_nothing_is_known(tmp_path: Path) -> None:
    root = machine("laptop-hybrid").unfold(tmp_path)
    (root / "proc").rename(root / "elsewhere")
    assert holders(units(root)[0], root).unseen == "there is no /proc"


@contextmanager
def real_holder(node: str) -> Iterator[int]:
    """A living process that has a node open."""
    program = "import sys; f = open(sys.argv[1], 'rb'); print('open', flush=True); sys.stdin.read()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program, node], stdin=pipe, stdout=pipe) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        yield process.pid
        process.stdin.close()


@pytest.fixture
def living() -> Iterator[Path]:
    """A laptop whose GPU has the number of /dev/full, on which this host's processes run; any user may read it."""
    with tempfile.TemporaryDirectory() as folder:
        root = machine("laptop-hybrid").unfold(Path(folder))
        root.chmod(0o755)
        for name in ("card1", "renderD128"):
            (root / "sys/class/drm" / name / "dev").write_text("1:7\n")
        (root / "proc").rename(root / "recorded")
        (root / "proc").symlink_to("/proc")
        yield root


def test_a_living_process_is_found_by_the_number_of_the_node(living: Path) -> None:
    gpu, other = units(living)
    with real_holder("/dev/full") as pid:
        held = holders_of([gpu, other], living)
    mine = [one for one in held[gpu.address].found if one.pid == pid]
    assert [one.nodes for one in mine] == [("/dev/full",)]
    assert mine[0].command.startswith("python")
    assert all(one.pid != pid for one in held[other.address].found)
    assert all(one.pid != pid for one in holders(gpu, living).found), "it ended"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_told_that_not_all_can_be_seen(living: Path) -> None:
    with real_holder("/dev/full") as pid:
        child = os.fork()
        if child == 0:  # as somebody who may read nothing of root's processes
            os.setuid(NOBODY)
            answer = holders(units(living)[0], living)
            os._exit(0 if answer.unseen and all(one.pid != pid for one in answer.found) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
