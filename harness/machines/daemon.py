"""Which libvirt to talk to, and a daemon of our own where none runs.

* ``KDMATRIX_LIBVIRT_URI`` names one.
* Where a service manager runs, its libvirt is used: ``qemu:///system`` for root and for users who may open its socket,
  else ``qemu:///session``.
* Elsewhere (containers, CI machines) root gets a private daemon: in a mount namespace of its own, with its own
  configuration and state directories, reached over a socket that only root can open. The host's configuration is not
  touched, and the daemon ends by itself when it has had neither a client nor a VM for a while.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import InfraError

IDLE_SECONDS = 30
"""The private daemon ends after so long without client and VM."""
_START_TIMEOUT = 60.0
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]
_PR_SET_CHILD_SUBREAPER = 36
_STATE_DIRS = ("run", "lib", "cache", "log", "etc")


def import_libvirt() -> Any:
    """Import the binding when it is first needed: reports and validation work on hosts without libvirt."""
    try:
        import libvirt
    except ImportError as error:
        raise InfraError(f"libvirt-python is not usable on this host: {error}") from error
    return libvirt


@dataclass(frozen=True, slots=True)
class PrivateDaemon:
    """A libvirtd of our own, its files below ``state`` and its socket in a short path."""

    state: Path

    @property
    def socket_dir(self) -> Path:
        """Unix socket paths are limited to 107 bytes, so this one does not follow ``state``."""
        digest = hashlib.sha256(str(self.state).encode()).hexdigest()[:10]
        return Path(tempfile.gettempdir()) / f"kdmatrix-{os.getuid()}-{digest}"

    @property
    def uri(self) -> str:
        """The connection URI."""
        return f"qemu+unix:///system?socket={self.socket_dir / 'libvirt-sock'}"

    @property
    def pid_file(self) -> Path:
        """Holds the daemon's process id while it runs."""
        return self.socket_dir / "libvirtd.pid"

    def pid(self) -> int | None:
        """The running daemon's process id."""
        try:
            pid = int(self.pid_file.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if command and command[0].endswith(b"libvirtd") else None

    def ensure(self) -> None:
        """Start the daemon unless it runs.

        Raises:
            InfraError: libvirtd or unshare is missing, or it does not come up; the end of its log is quoted.
        """
        with self._locked():
            if self.pid() is not None:
                return
            if shutil.which("libvirtd", path=_search_path()) is None:
                raise InfraError("libvirtd is not installed on this host (Debian: libvirt-daemon)")
            self._write_configuration()
            log = self.state / "log" / "libvirtd.log"
            argv = [
                "unshare",
                "--mount",
                "--propagation",
                "private",
                "--",
                sys.executable,
                "-m",
                __name__,
                str(self.state),
            ]
            with log.open("ab") as output:
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    cwd=_PACKAGE_PARENT,
                )
            deadline = time.monotonic() + _START_TIMEOUT
            while not (self.socket_dir / "libvirt-sock").exists() or self.pid() is None:
                if process.poll() is not None or time.monotonic() > deadline:
                    tail = log.read_text(errors="replace").strip().splitlines()[-1:] or ["no output"]
                    raise InfraError(f"the private libvirtd did not start: {tail[0]}")
                time.sleep(0.02)
            # Reaped when it ends, so that it is no zombie while this process lives.
            threading.Thread(target=process.wait, daemon=True, name="libvirtd-wait").start()

    def stop(self) -> bool:
        """End the daemon if it runs; its VMs are not touched. Returns whether one ran."""
        with self._locked():
            pid = self.pid()
            if pid is None:
                return False
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + 20
            while self.pid() is not None:
                if time.monotonic() > deadline:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.05)
            with contextlib.suppress(OSError):
                self.socket_dir.rmdir()
            return True

    def exec_in_namespace(self) -> None:
        """Bind the private directories over the host's, then run libvirtd. Called in the new mount namespace."""
        for name, host in (
            ("run", "/run/libvirt"),
            ("lib", "/var/lib/libvirt"),
            ("cache", "/var/cache/libvirt"),
            ("log", "/var/log/libvirt"),
            ("etc", "/etc/libvirt"),
        ):
            Path(host).mkdir(parents=True, exist_ok=True)
            subprocess.run(["mount", "--bind", self.state / name, host], check=True)
        os.chdir("/")
        libvirtd = shutil.which("libvirtd", path=_search_path()) or "libvirtd"
        conf, pid_file = "/etc/libvirt/libvirtd.conf", str(self.pid_file)
        argv = [libvirtd, "--config", conf, "--pid-file", pid_file, "--timeout", str(IDLE_SECONDS)]
        _reap_until_end(argv)

    def _write_configuration(self) -> None:
        for name in _STATE_DIRS:
            (self.state / name).mkdir(parents=True, exist_ok=True)
        self.socket_dir.mkdir(mode=0o700, exist_ok=True)
        if self.socket_dir.stat().st_uid != os.getuid():
            raise InfraError(f"{self.socket_dir} belongs to another user")
        for stale in ("libvirt-sock", "libvirt-sock-ro", "libvirt-admin-sock", "libvirtd.pid"):
            (self.socket_dir / stale).unlink(missing_ok=True)
        (self.state / "etc" / "libvirtd.conf").write_text(
            f'unix_sock_dir = "{self.socket_dir}"\n'
            'auth_unix_rw = "none"\nauth_unix_ro = "none"\nunix_sock_rw_perms = "0700"\nunix_sock_ro_perms = "0700"\n'
            # A long start of one VM must not make the others' connections look dead.
            "keepalive_interval = 10\nkeepalive_count = 10\nmax_clients = 200\n"
        )
        (self.state / "etc" / "qemu.conf").write_text(
            'user = "root"\ngroup = "root"\nsecurity_driver = "none"\ncgroup_controllers = [ ]\nnamespaces = [ ]\n'
            'stdio_handler = "file"\nremember_owner = 0\n'
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.state.mkdir(parents=True, exist_ok=True)
        with (self.state / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _reap_until_end(argv: list[str]) -> None:
    """Run ``argv`` and reap every orphan of its descendants until it ends.

    libvirt starts QEMU detached, so a dead QEMU is for process 1 to reap, and libvirt waits until that is done. In
    containers process 1 is often a program that reaps late or never. prctl(2), PR_SET_CHILD_SUBREAPER.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    child = os.posix_spawn(argv[0], argv, os.environ)  # not Popen, which may reap it on its own account
    signal.signal(signal.SIGTERM, lambda number, _frame: os.kill(child, number))
    while os.wait()[0] != child:
        pass


def _search_path() -> str:
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def service_manager_runs() -> bool:
    """Whether systemd is process 1 of this host (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def choose_uri(state: Path) -> tuple[str, PrivateDaemon | None]:
    """Return the libvirt URI for this host, and the private daemon that must be started for it, if any."""
    named = os.environ.get("KDMATRIX_LIBVIRT_URI")
    if named:
        return named, None
    root = os.geteuid() == 0
    if service_manager_runs():
        usable = (
            root or os.access("/run/libvirt/libvirt-sock", os.W_OK) or os.access("/run/libvirt/virtqemud-sock", os.W_OK)
        )
        return ("qemu:///system" if usable else "qemu:///session"), None
    if not root:
        return "qemu:///session", None
    daemon = PrivateDaemon(state)
    return daemon.uri, daemon


if __name__ == "__main__":
    PrivateDaemon(Path(sys.argv[1])).exec_in_namespace()
