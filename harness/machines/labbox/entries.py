"""The kernels that a lab box can boot: which releases it has, and what its boot loader calls them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise

from harness.errors import InfraError

_PIECES = re.compile(r"~|-rc|[0-9]+|[A-Za-z]+")


@dataclass(frozen=True, slots=True)
class BootEntry:
    """One entry of a boot loader."""

    id: str
    """What the loader is told to boot it by."""
    version: str = ""
    """The release that the entry names, where it names one."""
    kernel: str = ""
    """Path of the kernel on the box, or as its loader sees it."""

    def boots(self, release: str) -> bool:
        """Whether this entry boots a release: it says so, or its file is named after it."""
        return self.version == release or _named(self.kernel, release)


def _named(path: str, release: str) -> bool:
    """``/vmlinuz-6.1.0-50`` is named after 6.1.0-50, and not after 6.1.0-5 or 1.0-50."""
    return re.search(rf"(?<![0-9.]){re.escape(release)}(?![A-Za-z0-9_+~-]|\.[0-9])", path) is not None


def newest_first(releases: Iterable[str]) -> list[str]:
    """Sort kernel releases; a release candidate comes before the release itself."""

    def key(release: str) -> tuple[tuple[int, int, str], ...]:
        pieces = _PIECES.findall(release)
        ranks = (
            (0, 0, "") if piece in ("~", "-rc") else (3, int(piece), "") if piece.isdigit() else (2, 0, piece)
            for piece in pieces
        )
        return (*ranks, (1, 0, ""))

    return sorted(releases, key=key, reverse=True)


def choose(pattern: str, wanted: str, releases: Iterable[str], entries: Iterable[BootEntry]) -> tuple[str, BootEntry]:
    """Return the newest release that fits ``pattern`` and has an entry, with that entry.

    ``wanted`` is the identifier of the entry where the user names one.

    Raises:
        InfraError: the box has no such kernel or no such entry, or several entries boot it.
    """
    have, known = newest_first(releases), list(entries)
    fitting = [release for release in have if fnmatchcase(release, pattern)]
    if not fitting:
        raise InfraError(f"no installed kernel fits {pattern}; installed are: {', '.join(have) or 'none'}")
    named = [entry for entry in known if not wanted or entry.id == wanted]
    if not named:
        raise InfraError(f"there is no boot entry {wanted}; there are: {_listed(known)}")
    for release in fitting:
        found = [entry for entry in named if entry.boots(release)]
        if len(found) > 1:
            raise InfraError(f"several boot entries boot {release}: {_listed(found)}; name one: entry: {found[0].id}")
        if found:
            return release, found[0]
    what = f"boot entry {wanted} boots none of" if wanted else "no boot entry boots"
    raise InfraError(f"{what} {', '.join(fitting)}; there are: {_listed(known)}")


def _listed(entries: Iterable[BootEntry]) -> str:
    return ", ".join(f"{entry.id} ({entry.version or entry.kernel or 'no kernel'})" for entry in entries) or "none"


def systemd_boot_entries(text: str) -> list[BootEntry]:
    """Read what ``bootctl list --json=short`` prints.

    Raises:
        InfraError: it is not that.
    """
    try:
        found = json.loads(text)
        if not isinstance(found, list):
            raise ValueError("no list")
        return [
            BootEntry(str(one["id"]), str(one.get("version", "")), _path(one))
            for one in found
            if not str(one["id"]).startswith("auto-")
        ]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InfraError(f"bootctl lists no boot entries: {text.strip()[:200] or 'it prints nothing'}") from None


def _path(entry: dict[str, object]) -> str:
    """Where the kernel of an entry lies on the box; of a unified kernel image, the image itself."""
    kernel, root = entry.get("linux"), entry.get("root", "")
    return f"{root}{kernel}" if kernel else str(entry.get("path", ""))


def grub_entries(config: str) -> list[BootEntry]:
    """Read the entries of a ``grub.cfg``, with the identifiers of the submenus that they lie in.

    What GRUB's own language would decide while it runs is not followed; entries that grub-mkconfig writes need none.
    """
    found: list[BootEntry] = []
    blocks: list[str | None] = []
    """For each open brace the identifier of its menu entry or submenu; None for any other block."""
    for line in config.splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # a quoted text of several lines; none that matters
            continue
        if not words:
            continue
        if words[0] in ("menuentry", "submenu") and words[-1] == "{":
            blocks.append(_grub_id(words))
        elif words[-1] == "{":
            blocks.append(None)
        elif words[0] == "}":
            if blocks:
                blocks.pop()
        elif words[0] in ("linux", "linuxefi", "linux16") and len(words) > 1:
            path = ">".join(block for block in blocks if block is not None)
            if path:
                found.append(BootEntry(path, "", words[1]))
    return found


def _grub_id(words: list[str]) -> str:
    """The identifier that grub-reboot takes; a title does where there is none, with ``>`` doubled."""
    for option, value in pairwise(words):
        if option in ("--id", "$menuentry_id_option", "${menuentry_id_option}"):
            return value
    return next((word[5:] for word in words if word.startswith("--id=")), words[1].replace(">", ">>"))


def bls_entries(text: str) -> list[BootEntry]:
    """Read entries of the Boot Loader Specification, type 1, each after a line ``@ FILE``: what GRUB's blscfg lists."""
    found = []
    for part in text.split("@ ")[1:]:
        name, _, body = part.partition("\n")
        fields = dict(line.split(None, 1) for line in body.splitlines() if len(line.split(None, 1)) == 2)
        identifier = name.rpartition("/")[2].removesuffix(".conf")
        found.append(BootEntry(identifier, fields.get("version", ""), fields.get("linux", "").strip()))
    return found
