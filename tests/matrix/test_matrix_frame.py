from __future__ import annotations

from harness.matrix.frame import MatrixError, Problem, Span, closest, did_you_mean, frame, quoted, visible


def test_the_caret_underlines_the_place() -> None:
    error = MatrixError("m.yaml", [Problem(Span(2, 8, 5), "boots", "is wrong", "write 1")], "a: b\nboots: twice\n")
    assert str(error) == "m.yaml:2:8: boots: is wrong; write 1\n    2 | boots: twice\n      |        ^~~~~"


def test_wide_characters_and_tabs_keep_the_caret_in_place() -> None:
    assert frame(["名: x"], Span(1, 4)) == "\n    1 | 名: x\n      |     ^"
    assert frame(["a:\tx"], Span(1, 4)) == "\n    1 | a: x\n      |    ^"


def test_a_long_line_is_cut_around_the_place() -> None:
    shown, carets = frame(["x" * 5000 + "HERE" + "y" * 5000], Span(1, 5001, 4)).splitlines()[1:]
    assert len(shown) < 120
    assert shown[carets.index("^") :].startswith("HERE")


def test_nothing_that_a_terminal_obeys_is_printed() -> None:
    error = MatrixError("m\x1b]0;x.yaml", [Problem(Span(1, 1), "k\x1b[2J", "bad")], "\u202ea: \x9b31m\n")
    assert all(character.isprintable() or character == "\n" for character in str(error))
    assert visible("a\tb\x1bc") == "a b\ufffdc"
    assert len(quoted("x" * 1000)) < 70


def test_a_place_past_the_end_has_no_frame() -> None:
    assert frame(["a"], Span(7, 1)) == ""
    assert frame([], Span(1, 1)) == ""


def test_many_problems_are_cut_with_their_number_and_all_stay_as_data() -> None:
    error = MatrixError("m.yaml", [Problem(Span(n, 1), "", "bad") for n in range(1, 101)])
    assert str(error).endswith("m.yaml: and 60 more problems")
    assert len(error.as_json()) == 100


def test_suggestions_ignore_case_and_enumerate_a_short_choice() -> None:
    assert did_you_mean("LTS-6.1", ["lts-6.1", "rc"]) == "did you mean 'lts-6.1'?"
    assert did_you_mean("zzz", ["b", "a"]) == "known: a, b"
    assert did_you_mean("zzz", [f"name{n}" for n in range(50)]) == ""
    assert did_you_mean("zzz", []) == ""
    assert closest("kernel", ["kernels", "guests"]) == ["kernels"]
