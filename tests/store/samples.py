"""Cells and attempts for the tests of the store, and hypothesis strategies that make any of them."""

from __future__ import annotations

from hypothesis import strategies as st

from harness.model.cell import Cell, DebianKernel, KernelSpec, Series, Timeouts, TreeKernel
from harness.model.outcome import Outcome
from harness.model.prediction import Grade, IssueMatch, Prediction
from harness.model.records import Attempt, Evidence, Metric, StageResult, TestResult
from harness.model.stage import Stage


def make_cell(name: str = "lts", boots: int = 1) -> Cell:
    return Cell(
        guest="debian-13",
        kernel=KernelSpec(name, Series.LONGTERM, DebianKernel("trixie", "6.12")),
        stack="pocl",
        tests=("vector-add",),
        boots=boots,
    )


def make_attempt(
    run_id: str,
    cell_id: str,
    number: int = 1,
    outcome: Outcome = Outcome.PASS,
    reason: str = "",
    evidence: tuple[Evidence, ...] = (),
) -> Attempt:
    metric = Metric("bandwidth", 2e9, "B/s", n=3, minimum=1e9, p95=3e9, maximum=3e9, samples=(1e9, 2e9, 3e9))
    return Attempt(
        run_id=run_id,
        cell_id=cell_id,
        number=number,
        started="2026-04-12T10:15:30+00:00",
        finished="2026-04-12T10:16:00.5+00:00",
        outcome=outcome,
        rung=Stage.COMPUTE,
        reason=reason,
        stages=(
            StageResult(Stage.BOOT, Outcome.PASS, 3.5, evidence=evidence),
            StageResult(Stage.COMPUTE, outcome, 1.25, reason),
        ),
        tests=(TestResult("copy", Stage.COMPUTE, outcome, reason, 1.0, "gpu", (metric,), {"ok": True, "n": 1}),),
        facts={"uname_release": "6.12.1-amd64"},
    )


# What every database gives back unchanged: no NUL, no lone surrogate (see test_store for those).
TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=12)
ANY_TEXT = st.text(max_size=8)
SECONDS = st.floats(min_value=0, allow_nan=False)
NUMBERS = st.floats(allow_nan=False)
COUNTS = st.integers(0, 2**63 - 1)
OUTCOMES = st.sampled_from(Outcome)
STAGES = st.sampled_from(Stage)

SOURCES = st.builds(
    DebianKernel, suite=TEXT, version=st.none() | TEXT, release=TEXT, flavour=TEXT
) | st.builds(TreeKernel, path=TEXT)  # fmt: skip
CELLS = st.builds(
    Cell,
    guest=TEXT,
    kernel=st.builds(KernelSpec, TEXT, st.sampled_from(Series), SOURCES, TEXT),
    stack=TEXT,
    device=TEXT,
    tests=st.lists(TEXT, max_size=3).map(tuple),
    boots=st.integers(1, 4),
    timeouts=st.builds(Timeouts, *[SECONDS] * 6),
)
EVIDENCE = st.builds(Evidence, TEXT, st.text("0123456789abcdef", min_size=64, max_size=64), COUNTS, TEXT, st.booleans())
METRICS = st.builds(
    Metric,
    name=TEXT,
    value=NUMBERS,
    unit=TEXT,
    better=st.sampled_from(["higher", "lower"]),
    n=COUNTS,
    minimum=st.none() | NUMBERS,
    p95=st.none() | NUMBERS,
    maximum=st.none() | NUMBERS,
    samples=st.lists(NUMBERS, max_size=3).map(tuple),
    roofline=st.none() | NUMBERS,
    roofline_source=TEXT,
)
DETAILS = st.dictionaries(ANY_TEXT, ANY_TEXT | st.integers() | NUMBERS | st.booleans(), max_size=3)
TESTS = st.builds(
    TestResult,
    name=TEXT,
    stage=STAGES,
    outcome=OUTCOMES,
    reason=TEXT,
    seconds=SECONDS,
    kind=st.sampled_from(["gpu", "cpu-runtime", "fake", "none"]),
    metrics=st.lists(METRICS, max_size=2).map(tuple),
    details=DETAILS,
)
STAGE_RESULTS = st.builds(StageResult, STAGES, OUTCOMES, SECONDS, TEXT, st.lists(EVIDENCE, max_size=2).map(tuple))


PREDICTIONS = st.builds(Prediction, STAGES, OUTCOMES, TEXT, TEXT)
ISSUES = st.builds(
    IssueMatch,
    issue=TEXT,
    title=TEXT,
    stage=STAGES,
    grade=st.sampled_from(Grade),
    cause=TEXT,
    fixed_in=TEXT,
    workaround=TEXT,
    fault=TEXT,
    confidence=TEXT,
    sources=st.lists(ANY_TEXT, max_size=2).map(tuple),
    excerpt=TEXT,
)


def attempts_of(run_id: str, cell_id: str, number: int) -> st.SearchStrategy[Attempt]:
    return st.builds(
        Attempt,
        run_id=st.just(run_id),
        cell_id=st.just(cell_id),
        number=st.just(number),
        started=TEXT,
        finished=TEXT,
        outcome=OUTCOMES,
        rung=STAGES,
        reason=TEXT,
        stages=st.lists(STAGE_RESULTS, max_size=3).map(tuple),
        tests=st.lists(TESTS, max_size=3).map(tuple),
        facts=st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=3),
        predictions=st.lists(PREDICTIONS, max_size=3).map(tuple),
        issues=st.lists(ISSUES, max_size=3).map(tuple),
    )
