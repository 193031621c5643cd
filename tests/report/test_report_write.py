import base64
import csv
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from synthetic_run import HOSTILE, RUN, big_run, hostile_run, repro, small_run

from harness.errors import UserError
from harness.report import ReportInput, write_report


class Outline(HTMLParser):
    """Elements, inline texts and links of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {"script": [], "style": [], "td": [], "th": [], "caption": []}
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in self.inside:
            self.inside[tag].append("")
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            self._open.remove(tag)

    def handle_data(self, data: str) -> None:
        for tag in self._open:
            self.inside[tag][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def write(data: ReportInput, shelf, into: Path) -> Path:  # type: ignore[no-untyped-def]
    return write_report(data, into, read_evidence=shelf.read, repro_command=repro).parent


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(*small_run(), tmp_path_factory.mktemp("small") / "report")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(*hostile_run(), tmp_path_factory.mktemp("hostile") / "report")


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_the_same_input_gives_the_same_bytes_and_nothing_beside_the_report(tmp_path: Path) -> None:
    first = files(write(*small_run(), tmp_path / "a" / "report"))
    again = files(write(*small_run(), tmp_path / "a" / "report"))
    assert first == again
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["report"]


def test_a_directory_that_is_no_report_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="not an earlier report"):
        write(*small_run(), tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_report_that_cannot_be_finished_leaves_the_old_one_and_no_scrap(tmp_path: Path) -> None:
    into = write(*small_run(), tmp_path / "report")
    before = files(into)

    def broken(_: object) -> str:
        raise RuntimeError("no command")

    data, shelf = small_run()
    with pytest.raises(RuntimeError):
        write_report(data, into, read_evidence=shelf.read, repro_command=broken)
    assert files(into) == before
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_the_matrix_is_a_real_table_with_caption_and_scopes(small: Path) -> None:
    page = Outline(small / "table.html")
    assert page.inside["caption"] == ["Kernels 1 to 4 of 4"]
    scopes = [attributes.get("scope") for attributes in page.all("th")]
    assert (scopes.count("col"), scopes.count("row")) == (5, 4)
    cell = " ".join(page.inside["td"][0].split())
    assert cell == "✓PASS CPU 1/1 boots ≥ 21 % reached unload · 4/4 tests 21.3 GB/s (20.9–21.5)"


def test_rows_show_the_exact_release_and_every_cell_its_word(small: Path) -> None:
    page = Outline(small / "index.html")
    heads = " ".join(page.inside["th"])
    for release in ("6.1.0-50-amd64", "6.12.107+deb13-amd64", "7.3.4+deb13-amd64", "7.3-amd64"):
        assert release in heads
    words = " ".join(page.inside["td"])
    for word in ("PASS", "FAIL", "ERROR", "MISS", "BLOCKED", "NOT RUN", "LEFT OUT", "nova needs a kernel of at least"):
        assert word in words


def test_only_a_gpu_pass_has_the_class_of_full_colour(small: Path) -> None:
    cells = [attributes.get("class") or "" for attributes in Outline(small / "table.html").all("td")]
    assert cells.count("s-pass k-gpu") == 1
    assert cells.count("s-pass k-cpu-runtime") == 3
    assert cells.count("s-pass k-none") == 3


@pytest.mark.parametrize("name", ["index.html", "cell.html", "table.html"])
def test_inline_scripts_and_styles_are_pinned_by_the_policy(small: Path, name: str) -> None:
    page = Outline(small / name)
    (policy,) = [a["content"] or "" for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    kinds = [attributes.get("type") for attributes in page.all("script")]
    inline = [text for text, kind in zip(page.inside["script"], kinds, strict=True) if kind is None]
    for text in (*inline, *page.inside["style"]):
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert not any("style" in attributes for _, attributes in page.tags)
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)


def test_nothing_refers_to_another_place(hostile: Path) -> None:
    for name in ("index.html", "table.html", "cell.html"):
        for _, attributes in Outline(hostile / name).tags:
            for key in ("src", "href", "action", "data"):
                assert not re.match(r"(?i)[a-z]+:(?!,)|//", attributes.get(key) or "")


def test_hostile_text_makes_no_element_and_no_hidden_character(hostile: Path, small: Path) -> None:
    for name in ("index.html", "table.html", "cell.html"):
        page = Outline(hostile / name)
        assert {tag for tag, _ in page.tags} <= {tag for tag, _ in Outline(small / name).tags}
        assert not re.search("[\x00\x1b\x9b\u202e\u2066\u2028\ud800]", (hostile / name).read_text(encoding="utf-8"))
    for path in (*hostile.glob("details/*.js"), *hostile.glob("evidence/*.js")):
        assert "<" not in path.read_text(encoding="ascii")


def test_a_reason_of_megabytes_does_not_swell_the_pages(hostile: Path) -> None:
    assert (hostile / "index.html").stat().st_size < 200_000
    assert max(path.stat().st_size for path in hostile.glob("details/*.js")) < 400_000


def test_results_hold_everything_in_plain_formats(small: Path, hostile: Path) -> None:
    data = small_run()[0]
    results = json.loads((small / "results.json").read_text())
    assert results["run"]["id"] == RUN.id
    assert len(results["cells"]) == len(data.cells) + len(data.left_out)
    assert len(results["attempts"]) == len(data.attempts)
    with (small / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(results["cells"])
    assert {row["state"] for row in rows} >= {"pass", "fail", "left-out", "not-run"}
    with (hostile / "results.csv").open(newline="", encoding="utf-8") as file:
        reasons = [row["reason"] for row in csv.DictReader(file)]
    assert "'" + HOSTILE[9] in reasons


def test_an_empty_run_still_says_what_it_is(tmp_path: Path) -> None:
    run = replace(RUN, host={}, finished="", state="running", matrix_text="")
    data = ReportInput(run, ())
    index = write_report(data, tmp_path / "r", read_evidence=lambda _: b"", repro_command=lambda _: None)
    text = index.read_text()
    assert "0 cells planned" in text
    assert "still running" in text


def test_a_large_matrix_is_counted_on_the_front_page_and_whole_in_its_own(tmp_path: Path) -> None:
    root = write(*big_run(40, 20), tmp_path / "r")
    front, whole = Outline(root / "index.html"), Outline(root / "table.html")
    assert "Cells by kernel series and driver stack" in front.inside["caption"]
    assert len(front.all("td")) < 200
    assert len(whole.all("td")) == 800
