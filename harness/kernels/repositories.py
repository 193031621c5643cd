"""RPM repositories that a matrix may name: data with addresses that are settings of this host."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.errors import UserError
from harness.kernels.fetching import checked_url

EXTRA = "KDMATRIX_REPOSITORIES"
_PARAMETERS = {"release": r"[0-9]{1,3}", "series": r"[0-9]+\.[0-9]+"}
_PLACE = re.compile(r"\{(\w+)\}")
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_KEYS = {"url", "signed", "key", "note", "package"}
_SIGNED = ("packages", "repomd", "nothing")


@dataclass(frozen=True, slots=True)
class Repository:
    """Where packages come from and what vouches for them."""

    name: str
    url: str
    signed: str
    """What ``key`` has signed: ``packages``, ``repomd`` or ``nothing``."""
    key: Path | None = None
    """Public key, armored or not."""
    note: str = ""
    """Why an unsigned repository is taken."""
    package: str = ""
    """Name of its kernel package, where that is not the one asked for."""


def find_repository(name: str, data: Path) -> Repository:
    """Return the repository that ``name`` means: an entry of the data files, a directory, or a ``file:`` URL.

    A plain URL of the network has no key, so nothing would vouch for what comes from there: it needs an entry.

    Raises:
        UserError: no entry has this name, a setting that it needs is not there, or the data are wrong.
    """
    if name.startswith(("/", "~", "file:")):
        return Repository(name, checked_url(name, where="rpm repository"), "nothing", note="a directory of this host")
    if "://" in name:
        raise UserError(
            f"rpm repository {name}: nothing vouches for packages from a bare address; write an entry with url and key "
            f"into a file and name the file in {EXTRA}"
        )
    patterns: list[str] = []
    for file in _files(data):
        entries = _read(file)
        patterns += entries
        for pattern, entry in entries.items():
            if (values := _match(pattern, name)) is not None:
                return _repository(name, entry, values, f"{file}: {pattern}")
    known = sorted(patterns)
    near = difflib.get_close_matches(_PLACE.sub("", name), known, 1, 0.5)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
    raise UserError(f"there is no rpm repository {name!r}; {hint}")


def known_names(data: Path) -> list[str]:
    """The names of every entry, parameters in braces."""
    return sorted({pattern for file in _files(data) for pattern in _read(file)})


def expand_settings(text: str, where: str) -> str:
    """Put this host's settings in the place of ``${VARIABLE}``.

    Raises:
        UserError: one is not set; the line says which.
    """

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1], "").strip()
        if not found:
            raise UserError(f"{where} needs a setting of this host: set {match[1]}")
        return found.rstrip("/")

    return _VARIABLE.sub(value, text)


def _files(data: Path) -> list[Path]:
    own = os.environ.get(EXTRA, "").strip()
    return ([Path(own).expanduser()] if own else []) + [data / "repositories.yaml"]


def _read(file: Path) -> Mapping[str, Mapping[str, Any]]:
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise UserError(f"{file}{place}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(found, dict):
        raise UserError(f"{file}: must be a mapping of repository names")
    for name, entry in found.items():
        _check(entry, f"{file}: {name}")
    return found


def _check(entry: object, where: str) -> None:
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise UserError(f"{where}: must be a mapping of texts: {', '.join(sorted(_KEYS))}")
    if unknown := sorted(set(entry) - _KEYS):
        near = difflib.get_close_matches(str(unknown[0]), _KEYS, 1)
        raise UserError(f"{where}: unknown key {unknown[0]!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    if "url" not in entry or entry.get("signed") not in _SIGNED:
        raise UserError(f"{where}: needs url, and signed as one of {', '.join(_SIGNED)}")
    needed = "note" if entry["signed"] == "nothing" else "key"
    if needed not in entry:
        raise UserError(f"{where}: signed: {entry['signed']} needs {needed}")


def _match(pattern: str, name: str) -> dict[str, str] | None:
    parts = _PLACE.split(pattern)
    regex = "".join(
        re.escape(part) if index % 2 == 0 else f"(?P<{part}>{_PARAMETERS.get(part, '[a-z0-9.]+')})"
        for index, part in enumerate(parts)
    )
    match = re.fullmatch(regex, name)
    return match.groupdict() if match else None


def _repository(name: str, entry: Mapping[str, str], values: Mapping[str, str], where: str) -> Repository:
    def full(text: str) -> str:
        return expand_settings(_PLACE.sub(lambda match: values.get(match[1], match[0]), text), f"rpm repository {name}")

    # ${VARIABLE} looks like a place, too: no parameter has a variable's name, so it is left as it is.
    url = checked_url(full(entry["url"]), where=where)
    key = Path(full(entry["key"])).expanduser() if "key" in entry else None
    if key is not None and not key.is_file():
        raise UserError(f"rpm repository {name}: its key {key} is missing, so no signature can be checked")
    return Repository(name, url, entry["signed"], key, entry.get("note", ""), entry.get("package", ""))
