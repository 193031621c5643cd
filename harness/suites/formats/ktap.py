"""KTAP, the kernel's own test format, and the TAP that it grew from (Documentation/dev-tools/ktap.rst)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from harness.model.outcome import Outcome
from harness.suites.formats.case import Case, Unreadable, bounded, decoded, line

_RESULT = re.compile(r"(not )?ok\b ?(\d+)?(.*)")
_PLAN = re.compile(r"1\.\.(\d+)(?:\s*#\s*(?:SKIP\b)?\s*(.*))?", re.IGNORECASE)
_VERSION = re.compile(r"(K?TAP) version (\d+)")
_DIRECTIVE = re.compile(r"(SKIP|TODO|XFAIL|TIMEOUT|ERROR)\b:?\s*(.*)", re.IGNORECASE)
_MAX_DEPTH = 16


@dataclass(slots=True)
class _Level:
    """The results at one depth of nesting, until their parent's own result names them."""

    indent: int
    planned: int | None = None
    results: int = 0
    cases: list[Case] = field(default_factory=list)


def read(report: bytes) -> list[Case]:
    """Read results at every depth; a case of a subtest is called ``parent/child``.

    A parent that has subtests is not a case of its own, unless it failed although they did not. A plan that is not
    fulfilled is an ERROR: whatever did not report is not known.
    """
    levels = [_Level(0)]
    seen = False
    for raw in decoded(report).splitlines():
        text = _without_prefix(raw)
        indent = len(text) - len(text.lstrip(" "))
        text = text.strip()
        if text.startswith("Bail out!"):
            levels[0].cases.append(Case("bail out", Outcome.ERROR, line(text[len("Bail out!") :]) or "it bailed out"))
            seen = True
            break
        if _VERSION.fullmatch(text):
            _descend(levels, indent)
        elif plan := _PLAN.fullmatch(text):
            _descend(levels, indent)
            levels[-1].planned = int(plan[1])
            if levels[-1].planned == 0:
                levels[-1].cases.append(Case("all", Outcome.SKIP, line(plan[2] or "") or "its plan is empty"))
            seen = True
        elif result := _RESULT.fullmatch(text):
            below = _ascend(levels, indent)
            levels[-1].results += 1
            levels[-1].cases += _cases(result, levels[-1].results, below)
            seen = True
    if not seen:
        raise Unreadable("it holds no KTAP result")
    orphans = _ascend(levels, 0)
    if orphans:
        orphans.append(Case("end", Outcome.ERROR, "the report ends within a subtest"))
    return bounded([*levels[0].cases, *orphans, *_unfulfilled(levels[0])])


def _without_prefix(raw: str) -> str:
    """A line without what the kernel's log puts before it: ``[    1.234567] ``."""
    return re.sub(r"^(?:<\d+>)?\[ *\d+\.\d+\] ?", "", raw.rstrip())


def _descend(levels: list[_Level], indent: int) -> None:
    if indent > levels[-1].indent and len(levels) < _MAX_DEPTH:
        levels.append(_Level(indent))


def _ascend(levels: list[_Level], indent: int) -> list[Case]:
    """Close every level deeper than ``indent`` and return what was in them."""
    below: list[Case] = []
    while len(levels) > 1 and levels[-1].indent > indent:
        level = levels.pop()
        # What lies deeper still has no parent's result of its own: it belongs to the level that is being closed.
        below = [*level.cases, *below, *_unfulfilled(level)]
    return below


def _cases(result: re.Match[str], place: int, below: list[Case]) -> list[Case]:
    description, _, comment = result[3].partition("#")
    name = line(description.strip().removeprefix("-")) or f"test {result[2] or place}"
    comment = comment.strip()
    directive = _DIRECTIVE.match(comment)
    outcome = Outcome.FAIL if result[1] else Outcome.PASS
    reason = line(comment)
    if directive:
        word, reason = directive[1].upper(), line(directive[2])
        if word == "SKIP":
            outcome, reason = Outcome.SKIP, reason or "skipped"
        elif word in ("TODO", "XFAIL"):
            # Known not to work: that it fails is expected, that it passes is worth a word and no fault.
            reason = f"expected to fail: {reason or word.lower()}"
            outcome = Outcome.SKIP if result[1] else Outcome.PASS
        elif word == "TIMEOUT":
            outcome, reason = Outcome.FAIL, reason or "timed out"
        else:
            outcome, reason = Outcome.ERROR, reason or "the test itself broke"
    if outcome is Outcome.FAIL and not reason:
        reason = "not ok"
    nested = [Case(f"{name}/{case.name}", case.outcome, case.reason) for case in below]
    explained = any(case.outcome is outcome for case in below) or outcome is Outcome.PASS
    if nested and explained:
        return nested
    return [*nested, Case(name, outcome, "" if outcome is Outcome.PASS else reason)]


def _unfulfilled(level: _Level) -> list[Case]:
    if level.planned is None:
        return []
    if level.results < level.planned:
        reason = f"{level.results} of {level.planned} planned results were reported"
        return [Case("plan", Outcome.ERROR, reason)]
    return []
