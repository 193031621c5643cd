"""A real OpenSSH server on loopback, for one test module."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.errors import InfraError
from harness.machines.ssh import KeyPair, SshShell

SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin")
needs_sshd = [
    pytest.mark.skipif(SSHD is None, reason="openssh-server is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="guests are reached as root, so this sshd has to run as root"),
]


@dataclass(frozen=True)
class Server:
    port: int
    host_key: KeyPair
    client_key: KeyPair

    def connect(self) -> SshShell:
        return SshShell.connect(self.port, self.host_key, self.client_key, timeout=20.0)


@contextmanager
def serving(folder: Path, own: tuple[str, ...] = ()) -> Iterator[Server]:
    """A server whose sessions see empty directories at the paths ``own``; the host's stay as they are."""
    host_key, client_key = KeyPair.generate("host"), KeyPair.generate("client")
    (folder / "host_key").write_bytes(host_key.private)
    (folder / "host_key").chmod(0o600)
    (folder / "authorized_keys").write_bytes(client_key.public)
    for _ in range(5):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        (folder / "config").write_text(
            f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host_key\n"
            f"AuthorizedKeysFile {folder}/authorized_keys\nPermitRootLogin prohibit-password\nUsePAM no\n"
            "PasswordAuthentication no\nStrictModes no\nPidFile none\nMaxSessions 50\nMaxStartups 50\nLogLevel ERROR\n"
        )
        # sshd wants /run/sshd; in a mount namespace of its own it gets one without touching the host's.
        script = (
            'sshd=$0 config=$1; shift; for path in /run "$@"; do mount -t tmpfs own "$path" || exit 1; done; '
            'mkdir /run/sshd && exec "$sshd" -D -e -f "$config"'
        )
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(SSHD), str(folder / "config")]
        argv += own
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        made = Server(port, host_key, client_key)
        if _answers(made, process):
            break
        process.kill()
        process.wait()
    else:
        said = (folder / "log").read_text()
        if "Operation not permitted" in said:
            pytest.skip(f"sshd cannot be started here: {said.strip()}")
        pytest.fail(f"sshd does not start: {said}")
    try:
        yield made
    finally:
        process.terminate()
        process.wait(20)


def _answers(server: Server, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        try:
            server.connect().close()
        except InfraError:
            time.sleep(0.05)
        else:
            return True
    return False
