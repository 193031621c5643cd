import json
import sys
import unicodedata

import pytest

from harness.report.text import (
    csv_text,
    duration,
    finite,
    own,
    page_text,
    page_value,
    percent,
    quantity,
    script_json,
    shorten,
    spread,
    visible,
)


def test_no_control_format_or_separator_character_of_unicode_stays_raw() -> None:
    raw = [
        hex(code)
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) in ("Cc", "Cf", "Zl", "Zp", "Cs")
        and chr(code) != "\t"
        and chr(code) in visible(chr(code))
    ]
    assert raw == []


def test_hidden_characters_are_named_and_terminal_colours_dropped() -> None:
    assert visible("\x1b[1;31mred\x1b[0m \u202eevil\x00\x1b]0;t\x07") == "red ⟨U+202E⟩evil⟨NUL⟩⟨ESC⟩]0;t⟨BEL⟩"


def test_ordinary_text_of_any_script_is_left_alone() -> None:
    text = "ring gfx timeout, größer 内核 é\tµs"
    assert visible(text) == text


def test_a_long_text_keeps_its_ends_and_says_what_is_gone() -> None:
    text = shorten("a" * 900_000 + "end", 100)
    assert text.endswith("end")
    assert "[…899903 characters cut…]" in text


def test_json_in_a_script_holds_no_markup_and_stays_json() -> None:
    value = {"a": "</script><!--]]>&\u2028", "b": [1.5, None]}
    text = script_json(value)
    assert not set("<>&") & set(text)
    assert text.isascii()
    assert json.loads(text) == value


def test_numbers_that_json_lacks_become_null() -> None:
    assert page_value({"a": float("nan"), "b": [float("inf"), 1.0]}) == {"a": None, "b": [None, 1.0]}
    assert finite([float("-inf"), "\x00"]) == [None, "\x00"]


def test_an_unknown_type_is_refused_rather_than_printed() -> None:
    with pytest.raises(TypeError, match="set"):
        page_value({1, 2})


@pytest.mark.parametrize("text", ["</script>", "</STYLE ", "<!-- x"])
def test_our_own_markup_may_not_end_its_element(text: str) -> None:
    with pytest.raises(ValueError, match="end its own element"):
        own(text)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx"])
def test_a_csv_field_is_never_a_formula(text: str) -> None:
    assert csv_text(text) == "'" + text


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (21.3e9, "B/s", "21.3 GB/s"),
        (999.8e6, "B/s", "1.00 GB/s"),
        (4.02e-3, "s", "4.02 ms"),
        (0.0, "B/s", "0.00 B/s"),
        (0.25, "ratio", "0.25 ratio"),
        (185.0, "s", "3 min 05 s"),
        (None, "B/s", "not known"),
        (float("nan"), "B/s", "not known"),
        (3e-12, "s", "0.00 ns"),
        (-5e9, "B/s", "-5.00 GB/s"),
    ],
)
def test_quantities_have_three_figures_and_a_prefix(value: float | None, unit: str, shown: str) -> None:
    assert quantity(value, unit) == shown


def test_a_spread_has_one_unit_for_both_ends() -> None:
    assert spread(0.98e9, 1.02e9, "B/s") == "0.98–1.02 GB/s"
    assert spread(None, 1.0, "B/s") == ""


def test_less_than_all_is_never_shown_as_all() -> None:
    assert (percent(0.9999), percent(1.0), percent(0.2065)) == ("99 %", "100 %", "21 %")


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.44, "0.4 s"), (59.6, "1 min 00 s"), (7800, "2 h 10 min"), (-1, "not known")]
)
def test_durations_read_as_people_say_them(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_page_text_is_bounded_and_visible() -> None:
    assert page_text("x\n" * 9, 100).count("⟨LF⟩") == 9


def test_printable_ascii_holds_nothing_that_visible_replaces() -> None:
    printable = "".join(chr(code) for code in range(128) if chr(code).isprintable())
    assert visible(printable) == printable
