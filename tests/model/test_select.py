from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UserError
from harness.model.cell import Cell, DebianKernel, KernelSpec, Series
from harness.model.select import parse, select

CELLS = tuple(
    Cell("debian-13", KernelSpec(name, Series.STABLE, DebianKernel("trixie")), stack, device)
    for name in ("lts-6.1", "lts-6.12", "rc+1")
    for stack in ("cpu-opencl", "intree")
    for device in ("none", "0000:01:00.0")
)


def kept(expression: str) -> list[str]:
    return [cell.id.removeprefix("debian-13/") for cell in select(CELLS, expression)[0]]


@pytest.mark.parametrize(
    ("expression", "ids"),
    [
        ("rc and intree and none", ["rc+1/intree/none"]),
        ("RC and InTree and None", ["rc+1/intree/none"]),
        ("lts-6.12/intree", ["lts-6.12/intree/none", "lts-6.12/intree/0000:01:00.0"]),
        ("lts-6.1/ and not intree and not 0000:01", ["lts-6.1/cpu-opencl/none"]),
        ("rc+1/intree/none or lts-6.1/intree/none", ["lts-6.1/intree/none", "rc+1/intree/none"]),
        ("none and (rc or 6.12) and cpu", ["lts-6.12/cpu-opencl/none", "rc+1/cpu-opencl/none"]),
        ("none and rc or none and 6.12/cpu", ["lts-6.12/cpu-opencl/none", "rc+1/cpu-opencl/none", "rc+1/intree/none"]),
        ("not not rc and not(cpu or 0000)", ["rc+1/intree/none"]),
        ("not rc or intree and 0000 and 6.12 and rc", [c.id[10:] for c in CELLS if "rc" not in c.id]),
        ("'rc+1/intree' and \"none\"", ["rc+1/intree/none"]),
        ("  rc\tand\nintree  and none ", ["rc+1/intree/none"]),
        ("debian-13", [c.id[10:] for c in CELLS]),
    ],
)
def test_expressions(expression: str, ids: list[str]) -> None:
    assert kept(expression) == ids


def test_what_is_not_kept_is_left_out_with_the_expression() -> None:
    chosen, left_out = select(CELLS, "not rc")
    assert {cell.id for cell in chosen} | {left.cell_id for left in left_out} == {cell.id for cell in CELLS}
    assert {left.reason for left in left_out} == {"not selected by -k not rc"}


def test_a_quoted_operator_is_a_word() -> None:
    assert parse("'and'")("sand/box")
    assert not parse("'not'")("a/b")


@pytest.mark.parametrize(
    ("expression", "column", "phrase"),
    [
        ("", 1, "expected a word"),
        ("   ", 4, "expected a word"),
        ("and rc", 1, "expected a word"),
        ("rc and", 7, "expected a word"),
        ("rc or or lts", 7, "expected a word"),
        ("rc lts", 4, "expected 'and' or 'or' before this"),
        ("rc not lts", 4, "expected 'and' or 'or' before this"),
        ("(rc", 1, "this ( is never closed"),
        ("rc)", 3, "this ) closes nothing"),
        ("()", 2, "expected a word"),
        ("rc and 'lts", 8, "the quote ' is never closed"),
        ("rc and ''", 8, "an empty word would match every cell"),
        ("not", 4, "expected a word"),
        ("(" * 100 + "rc" + ")" * 100, 66, "nested deeper than 64"),
        ("not " * 100 + "rc", 261, "nested deeper than 64"),
    ],
)
def test_a_bad_expression_is_shown_with_a_caret(expression: str, column: int, phrase: str) -> None:
    with pytest.raises(UserError) as caught:
        select(CELLS, expression)
    first, shown, caret = str(caught.value).split("\n")
    assert first.startswith(f"-k: column {column}: {phrase}")
    assert shown == f"  {expression}"
    assert caret == " " * (column + 1) + "^"


def test_an_expression_that_keeps_nothing_is_an_error() -> None:
    with pytest.raises(
        UserError, match=re.escape("-k nvidia: selects none of the 12 cells; the first one is debian-13/")
    ):
        select(CELLS, "nvidia")
    assert select((), "nvidia") == ((), ())


def test_an_endless_expression_is_refused_and_control_characters_are_not_echoed() -> None:
    with pytest.raises(UserError, match="at most 4096"):
        parse("a " * 5000)
    with pytest.raises(UserError) as caught:
        select(CELLS, "\x1b[2J")
    assert "\x1b" not in str(caught.value)


WORDS = st.sampled_from(["rc", "lts", "6.1", "intree", "none"])
TREES = st.recursive(
    WORDS,
    lambda inner: st.one_of(
        st.tuples(st.just("not"), inner),
        st.tuples(st.just("and"), inner, inner),
        st.tuples(st.just("or"), inner, inner),
    ),
    max_leaves=8,
)


def write(tree: object) -> str:
    match tree:
        case ("not", inner):
            return f"not ({write(inner)})"
        case (operator, left, right):
            return f"({write(left)}) {operator} ({write(right)})"
    return str(tree)


def holds(tree: object, cell_id: str) -> bool:
    match tree:
        case ("not", inner):
            return not holds(inner, cell_id)
        case ("and", left, right):
            return holds(left, cell_id) and holds(right, cell_id)
        case ("or", left, right):
            return holds(left, cell_id) or holds(right, cell_id)
    return str(tree) in cell_id


@given(TREES)
def test_an_expression_means_what_its_tree_means(tree: object) -> None:
    predicate = parse(write(tree))
    for cell in CELLS:
        assert predicate(cell.id) == holds(tree, cell.id)


@given(st.text(alphabet="ab ()'\"andornt-/.\x00é", max_size=30))
def test_any_text_is_an_expression_or_a_user_error(text: str) -> None:
    try:
        predicate = parse(text)
    except UserError:
        return
    assert predicate("a/b/c/d") in (True, False)
