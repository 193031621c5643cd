"""A headless Chromium driven over the DevTools protocol through a pair of pipes: no port, no further package."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)


class Page:
    """One page; remembers every request, exception and policy violation that it saw."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader, self._writer, self._buffer, self._next = reader, writer, b"", 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.trouble: list[str] = []
        self._loaded = False
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, timeout: float = 60, **parameters: Any) -> Any:
        """Call one protocol method and return its result."""
        self._next += 1
        message = {"id": self._next, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._writer, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + timeout
        while True:
            answer = self._read(deadline)
            if answer.get("id") == self._next:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _read(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._reader], [], [], left)[0]:
                raise TimeoutError("the browser did not answer")
            piece = os.read(self._reader, 1 << 20)
            if not piece:
                raise ConnectionError("the browser went away")
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(line))

    def _note(self, event: dict[str, Any]) -> None:
        method, values = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.trouble.append(json.dumps(values["exceptionDetails"]))
        elif method == "Log.entryAdded" and values["entry"]["level"] == "error":
            self.trouble.append(values["entry"]["text"])
        elif method == "Page.javascriptDialogOpening":
            self.trouble.append("a dialog opened")
        elif method == "Page.loadEventFired":
            self._loaded = True

    def open(self, url: str, timeout: float = 60) -> float:
        """Navigate, wait until two frames after the load event were drawn, and return the seconds that took."""
        self.send("Page.navigate", url="about:blank")
        self._wait_for_load(timeout)
        started = time.monotonic()
        self.send("Page.navigate", url=url)
        self._wait_for_load(timeout)
        self.run("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")
        return time.monotonic() - started

    def _wait_for_load(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self._loaded:
            self._note(self._read(deadline))
        self._loaded = False

    def run(self, script: str) -> Any:
        """Evaluate an expression (a promise is awaited) and return its value."""
        answer = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def until(self, script: str, timeout: float = 20) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + timeout
        while not self.run(f"!!({script})"):
            if time.monotonic() > deadline:
                raise TimeoutError(script)
            time.sleep(0.05)

    def press(self, key: str, text: str = "") -> None:
        """Press and release one key where the focus is."""
        extra = {"text": text} if text else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, **extra)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key)

    def size(self, width: int, height: int, dark: bool = False) -> None:
        """Emulate a screen and a colour scheme."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """Save what is seen (or the whole page) as PNG."""
        answer = self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))


@contextmanager
def browser_page(profile: Path) -> Iterator[Page]:
    """Start a browser with an empty profile and yield its one page."""
    assert BROWSER is not None
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    # The protocol wants descriptors 3 and 4; numbers out of their way cannot overwrite each other.
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (theirs_in, theirs_out)]
    argv = ["bash", "-c", f'exec "$@" 3<&{ends[0]} 4>&{ends[1]}', "bash", BROWSER, *FLAGS, f"--user-data-dir={profile}"]
    log = profile.with_suffix(".log").open("wb")
    process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, pass_fds=ends)
    for end in (theirs_in, theirs_out, *ends):
        os.close(end)
    try:
        page = Page(ours_in, ours_out)
        yield page
        with suppress(Exception):
            page._session = None
            page.send("Browser.close", timeout=5)
    finally:
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()
        os.close(ours_in)
        os.close(ours_out)
