"""docs/passthrough.md says of recorded machines what the code says of them, and leaves no case out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from devices.recorded import machine
from harness.devices.objection import Code, Level, Objection
from harness.devices.safety import survey

DOCUMENT = Path(__file__).parents[2] / "docs/passthrough.md"
FORCE = {Level.NEVER: "never", Level.REFUSED: "yes"}


def table(head: str) -> list[list[str]]:
    """The rows below the head of a table, as cells."""
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    first = lines.index(head) + 2
    last = next(number for number in range(first, len(lines)) if not lines[number].startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[first:last]]


REFUSALS = table("| case | recorded machine | reason | fix | force |")
NOTES = table("| case | recorded machine | note | advice |")


def said(where: str, code: str, root: Path) -> list[Objection]:
    """What is said of a unit of a recorded machine under one code."""
    match = re.fullmatch(r"`([\w-]+)` (\S+)", where)
    assert match, where
    found = {one.unit.address: one for one in survey(machine(match[1]).unfold(root))}
    return [one for one in found[match[2]].objections if f"`{one.code}`" == code]


@pytest.mark.parametrize(("code", "where", "reason", "fix", "force"), REFUSALS)
def test_a_refusal_is_documented_in_its_own_words(
    tmp_path: Path, code: str, where: str, reason: str, fix: str, force: str
) -> None:
    expected = {(one.reason, one.fix, FORCE[one.level]) for one in said(where, code, tmp_path)}
    assert (reason, fix, force) in expected


@pytest.mark.parametrize(("code", "where", "note", "advice"), NOTES)
def test_a_note_is_documented_in_its_own_words(tmp_path: Path, code: str, where: str, note: str, advice: str) -> None:
    assert [(note, advice, Level.NOTE)] == [
        (one.reason, one.fix or "–", one.level) for one in said(where, code, tmp_path)
    ]


def test_every_case_is_documented() -> None:
    assert {row[0].strip("`") for row in (*REFUSALS, *NOTES)} == set(Code)
