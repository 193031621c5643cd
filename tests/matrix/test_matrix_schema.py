from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from harness.matrix import Known, json_schema, load_matrix
from harness.matrix.schema import schema_text
from harness.model.cell import DebianKernel
from harness.model.expand import expand

TOP = Path(__file__).parents[2]
SHIPPED = TOP / "matrix.yaml"
KNOWN = Known(guests={"debian-13"}, stacks={"cpu-opencl", "intree"}, tests={"enumerate", "triad", "vecadd"})
VALIDATOR = jsonschema.Draft202012Validator(json_schema())


def shipped() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(SHIPPED.read_text())
    return content


def test_the_committed_schema_is_current() -> None:
    committed = (TOP / "docs/matrix.schema.json").read_text()
    assert committed == schema_text(), "renew it: python -m harness.matrix > docs/matrix.schema.json"


def test_the_schema_is_a_valid_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_the_shipped_matrix_satisfies_the_schema() -> None:
    VALIDATOR.validate(shipped())


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"kernels": []},
        {"kernels": [{"name": "a", "series": "stable"}]},
        {"kernels": [{"name": "a", "series": "stable", "debian": "sid", "tree": "x"}]},
        {"kernels": [{"name": "a", "series": "vendor", "debian": "sid"}]},
        {"kernels": [{"name": "A b", "series": "stable", "debian": "sid"}]},
        {"kernels": [{"name": "a", "series": "stable", "debian": {"version": "6.1"}}]},
        {"devices": ["01:00.0"]},
        {"boots": 0},
        {"boots": None},
        {"timeouts": {"boot": "2 minutes"}},
        {"limits": {"vm_memory": "1GB"}},
        {"limits": {"vms": "many"}},
        {"exclude": [{"kernel": "rc"}]},
        {"presets": {"q": {"kernel": ["rc"]}}},
        {"tests": {"tier": 4}},
        {"tests": {"tiers": 1}},
        {"surprise": 1},
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(change: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(shipped() | change)


@pytest.mark.parametrize(
    "change",
    [
        {"kernels": [{"name": 6.1, "series": "stable", "debian": {"suite": "sid", "version": 6.12}}]},
        {"tests": ["vecadd"]},
        {"tests": {"tier": 2}},
        {"timeouts": {"boot": 90, "test": "1h30m"}},
        {"limits": {"vms": 4}},
        {"exclude": [{"kernel": ["rc", "l*"], "reason": "x"}]},
        {"include": [{"stack": "intree", "boots": 3, "timeouts": {"boot": "3m"}}]},
    ],
)
def test_the_schema_accepts_what_the_loader_accepts(change: dict[str, Any]) -> None:
    VALIDATOR.validate(shipped() | change)


def objects(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if isinstance(node.get("properties"), dict):
            yield path, node
        for key, value in node.items():
            yield from objects(value, f"{path}/{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from objects(value, f"{path}/{index}")


def test_every_field_has_a_description() -> None:
    found = dict(objects(json_schema()))
    assert len(found) == 19
    for path, node in found.items():
        assert node.get("description"), path
        for name, field in node["properties"].items():
            assert field.get("description"), f"{path}: {name}"


def test_the_schema_speaks_of_no_null_and_no_generated_titles() -> None:
    text = schema_text()
    assert '"null"' not in text
    assert text.count('"title"') == 1


def test_the_shipped_matrix_covers_the_four_kernels_on_a_machine_with_nothing() -> None:
    matrix = load_matrix(SHIPPED, KNOWN)
    sources = {kernel.name: kernel.source for kernel in matrix.kernels}
    assert sources == {
        "lts-6.1": DebianKernel("bookworm"),
        "lts-6.12": DebianKernel("trixie"),
        "stable": DebianKernel("trixie-backports"),
        "rc": DebianKernel("experimental"),
    }
    assert matrix.guests == ("debian-13",)
    assert matrix.stacks == ("cpu-opencl", "intree")
    assert matrix.devices == ("none",)
    assert len(expand(matrix).cells) == 8


def test_every_shipped_preset_has_cells_and_a_description() -> None:
    matrix = load_matrix(SHIPPED, KNOWN)
    assert "quick" in {preset.name for preset in matrix.presets}
    for preset in matrix.presets:
        assert preset.description
        assert expand(load_matrix(SHIPPED, KNOWN, preset=preset.name)).cells
    quick = expand(load_matrix(SHIPPED, KNOWN, preset="quick")).cells
    assert [cell.id for cell in quick] == ["debian-13/lts-6.12/cpu-opencl/none"]
