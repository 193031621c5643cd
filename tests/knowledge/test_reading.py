from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UserError
from harness.knowledge.issues import KnownIssues

GOOD = """issues:
  - id: ki-001-gone
    title: a function is gone
    stack: ["nvidia*"]
    driver: ["550.*"]
    kernel: [">=7.2"]
    rung: build
    signature: "implicit declaration of function .gone"
    samples: ["x.c:1:2: error: implicit declaration of function ‘gone’"]
    cause: it was removed
    fault: driver
    sources: ["a/b#1"]
    confidence: high
"""


def load(tmp_path: Path, text: str) -> KnownIssues:
    (tmp_path / "some.yaml").write_text(text)
    return KnownIssues.load(tmp_path)


def test_a_good_file_is_read(tmp_path: Path) -> None:
    (issue,) = load(tmp_path, GOOD)
    assert (issue.id, issue.kernel, issue.sometimes) == ("ki-001-gone", (">=7.2",), False)


@pytest.mark.parametrize(
    ("old", "new", "where", "what"),
    [
        ("rung: build", "rung: bulid", "7:5", "rung"),
        ("    cause: it was removed\n", "", "2:5", "cause is missing"),
        ("fault: driver", "fault: nobody", "11:5", "fault"),
        ("driver: ", "drivers: ", "5:5", "there is no such setting; did you mean driver?"),
        ('[">=7.2"]', '[">=7.2", "later"]', "6:23", "no range of versions"),
        ('implicit declaration of function .gone"', 'gone("', "8:5", "not a regular expression"),
        ("‘gone’", "‘there’", "2:5", "does not match its sample"),
        ("    samples", "    #samples", "2:5", "at least one text"),
        ("id: ki-001-gone", "id: gone", "2:5", "id"),
        ('["a/b#1"]', "[]", "12:5", "sources"),
        ("issues:\n", "issues: [\n", "2:3", "not valid YAML"),
        (GOOD, "- a\n", "1:1", "want a mapping with issues"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, old: str, new: str, where: str, what: str) -> None:
    assert GOOD.count(old) == 1
    with pytest.raises(UserError) as caught:
        load(tmp_path, GOOD.replace(old, new))
    message = str(caught.value)
    assert what in message
    assert f"some.yaml:{where}: " in message
    assert "\n" not in message


def test_two_issues_cannot_have_one_id(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(GOOD)
    with pytest.raises(UserError, match=r"ki-001-gone is taken by .*other\.yaml"):
        load(tmp_path, GOOD)


def test_a_folder_that_is_not_there_holds_no_issues(tmp_path: Path) -> None:
    assert KnownIssues.load(tmp_path / "none").issues == ()


def test_text_that_is_not_utf_8_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="is not UTF-8"):
        KnownIssues.load(tmp_path)
