from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.outcome import Outcome
from harness.model.records import TestResult
from harness.model.shell import Completed
from harness.model.stage import Stage
from harness.suites.judge import judge
from harness.suites.manifest import MetricSpec, TestSpec
from harness.suites.wire import encode, parse

SPEC = TestSpec(
    name="triad",
    title="t",
    stage=Stage.THROUGHPUT,
    argv=("run", "triad"),
    backends=("opencl",),
    timeout=60,
    budget=3,
    metrics=(MetricSpec("triad_bw", "B/s", "higher"),),
)
HELLO = {"ev": "hello", "schema": 1, "build": "b1", "test": "triad", "backend": "opencl"}
DEVICE = {"ev": "device", "kind": "cpu-runtime", "name": "pthread", "mem_bytes": 1 << 30, "compute_units": 2}
CHECK = {"ev": "check", "name": "exact", "kind": "cpu-runtime", "ok": True, "checked": 9, "bad": 0}
METRIC = {
    "ev": "metric",
    "name": "triad_bw",
    "kind": "cpu-runtime",
    "unit": "B/s",
    "better": "higher",
    "value": 2e9,
    "n": 3,
    "min": 1e9,
    "p50": 2e9,
    "p95": 2.9e9,
    "max": 3e9,
    "samples": [1e9, 3e9, 2e9],
    "clock": "event",
    "wall_ratio": 0.97,
}
BEAT = {"ev": "heartbeat", "secs": 12.2, "phase": "time"}


def result(status: str = "pass", reason: str = "") -> dict[str, Any]:
    return {
        "ev": "result",
        "status": status,
        "kind": "cpu-runtime",
        "reason": reason,
        "secs": 1.0,
        "code_form": "source",
    }


def unopened(status: str, reason: str) -> dict[str, Any]:
    return result(status, reason) | {"kind": "none"}


GOOD = (HELLO, DEVICE, CHECK, METRIC, result())


def judged(*records: dict[str, Any], status: int | None = 0, test: TestSpec = SPEC, **rest: Any) -> TestResult:
    stdout = b"".join(encode(record) for record in records)
    completed = Completed(status, stdout, rest.pop("stderr", b""), 1.5, **rest)
    (one,) = judge(test, completed, parse(stdout), backend="opencl", timeout=60)
    return one


def test_a_pass_carries_metrics_kind_and_the_device() -> None:
    one = judged(*GOOD)
    assert (one.outcome, one.reason, one.kind, one.stage) == (Outcome.PASS, "", "cpu-runtime", Stage.THROUGHPUT)
    (metric,) = one.metrics
    assert (metric.value, metric.n, metric.minimum, metric.p95) == (2e9, 3, 1e9, 2.9e9)
    assert metric.samples == (1e9, 3e9, 2e9)
    assert metric.roofline is None
    assert one.details["device.0.name"] == "pthread"
    assert one.details["device.0.mem_bytes"] == 1 << 30
    assert one.details["triad_bw.wall_ratio"] == 0.97
    assert one.details["backend"] == "opencl"


def test_an_optional_metric_may_be_missing_but_is_read_where_it_is_there() -> None:
    spec = dataclasses.replace(SPEC, metrics=(*SPEC.metrics, MetricSpec("tensor", "flop/s", "higher", optional=True)))
    assert [metric.name for metric in judged(*GOOD, test=spec).metrics] == ["triad_bw"]
    tensor = METRIC | {"name": "tensor", "unit": "flop/s"}
    both = judged(HELLO, DEVICE, CHECK, METRIC, tensor, result(), test=spec)
    assert [metric.name for metric in both.metrics] == ["triad_bw", "tensor"]
    wrong = judged(HELLO, DEVICE, CHECK, METRIC, tensor | {"unit": "B/s"}, result(), test=spec)
    assert wrong.outcome is Outcome.ERROR


