"""Manifests of the compute tests: ``gpu_tests/tests/<name>/test.yaml``, or one in a folder of the user's own."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from harness.errors import UserError
from harness.model.records import Kind
from harness.model.stage import Stage
from harness.suites.formats import FORMATS

SCHEMA = 1
STAGES = (Stage.ENUMERATE, Stage.COMPUTE, Stage.THROUGHPUT)
"""The rungs that a compute test may stand on."""
TIERS = (1, 2, 3)
"""1: every cell; 2: nightly, too; 3: what may take the driver or the machine down."""
LAST_TIER = TIERS[-1]
"""Its tests run after all others of a cell, whatever their rung."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_COMMON = ("schema", "name", "title", "stage", "timeout")
_REQUIRED = (*_COMMON, "argv", "backends")
_OPTIONAL = ("budget", "tier", "expects", "metrics", "mutations")
_OWN_REQUIRED = (*_COMMON, "run")
_OWN_OPTIONAL = ("format", "output", "backends", "kind", "budget", "tier", "expects", "metrics")
WIRE, EXIT = "wire", "exit"
"""Formats beside those of ``harness.suites.formats``: our own records, and nothing but an exit status."""
_KINDS: tuple[str, ...] = ("gpu", "cpu-runtime", "none")
_METRIC_KEYS = ("name", "unit", "better")
_METRIC_OPTIONAL = ("optional",)


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """A metric that a passing test must report, or may if it is optional."""

    name: str
    unit: str
    better: Literal["higher", "lower"]
    optional: bool = False
    """Not every device has what it measures."""


@dataclass(frozen=True, slots=True)
class Program:
    """What a test of the user's own runs, instead of our runner."""

    folder: Path
    """Copied to the machine as it is; the program starts in the copy."""
    run: tuple[str, ...]
    """Argument vector; a first word such as ``./check`` lies in the folder."""
    format: str
    """``wire``, ``exit``, or one of ``harness.suites.formats``."""
    output: str = ""
    """File of the folder that the program writes its report to; empty where that is standard output."""
    kind: Kind = "none"
    """What the user says that it computes on; a program that says nothing itself can colour no GPU cell."""


@dataclass(frozen=True, slots=True)
class TestSpec:
    """One compute test as its manifest declares it."""

    __test__ = False  # not a pytest class

    name: str
    title: str
    stage: Stage
    argv: tuple[str, ...]
    """Arguments of the runner, without the program and without what the harness adds (backend, budget, deadline)."""
    backends: tuple[str, ...]
    """Compute APIs that the test is written for: ``opencl`` …"""
    timeout: float
    """Seconds that the test may take on hardware; a slow (emulated) machine multiplies them."""
    budget: float
    """Seconds that the test shall spend on measuring and checking."""
    metrics: tuple[MetricSpec, ...] = ()
    mutations: tuple[str, ...] = ()
    """Faults that the fake driver injects and that this test must notice."""
    tier: int = 1
    """One of TIERS."""
    expects: tuple[str, ...] = ()
    """Regular expressions over kernel messages that this test provokes on purpose."""
    program: Program | None = None
    """Set where the test is the user's own."""

    def runs_on(self, backend: str) -> bool:
        """Whether the test is written for a compute API; a program that names none is run on each."""
        return backend in self.backends or (self.program is not None and not self.backends)


def load_tests(root: Path) -> dict[str, TestSpec]:
    """Read every test of a ``gpu_tests`` directory, by name, in the order of the ladder, the tiers and the names.

    Raises:
        UserError: there is no test, or a manifest is wrong; the message names the file and the key.

    """
    folder = root / "tests"
    if not folder.is_dir():
        raise UserError(f"{root}: no directory of compute tests (it must hold tests/<name>/test.yaml)")
    specs = [_load(path) for path in sorted(folder.glob("*/test.yaml"))]
    if not specs:
        raise UserError(f"{folder}: holds no test (a test is <name>/test.yaml)")
    specs.sort(key=_order)
    return {spec.name: spec for spec in specs}


def _order(spec: TestSpec) -> tuple[int, int, str]:
    return STAGES.index(spec.stage), spec.tier, spec.name


def load_own_tests(folders: Iterable[Path], taken: Collection[str]) -> dict[str, TestSpec]:
    """Read the user's own tests: in each folder, ``<name>/test.yaml`` with a key ``run``, in the order of the ladder.

    Raises:
        UserError: a folder is not there or holds no test, a manifest is wrong, or a name is in ``taken``.

    """
    specs: list[TestSpec] = []
    for folder in folders:
        paths = sorted(folder.glob("*/test.yaml"))
        if not paths:
            raise UserError(f"{folder}: holds no test (a test is <name>/test.yaml)")
        for path in paths:
            spec = _load(path)
            if spec.name in {*taken, *(other.name for other in specs)}:
                raise UserError(f"{path}: there is a compute test {spec.name!r} already; give this one another name")
            specs.append(spec)
    return {spec.name: spec for spec in sorted(specs, key=_order)}


def pick_tests(tests: Mapping[str, TestSpec], names: Collection[str] = ()) -> list[TestSpec]:
    """Return the named tests, lower tiers first and otherwise in the order given; no name stands for all of tier 1.

    Raises:
        UserError: there is no test of a name; the message holds the nearest one that exists.

    """
    if not names:
        return [test for test in tests.values() if test.tier == 1]
    picked = []
    for name in names:
        if name not in tests:
            raise UserError(f"there is no compute test {name!r}{_nearest(name, tests)}")
        picked.append(tests[name])
    return sorted(picked, key=lambda test: test.tier)


