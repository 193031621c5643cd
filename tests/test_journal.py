from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import harness
from harness import journal as module
from harness.errors import InfraError
from harness.journal import Journal, Owner, owner_alive

ROOT = Path(harness.__file__).parents[1]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "home" / "journal", "run-1")


def test_an_entry_is_on_disk_before_the_block_and_gone_after_it(journal: Journal) -> None:
    with journal.entry("domain", "kdm-1", uuid="abc") as entry:
        (found,) = journal.entries()
        assert (found.kind, found.name, found.details, found.run_id) == ("domain", "kdm-1", {"uuid": "abc"}, "run-1")
        assert found == entry
        assert found.owner == Owner.current()
        assert found.created.endswith("+00:00")
        assert journal.orphans() == []
    assert journal.entries() == []
    assert list(journal.root.iterdir()) == []


def test_an_entry_is_durable_before_the_call_returns(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.add("path", "warm-up")
    events: list[str] = []
    fsync, replace, unlink = os.fsync, Path.replace, Path.unlink

    def spy_fsync(handle: int) -> None:
        events.append(f"fsync {Path(f'/proc/self/fd/{handle}').readlink().suffix or 'directory'}")
        fsync(handle)

    def spy_replace(self: Path, target: Path) -> Path:
        events.append("rename")
        return replace(self, target)

    def spy_unlink(self: Path, missing_ok: bool = False) -> None:
        events.append("unlink")
        unlink(self, missing_ok)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(Path, "replace", spy_replace)
    monkeypatch.setattr(Path, "unlink", spy_unlink)
    entry = journal.add("path", "x")
    assert events == ["fsync .tmp", "rename", "fsync directory"]
    events.clear()
    entry.done()
    assert events == ["unlink", "fsync directory"]
    entry.done()


def test_details_that_come_late_are_kept(journal: Journal) -> None:
    entry = journal.add("process", "qemu", binary="qemu")
    entry.note(pid="42")
    assert [found.details for found in journal.entries()] == [{"binary": "qemu", "pid": "42"}]


def test_registered_clean_ups_run_last_first_before_the_entry_goes(journal: Journal) -> None:
    order: list[str] = []

    def clean_up(name: str) -> None:
        assert journal.entries(), "forgotten before it was undone"
        order.append(name)

    entry = journal.entry("domain", "x")
    with pytest.raises(KeyError), entry:  # noqa: PT012
        entry.undo(clean_up, "undefine")
        entry.undo(clean_up, "destroy")
        raise KeyError
    assert order == ["destroy", "undefine"]
    assert journal.entries() == []


def test_a_clean_up_that_fails_keeps_the_entry(journal: Journal) -> None:
    order: list[str] = []

    def fail() -> None:
        raise OSError("busy")

    entry = journal.entry("path", "/mnt")
    with pytest.raises(OSError, match="busy"), entry:  # noqa: PT012
        entry.undo(order.append, "the others still run")
        entry.undo(fail)
    assert order == ["the others still run"]
    assert [found.name for found in journal.entries()] == ["/mnt"]


def test_an_exception_without_registered_clean_up_keeps_the_entry_unless_it_is_done(journal: Journal) -> None:
    with pytest.raises(OSError, match="umount"), journal.entry("path", "unknown"):
        raise OSError("umount")
    with pytest.raises(OSError, match="test"), journal.entry("path", "undone") as entry:  # noqa: PT012
        entry.done()
        raise OSError("test")
    assert [found.name for found in journal.entries()] == ["unknown"]


VICTIM = """
import sys, time
from pathlib import Path
from harness.journal import Journal
journal = Journal(Path(sys.argv[1]), "run-2")
with journal.entry("daemon", "libvirtd"), journal.entry("domain", "kdm-a", slot="1"):
    print("made", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_owner_made_is_orphaned_newest_first(journal: Journal) -> None:
    mine = journal.add("path", "mine")
    victim = subprocess.Popen([sys.executable, "-c", VICTIM, str(journal.root)], stdout=subprocess.PIPE, cwd=ROOT)
    assert victim.stdout is not None
    assert victim.stdout.readline() == b"made\n"
    assert journal.orphans() == []
    victim.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while not journal.orphans() and time.monotonic() < deadline:  # not waited for: a zombie is dead, too
        time.sleep(0.01)
    orphans = journal.orphans()
    assert [(entry.kind, entry.name, entry.run_id) for entry in orphans] == [
        ("domain", "kdm-a", "run-2"),
        ("daemon", "libvirtd", "run-2"),
    ]
    assert orphans[0].owner.pid == victim.pid
    victim.wait(10)
    victim.stdout.close()
    assert journal.orphans() == orphans
    for entry in orphans:
        entry.done()
    assert journal.entries() == [mine]


WRITER = """
import sys
from pathlib import Path
from harness.journal import Journal
journal = Journal(Path(sys.argv[1]))
print("ready", flush=True)
for number in range(10**9):
    entry = journal.add("path", str(number), filler="x" * 20000)
    print("made", number, flush=True)
    entry.note(more="y" * 20000)
    print("done", number, flush=True)
    entry.done()
"""


def test_kill_9_at_any_moment_leaves_a_sound_entry_for_whatever_was_made(journal: Journal) -> None:
    for round_ in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(journal.root)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(0.03 + 0.041 * round_)
        writer.kill()
        lines = writer.communicate(timeout=30)[0].split("\n")[:-1]
        made = {line.split()[1] for line in lines if line.startswith("made")}
        done = {line.split()[1] for line in lines if line.startswith("done")}
        orphans = journal.orphans()
        assert made - done <= {entry.name for entry in orphans}
        assert len(orphans) <= 1
        for entry in orphans:
            assert entry.details["filler"] == "x" * 20000
            entry.done()
        for torn in journal.unreadable():
            assert torn.path.suffix == ".tmp"
            torn.path.unlink()


def test_torn_and_foreign_files_are_reported_and_never_crash(journal: Journal) -> None:
    sound = journal.add("path", "sound")
    text = sound.path.read_text()
    record = json.loads(text)
    bad = {
        "empty.json": "",
        "torn.json": text[: len(text) // 2],
        "list.json": "[]",
        "deep.json": "[" * 100_000,
        "later.json": json.dumps(record | {"format": "kdmatrix-journal-2"}),
        "extra.json": json.dumps(record | {"surprise": 1}),
        "pid.json": json.dumps(record | {"owner": record["owner"] | {"pid": -1}}),
        "pid0.json": json.dumps(record | {"owner": record["owner"] | {"pid": "1"}}),
        "details.json": json.dumps(record | {"details": {"a": {"b": "c"}}}),
        "big.json": text + " " * (1 << 20),
        "notes.txt": "mine",
        ".1-aa.tmp": text[:10],
    }
    for name, content in bad.items():
        (journal.root / name).write_text(content)
    (journal.root / "binary.json").write_bytes(b"\xff\xfe\0")
    (journal.root / "folder.json").mkdir()
    (journal.root / "link.json").symlink_to(sound.path)
    (journal.root / "dangling.json").symlink_to("nowhere")
    os.mkfifo(journal.root / "pipe.json")
    names = {*bad, "binary.json", "folder.json", "link.json", "dangling.json", "pipe.json"}
    assert {found.path.name for found in journal.unreadable()} == names
    assert all("\n" not in found.reason and found.reason for found in journal.unreadable())
    assert journal.entries() == [sound]


def test_a_journal_that_never_was_is_empty(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "nowhere")
    assert (journal.entries(), journal.orphans(), journal.unreadable()) == ([], [], [])


def test_an_entry_that_cannot_be_written_stops_the_making(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InfraError, match="cannot be written"):
        Journal(tmp_path / "file" / "journal").entry("domain", "x")


def test_an_owner_is_known_by_more_than_its_pid() -> None:
    me = Owner.current()
    assert owner_alive(me)
    assert not owner_alive(dataclasses.replace(me, start_time=me.start_time + 1)), "the pid was used again"
    assert not owner_alive(dataclasses.replace(me, boot_id="another boot"))
    assert owner_alive(dataclasses.replace(me, host="elsewhere", boot_id="another boot")), "cannot be known from here"
    assert not owner_alive(dataclasses.replace(me, pid=2**22 + 1))
    assert owner_alive(Owner.of(1))
    with pytest.raises(InfraError, match="no process"):
        Owner.of(2**22 + 1)


def test_the_start_time_is_found_behind_a_hostile_program_name(tmp_path: Path) -> None:
    program = tmp_path / "a) R 1 (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as process:
        deadline = time.monotonic() + 10
        while b"R 1" not in Path(f"/proc/{process.pid}/stat").read_bytes() and time.monotonic() < deadline:
            time.sleep(0.01)
        owner = Owner.of(process.pid)
        ticks = float(Path("/proc/uptime").read_text().split()[0]) * os.sysconf("SC_CLK_TCK")
        assert abs(owner.start_time - ticks) < 60 * os.sysconf("SC_CLK_TCK")
        assert owner_alive(owner)
        process.kill()
    assert not owner_alive(owner)


def test_a_process_that_proc_hides_counts_as_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(module, "_start_time", lambda pid: None)
    me = Owner(os.getpid(), 1, module._boot_id(), os.uname().nodename)
    assert not owner_alive(me)
    monkeypatch.setattr(os, "kill", refuse)
    assert owner_alive(me)
