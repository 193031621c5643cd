"""From what the runner left (records, exit status) to an outcome. Pure: no I/O, no clock.

FAIL is the product's fault, ERROR our own test's, MISS the harness's or the lab's (``harness.model.outcome``). Silence
is never a pass: a pass takes the exit status 0, an intact result record that says so, the device it ran on, at least
one check, no bad one, and every metric that the manifest declares.
"""

from __future__ import annotations

import signal
from typing import cast, get_args

from harness.model.outcome import Outcome
from harness.model.records import Kind, Metric, TestResult
from harness.model.shell import Completed
from harness.suites.manifest import MetricSpec, TestSpec
from harness.suites.wire import Record, Wire

WIRE_SCHEMA = 1
EXIT_STATUS = {"pass": 0, "fail": 1, "error": 2, "implausible": 3, "skip": 77}
EXIT_DEADLINE = 124
MAX_SAMPLES = 512
MAX_DEVICES = 16
MAX_METRICS = 64
MAX_PARTS = 32

KINDS: tuple[str, ...] = get_args(Kind)
_DEVICE_TEXTS = ("name", "vendor", "driver", "api", "platform", "bdf", "uuid", "kind")
_DEVICE_NUMBERS = ("mem_bytes", "compute_units")
_COMPUTING = frozenset(KINDS) - {"none"}
_METRIC_NUMBERS = (
    *("wall_ratio", "frac_spec", "frac_at_clock", "sm_hz", "mem_hz", "temp_c", "power_w"),
    *("link_width", "link_gts", "bar_bytes"),
)
"""What stands beside a metric: how it was timed, how much of the roof it is, and the state of the device meanwhile."""
_METRIC_TEXTS = ("throttle",)


def judge(test: TestSpec, completed: Completed, wire: Wire, *, backend: str, timeout: float) -> list[TestResult]:
    """Return what one execution of ``test`` showed; ``timeout`` is the limit in seconds that it ran under."""
    outcome, reason, metrics = _decide(test, completed, wire, timeout)
    return [
        TestResult(
            name=test.name,
            stage=test.stage,
            outcome=outcome,
            reason=reason,
            seconds=completed.seconds,
            kind=_kind(wire),
            metrics=metrics,
            details=_details(wire, backend),
        )
    ]


def _decide(
    test: TestSpec, completed: Completed, wire: Wire, timeout: float
) -> tuple[Outcome, str, tuple[Metric, ...]]:
    ended = violent_end(completed, wire, timeout)
    if ended is not None:
        return *ended, ()
    result = wire.of("result")[-1] if wire.of("result") else None
    status = completed.exit_status
    if result is None:
        return Outcome.ERROR, _no_result(completed, wire), ()
    said = result.text("status")
    if EXIT_STATUS.get(said) != status:
        return Outcome.ERROR, f"the runner said {said!r} but exited with status {status}", ()
    wrong = _foreign(test, wire) or _unattributed(wire)
    if wrong:
        return Outcome.ERROR, wrong, ()
    reason = " ".join(result.text("reason").split())  # a reason is one line, and a compiler's words may be more
    if said == "skip":
        return Outcome.SKIP, reason or "the test does not apply here", ()
    if said == "error":
        return Outcome.ERROR, reason or "the test itself broke", ()
    if said == "implausible":
        return Outcome.FAIL, f"implausible: {reason}", ()
    if said == "fail":
        return Outcome.FAIL, reason or "the test failed", ()
    return _passed(test, wire)


def violent_end(completed: Completed, wire: Wire, timeout: float) -> tuple[Outcome, str] | None:
    """Judge an execution that did not come to its own end; None where it did."""
    if completed.lost:
        return Outcome.MISS, f"the connection to the machine broke{_last_heartbeat(wire)}"
    if completed.timed_out or completed.exit_status == EXIT_DEADLINE:
        if wire.of("result"):
            return Outcome.FAIL, f"the test gave its result but did not exit within {timeout:g} s"
        return Outcome.FAIL, f"no result within {timeout:g} s{_last_heartbeat(wire, 'no heartbeat')}"
    number = _signal(completed.exit_status)
    if number is not None:
        name = f" {_signal_name(number)}" if number else ""
        when = " after giving its result" if wire.of("result") else ""
        return Outcome.FAIL, f"crashed: killed by signal{name}{when}{_last_heartbeat(wire)}"
    return None


def _signal(status: int | None) -> int | None:
    """Return the signal that ended the process (0 when it is not known which), or None when none did."""
    if status is None:
        return 0
    if status < 0:
        return -status
    # A shell or ssh server in between reports 128 + signal; 255 and the like are its own troubles.
    return status - 128 if 128 < status <= 128 + 64 else None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _last_heartbeat(wire: Wire, none: str = "") -> str:
    beats = wire.of("heartbeat")
    if not beats:
        return f" ({none})" if none else ""
    seconds = beats[-1].number("secs")
    phase = beats[-1].text("phase", limit=80)
    return f" (last heartbeat at {seconds or 0.0:.0f} s, in phase {phase!r})"


def _no_result(completed: Completed, wire: Wire) -> str:
    status = completed.exit_status
    if status in (126, 127):
        return f"the runner could not be started (exit status {status}): {_first_line(completed.stderr)}".rstrip(": ")
    why = []
    if completed.truncated or wire.overflow:
        why.append("the output was longer than its limit")
    if wire.damaged:
        why.append(f"{wire.damaged} damaged records")
    if not wire.records:
        why.append(_first_line(completed.stderr) or "no record at all")
    return f"exit status {status} without a result" + (f": {', '.join(why)}" if why else "")


