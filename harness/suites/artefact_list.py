"""The committed digests of compiled device code, ``gpu_tests/digests/<kernel>.json``: one file per kernel file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.placing import write_atomically

FOLDER = "digests"
_ENTRY = ("path", "sha256", "bytes", "compiler", "arch", "flags", "format")
_COMPILER = ("version", "commands")


@dataclass(frozen=True, slots=True)
class Listed:
    """What is known of one artefact."""

    path: str
    """``sm_90/triad.cubin``."""
    sha256: str
    bytes: int
    compiler: str
    """Name in ``artefacts.yaml``."""
    arch: str
    flags: str
    """What the target adds to the compiler's commands."""
    format: str
    """Version of the format: the PTX ISA, the code object's, SPIR-V's."""
    version: str
    """Every part of the compiler with its version."""
    commands: tuple[str, ...]
    """How it was called, with names for programs and target."""


def read_list(sources: Path, kernel: str) -> dict[str, Listed]:
    """The listed artefacts of one kernel file by path; empty when it has no list.

    Raises:
        UserError: the list is damaged.
    """
    path = sources / FOLDER / f"{kernel}.json"
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        found = {}
        for entry in data["artefacts"]:
            by = data["compilers"][entry["compiler"]]
            known = {key: entry[key] for key in _ENTRY}
            found[entry["path"]] = Listed(**known, version=by["version"], commands=tuple(by["commands"]))
        return found
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a list of artefacts ({error}); 'kdmatrix artefacts --update' writes it") from None


def listed_kernels(sources: Path) -> list[str]:
    """The kernels that have a list, sorted."""
    return sorted(path.stem for path in (sources / FOLDER).glob("*.json"))


def write_list(sources: Path, kernel: str, artefacts: Mapping[str, Listed]) -> None:
    """Write the list of one kernel file, one line per artefact so that differences are small; remove an empty one."""
    path = sources / FOLDER / f"{kernel}.json"
    if not artefacts:
        path.unlink(missing_ok=True)
        return
    by = {one.compiler: {key: getattr(one, key) for key in _COMPILER} for one in artefacts.values()}
    compilers = [f"{json.dumps(name)}: {json.dumps(facts)}" for name, facts in by.items()]
    entries = [json.dumps({key: getattr(one, key) for key in _ENTRY}) for one in artefacts.values()]
    text = '{"compilers": {\n' + ",\n".join(compilers) + '\n}, "artefacts": [\n' + ",\n".join(entries) + "\n]}\n"
    write_atomically(path, text.encode())
