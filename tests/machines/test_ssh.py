"""Commands over a real OpenSSH server on loopback: both streams, deadlines, broken connections, pinned keys."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from harness.errors import InfraError
from harness.machines.ssh import KeyPair, SshShell
from machines.sshd import Server, needs_sshd, serving

pytestmark = needs_sshd

SERVER = "read -r _ _ _ server _ < /proc/$PPID/stat"
"""In a command: the parent of its shell is the server's process for this connection."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("sshd")) as made:
        yield made


@pytest.fixture
def shell(server: Server) -> Iterator[SshShell]:
    connected = server.connect()
    yield connected
    connected.close()


def test_arguments_arrive_as_they_are_and_no_shell_reads_them(shell: SshShell) -> None:
    words = ["a b", "$HOME", "`id`", "'\"", "*", ";true", "", "ü", "\\n", "-n"]
    done = shell.run(["printf", "%s|", *words], timeout=20)
    assert done.stdout.decode().split("|")[:-1] == words
    assert done.ok
    assert done.stderr == b""


def test_the_exit_status_and_both_streams_are_told_apart(shell: SshShell) -> None:
    done = shell.run(["sh", "-c", "echo out; echo err >&2; exit 7"], timeout=20)
    assert (done.exit_status, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    assert not done.ok
    assert not done.lost


def test_both_streams_may_be_large_at_once(shell: SshShell) -> None:
    script = "head -c 6000000 /dev/zero >&2 & head -c 6000000 /dev/zero; wait"
    done = shell.run(["sh", "-c", script], timeout=60, limit=8 << 20)
    assert (len(done.stdout), len(done.stderr), done.truncated, done.exit_status) == (6_000_000, 6_000_000, False, 0)


def test_output_beyond_the_limit_is_read_and_thrown_away(shell: SshShell) -> None:
    done = shell.run(["sh", "-c", "head -c 5000000 /dev/zero; echo end >&2"], timeout=60, limit=1000)
    assert (len(done.stdout), done.stderr, done.truncated, done.exit_status) == (1000, b"end\n", True, 0)


def test_standard_input_is_passed_and_ended(shell: SshShell) -> None:
    data = os.urandom(3_000_000)
    assert shell.run(["cat"], timeout=60, stdin=data).stdout == data
    assert shell.run(["cat"], timeout=20).stdout == b""
    # A program that does not read its input does not block us.
    assert shell.run(["true"], timeout=60, stdin=data).exit_status == 0


def test_a_command_that_takes_too_long_is_given_up_and_the_connection_lives_on(shell: SshShell) -> None:
    done = shell.run(["sh", "-c", "echo begun; exec sleep 60"], timeout=1.0)
    assert (done.timed_out, done.lost, done.exit_status, done.stdout) == (True, False, None, b"begun\n")
    assert shell.run(["echo", "next"], timeout=20).stdout == b"next\n"


def test_a_flood_without_end_is_given_up_at_the_deadline_too(shell: SshShell) -> None:
    done = shell.run(["cat", "/dev/zero"], timeout=1.0, limit=1000)
    assert (done.timed_out, done.truncated, len(done.stdout)) == (True, True, 1000)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_the_status_of_a_command_names_the_signal_that_killed_it(shell: SshShell, number: int) -> None:
    done = shell.run(["sh", "-c", f"echo before; kill -{number:d} $$"], timeout=20)
    assert (done.exit_status, done.lost, done.stdout) == (128 + number, False, b"before\n")


def test_a_command_whose_shell_is_killed_has_no_status_but_is_not_lost(shell: SshShell) -> None:
    done = shell.run(["sh", "-c", "echo before; kill -9 $PPID"], timeout=20)
    assert (done.exit_status, done.lost, done.timed_out, done.stdout) == (None, False, False, b"before\n")
    assert shell.alive


def test_a_connection_that_breaks_under_a_command_is_lost_and_not_a_killed_command(shell: SshShell) -> None:
    done = shell.run(["sh", "-c", f"echo before; {SERVER}; kill -9 $server; exec sleep 5"], timeout=20)
    assert (done.exit_status, done.lost, done.timed_out) == (None, True, False)
    again = shell.run(["true"], timeout=20)
    assert (again.exit_status, again.lost) == (None, True)
    assert not shell.alive


@pytest.mark.parametrize("_again", range(3))
def test_a_connection_reset_while_output_flows_is_lost(server: Server, _again: int) -> None:
    shell = server.connect()
    sock = shell._transport.sock
    timer = threading.Timer(0.3, lambda: sock.shutdown(socket.SHUT_RDWR))
    timer.start()
    done = shell.run(["sh", "-c", "while :; do echo x; sleep 0.01; done"], timeout=20)
    timer.join()
    assert done.lost
    shell.close()


def test_many_commands_run_at_the_same_time_over_one_connection(shell: SshShell) -> None:
    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda word=word: results.append(shell.run(["echo", word], timeout=30).stdout))
        for word in "abcdefgh"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [f"{word}\n".encode() for word in "abcdefgh"]


