from __future__ import annotations

import pytest
import yaml

from harness.matrix import yamlpos
from harness.matrix.frame import Span
from harness.matrix.yamlpos import Items, Scalar, Table, YamlProblem, locate, parse, plain, walk

TEXT = "a: 1\nlist:\n  - x\n  - {k: 'v w'}\n"


@pytest.fixture(params=["libyaml", "python"])
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with both parsers: PyYAML may be built without libyaml."""
    if request.param == "python":
        monkeypatch.setattr(yamlpos, "_LOADER", yaml.BaseLoader)
    elif not hasattr(yaml, "CBaseLoader"):
        pytest.skip("PyYAML lacks libyaml")
    return str(request.param)


@pytest.mark.usefixtures("loader")
def test_every_node_knows_its_place() -> None:
    root, problems = parse(TEXT)
    assert problems == []
    spans = {yamlpos.dotted(path): (node.span.line, node.span.column) for path, node in walk(root)}
    assert spans == {"": (1, 1), "a": (1, 4), "list": (3, 3), "list.0": (3, 5), "list.1": (4, 5), "list.1.k": (4, 9)}
    node, key = locate(root, ("list", 1, "k"))
    assert node == Scalar(Span(4, 9, 5), "v w", plain=False)
    assert key is not None
    assert key.span == Span(4, 6, 1)


@pytest.mark.usefixtures("loader")
def test_scalars_stay_text_and_know_whether_they_were_quoted() -> None:
    root, _ = parse("[6.10, no, ~, 0000:01:00.0, 'null', '']")
    assert plain(root) == ["6.10", "no", "~", "0000:01:00.0", "null", ""]
    assert isinstance(root, Items)
    assert [item.is_null for item in root.items if isinstance(item, Scalar)] == [
        False,
        False,
        True,
        False,
        False,
        False,
    ]


@pytest.mark.usefixtures("loader")
def test_of_duplicate_keys_the_first_stays_and_the_second_is_reported() -> None:
    root, problems = parse("a: 1\nb: 2\na: 3\n")
    assert plain(root) == {"a": "1", "b": "2"}
    assert [(problem.span, problem.where) for problem in problems] == [(Span(3, 1), "a")]


def test_a_path_is_followed_as_far_as_it_goes() -> None:
    root, _ = parse(TEXT)
    assert isinstance(root, Table)
    assert locate(root, ("list", 7, "z"))[0] == root.get("list")
    assert locate(root, ("b",))[0] == root
    assert locate(root, ("a", 0))[0] == root.get("a")


def test_aliases_are_counted_as_what_they_stand_for() -> None:
    root, _ = parse("a: &x [1, 2, 3]\nb: [*x, *x]\n")
    assert plain(root) == {"a": ["1", "2", "3"], "b": [["1", "2", "3"]] * 2}
    assert root.weight == 1 + (1 + 4) + (1 + 9)


def test_an_alias_cannot_go_around_the_limit_on_depth() -> None:
    text = "a: &a " + "[" * 20 + "]" * 20 + "\nb: " + "[" * 20 + "*a" + "]" * 20
    with pytest.raises(YamlProblem, match="deeper"):
        parse(text)


def test_columns_count_characters_not_bytes() -> None:
    with pytest.raises(YamlProblem) as caught:
        parse("äöü名: @x\n")
    assert caught.value.problem.span == Span(1, 7)
