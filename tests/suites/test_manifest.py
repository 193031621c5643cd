from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.errors import UserError
from harness.suites.manifest import STAGES, load_tests, pick_tests

GOOD: dict[str, Any] = {
    "schema": 1,
    "name": "copy",
    "title": "Copies arrive",
    "stage": "compute",
    "argv": ["run", "copy"],
    "backends": ["opencl"],
    "timeout": 10,
    "metrics": [{"name": "copy_bw", "unit": "B/s", "better": "higher"}],
}


def write(root: Path, data: object, folder: str = "copy") -> Path:
    path = root / "tests" / folder / "test.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(data))
    return root


def test_the_shipped_tests_load_in_the_order_of_the_ladder(sources: Path) -> None:
    tests = list(load_tests(sources).values())
    assert sorted(test.name for test in tests) == sorted(path.name for path in (sources / "tests").iterdir())
    order = [(STAGES.index(test.stage), test.tier, test.name) for test in tests]
    assert order == sorted(order)
    assert {"enumerate", "vecadd", "triad"} <= {test.name for test in tests if test.tier == 1}


def test_every_rung_of_compute_tests_has_a_shipped_test_of_tier_1(sources: Path) -> None:
    assert {test.stage for test in load_tests(sources).values() if test.tier == 1} == set(STAGES)


def test_a_new_test_is_only_a_new_file(tmp_path: Path) -> None:
    spec = load_tests(write(tmp_path, GOOD))["copy"]
    assert spec.argv == ("run", "copy")
    assert (spec.timeout, spec.budget) == (10.0, 3.0)
    assert (spec.tier, spec.expects) == (1, ())
    assert spec.metrics[0].unit == "B/s"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timeot": 3}, "unknown key 'timeot' in the manifest, did you mean 'timeout'?"),
        ({"stage": "computer"}, "did you mean 'compute'?"),
        ({"stage": "boot"}, "not one of a compute test"),
        ({"schema": 2}, "schema 2 is not known"),
        ({"name": "Copy"}, "lower-case"),
        ({"name": "other"}, "must be that of the folder, 'copy'"),
        ({"timeout": 0}, "timeout must be a number of seconds"),
        ({"timeout": "soon"}, "timeout must be a number of seconds"),
        ({"timeout": True}, "timeout must be a number of seconds"),
        ({"timeout": float("nan")}, "timeout must be a number of seconds"),
        ({"argv": []}, "argv must be a list of texts"),
        ({"argv": "run copy"}, "argv must be a list"),
        ({"backends": [1]}, "backends must be a list of texts"),
        ({"tier": 0}, "tier must be one of 1, 2, 3, not 0"),
        ({"tier": True}, "tier must be one of 1, 2, 3, not True"),
        ({"tier": "2"}, "tier must be one of 1, 2, 3, not '2'"),
        ({"expects": "Xid"}, "expects must be a list"),
        ({"expects": []}, "expects must be a list of texts that is not empty"),
        ({"expects": ["Xid ("]}, "expects: 'Xid (' is no regular expression"),
        ({"expects": [".*"]}, "expects: '.*' would match every message"),
        ({"title": " "}, "title must be a text"),
        ({"metrics": [{"name": "x", "unit": "B/s"}]}, "a metric lacks the key 'better'"),
        ({"metrics": [{"name": "x", "unit": "B/s", "better": "more"}]}, "must be 'higher' or 'lower'"),
        ({"metrics": [{"name": "x", "unit": "B/s", "better": "higher", "optional": "no"}]}, "must be true or false"),
        ({"metrics": GOOD["metrics"] * 2}, "two metrics have the same name"),
    ],
)
def test_a_wrong_manifest_is_one_line_that_names_file_and_fault(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    write(tmp_path, GOOD | change)
    with pytest.raises(UserError) as caught:
        load_tests(tmp_path)
    assert message in str(caught.value)
    assert "copy/test.yaml: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "- a", "a: [", "\t", "!!python/object:os.system {}"])
def test_what_is_no_mapping_or_no_yaml_is_refused(tmp_path: Path, text: str) -> None:
    write(tmp_path, GOOD)
    (tmp_path / "tests/copy/test.yaml").write_text(text)
    with pytest.raises(UserError, match=r"test\.yaml: "):
        load_tests(tmp_path)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    write(tmp_path, {key: value for key, value in GOOD.items() if key != "backends"})
    with pytest.raises(UserError, match="lacks the key 'backends'"):
        load_tests(tmp_path)


def test_no_tests_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no directory of compute tests"):
        load_tests(tmp_path)
    (tmp_path / "tests").mkdir()
    with pytest.raises(UserError, match="holds no test"):
        load_tests(tmp_path)


def test_an_unknown_name_is_answered_with_the_nearest(sources: Path) -> None:
    tests = load_tests(sources)
    assert [spec.name for spec in pick_tests(tests, ["triad"])] == ["triad"]
    with pytest.raises(UserError, match="did you mean 'vecadd'"):
        pick_tests(tests, ["vecad"])
    with pytest.raises(UserError, match=r"known: enumerate, .*vecadd"):
        pick_tests(tests, ["zzz"])


def test_tests_run_tier_by_tier_and_otherwise_in_the_order_given(tmp_path: Path) -> None:
    for name, tier in {"a": 3, "b": 2, "c": 1, "d": 1}.items():
        write(tmp_path, GOOD | {"name": name, "tier": tier}, name)
    tests = load_tests(tmp_path)
    assert list(tests) == ["c", "d", "b", "a"]
    assert [spec.name for spec in pick_tests(tests, ["a", "d", "b", "c"])] == ["d", "c", "b", "a"]


def test_no_name_stands_for_the_tests_of_tier_1(tmp_path: Path) -> None:
    for name, tier in {"a": 3, "b": 2, "c": 1}.items():
        write(tmp_path, GOOD | {"name": name, "tier": tier}, name)
    assert [spec.name for spec in pick_tests(load_tests(tmp_path))] == ["c"]


def test_what_a_test_expects_of_the_kernel_is_kept(tmp_path: Path) -> None:
    spec = load_tests(write(tmp_path, GOOD | {"tier": 3, "expects": ["Xid .*: 43"]}))["copy"]
    assert (spec.tier, spec.expects) == (3, ("Xid .*: 43",))
