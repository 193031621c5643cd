"""What a newcomer reads first: what was tested, what broke, what was not covered, and how sure one can be. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.model.machine import HERE
from harness.model.stage import LADDER, Stage
from harness.report.data import RunInfo
from harness.report.text import page_text, percent
from harness.report.view import CellView, State
from harness.report.wilson import lower_bound, passes_needed

MOST_GROUPS = 12
MOST_EXAMPLES = 6
WORDS: dict[State, tuple[str, str, str]] = {
    State.FAIL: ("✗", "FAIL", "the kernel, driver or runtime is at fault"),
    State.ERROR: ("!", "ERROR", "our own test broke; it says nothing about the product"),
    State.MISS: ("?", "MISS", "host, lab or harness trouble: nothing is known"),
    State.PASS: ("✓", "PASS", "every rung that applies was climbed"),
    State.DONE: ("=", "DONE", "measured, without a verdict"),
    State.SKIP: ("–", "SKIP", "not applicable here; the reason says why"),
    State.BLOCKED: ("⇥", "BLOCKED", "an earlier rung stopped it"),
    State.NOT_RUN: ("○", "NOT RUN", "planned, but no attempt is recorded yet"),
    State.LEFT_OUT: ("⊘", "LEFT OUT", "excluded by a rule of the matrix; the reason says which"),
}
"""Symbol, word and meaning of each state: the same everywhere."""
KIND_TAGS = {"gpu": "GPU", "cpu-runtime": "CPU", "fake": "FAKE", "none": "NO GPU"}
"""What computed, as a tag beside the outcome."""
_COMPUTED = {
    "gpu": "computing on a GPU",
    "cpu-runtime": "computing on the CPU",
    "fake": "on a fake device",
    "none": "without computing",
}


@dataclass(frozen=True, slots=True)
class Group:
    """Cells that share an outcome, a rung and (but for its numbers) a reason."""

    state: State
    rung: str
    reason: str
    cells: tuple[str, ...]
    """Ids, at most :data:`MOST_EXAMPLES`."""
    count: int


@dataclass(frozen=True, slots=True)
class Rung:
    """How the cells fared on one rung of the ladder."""

    name: str
    stopped: int
    """Cells whose ladder ended here with FAIL, ERROR or MISS."""
    by_state: tuple[tuple[State, int], ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything above the matrix."""

    lead: tuple[str, ...]
    counts: tuple[tuple[State, int], ...]
    passes: dict[str, int]
    """Passing cells by what computed, the strongest first; a kind without a pass is not there."""
    broken: tuple[Group, ...]
    broken_more: int
    uncovered: tuple[Group, ...]
    uncovered_more: int
    rungs: tuple[Rung, ...]
    confidence: tuple[str, ...]
    limits: tuple[str, ...]


def summarise_run(run: RunInfo, cells: Sequence[CellView]) -> Summary:
    """Return the summary of a run."""
    counts = Counter(cell.state for cell in cells)
    broken = _groups(cell for cell in cells if cell.state in (State.FAIL, State.ERROR))
    uncovered = _groups(
        cell for cell in cells if cell.state in (State.MISS, State.SKIP, State.BLOCKED, State.NOT_RUN, State.LEFT_OUT)
    )
    return Summary(
        lead=_lead(run, cells, counts),
        counts=tuple((state, counts[state]) for state in State if counts[state]),
        passes=_passes(cells),
        broken=broken[:MOST_GROUPS],
        broken_more=max(0, len(broken) - MOST_GROUPS),
        uncovered=uncovered[:MOST_GROUPS],
        uncovered_more=max(0, len(uncovered) - MOST_GROUPS),
        rungs=tuple(_rung(stage, cells) for stage in LADDER),
        confidence=_confidence(cells),
        limits=_limits(cells, counts),
    )


