from __future__ import annotations

import time
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.suites.wire import MARK, MAX_LINE, MAX_RECORDS, encode, parse

HELLO = {"ev": "hello", "schema": 1, "test": "triad"}
CHECK = {"ev": "check", "name": "x", "ok": True, "checked": 5, "bad": 0}

values = st.one_of(
    st.text(max_size=40),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=8),
)
records = st.builds(
    lambda ev, rest: {**rest, "ev": ev}, st.sampled_from(["hello", "metric"]), st.dictionaries(st.text(), values)
)
noise = st.binary(max_size=60).map(lambda b: b.replace(b"@GT1", b"").replace(b"\n", b"").replace(b"\r", b""))


def seal(body: bytes) -> bytes:
    return MARK + body + b" %08x\n" % zlib.crc32(body)


def read(data: bytes) -> list[dict[str, Any]]:
    return [dict(record.data) for record in parse(data).records]


@given(st.lists(st.tuples(noise, records, noise), max_size=5))
def test_records_survive_a_console_that_others_write_to(parts: list[tuple[bytes, dict[str, Any], bytes]]) -> None:
    # Noise on lines of its own, and in front of a record on the record's line.
    data = b"".join(after + b"\r\n" + before + encode(record) for before, record, after in parts)
    assert read(data) == [record for _, record, _ in parts]


@given(st.binary(max_size=400))
def test_no_bytes_at_all_can_raise(data: bytes) -> None:
    parse(data)
    parse(MARK + data)
    parse(seal(data.replace(b"\n", b"")))


@given(records, st.data())
def test_a_record_with_a_changed_byte_is_never_read_as_another(record: dict[str, Any], data: st.DataObject) -> None:
    line = bytearray(encode(record))
    place = data.draw(st.integers(0, len(line) - 2))
    line[place] ^= 1 << data.draw(st.integers(0, 7))
    assert read(bytes(line)) in ([], [record])  # equal only where the change did not touch the record's meaning


@given(records, st.data())
def test_a_cut_record_is_no_record(record: dict[str, Any], data: st.DataObject) -> None:
    line = encode(record)
    cut = data.draw(st.integers(0, len(line) - 2))
    assert read(line[:cut]) == []


def test_a_wrong_checksum_is_damage() -> None:
    wire = parse(encode(HELLO).replace(b"triad", b"trial") + encode(CHECK))
    assert [record.ev for record in wire.records] == ["check"]
    assert wire.damaged == 1


def test_a_record_cut_by_the_next_one_does_not_take_it_along() -> None:
    wire = parse(encode(HELLO)[:20] + encode(CHECK))
    assert [record.ev for record in wire.records] == ["check"]


def test_a_kernel_message_behind_a_record_does_not_spoil_it() -> None:
    assert read(encode(CHECK).rstrip(b"\n") + b" [   12.345] usb 1-1: new device\n") == [CHECK]


def test_the_mark_inside_a_text_is_text() -> None:
    record = {"ev": "check", "detail": 'saw @GT1 {"ev":"result"} 00000000 there'}
    assert read(encode(record)) == [record]


@pytest.mark.parametrize(
    "body",
    [
        b'{"ev":"metric","p50":NaN}',
        b'{"ev":"metric","p50":-Infinity}',
        b'{"ev":"metric","p50":1e999}',
        b'{"ev":"metric","p50":' + b"9" * 5000 + b"}",
        b'{"ev":"metric","p50":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"p50":1}',
        b'{"ev":7}',
        b'["ev"]',
        b'{"ev":"x"',
        b'{"ev":"\xff"}',
    ],
)
def test_what_is_well_sealed_but_no_record_is_damage(body: bytes) -> None:
    wire = parse(seal(body) + encode(CHECK))
    assert [record.ev for record in wire.records] == ["check"]
    assert wire.damaged == 1


def test_a_line_beyond_the_limit_is_dropped_whole() -> None:
    wire = parse(encode({"ev": "x", "text": "a" * MAX_LINE}) + encode(CHECK))
    assert [record.ev for record in wire.records] == ["check"]
    assert wire.damaged == 1


def test_records_beyond_the_limit_are_not_read() -> None:
    wire = parse(encode(CHECK) * (MAX_RECORDS + 5))
    assert len(wire.records) == MAX_RECORDS
    assert wire.overflow


@pytest.mark.parametrize(
    "line",
    [b"@GT1 {" * 150_000, b"@GT1 {" + b" 0123abcd" * 25_000, (b"@GT1 {" * 8 + b" 0123abcd" * 20_000 + b"\n") * 5],
)
def test_hostile_lines_cost_little(line: bytes) -> None:
    started = time.process_time()
    assert parse(line).records == ()
    assert time.process_time() - started < 5


def test_members_of_the_wrong_type_read_as_absent() -> None:
    (record,) = parse(encode({"ev": "x", "a": 5, "b": "t", "c": True})).records
    assert record.text("a", "none") == "none"
    assert record.number("b") is None
    assert record.number("c") is None
    assert record.number("a") == 5
