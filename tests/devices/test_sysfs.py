"""Small files are read in bounds, and whatever is odd about one is unknown instead of an error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.devices import sysfs


def test_no_more_than_a_page_is_read(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"x" * 10_000)
    assert len(sysfs.text(tmp_path / "long")) == 4096
    assert len(sysfs.text(tmp_path / "long", 5000)) == 5000


def test_text_is_printable_ascii(tmp_path: Path) -> None:
    (tmp_path / "odd").write_bytes(b" a\x1b[2J\xff\xc3\xa4\r\n")
    assert sysfs.text(tmp_path / "odd") == "a?[2J????"


@pytest.mark.parametrize(
    ("content", "number"),
    [(b"0x10de\n", 0x10DE), (b"12\n", 12), (b"", None), (b"-1\n", None), (b"0x10000\n", None), (b"1e3", None)],
)
def test_numbers(tmp_path: Path, content: bytes, number: int | None) -> None:
    (tmp_path / "file").write_bytes(content)
    assert sysfs.number(tmp_path / "file", 0xFFFF) == number


def test_what_is_not_there_is_unknown(tmp_path: Path) -> None:
    missing = tmp_path / "no/such"
    assert sysfs.data(missing) is None
    assert (sysfs.text(missing), sysfs.number(missing), sysfs.link_name(missing)) == ("", None, "")
    assert (sysfs.names(missing), list(sysfs.children(missing)), sysfs.real(missing)) == ((), [], None)


def test_a_pipe_does_not_block_and_a_directory_and_a_circle_do_not_break(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to("circle")
    for name in ("pipe", "circle", "."):
        assert sysfs.data(tmp_path / name) is None
    assert sysfs.real(tmp_path / "circle") is None


def test_a_file_that_comes_in_pieces_is_read_whole() -> None:
    """/proc hands out at most a page at a time."""
    routes = sysfs.data(Path("/proc/kallsyms"), 1 << 16)
    assert routes is not None
    assert len(routes) == 1 << 16
