"""Records of a kernel's log are read as the kernel writes them, and nothing that a guest writes instead can raise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.kmsg import parse_kmsg

RECORDS = (
    b"5,0,0,-;Linux version 6.12.107+deb13-amd64 (debian-kernel@lists.debian.org)\n"
    b"6,1,0,-;Command line: console=ttyS0,115200; panic=-1\n"
    b"4,370,3982431,-;WARNING: CPU: 0 PID: 1 at kernel/x.c:1\n"
    b" SUBSYSTEM=pci\n DEVICE=+pci:0000:00:02.0\n"
    b"12,371,3982536,-,caller=T311;from user space\n"
)


def test_records_are_read_with_level_time_and_text() -> None:
    found = parse_kmsg(RECORDS)
    assert [message.sequence for message in found] == [0, 1, 370, 371]
    assert [message.level for message in found] == [5, 6, 4, 4]
    assert [message.facility for message in found] == [0, 0, 0, 1]
    assert found[1].text == "Command line: console=ttyS0,115200; panic=-1"
    assert found[2].seconds == pytest.approx(3.982431)
    assert found[2].line() == "<4>[    3.982431] WARNING: CPU: 0 PID: 1 at kernel/x.c:1"


@given(st.binary(max_size=200))
def test_no_bytes_of_a_guest_can_raise(data: bytes) -> None:
    parse_kmsg(data)
    parse_kmsg(b"6,1,2,-;" + data)


@pytest.mark.parametrize(
    "line",
    [b"6,1;short", b"x,1,2,-;text", b"6,1,2,-", b"-;x", b"6,1,,-;x", b"\xff,1,2;x", b"6,1," + b"9" * 400 + b",-;x"],
)
def test_what_is_no_record_is_skipped(line: bytes) -> None:
    assert [message.text for message in parse_kmsg(line + b"\n6,9,0,-;good\n")] == ["good"]