@pytest.mark.parametrize(
    ("records", "status", "rest", "outcome", "reason"),
    [
        (GOOD, None, {"lost": True}, Outcome.MISS, "connection to the machine broke"),
        ((HELLO, BEAT), None, {"lost": True}, Outcome.MISS, "last heartbeat at 12 s"),
        ((HELLO, BEAT), None, {"timed_out": True}, Outcome.FAIL, "no result within 60 s (last heartbeat at 12 s"),
        ((), None, {"timed_out": True}, Outcome.FAIL, "no result within 60 s (no heartbeat)"),
        ((HELLO, BEAT), 124, {}, Outcome.FAIL, "no result within 60 s"),
        (GOOD, None, {"timed_out": True}, Outcome.FAIL, "gave its result but did not exit within 60 s"),
        ((HELLO,), None, {}, Outcome.FAIL, "killed by signal"),
        ((HELLO,), -11, {}, Outcome.FAIL, "SIGSEGV"),
        ((HELLO,), 134, {}, Outcome.FAIL, "SIGABRT"),
        (GOOD, 139, {}, Outcome.FAIL, "SIGSEGV after giving its result"),
        ((), 0, {}, Outcome.ERROR, "exit status 0 without a result"),
        ((HELLO, DEVICE), 0, {}, Outcome.ERROR, "exit status 0 without a result"),
        ((), 127, {"stderr": b"gtrun: not found\n"}, Outcome.ERROR, "could not be started (exit status 127): gtrun"),
        ((HELLO,), 1, {"truncated": True}, Outcome.ERROR, "longer than its limit"),
        ((), 255, {}, Outcome.ERROR, "exit status 255 without a result"),
        ((HELLO, DEVICE, result("fail", "5 wrong")), 1, {}, Outcome.FAIL, "5 wrong"),
        ((HELLO, DEVICE, result("implausible", "time 0")), 3, {}, Outcome.FAIL, "implausible: time 0"),
        ((HELLO, unopened("skip", "no library")), 77, {}, Outcome.SKIP, "no library"),
        ((HELLO, unopened("error", "no kernel")), 2, {}, Outcome.ERROR, "no kernel"),
        ((HELLO, DEVICE, CHECK, METRIC, result("pass")), 1, {}, Outcome.ERROR, "said 'pass' but exited with status 1"),
        ((HELLO, DEVICE, result("fail")), 0, {}, Outcome.ERROR, "said 'fail' but exited with status 0"),
        ((HELLO, DEVICE, result("odd")), 0, {}, Outcome.ERROR, "said 'odd'"),
        ((DEVICE, CHECK, METRIC, result()), 0, {}, Outcome.ERROR, "first record is missing"),
        (({**HELLO, "schema": 2}, *GOOD[1:]), 0, {}, Outcome.ERROR, "wire schema 2"),
        (({**HELLO, "test": "vecadd"}, *GOOD[1:]), 0, {}, Outcome.ERROR, "'vecadd' instead of 'triad'"),
        ((HELLO, DEVICE, METRIC, result()), 0, {}, Outcome.ERROR, "without a check"),
        ((HELLO, DEVICE, {**CHECK, "ok": False}, METRIC, result()), 0, {}, Outcome.ERROR, "a check is bad"),
        ((HELLO, CHECK, METRIC, result()), 0, {}, Outcome.ERROR, "no such device was named"),
        ((HELLO, DEVICE, CHECK, result()), 0, {}, Outcome.ERROR, "'triad_bw' is missing"),
        ((HELLO, DEVICE, CHECK, {**METRIC, "unit": "GB/s"}, result()), 0, {}, Outcome.ERROR, "not in B/s"),
        ((HELLO, DEVICE, CHECK, {**METRIC, "p50": "2e9"}, result()), 0, {}, Outcome.ERROR, "median is no number"),
        ((HELLO, DEVICE, CHECK, {**METRIC, "samples": []}, result()), 0, {}, Outcome.ERROR, "samples are missing"),
        ((HELLO, DEVICE, CHECK, {**METRIC, "samples": [1, "a"]}, result()), 0, {}, Outcome.ERROR, "a sample is no"),
        ((HELLO, DEVICE, CHECK, {**METRIC, "p50": 9e9}, result()), 0, {}, Outcome.ERROR, "not within its samples"),
    ],
)
def test_what_was_left_decides(
    records: tuple[dict[str, Any], ...], status: int | None, rest: dict[str, Any], outcome: Outcome, reason: str
) -> None:
    one = judged(*records, status=status, **rest)
    assert one.outcome is outcome
    assert reason in one.reason
    assert outcome is Outcome.PASS or not one.metrics


def test_the_kind_is_known_even_when_the_test_crashed() -> None:
    assert judged(HELLO, {**DEVICE, "kind": "gpu"}, status=139).kind == "gpu"
    assert judged(HELLO, {**DEVICE, "kind": "quantum"}, status=139).kind == "none"


def test_a_device_cannot_flood_the_details() -> None:
    many = [{**DEVICE, "name": "x" * 5000} for _ in range(500)]
    one = judged(HELLO, *many, CHECK, METRIC, result())
    assert one.details["devices"] == 500
    assert len(one.details) < 300
    assert max(len(str(value)) for value in one.details.values()) <= 200


