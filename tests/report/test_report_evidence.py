import json
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_run import KERNELS, Shelf, attempt

from harness.errors import InfraError
from harness.model.cell import Cell
from harness.model.outcome import Outcome
from harness.model.records import Attempt, Evidence
from harness.model.stage import Stage
from harness.report.evidence import HEAD_LINES, TAIL_LINES, deciding_line, excerpt, store_evidence

CELL = Cell("debian-13", KERNELS[0][0], "intree")


def failed(evidence: Evidence, reason: str = "probe failed with error -22") -> Attempt:
    made = attempt(CELL, "6.1", Shelf(), stop=(Stage.LOAD, Outcome.FAIL, reason), with_evidence=False)
    return replace(made, stages=(*made.stages[:-1], replace(made.stages[-1], evidence=(evidence,))))


def test_the_raw_file_is_kept_byte_for_byte_and_once(tmp_path: Path) -> None:
    shelf = Shelf()
    content = b"\x1b[31mone\r\n\xff\x00 probe failed with error -22"
    item = shelf.put("console.log", content)
    stored = store_evidence([failed(item), failed(item)], shelf.read, tmp_path / "evidence")
    assert stored[item.sha256].status == "text"
    assert stored[item.sha256].line_for("probe failed with error -22") == 2
    assert (tmp_path / stored[item.sha256].raw).read_bytes() == content
    assert len(list((tmp_path / "evidence").iterdir())) == 2


@pytest.mark.parametrize("error", [KeyError("x"), FileNotFoundError("x"), InfraError("x")])
def test_what_cannot_be_read_was_not_collected(tmp_path: Path, error: Exception) -> None:
    def read(_: str) -> bytes:
        raise error

    item = Evidence("console.log", "0" * 64, 1)
    assert store_evidence([failed(item)], read, tmp_path / "e")[item.sha256].status == "not collected"


def test_bytes_that_do_not_match_their_digest_are_not_shown(tmp_path: Path) -> None:
    item = Evidence("console.log", "0" * 64, 1)
    assert store_evidence([failed(item)], lambda _: b"other", tmp_path / "e")[item.sha256].status == "altered"
    assert list((tmp_path / "e").iterdir()) == []


def test_a_digest_is_never_a_path(tmp_path: Path) -> None:
    item = Evidence("console.log", "../../escape", 1)
    assert store_evidence([failed(item)], lambda _: b"x", tmp_path / "e")[item.sha256].status == "not collected"
    assert not (tmp_path.parent / "escape.txt").exists()


def test_binary_evidence_is_copied_and_not_shown(tmp_path: Path) -> None:
    shelf = Shelf()
    item = shelf.put("core.gz", b"\x1f\x8b", "application/gzip")
    stored = store_evidence([failed(item)], shelf.read, tmp_path / "e")[item.sha256]
    assert (stored.status, Path(stored.raw).suffix) == ("binary", ".bin")


def test_the_chunk_is_ascii_and_calls_one_function(tmp_path: Path) -> None:
    shelf = Shelf()
    item = shelf.put("console.log", "</script>\u202e\u2028 é".encode())
    store_evidence([failed(item)], shelf.read, tmp_path / "e")
    text = (tmp_path / "e" / f"{item.sha256}.js").read_text(encoding="ascii")
    assert "<" not in text
    payload = json.loads(text.removeprefix(f'kdmatrixEvidence("{item.sha256}",').removesuffix(");\n"))
    assert payload["head"] == ["</script>⟨U+202E⟩⟨U+2028⟩ é"]


def test_line_numbers_of_a_cut_log_are_those_of_the_file() -> None:
    lines = [f"line {number} {'x' * 60}" for number in range(1, 40_001)]
    shown = excerpt(("\n".join(lines) + "\n").encode())
    head, tail, start = shown["head"], shown["tail"], shown["tail_from"]
    assert isinstance(head, list)
    assert isinstance(tail, list)
    assert isinstance(start, int)
    assert shown["lines"] == 40_000
    assert head[0] == lines[0]
    assert tail[-1] == lines[-1]
    assert tail[1] == lines[start]
    assert len(head) <= HEAD_LINES
    assert len(tail) <= TAIL_LINES


def test_a_log_of_nothing_but_newlines_is_bounded() -> None:
    shown = excerpt(b"\n" * 900_000)
    assert len(shown["head"]) + len(shown["tail"]) == HEAD_LINES + TAIL_LINES  # type: ignore[arg-type]
    assert shown["tail_from"] == 900_000 - TAIL_LINES + 1


def test_a_log_that_fits_is_whole() -> None:
    assert excerpt(b"a\r\nb") == {"head": ["a", "b"], "tail": [], "tail_from": 0, "lines": 2, "size": 4}
    assert excerpt(b"")["lines"] == 0


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        ('oops: "ring gfx timeout"', 2),
        ("ring gfx timeout", 2),
        ("kernel says: BUG: unable to handle", 3),
        ("guest did not answer", None),
        ("x", None),
    ],
)
def test_the_deciding_line_is_the_one_that_the_reason_quotes(reason: str, line: int | None) -> None:
    assert deciding_line(["a", "[1.0] amdgpu: ring gfx timeout!", "BUG: unable to handle"], reason) == line
