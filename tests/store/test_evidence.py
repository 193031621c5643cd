from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import harness
from harness.errors import InfraError
from harness.model.records import Evidence
from harness.store import evidence as module
from harness.store.evidence import EvidenceStore

ROOT = Path(harness.__file__).parents[1]


@pytest.fixture
def store(tmp_path: Path) -> EvidenceStore:
    return EvidenceStore(tmp_path / "evidence")


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@given(data=st.binary(max_size=5000))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_come_back(store: EvidenceStore, data: bytes) -> None:
    found = store.put(data, "console.log", "text/plain", truncated=True)
    assert found == Evidence("console.log", digest(data), len(data), "text/plain", True)
    assert store.read(found.sha256) == store.read(found.sha256, len(data)) == data


def test_bytes_files_and_streams_are_the_same_evidence(store: EvidenceStore, tmp_path: Path) -> None:
    data = os.urandom(1000) * 9000  # more than is spooled in memory
    (tmp_path / "log").write_bytes(data)
    assert store.put(data, "a") == store.put(tmp_path / "log", "a") == store.put(io.BytesIO(data), "a")
    assert [path.name for path in store.root.rglob("*") if path.is_file()] == [f"{digest(data)}.zst"]
    assert store.path(digest(data)) == store.root / digest(data)[:2] / f"{digest(data)}.zst"
    assert store.path(digest(data)).stat().st_size < len(data) / 100
    assert store.read(digest(data)) == data


def test_a_damaged_file_is_named_found_by_verify_and_healed_by_put(store: EvidenceStore) -> None:
    data = os.urandom(3000)
    kept = store.put(data, "dmesg.txt")
    other = store.put(b"other", "other")
    path = store.path(kept.sha256)
    whole = path.read_bytes()
    flipped = whole[:1500] + bytes([whole[1500] ^ 1]) + whole[1501:]
    for damaged in (
        b"",
        whole[:9],
        whole[:-100],
        flipped,
        whole + whole,
        b"text",
        store.path(other.sha256).read_bytes(),
    ):
        path.chmod(0o644)
        path.write_bytes(damaged)
        with pytest.raises(InfraError, match=kept.sha256):
            store.read(kept.sha256)
        assert [problem.path for problem in store.verify()] == [path]
    assert store.put(data, "dmesg.txt") == kept
    assert store.verify() == []
    assert store.read(kept.sha256) == data


def test_missing_and_impossible_digests_are_told_apart(store: EvidenceStore) -> None:
    with pytest.raises(InfraError, match="missing"):
        store.read("0" * 64)
    assert not store.has("0" * 64)
    for bad in ("", "../../etc/passwd", "A" * 64, "0" * 63):
        with pytest.raises(ValueError, match="SHA-256"):
            store.read(bad)


def test_a_bomb_is_bounded_by_what_is_recorded(store: EvidenceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = store.put(b"small", "log")
    path = store.path(kept.sha256)
    path.chmod(0o644)
    path.write_bytes(zstandard.compress(bytes(200 << 20)))
    with pytest.raises(InfraError, match="the record 5"):
        store.read(kept.sha256, kept.size)
    monkeypatch.setattr(module, "MAX_SIZE", 1 << 20)
    with pytest.raises(InfraError, match="bound"):
        store.read(kept.sha256)
    compressor = zstandard.ZstdCompressor(write_content_size=False)
    path.write_bytes(compressor.compress(bytes(200 << 20)))
    with pytest.raises(InfraError, match="does not state"):
        store.read(kept.sha256)
    small = zstandard.compress(b"small")
    path.write_bytes(small + zstandard.compress(bytes(200 << 20)))  # a second frame behind the honest first
    with pytest.raises(InfraError, match="more than its frame states"):
        store.read(kept.sha256, kept.size)


def test_what_is_too_large_is_refused_and_leaves_nothing(store: EvidenceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SIZE", 100)
    for data in (bytes(101), io.BytesIO(bytes(101))):
        with pytest.raises(InfraError, match="larger"):
            store.put(data, "log")
    assert list(store.root.rglob("*")) == []


def test_a_full_disk_is_infrastructure_trouble(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InfraError, match=r"console\.log"):
        EvidenceStore(tmp_path / "file" / "evidence").put(b"x", "console.log")


def test_the_file_and_its_name_are_synced_before_put_returns(
    store: EvidenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(b"warm", "up")
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def spy_fsync(handle: int) -> None:
        events.append(f"fsync {Path(f'/proc/self/fd/{handle}').readlink().suffix or 'directory'}")
        fsync(handle)

    def spy_replace(self: Path, target: Path) -> Path:
        events.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(Path, "replace", spy_replace)
    store.put(b"new", "log")
    assert events[-3:] == ["fsync .tmp", "rename", "fsync directory"]
    events.clear()
    store.put(b"new", "log")
    assert events == ["fsync directory"]


def test_leftovers_of_killed_writers_go_and_those_of_living_ones_stay(store: EvidenceStore) -> None:
    store.put(b"x", "log")
    old, new = store.root / ".1-aa.tmp", store.root / ".2-bb.tmp"
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    assert store.verify() == []
    assert store.remove_leftovers() == [old]
    assert store.remove_leftovers(older_than=0) == [new]


def test_a_foreign_file_is_reported(store: EvidenceStore) -> None:
    store.put(b"x", "log")
    (store.root / "00").mkdir()
    (store.root / "00" / "notes.txt").write_text("mine")
    assert [problem.reason for problem in store.verify()] == ["not a file of this store"]


WRITER = """
import sys
from pathlib import Path
from harness.store.evidence import EvidenceStore
store = EvidenceStore(Path(sys.argv[1]))
for number in range(10**9):
    found = store.put((f"line {number % 50}" * 2000).encode(), "log")
    print(found.sha256, found.size, flush=True)
"""


def test_writers_of_the_same_bytes_and_kill_9_leave_only_whole_files(store: EvidenceStore) -> None:
    command = [sys.executable, "-c", WRITER, str(store.root)]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(3)]
    said = []
    for writer in writers:  # however busy the host: each is killed in the middle of its work
        assert writer.stdout is not None
        said.extend(writer.stdout.readline() for _ in range(20))
    for writer in writers:
        writer.kill()
        assert writer.stdout is not None
        with writer.stdout:  # not communicate(), which knows nothing of what readline() has read ahead
            said.extend(writer.stdout)
        writer.wait(timeout=30)
    acknowledged = {tuple(line.split()) for line in said if line.endswith("\n")}
    for sha256, size in acknowledged:
        assert len(store.read(sha256, int(size))) == int(size)
    assert store.verify() == []
    store.remove_leftovers(older_than=0)
    assert all(path.suffix == ".zst" for path in store.root.rglob("*") if path.is_file())