def count_of(number: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun: ``1 cell``, ``1,200 cells``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _passes(cells: Iterable[CellView]) -> dict[str, int]:
    passes = Counter[str](cell.kind for cell in cells if cell.state is State.PASS)
    return {kind: passes[kind] for kind in KIND_TAGS if passes[kind]}


def _lead(run: RunInfo, cells: Sequence[CellView], counts: Counter[State]) -> tuple[str, ...]:
    planned = [cell for cell in cells if cell.state is not State.LEFT_OUT]
    kernels = len({cell.kernel for cell in planned})
    stacks = len({cell.stack for cell in planned})
    guests = len({cell.guest for cell in planned})
    devices = len({cell.device for cell in planned} - {"none", ""})
    here = bool(planned) and all(cell.guest == HERE for cell in planned)
    what = "device" if here else "passed-through device"
    place = "this machine" if here else count_of(guests, "guest")
    lines = [
        f"{count_of(kernels, 'kernel')} × {count_of(stacks, 'driver stack')} on {place}, "
        f"with {count_of(devices, what) if devices else f'no {what}'}: "
        f"{count_of(len(planned), 'cell')} planned, {len(planned) - counts[State.NOT_RUN]:,} executed.",
    ]
    parts = [f"{number:,} {_COMPUTED[kind]}" for kind, number in _passes(cells).items()]
    verdict = f"{counts[State.PASS]:,} passed" + (f" ({', '.join(parts)})" if parts else "")
    verdict += f", {counts[State.FAIL]:,} failed"
    if counts[State.ERROR]:
        verdict += f", {counts[State.ERROR]:,} broke in our own test"
    if counts[State.MISS]:
        verdict += f", {counts[State.MISS]:,} lost to host or lab trouble"
    accelerator = run.host.get("accelerator", "")
    where = f"VMs ran with {accelerator}." if accelerator else "Which accelerator the VMs ran with was not recorded."
    without = [one.removeprefix("none: ") for one in accelerator.split(" / ") if one.startswith("none: ")]
    if without and without == [one.removeprefix("none: ") for one in accelerator.split(" / ")]:
        where = f"No VM ran: every cell was executed on {' or '.join(without)}."
    until = str(run.options.get("until", ""))
    if until in (Stage.IMAGE, Stage.BUILD):
        where = f"Nothing was booted: the run was to end with {until}."
    return (*lines, verdict + ".", page_text(where, 200))


def _groups(cells: Iterable[CellView]) -> tuple[Group, ...]:
    members: dict[tuple[State, str, str], list[CellView]] = {}
    for cell in cells:
        rung = str(cell.rung) if cell.rung and cell.state not in (State.NOT_RUN, State.LEFT_OUT) else ""
        members.setdefault((cell.state, rung, _signature(cell.reason)), []).append(cell)
    order = {state: position for position, state in enumerate(State)}
    made = [
        Group(
            state,
            rung,
            page_text(same[0].reason or "no reason recorded", 300),
            tuple(cell.id for cell in same[:MOST_EXAMPLES]),
            len(same),
        )
        for (state, rung, _), same in members.items()
    ]
    return tuple(sorted(made, key=lambda group: (order[group.state], -group.count)))


def _signature(reason: str) -> str:
    """Addresses and counters differ between boots of one and the same failure."""
    return re.sub(r"0x[0-9a-fA-F]+|\d+", "#", reason[:500])


def _rung(stage: Stage, cells: Iterable[CellView]) -> Rung:
    ended = (State.FAIL, State.ERROR, State.MISS)
    counts = Counter(cell.state for cell in cells if cell.rung is stage and cell.state in ended)
    return Rung(str(stage), counts.total(), tuple((state, counts[state]) for state in ended if counts[state]))


def _confidence(cells: Sequence[CellView]) -> tuple[str, ...]:
    passed = [cell for cell in cells if cell.state is State.PASS]
    if not passed:
        return ("Nothing passed, so there is no pass to be confident in.",)
    fewest = min(cell.boots_tried for cell in passed)
    bound = lower_bound(fewest, fewest) or 0.0
    thin = sum(cell.boots_tried == fewest for cell in passed)
    lines = [
        f"{count_of(thin, 'passing cell')} of {len(passed):,} rest on {count_of(fewest, 'boot')}: {fewest}/{fewest} "
        f"shows, with 95 % confidence, only that at least {percent(bound)} of such boots pass (Wilson interval).",
        f"To claim 95 % of boots, {passes_needed(0.95)} in a row would have to pass.",
    ]
    mixed = sum(0 < cell.boots_passed < cell.boots_tried for cell in cells)
    if mixed:
        lines.append(f"{count_of(mixed, 'cell')} passed on some boots and failed on others.")
    return tuple(lines)


def _limits(cells: Sequence[CellView], counts: Counter[State]) -> tuple[str, ...]:
    lines = []
    if not any(cell.gpu_pass for cell in cells):
        lines.append("No cell of this run is evidence that a GPU computes: no passing cell ran its tests on one.")
    soft = sum(cell.state is State.PASS and cell.kind != "gpu" for cell in cells)
    if soft:
        lines.append(
            f"{count_of(soft, 'pass', 'passes')} did not compute on a GPU: striped, and tagged, in the matrix."
        )
    bare = sum(cell.evidence == "not collected" for cell in cells)
    partly = sum(cell.evidence == "partly" for cell in cells)
    if bare:
        lines.append(f"For {count_of(bare, 'cell')} no evidence was collected: “no log” is not “no problem”.")
    if partly:
        lines.append(f"For {count_of(partly, 'cell')} some of the evidence was not collected.")
    if counts[State.NOT_RUN]:
        lines.append(f"{count_of(counts[State.NOT_RUN], 'planned cell')} did not run.")
    for cell in [cell for cell in cells if cell.trouble][:MOST_GROUPS]:
        what = page_text(cell.trouble[0], 300)
        lines.append(f"After {cell.id}, whose result stands, its device or lab box is in trouble: {what}")
    return tuple(lines)