def test_a_server_with_another_host_key_is_refused_before_we_log_in(server: Server) -> None:
    other = Server(server.port, KeyPair.generate("another boot"), server.client_key)
    with pytest.raises(InfraError, match="host key is not the one made for this boot"):
        other.connect()


def test_a_client_key_that_the_server_does_not_know_is_an_infra_error(server: Server) -> None:
    other = Server(server.port, server.host_key, KeyPair.generate("stranger"))
    with pytest.raises(InfraError, match="no SSH connection: Authentication failed"):
        other.connect()


def test_no_server_and_one_that_never_speaks_are_infra_errors() -> None:
    keys = KeyPair.generate("x")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        with pytest.raises(InfraError, match="refused"):
            SshShell.connect(port, keys, keys, timeout=5.0)
        silent.listen()
        with pytest.raises(InfraError, match="timed out"):
            SshShell.connect(port, keys, keys, timeout=0.5)


def test_a_server_that_is_something_else_is_an_infra_error() -> None:
    keys = KeyPair.generate("x")
    with socket.create_server(("127.0.0.1", 0)) as web:

        def answer() -> None:
            peer, _ = web.accept()
            with peer:
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(InfraError, match="no SSH server answers yet"):
            SshShell.connect(web.getsockname()[1], keys, keys, timeout=5.0)
        thread.join()


def test_a_server_that_freezes_between_two_commands_ends_the_second_at_its_deadline(server: Server) -> None:
    shell = server.connect()
    process = int(shell.run(["sh", "-c", f"{SERVER}; echo $server"], timeout=20).stdout)
    os.kill(process, signal.SIGSTOP)
    try:
        done = shell.run(["echo", "x"], timeout=1.0)
        assert done.exit_status is None
        assert done.lost or done.timed_out
    finally:
        os.kill(process, signal.SIGCONT)
        shell.close()


def test_every_key_is_new_and_goes_in_openssh_format(tmp_path: Path) -> None:
    first, second = KeyPair.generate("me"), KeyPair.generate("me")
    assert first.private != second.private
    assert first.public.startswith(b"ssh-ed25519 AAAA")
    assert first.public.endswith(b" me\n")
    if shutil.which("ssh-keygen"):
        (tmp_path / "key").write_bytes(first.private)
        (tmp_path / "key").chmod(0o600)
        said = subprocess.run(["ssh-keygen", "-y", "-f", tmp_path / "key"], capture_output=True, check=True).stdout
        assert said.split()[:2] == first.public.split()[:2]


class FakeSilentServer(paramiko.ServerInterface):
    """Lets everybody in and opens channels, but never answers the request to run something."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.over = threading.Event()

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.common.AUTH_SUCCESSFUL

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self.asked.set()
        self.over.wait(30)
        return False


def test_a_hostile_server_that_never_answers_a_request_cannot_hold_us_beyond_the_deadline() -> None:
    host_key, behaviour = KeyPair.generate("host"), FakeSilentServer()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            transport = paramiko.Transport(listener.accept()[0])
            transport.add_server_key(host_key.paramiko())
            transport.start_server(server=behaviour)
            behaviour.over.wait(30)
            transport.close()

        thread = threading.Thread(target=serve)
        thread.start()
        shell = SshShell.connect(listener.getsockname()[1], host_key, KeyPair.generate("client"), timeout=20.0)
        done = shell.run(["echo", "x"], timeout=0.5)
        in_time = not behaviour.over.is_set()
        behaviour.over.set()
        shell.close()
        thread.join()
    assert behaviour.asked.is_set()
    assert in_time
    assert (done.exit_status, done.timed_out) == (None, True)
