"""Commands in a guest over SSH: paramiko, with a pinned host key, one key per run, and a deadline on everything.

Measured traits of paramiko that this works around: it sets no socket options (an exec takes 44 ms without
``TCP_NODELAY`` and 1 ms with it), reading one stream while the other fills blocks for ever, and a timeout given to
``exec_command`` does not cover the exit status.
"""

from __future__ import annotations

import contextlib
import logging
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import StringIO

import paramiko
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from harness.errors import InfraError
from harness.model.shell import Completed

# paramiko's threads log tracebacks of every broken connection; what broke is told by our own errors.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)

_CHUNK = 64 << 10
_POLL = 0.01
_TELLING_SIGNALS = ("sh", "-c", '"$@"; exit "$?"', "sh")
"""A shell that waits for the command: sshd's message about a signal is one that paramiko drops; a status arrives."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An ed25519 key in OpenSSH's private format and its public line."""

    private: bytes
    public: bytes

    @classmethod
    def generate(cls, comment: str) -> KeyPair:
        """Make a new key; nothing is written to disk."""
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        loaded = paramiko.Ed25519Key.from_private_key(StringIO(private.decode()))
        return cls(private, f"ssh-ed25519 {loaded.get_base64()} {comment}\n".encode())

    def paramiko(self) -> paramiko.Ed25519Key:
        """The key as paramiko takes it."""
        return paramiko.Ed25519Key.from_private_key(StringIO(self.private.decode()))


class SshShell:
    """A connection to one guest; see :class:`harness.model.shell.Shell`."""

    def __init__(self, transport: paramiko.Transport) -> None:
        self._transport = transport

    @classmethod
    def connect(cls, port: int, host_key: KeyPair, client_key: KeyPair, *, timeout: float) -> SshShell:
        """Connect to 127.0.0.1:``port`` as root.

        Raises:
            InfraError: no SSH server answers there yet, or it is not the one whose key was handed in.
        """

        def check(shown: paramiko.PKey) -> None:
            if shown.asbytes() != host_key.paramiko().asbytes():
                raise InfraError("the SSH server's host key is not the one made for this boot")

        return cls.open(("127.0.0.1", port), "root", client_key.paramiko(), check, timeout=timeout)

    @classmethod
    def open(
        cls,
        address: tuple[str, int],
        user: str,
        client_key: paramiko.PKey,
        check: Callable[[paramiko.PKey], None],
        *,
        timeout: float,
        host_key_types: Sequence[str] = (),
    ) -> SshShell:
        """Connect to ``address`` as ``user``; no agent is asked, and none is forwarded.

        ``check`` is shown the server's key before anything is said of us, and raises if it is not the right one.
        ``host_key_types`` are the only kinds of key that the server may show, where some are named.

        Raises:
            InfraError: no SSH server answers there yet, or it does not let us in; or whatever ``check`` raises.
        """
        transport: paramiko.Transport | None = None
        sock: socket.socket | None = None
        try:
            sock = socket.create_connection(address, timeout=timeout)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            # A forwarded port accepts before anybody listens in the guest; the banner is the first sign of a server.
            if sock.recv(4, socket.MSG_PEEK) != b"SSH-":
                raise InfraError("no SSH server answers yet")
            transport = paramiko.Transport(sock)
            transport.banner_timeout = timeout
            transport.handshake_timeout = timeout
            transport.auth_timeout = timeout
            if host_key_types:
                transport.get_security_options().key_types = host_key_types
            transport.start_client(timeout=timeout)
            check(transport.get_remote_server_key())
            transport.auth_publickey(user, client_key)
            transport.set_keepalive(15)
        except BaseException as error:
            if transport is not None:
                transport.close()
            if sock is not None:
                sock.close()
            if isinstance(error, OSError | EOFError | paramiko.SSHException):
                raise InfraError(f"no SSH connection: {error or type(error).__name__}") from error
            raise
        return cls(transport)

    @property
    def alive(self) -> bool:
        """Whether the connection still stands, as far as this side knows."""
        return self._transport.is_active()

    def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"", limit: int = 4 << 20) -> Completed:
        """See :meth:`harness.model.shell.Shell.run`."""
        started = time.monotonic()
        deadline = started + timeout
        out, err = _Bounded(limit), _Bounded(limit)
        status: int | None = None
        lost = timed_out = False
        channel: paramiko.Channel | None = None
        try:
            channel = self._transport.open_session(timeout=timeout)
            with _closed_at(channel, deadline):
                channel.exec_command(shlex.join([*_TELLING_SIGNALS, *argv]))
            pending = memoryview(stdin)
            channel.setblocking(False)
            sent_eof = False
            while True:
                moved = False
                if not sent_eof:
                    pending, sent_eof = _feed(channel, pending)
                while channel.recv_ready():
                    out.add(channel.recv(_CHUNK))
                    moved = True
                while channel.recv_stderr_ready():
                    err.add(channel.recv_stderr(_CHUNK))
                    moved = True
                if channel.exit_status_ready() and (channel.eof_received or channel.closed) and not moved:
                    if not channel.recv_ready() and not channel.recv_stderr_ready():
                        code = channel.recv_exit_status()
                        status = code if code >= 0 else None
                        # A broken connection closes the channel, too, but no end of output came before.
                        lost = status is None and not (channel.eof_received and self._transport.is_active())
                        break
                    continue
                if not self._transport.is_active() or (channel.closed and not channel.exit_status_ready()):
                    lost = True
                    break
                if time.monotonic() > deadline:
                    timed_out = True
                    break
                if not moved:
                    channel.status_event.wait(_POLL)
        except (OSError, EOFError, paramiko.SSHException):
            timed_out = time.monotonic() >= deadline and self._transport.is_active()
            lost = not timed_out
        finally:
            if channel is not None:
                channel.close()
        return Completed(
            exit_status=status,
            stdout=out.data(),
            stderr=err.data(),
            seconds=time.monotonic() - started,
            timed_out=timed_out,
            lost=lost,
            truncated=out.truncated or err.truncated,
        )

    def close(self) -> None:
        """Close the connection; harmless when it is gone."""
        self._transport.close()


class _Bounded:
    """Collects bytes up to a limit and counts the rest as truncated."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._parts: list[bytes] = []
        self.truncated = False

    def add(self, data: bytes) -> None:
        if len(data) > self._left:
            self.truncated = True
            data = data[: self._left]
        self._left -= len(data)
        if data:
            self._parts.append(data)

    def data(self) -> bytes:
        return b"".join(self._parts)


def _feed(channel: paramiko.Channel, pending: memoryview) -> tuple[memoryview, bool]:
    """Send what the window takes; return what is left and whether the end of input was sent."""
    while len(pending) and channel.send_ready():
        try:
            pending = pending[channel.send(bytes(pending[:_CHUNK])) :]
        except TimeoutError:
            break
        except OSError:  # the program ended without reading it all; whether its status arrived is told elsewhere
            return pending[:0], True
    if len(pending):
        return pending, False
    with contextlib.suppress(OSError):
        channel.shutdown_write()
    return pending, True


@contextlib.contextmanager
def _closed_at(channel: paramiko.Channel, deadline: float) -> Iterator[None]:
    """Close the channel if the block still runs at ``deadline``: paramiko waits for the reply to an exec for ever."""

    def close() -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            channel.close()

    timer = threading.Timer(max(0.0, deadline - time.monotonic()), close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