def _first_line(text: bytes) -> str:
    lines = [line.strip() for line in text.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[0][:200] if lines else ""


def _foreign(test: TestSpec, wire: Wire) -> str:
    """Say why these records are not those of this test, if they are not."""
    hellos = wire.of("hello")
    if not hellos:
        return "the runner's first record is missing"
    if hellos[0].data.get("schema") != WIRE_SCHEMA:
        return f"the runner speaks wire schema {hellos[0].data.get('schema')!r}, not {WIRE_SCHEMA}"[:200]
    ran = hellos[0].text("test")
    return "" if ran == test.name else f"the runner ran {ran[:80]!r} instead of {test.name!r}"


def _unattributed(wire: Wire) -> str:
    """Say which record does not tell what computed, if one does not; without that a number is worth nothing."""
    devices = {device.text("kind") for device in wire.of("device")}
    for record in wire.records:
        kind = record.text("kind")
        if record.ev in ("device", "metric") and kind not in _COMPUTING:
            return f"a {record.ev} record does not say what computed (kind {kind[:40]!r})"
        if record.ev in ("metric", "check", "part", "result"):
            # Before a device is opened nothing computes, and there is nothing to say.
            if kind not in KINDS:
                return f"a {record.ev} record does not say what computed (kind {kind[:40]!r})"
            if kind not in devices | {"none"}:
                return f"a {record.ev} record is about {kind}, and no such device was named"
    return ""


def _passed(test: TestSpec, wire: Wire) -> tuple[Outcome, str, tuple[Metric, ...]]:
    checks = wire.of("check")
    if any(check.data.get("ok") is not True for check in checks):
        return Outcome.ERROR, "the runner said 'pass' although a check is bad", ()
    if not checks:
        return Outcome.ERROR, "the runner said 'pass' without a check", ()
    if not wire.of("device") or wire.of("result")[-1].text("kind") not in _COMPUTING:
        return Outcome.ERROR, "the runner said 'pass' without naming the device", ()
    metrics = []
    for spec in test.metrics:
        record = next((record for record in wire.of("metric") if record.text("name") == spec.name), None)
        if record is None and spec.optional:
            continue
        if record is None:
            return Outcome.ERROR, f"the metric {spec.name!r} is missing", ()
        metric = _metric(spec, record)
        if isinstance(metric, str):
            return Outcome.ERROR, f"the metric {spec.name!r} is unusable: {metric}", ()
        metrics.append(metric)
    return Outcome.PASS, "", tuple(metrics)


def _metric(spec: MetricSpec, record: Record) -> Metric | str:
    """Read one metric record, or say what is wrong with it."""
    if record.text("unit") != spec.unit or record.text("better") != spec.better:
        return f"it is not in {spec.unit}, {spec.better} being better"
    value = record.number("p50")
    samples = record.data.get("samples")
    if value is None or value < 0:
        return "its median is no number"
    if not isinstance(samples, list) or not 0 < len(samples) <= MAX_SAMPLES:
        return "its samples are missing or too many"
    if any(isinstance(sample, bool) or not isinstance(sample, int | float) for sample in samples):
        return "a sample is no number"
    if not min(samples) <= value <= max(samples):
        return "its median is not within its samples"
    return Metric(
        name=spec.name,
        value=value,
        unit=spec.unit,
        better=spec.better,
        n=len(samples),
        minimum=record.number("min"),
        p95=record.number("p95"),
        maximum=record.number("max"),
        samples=tuple(float(sample) for sample in samples),
        roofline=record.number("roof"),
        roofline_source=record.text("roof_src", limit=200),
    )


def _kind(wire: Wire) -> Kind:
    """Return what computed: the kind of the result, or of the last device when there was no result."""
    for record in reversed(wire.records):
        kind = record.text("kind")
        if record.ev in ("result", "device") and kind in KINDS:
            return cast(Kind, kind)
    return "none"


def _details(wire: Wire, backend: str) -> dict[str, str | int | float | bool]:
    details: dict[str, str | int | float | bool] = {"backend": backend}
    for hello in wire.of("hello")[:1]:
        details["runner_build"] = hello.text("build", limit=80)
    devices = wire.of("device")[:MAX_DEVICES]
    if devices:
        details["devices"] = len(wire.of("device"))
    for place, device in enumerate(devices):
        for key in _DEVICE_TEXTS:
            if value := device.text(key, limit=200):
                details[f"device.{place}.{key}"] = value
        for key in _DEVICE_NUMBERS:
            number = device.number(key)
            if number is not None:
                details[f"device.{place}.{key}"] = int(number)
    checks = wire.of("check")
    if checks:
        details["checks"] = len(checks)
        details["checks_bad"] = sum(check.data.get("ok") is not True for check in checks)
        details["checked"] = int(sum(check.number("checked") or 0.0 for check in checks))
    for metric in wire.of("metric")[:MAX_METRICS]:
        name = metric.text("name", limit=80)
        for key in _METRIC_NUMBERS:
            beside = metric.number(key)
            if beside is not None:
                details[f"{name}.{key}"] = beside
        for key in _METRIC_TEXTS:
            if text := metric.text(key, limit=200):
                details[f"{name}.{key}"] = text
    for part in wire.of("part")[:MAX_PARTS]:
        reason = " ".join(part.text("reason", limit=300).split())
        details[f"part.{part.text('name', limit=80)}"] = f"skipped: {reason}"
    for result in wire.of("result")[-1:]:
        if form := result.text("code_form", limit=80):
            details["code_form"] = form
    if wire.damaged:
        details["damaged_records"] = wire.damaged
    return details
