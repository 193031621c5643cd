"""The Debian mirror, and the host's clock, which is compared with the mirror's."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path

from harness.doctor.host import Answer, Host, State, existing
from harness.errors import KdmatrixError
from harness.kernels.mirror import VARIABLE, find_mirror

_CLOCK_TOLERANCE = 300.0
"""Seconds: package indexes expire by the clock, and certificates, too."""


class Mirror:
    """One look at the mirror; ``fetch_date`` asks a URL for its ``Date`` header."""

    def __init__(self, host: Host, fetch_date: Callable[[str], str]) -> None:
        self._host = host
        self._fetch_date = fetch_date
        self._server_date: tuple[float, float] | None = None
        """(what the mirror's clock said, what ours said then), in seconds since the epoch."""

    def answer(self) -> Answer:
        """Whether the mirror that is configured answers."""
        fix = f"set {VARIABLE} to the URL of a Debian mirror that this host can reach"
        try:
            url = find_mirror()
        except KdmatrixError as error:
            return self._without_mirror, str(error), fix
        scheme, _, path = url.partition(":")
        if scheme in ("file", "copy"):
            there = (Path(path) / "dists").is_dir()
            return (State.OK, url, "") if there else (self._without_mirror, f"{url} holds no dists", fix)
        if scheme not in ("http", "https"):
            return State.OK, f"{url} (apt's own method; not tried)", ""
        asked = time.time()
        try:
            date = self._fetch_date(f"{url}/dists/stable/Release")
        except OSError as error:
            reason = getattr(error, "reason", None) or error
            return self._without_mirror, f"{url} does not answer: {reason}", fix
        if date:
            self._server_date = (parsedate_to_datetime(date).timestamp(), asked)
        return State.OK, f"{url} answers", ""

    @property
    def _without_mirror(self) -> State:
        """What is cached still runs."""
        return State.WARN if any((self._host.lab.home.cache / "erofs").glob("root-*")) else State.FAIL

    def clock(self) -> Answer:
        """How far the host's clock is from the mirror's; to be asked after the mirror."""
        now = time.time()
        if self._server_date is None:
            newest = existing(self._host.lab.home.root).stat().st_mtime
            if now + _CLOCK_TOLERANCE < newest:
                return State.WARN, "the clock is behind the date of files on this disk", "sudo timedatectl set-ntp true"
            return State.OK, f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime(now))} UTC, compared with nothing", ""
        theirs, ours = self._server_date
        off = ours - theirs
        if abs(off) > _CLOCK_TOLERANCE:
            where = "ahead of" if off > 0 else "behind"
            found = f"{abs(off):.0f} s {where} the mirror's: signatures may count as expired or not yet valid"
            return State.WARN, found, "sudo timedatectl set-ntp true"
        return State.OK, f"within {max(1.0, abs(off)):.0f} s of the mirror's", ""


def date_of(url: str) -> str:
    """Ask for the ``Date`` header of a URL's answer; "" when it has none."""
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310  http or https, checked by the caller
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  as above
        return str(answer.headers.get("Date") or "")