@given(
    st.lists(st.sampled_from([HELLO, DEVICE, CHECK, METRIC, BEAT, result(), result("fail"), {"ev": "result"}])),
    st.one_of(st.none(), st.integers(-70, 260)),
    st.booleans(),
    st.booleans(),
)
def test_only_a_whole_pass_is_a_pass(
    records: list[dict[str, Any]], status: int | None, timed_out: bool, lost: bool
) -> None:
    one = judged(*records, status=status, timed_out=timed_out, lost=lost)
    if one.outcome is Outcome.PASS:
        assert status == 0
        assert not timed_out
        assert not lost
        assert all(needed in records for needed in (HELLO, DEVICE, CHECK, METRIC, result()))
    if one.outcome not in (Outcome.PASS, Outcome.SKIP):
        assert one.reason


def test_the_state_of_the_device_beside_a_metric_is_kept() -> None:
    state = {"frac_spec": 0.91, "frac_at_clock": 0.97, "sm_hz": 1.98e9, "mem_hz": 2.6e9, "temp_c": 54, "power_w": 310.5}
    state |= {"link_width": 16, "link_gts": 32, "bar_bytes": 1 << 36}
    one = judged(HELLO, DEVICE, CHECK, METRIC | state | {"throttle": "sw_power_cap", "roof": 2.2e9}, result())
    assert one.outcome is Outcome.PASS
    assert {key: one.details[f"triad_bw.{key}"] for key in state} == state
    assert one.details["triad_bw.throttle"] == "sw_power_cap"
    assert one.metrics[0].roofline == 2.2e9
    odd = judged(HELLO, DEVICE, CHECK, METRIC | {"sm_hz": "fast", "power_w": True, "throttle": 7}, result())
    assert not {"triad_bw.sm_hz", "triad_bw.power_w", "triad_bw.throttle"} & set(odd.details)


def test_a_part_that_does_not_apply_is_told_with_its_reason() -> None:
    part = {"ev": "part", "name": "fp64", "kind": "cpu-runtime", "status": "skip", "reason": "the device has no\nfp64"}
    assert (
        judged(HELLO, DEVICE, CHECK, METRIC, part, result()).details["part.fp64"] == "skipped: the device has no fp64"
    )


def without(record: dict[str, Any], kind: Any = None) -> dict[str, Any]:
    rest = {key: value for key, value in record.items() if key != "kind"}
    return rest if kind is None else rest | {"kind": kind}


@pytest.mark.parametrize("place", [1, 2, 3, 4], ids=["device", "check", "metric", "result"])
@pytest.mark.parametrize("kind", [None, "", "GPU", "tpu", 7, ["gpu"]])
def test_a_record_that_does_not_say_what_computed_makes_the_whole_an_error(place: int, kind: Any) -> None:
    records = [*GOOD]
    records[place] = without(records[place], kind)
    one = judged(*records)
    assert one.outcome is Outcome.ERROR
    assert f"a {records[place]['ev']} record " in one.reason


@pytest.mark.parametrize("status", ["fail", "implausible", "skip"])
def test_that_holds_for_failures_and_skips_too(status: str) -> None:
    codes = {"fail": 1, "implausible": 3, "skip": 77}
    records = (HELLO, DEVICE, without(CHECK), result(status, "x"))
    assert judged(*records, status=codes[status]).outcome is Outcome.ERROR


@pytest.mark.parametrize("place", [2, 3, 4], ids=["check", "metric", "result"])
def test_no_record_may_be_about_a_kind_of_device_that_was_not_named(place: int) -> None:
    records = [*GOOD]
    records[place] = records[place] | {"kind": "gpu"}
    one = judged(*records)
    assert one.outcome is Outcome.ERROR
    assert "is about gpu, and no such device was named" in one.reason


def test_a_pass_without_a_computing_kind_is_no_pass() -> None:
    one = judged(HELLO, DEVICE, CHECK, METRIC, result() | {"kind": "none"})
    assert (one.outcome, one.reason) == (Outcome.ERROR, "the runner said 'pass' without naming the device")


def test_before_a_device_is_opened_nothing_computes_and_a_failure_stands() -> None:
    bare = without(result("fail", "the driver offers no device"), "none")
    one = judged(HELLO, without(CHECK, "none"), bare, status=1)
    assert (one.outcome, one.kind) == (Outcome.FAIL, "none")
