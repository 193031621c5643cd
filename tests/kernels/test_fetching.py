"""Downloads: whole or not at all, only what its digest promises, and a server's trouble told in one line."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.errors import InfraError, UserError
from harness.kernels.fetching import Downloads, NotThere, checked_url, read_url


@dataclass
class Server:
    """Answers every request with the same status and body."""

    url: str = ""
    status: int = 200
    body: bytes = b"content"
    promised: int | None = None
    asked: int = 0


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked += 1
            self.send_response(state.status)
            self.send_header("Content-Length", str(state.promised or len(state.body)))
            self.end_headers()
            self.wfile.write(state.body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{httpd.server_address[1]}"
    yield state
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def anything(data: bytes) -> None:
    """Takes whatever comes."""


def test_an_older_answer_serves_with_a_note_while_the_server_fails(server: Server, tmp_path: Path) -> None:
    Downloads(tmp_path).metadata(f"{server.url}/index", anything)
    server.status = 503
    later = Downloads(tmp_path, ttl=0.0)
    assert later.metadata(f"{server.url}/index", anything) == b"content"
    assert later.note.startswith("index is 0.0 h old: ")
    assert "503" in later.note
    with pytest.raises(InfraError, match="answers 503"):
        later.metadata(f"{server.url}/other", anything)


def test_a_fresh_answer_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        Downloads(tmp_path).metadata(f"{server.url}/index", anything)
    assert server.asked == 1


def test_what_the_check_refuses_is_not_kept(server: Server, tmp_path: Path) -> None:
    def refuse(data: bytes) -> None:
        raise InfraError("no")

    with pytest.raises(InfraError, match=r"^no$"):
        Downloads(tmp_path).metadata(f"{server.url}/index", refuse)
    assert Downloads(tmp_path).metadata(f"{server.url}/index", anything) == b"content"
    assert server.asked == 2


def test_a_file_is_downloaded_once_and_only_with_its_digest(server: Server, tmp_path: Path) -> None:
    digest = hashlib.sha256(b"content").hexdigest()
    downloads = Downloads(tmp_path)
    with pytest.raises(InfraError, match=rf"refusing a\.rpm: SHA-256 {digest} is not the index's 0000"):
        downloads.file(f"{server.url}/a.rpm", "a.rpm", "0" * 64)
    assert not list(tmp_path.rglob("*.rpm"))
    path = downloads.file(f"{server.url}/a.rpm", "a.rpm", digest)
    assert path.read_bytes() == b"content"
    before = server.asked
    assert downloads.file(f"{server.url}/a.rpm", "a.rpm", digest) == path
    assert server.asked == before


def test_an_answer_that_breaks_off_is_refused(server: Server) -> None:
    server.promised = 1000
    with pytest.raises(InfraError) as caught:
        read_url(f"{server.url}/index")
    assert "\n" not in str(caught.value)


def test_an_answer_without_end_is_cut_off(server: Server) -> None:
    server.body = b"x" * 5000
    with pytest.raises(InfraError, match=r"more than 100 bytes"):
        read_url(f"{server.url}/index", limit=100)


def test_what_is_not_there_is_told_apart_from_a_server_in_trouble(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(NotThere, match="404"):
        read_url(f"{server.url}/index")
    with pytest.raises(NotThere, match="cannot be read"):
        read_url((tmp_path / "none").as_uri())
    with pytest.raises(InfraError, match=r"cannot be read: .*refused"):
        read_url("http://127.0.0.1:9/index")


def test_a_directory_is_an_address_too(tmp_path: Path) -> None:
    (tmp_path / "a~b").write_bytes(b"here")
    base = checked_url(f"{tmp_path}/", where="SETTING")
    assert read_url(f"{base}/a~b") == b"here"
    for wrong in ("ftp://example.org/x", "example.org", "http://a b", "relative/path", ""):
        with pytest.raises(UserError, match=r"SETTING: .* is neither a URL"):
            checked_url(wrong, where="SETTING")