def _nearest(word: str, known: Iterable[str]) -> str:
    choices = [str(choice) for choice in known]
    close = difflib.get_close_matches(word, choices, n=1)
    return f", did you mean {close[0]!r}?" if close else f"; known: {', '.join(choices)}"


def _load(path: Path) -> TestSpec:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    try:
        return _spec(raw, path.parent)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _spec(raw: object, folder: Path) -> TestSpec:
    """Check one manifest; ValueError says what is wrong with it."""
    own = isinstance(raw, dict) and "run" in raw
    required, optional = (_OWN_REQUIRED, _OWN_OPTIONAL) if own else (_REQUIRED, _OPTIONAL)
    data = _mapping(raw, "the manifest", required, optional)
    if data["schema"] != SCHEMA:
        raise ValueError(f"schema {data['schema']!r} is not known, this version reads {SCHEMA}")
    name = _text(data, "name")
    if not _NAME.fullmatch(name):
        raise ValueError(f"name {name!r} must be lower-case letters, digits and '_', beginning with a letter")
    if name != folder.name:
        raise ValueError(f"name {name!r} must be that of the folder, {folder.name!r}")
    stage = _text(data, "stage")
    if stage not in STAGES:
        raise ValueError(f"stage {stage!r} is not one of a compute test{_nearest(stage, STAGES)}")
    metrics = tuple(_metric(item) for item in _list(data, "metrics"))
    if len({metric.name for metric in metrics}) != len(metrics):
        raise ValueError("two metrics have the same name")
    return TestSpec(
        name=name,
        title=_text(data, "title"),
        stage=Stage(stage),
        argv=() if own else _texts(data, "argv"),
        backends=_texts(data, "backends") if "backends" in data else (),
        timeout=_seconds(data, "timeout"),
        budget=_seconds(data, "budget") if "budget" in data else 3.0,
        metrics=metrics,
        mutations=_texts(data, "mutations") if "mutations" in data else (),
        tier=_tier(data["tier"]) if "tier" in data else 1,
        expects=_expects(data) if "expects" in data else (),
        program=_program(data, folder) if own else None,
    )


def _program(data: dict[str, Any], folder: Path) -> Program:
    run = _texts(data, "run")
    reads = data.get("format", EXIT)
    known = (WIRE, EXIT, *FORMATS)
    if reads not in known:
        raise ValueError(f"format {reads!r} is not known{_nearest(str(reads), known)}")
    if data.get("metrics") and reads != WIRE:
        raise ValueError(f"metrics are promised by a test of the format {WIRE!r}, and this one has {reads!r}")
    if run[0].startswith("./"):
        program = folder / run[0]
        if not program.is_file():
            raise ValueError(f"run names {run[0]!r}, which does not lie in the folder")
        if not os.access(program, os.X_OK):
            raise ValueError(f"run names {run[0]!r}, which is not executable; chmod +x it")
    output = data.get("output", "")
    if not isinstance(output, str) or output.startswith("/") or ".." in output.split("/"):
        raise ValueError(f"output must be a file of the folder, not {output!r}")
    if output and reads in (WIRE, EXIT):
        raise ValueError(f"output is read where a format is, and {reads!r} has no report")
    kind = data.get("kind", "none")
    if kind not in _KINDS:
        raise ValueError(f"kind {kind!r} is not known{_nearest(str(kind), _KINDS)}")
    return Program(folder.resolve(), run, reads, output, cast(Kind, kind))


def _mapping(raw: object, what: str, required: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise ValueError(f"{what} must be a mapping")
    for key in raw:
        if key not in required + optional:
            raise ValueError(f"unknown key {key!r} in {what}{_nearest(str(key), required + optional)}")
    for key in required:
        if key not in raw:
            raise ValueError(f"{what} lacks the key {key!r}")
    return raw


def _metric(raw: object) -> MetricSpec:
    data = _mapping(raw, "a metric", _METRIC_KEYS, _METRIC_OPTIONAL)
    better = _text(data, "better")
    if better not in ("higher", "lower"):
        raise ValueError(f"metric {data['name']!r}: better must be 'higher' or 'lower', not {better!r}")
    optional = data.get("optional", False)
    if not isinstance(optional, bool):
        raise ValueError(f"metric {data['name']!r}: optional must be true or false, not {optional!r}")
    return MetricSpec(_text(data, "name"), _text(data, "unit"), cast(Literal["higher", "lower"], better), optional)


def _text(data: dict[str, Any], key: str) -> str:
    value = data[key]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key} must be a text, not {value!r}")
    return value


def _list(data: dict[str, Any], key: str) -> list[Any]:
    value = data.get(key, [])
    if not isinstance(value, list):
        raise ValueError(f"{key} must be a list, not {value!r}")
    return value


def _texts(data: dict[str, Any], key: str) -> tuple[str, ...]:
    value = _list(data, key)
    if not value or not all(isinstance(item, str) and item for item in value):
        raise ValueError(f"{key} must be a list of texts that is not empty, not {value!r}")
    return tuple(value)


def _tier(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value not in TIERS:
        raise ValueError(f"tier must be one of {', '.join(map(str, TIERS))}, not {value!r}")
    return value


def _expects(data: dict[str, Any]) -> tuple[str, ...]:
    patterns = _texts(data, "expects")
    for pattern in patterns:
        try:
            matches_nothing = re.search(pattern, "") is not None
        except re.error as error:
            raise ValueError(f"expects: {pattern!r} is no regular expression: {error}") from None
        if matches_nothing:
            raise ValueError(f"expects: {pattern!r} would match every message; name the words of the one expected")
    return patterns


def _seconds(data: dict[str, Any], key: str) -> float:
    value = data[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 86400:
        raise ValueError(f"{key} must be a number of seconds, at most a day, not {value!r}")
    return float(value)
