"""Archives that the kernel, and every other reader of the format, can unpack."""

from __future__ import annotations

import io
import shutil
import stat
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.images.cpio import CpioWriter


@dataclass(frozen=True)
class Entry:
    mode: int
    content: bytes
    rdev: tuple[int, int]


def read_newc(data: bytes) -> dict[str, Entry]:
    """Parse concatenated newc archives, following buffer-format.rst and not the writer."""
    found: dict[str, Entry] = {}
    at = 0
    while at < len(data):
        if data[at] == 0:  # padding between archives
            at += 1
            continue
        assert at % 4 == 0
        assert data[at : at + 6] == b"070701", f"no header at {at}"
        numbers = [int(data[at + 6 + 8 * index : at + 14 + 8 * index], 16) for index in range(13)]
        mode, size, name_size = numbers[1], numbers[6], numbers[11]
        name = data[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        begin = at + 110 + name_size
        begin += -begin % 4
        at = begin + size
        at += -at % 4
        if name != b"TRAILER!!!\0":
            found[name[:-1].decode()] = Entry(mode, data[begin : begin + size], (numbers[9], numbers[10]))
    return found


def archive(fill: Callable[[CpioWriter], None]) -> bytes:
    stream = io.BytesIO()
    writer = CpioWriter(stream)
    fill(writer)
    writer.close()
    return stream.getvalue()


def sample(writer: CpioWriter) -> None:
    writer.directory("proc")
    writer.file("bin/deep/tool", b"#!/bin/sh\n", 0o755)
    writer.file("bin/deep/empty", b"")
    writer.symlink("bin/sh", "deep/tool")
    writer.device("dev/console", 5, 1)


def test_every_kind_of_entry_reads_back_with_the_directories_above_it() -> None:
    found = read_newc(archive(sample))
    assert list(found) == ["proc", "bin", "bin/deep", "bin/deep/tool", "bin/deep/empty", "bin/sh", "dev", "dev/console"]
    assert found["bin/deep/tool"] == Entry(stat.S_IFREG | 0o755, b"#!/bin/sh\n", (0, 0))
    assert found["bin/sh"] == Entry(stat.S_IFLNK | 0o777, b"deep/tool", (0, 0))
    assert found["dev/console"] == Entry(stat.S_IFCHR | 0o600, b"", (5, 1))
    assert all(stat.S_ISDIR(found[name].mode) for name in ("proc", "bin", "bin/deep", "dev"))


@pytest.mark.parametrize("reader", [("cpio", "-idm", "--quiet"), ("busybox", "cpio", "-idm")])
def test_other_programs_unpack_it(tmp_path: Path, reader: tuple[str, ...]) -> None:
    if shutil.which(reader[0]) is None:
        pytest.skip(f"{reader[0]} is not installed")
    data = archive(lambda writer: (writer.file("a/b", b"x" * 5000, 0o640), writer.symlink("a/l", "b"))[0])
    done = subprocess.run(reader, input=data, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a/b").read_bytes() == b"x" * 5000
    assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == 0o640
    assert (tmp_path / "a/l").readlink() == Path("b")


def test_archives_may_be_concatenated_and_the_later_file_is_read_after_the_earlier() -> None:
    first = archive(lambda writer: writer.file("etc/one", b"1"))
    second = archive(lambda writer: writer.file("etc/two", b"2"))
    assert len(first) % 512 == 0
    assert set(read_newc(first + second)) == {"etc", "etc/one", "etc/two"}


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"content")
    first = archive(lambda writer: writer.add("file", source))
    source.touch()
    source.chmod(0o600)
    assert archive(lambda writer: writer.add("file", source)) == first


names = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=9
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(names.filter(lambda name: name not in (".", "..", "TRAILER!!!")), st.binary(max_size=40)))
def test_any_name_and_content_reads_back(files: dict[str, bytes]) -> None:
    def fill(writer: CpioWriter) -> None:
        for name, content in files.items():
            writer.file(f"d/{name}", content)

    found = read_newc(archive(fill))
    assert {name.removeprefix("d/"): entry.content for name, entry in found.items() if name != "d"} == files
