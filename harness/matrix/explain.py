"""From what pydantic says about a value to what a user wants to read, with the place in the file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.matrix import machines, origins, requests, schema
from harness.matrix.frame import Problem, closest, did_you_mean, quoted
from harness.matrix.yamlpos import Items, Node, Path, Scalar, Table, dotted, locate

# Which model reads the mapping at a path; "*" stands for any index or name.
_MODELS: Mapping[tuple[str, ...], type[BaseModel]] = {
    (): schema.MatrixFile,
    ("kernels", "*"): schema.KernelEntry,
    ("kernels", "*", "debian"): origins.DebianEntry,
    ("kernels", "*", "rpm"): origins.RpmEntry,
    ("kernels", "*", "ubuntu"): origins.UbuntuEntry,
    ("kernels", "*", "source"): origins.SourceEntry,
    ("kernels", "*", "source", "git"): origins.GitEntry,
    ("kernels", "*", "installed"): origins.InstalledEntry,
    ("machines", "*"): machines.MachineEntry,
    ("machines", "*", "ssh"): machines.SshEntry,
    ("devices", "*"): requests.DeviceEntry,
    ("tests",): schema.TierEntry,
    ("timeouts",): schema.TimeoutsEntry,
    ("limits",): schema.LimitsEntry,
    ("exclude", "*"): schema.ExcludeEntry,
    ("include", "*"): schema.IncludeEntry,
    ("include", "*", "tests"): schema.TierEntry,
    ("include", "*", "timeouts"): schema.TimeoutsEntry,
    ("presets", "*"): schema.PresetEntry,
    ("presets", "*", "tests"): schema.TierEntry,
    ("presets", "*", "timeouts"): schema.TimeoutsEntry,
}

_SHAPES = {
    "list_type": "must be a list such as [a, b]",
    "dict_type": "must be a mapping of `key: value`",
    "model_type": "must be a mapping of `key: value`",
    "model_attributes_type": "must be a mapping of `key: value`",
    "string_type": "must be a single text",
}


def explain(error: ValidationError, root: Node) -> list[Problem]:
    """Return one problem for each of pydantic's errors; a key that is only misspelt is not also called missing."""
    details = error.errors(include_url=False, include_context=True)
    misspelt: set[Path] = set()
    for detail in details:
        if detail["type"] == "extra_forbidden":
            parent = detail["loc"][:-1]
            misspelt |= {(*parent, name) for name in closest(str(detail["loc"][-1]), _fields(parent))}
    return [
        _problem(detail, root) for detail in details if detail["type"] != "missing" or detail["loc"] not in misspelt
    ]


def _problem(detail: Any, root: Node) -> Problem:
    path: Path = tuple(step for step in detail["loc"] if step != "[key]")
    kind: str = detail["type"]
    node, key = locate(root, path)
    if kind == "extra_forbidden":
        unknown = str(path[-1])
        span = key.span if key is not None else node.span
        return Problem(span, dotted(path), "unknown key", did_you_mean(unknown, _fields(path[:-1])))
    if kind == "missing":
        model = _MODELS.get(_pattern(path[:-1]))
        what = model.model_fields[str(path[-1])].description if model is not None else ""
        return Problem(node.span, dotted(path), "is missing", f"add it: {what}" if what else "add it")
    if "[key]" in detail["loc"] and key is not None:
        node = key
    message, hint = _message(kind, detail, node)
    return Problem(node.span, dotted(path), message, hint)


def _message(kind: str, detail: Any, node: Node) -> tuple[str, str]:
    written = quoted(node.value) if isinstance(node, Scalar) else _shape(node)
    if kind == "value_error":
        # Readers put the correction behind a semicolon.
        message, _, hint = str(detail["ctx"]["error"]).partition("; ")
        return message, hint
    if kind in ("enum", "literal_error"):
        choices = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
        hint = did_you_mean(node.value, choices) if isinstance(node, Scalar) else ""
        return f"{written} is not one of {', '.join(choices)}", "" if hint.startswith("known") else hint
    if kind in ("too_short", "too_long"):
        return "is an empty list", "name at least one entry"
    if kind in _SHAPES:
        hint = f"write [{node.value}]" if kind == "list_type" and isinstance(node, Scalar) and node.value else ""
        return f"{_SHAPES[kind]}, not {written}", hint
    return f"{written}: {detail['msg']}", ""


def _shape(node: Node) -> str:
    match node:
        case Items():
            return "a list"
        case Table():
            return "a mapping"
        case _:
            return "a text"


def _pattern(path: Path) -> tuple[str, ...]:
    """Put wildcards where the file's own indices and names stand, which are the second steps."""
    return tuple("*" if place == 1 else str(step) for place, step in enumerate(path))


def _fields(path: Path) -> list[str]:
    model = _MODELS.get(_pattern(path))
    return list(model.model_fields) if model is not None else []
