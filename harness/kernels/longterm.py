"""Which series are longterm and until when: data with the date on which it was read, renewed from kernel.org's list.

Source of the format: ``releases.json`` of kernel.org (``releases`` with ``moniker``, ``version`` and ``iseol``). It
says which series are maintained and whether one has ended, and not until when; an end that is known is kept.
"""

from __future__ import annotations

import calendar
import datetime
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.errors import InfraError, UserError
from harness.kernels.fetching import checked_url, read_url
from harness.kernels.version import fields, series_of
from harness.placing import write_atomically

NAME = "longterm.yaml"
_SERIES = re.compile(r"^[0-9]+\.[0-9]+$")
_END = re.compile(r"^(\d{4})-(\d{2})(?:-(\d{2}))?$")
_LIMIT = 4 << 20


@dataclass(frozen=True, slots=True)
class LongtermSeries:
    """One series of kernel.org's longterm kernels."""

    series: str
    end: datetime.date | None
    """Last day of maintenance as projected; None when nobody has said."""
    ended: bool = False
    """kernel.org says that it is over, whatever was projected."""
    latest: str = ""
    """Newest release of the series when the list was read, where it says so."""

    def days_left(self, today: datetime.date) -> int | None:
        """Days until its end, negative after it; None when no end is known."""
        if self.ended:
            return min(0, (self.end - today).days) if self.end else 0
        return (self.end - today).days if self.end else None

    def is_over(self, today: datetime.date) -> bool:
        """Whether it is no longer maintained."""
        left = self.days_left(today)
        return self.ended or (left is not None and left < 0)


@dataclass(frozen=True, slots=True)
class LongtermList:
    """What was known on one day."""

    read: datetime.date
    source: str
    series: tuple[LongtermSeries, ...]
    """Newest first."""
    file: Path

    def of(self, release: str) -> LongtermSeries | None:
        """The entry for the series of a release or version; None when it is no longterm one."""
        wanted = series_of(release)
        return next((one for one in self.series if one.series == wanted), None)

    def warning(self, release: str, today: datetime.date) -> str:
        """What is wrong with taking a release for a longterm kernel on that day; empty when nothing is."""
        entry = self.of(release)
        if entry is None:
            return f"{series_of(release)} is not a longterm series ({self.file.name} of {self.read})"
        if entry.is_over(today):
            since = f" since {entry.end}" if entry.end and entry.end < today else ""
            return f"longterm series {entry.series} is past its end of life{since}"
        return ""


def read_longterm(data: Path, home: Path) -> LongtermList:
    """Read the renewed list in ``home``, else the shipped one in ``data`` (``guests/_kernels``).

    Raises:
        UserError: the file cannot be read or is wrong; the line says where.
    """
    own = home / NAME
    return _read(own if own.is_file() else data / NAME)


def _read(file: Path) -> LongtermList:
    try:
        found: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file}: cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict) or not isinstance(found.get("series"), dict):
        raise UserError(f"{file}: must be a mapping with read, source and series")
    read = found.get("read")
    if isinstance(read, datetime.datetime) or not isinstance(read, datetime.date):
        raise UserError(f"{file}: read: must be a date such as 2026-11-22")
    series = [_entry(name, entry, file) for name, entry in found["series"].items()]
    series.sort(key=lambda one: fields(one.series), reverse=True)
    return LongtermList(read, str(found.get("source", "")), tuple(series), file)


def _entry(name: object, entry: object, file: Path) -> LongtermSeries:
    if not isinstance(name, str) or not _SERIES.match(name):
        raise UserError(f"{file}: series: {name!r} is not a series; write it in quotes, as in '6.12'")
    if not isinstance(entry, dict) or set(entry) - {"end", "ended", "latest"}:
        raise UserError(f"{file}: series.{name}: must be a mapping of end, ended and latest")
    end = entry.get("end")
    match = _END.match(str(end)) if end is not None else None
    if end is not None and match is None:
        raise UserError(f"{file}: series.{name}.end: {end!r} is neither a month (2028-12) nor a day")
    return LongtermSeries(
        name, _last_day(match) if match else None, entry.get("ended") is True, str(entry.get("latest", ""))
    )


def _last_day(match: re.Match[str]) -> datetime.date:
    year, month = int(match[1]), int(match[2])
    try:
        return datetime.date(year, month, int(match[3]) if match[3] else calendar.monthrange(year, month)[1])
    except (ValueError, calendar.IllegalMonthError):
        raise UserError(f"{match[0]} is not a date") from None


def refresh(known: LongtermList, where: str, home: Path, today: datetime.date) -> LongtermList:
    """Read kernel.org's list of releases from a URL or file and write what it says into ``home``.

    Series that it no longer names have ended. Ends are taken from what was known, as the list holds none.

    Raises:
        InfraError: it cannot be had, or is no list of releases.
        UserError: ``where`` is neither a URL nor a file.
    """
    url = where if "://" in where else Path(where).expanduser().absolute().as_uri()
    data = read_url(checked_url(url, where="--refresh"), limit=_LIMIT)
    latest = _longterm_of(data, where)
    earlier = {one.series: one for one in known.series}
    merged = []
    for series in sorted({*latest, *earlier}, key=fields, reverse=True):
        old = earlier.get(series)
        release, over = latest.get(series, ("", True))
        merged.append(LongtermSeries(series, old.end if old else None, over, release or (old.latest if old else "")))
    result = LongtermList(today, where, tuple(merged), home / NAME)
    write_atomically(result.file, _text(result).encode())
    return result


def _longterm_of(data: bytes, where: str) -> dict[str, tuple[str, bool]]:
    """Series to (newest release, whether it has ended)."""
    try:
        releases = json.loads(data)["releases"]
        found = {
            series_of(one["version"]): (str(one["version"]), one.get("iseol") is True)
            for one in releases
            if one["moniker"] == "longterm"
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InfraError(f"{where} is not a list of kernel releases: {type(error).__name__}: {error}") from None
    if not found or not all(map(_SERIES.match, found)):
        raise InfraError(f"{where} names no longterm kernels")
    return found


def _text(known: LongtermList) -> str:
    rows: dict[str, dict[str, object]] = {}
    for one in known.series:
        row: dict[str, object] = {"end": one.end} if one.end else {}
        row |= {"ended": True} if one.ended else {}
        row |= {"latest": one.latest} if one.latest else {}
        rows[one.series] = row
    content = {"read": known.read, "source": known.source, "series": rows}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
