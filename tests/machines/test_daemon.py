"""A libvirt daemon of our own: one however many want it, shut off from the host's configuration, gone when stopped."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.errors import InfraError
from harness.machines import daemon as module
from harness.machines.daemon import PrivateDaemon, choose_uri
from harness.machines.hypervisor import Hypervisor

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="a private libvirtd needs root")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[PrivateDaemon]:
    made = PrivateDaemon(tmp_path / "libvirt")
    yield made
    made.stop()
    shutil.rmtree(made.socket_dir, ignore_errors=True)


def host_configuration() -> dict[str, str]:
    """A digest of every file of the host's libvirt, and what is mounted over it."""
    found = {"mounts": "".join(line for line in Path("/proc/mounts").read_text().splitlines() if "libvirt" in line)}
    for root in ("/etc/libvirt", "/run/libvirt", "/var/lib/libvirt"):
        for path in sorted(Path(root).rglob("*")):
            found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "-"
    return found


@needs_root
def test_it_starts_answers_and_ends_without_a_trace_on_the_host(daemon: PrivateDaemon) -> None:
    libvirt = pytest.importorskip("libvirt")
    daemon.ensure()
    before = host_configuration()
    pid = daemon.pid()
    assert pid is not None
    assert Path(f"/proc/{pid}/ns/mnt").readlink() != Path("/proc/self/ns/mnt").readlink()
    connection = libvirt.open(daemon.uri)
    assert connection.getType() == "QEMU"
    connection.close()
    assert daemon.socket_dir.stat().st_mode & 0o077 == 0
    assert host_configuration() == before
    listening = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=False).stdout
    assert f"pid={pid}," not in listening
    assert daemon.stop()
    assert daemon.pid() is None
    assert not daemon.stop()
    assert host_configuration() == before


@needs_root
def test_a_second_call_keeps_the_daemon_that_runs_and_a_dead_one_is_replaced(daemon: PrivateDaemon) -> None:
    daemon.ensure()
    first = daemon.pid()
    daemon.ensure()
    assert daemon.pid() == first
    assert first is not None
    os.kill(first, signal.SIGKILL)
    while daemon.pid() is not None:
        time.sleep(0.01)
    daemon.ensure()
    assert daemon.pid() not in (None, first)


@needs_root
def test_processes_and_threads_that_want_it_at_once_get_the_same_one(daemon: PrivateDaemon) -> None:
    code = (
        "import sys; from pathlib import Path; from harness.machines.daemon import PrivateDaemon;"
        "made = PrivateDaemon(Path(sys.argv[1])); made.ensure(); print(made.pid())"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    argv = [sys.executable, "-c", code, str(daemon.state)]
    children = [subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: daemon.ensure(), range(2)))
    pids = {int(child.communicate()[0]) for child in children} | {daemon.pid()}
    assert len(pids) == 1
    running = subprocess.run(["pgrep", "-f", str(daemon.pid_file)], capture_output=True, text=True, check=False).stdout
    assert {int(pid) for pid in running.split()} == pids


@needs_root
def test_a_daemon_that_cannot_start_is_told_with_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bin/libvirtd"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'cannot read anything' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    made = PrivateDaemon(tmp_path / "state")
    with pytest.raises(InfraError, match="the private libvirtd did not start: cannot read anything"):
        made.ensure()
    shutil.rmtree(made.socket_dir)


def test_its_socket_fits_however_deep_its_state_lies(tmp_path: Path) -> None:
    deep = PrivateDaemon(tmp_path / ("x" * 200))
    assert len(str(deep.socket_dir / "libvirt-admin-sock")) < 107
    assert deep.socket_dir != PrivateDaemon(tmp_path).socket_dir


def test_a_host_without_libvirtd_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_search_path", lambda: str(tmp_path))
    with pytest.raises(InfraError, match="libvirtd is not installed on this host"):
        PrivateDaemon(tmp_path / "state").ensure()


@pytest.mark.parametrize(
    ("systemd", "root", "uri"),
    [(True, True, "qemu:///system"), (False, False, "qemu:///session"), (False, True, None)],
)
def test_the_uri_follows_from_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, systemd: bool, root: bool, uri: str | None
) -> None:
    monkeypatch.delenv("KDMATRIX_LIBVIRT_URI", raising=False)
    monkeypatch.setattr(module, "service_manager_runs", lambda: systemd)
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    chosen, private = choose_uri(tmp_path)
    assert chosen == (uri or PrivateDaemon(tmp_path).uri)
    assert (private is not None) == (uri is None)
    monkeypatch.setenv("KDMATRIX_LIBVIRT_URI", "test:///default")
    assert choose_uri(tmp_path) == ("test:///default", None)


def test_a_libvirt_that_does_not_answer_is_an_infra_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("libvirt")
    monkeypatch.setenv("KDMATRIX_LIBVIRT_URI", f"qemu+unix:///system?socket={tmp_path}/nothing")
    with pytest.raises(InfraError, match=r"libvirt at qemu\+unix.* does not answer"), Hypervisor.connect(tmp_path):
        pass
