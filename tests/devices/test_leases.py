"""One device, one owner; what a dead owner left is taken over by one, with what it had recorded."""

from __future__ import annotations

import grp
import json
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness
from devices.host import ADMINS, GPU, SOUND, Host
from harness.devices.hostwide import HostDirectory, lending_directory
from harness.devices.leases import Lease, LeaseLost, Leases, Original, Phase
from harness.errors import InfraError
from harness.journal import Owner
from harness.model.device import PassthroughUnit

ROOT = Path(harness.__file__).parents[1]
ORIGINALS = (Original(GPU, "nouveau", "", "flr bus"), Original(SOUND, "snd_hda_intel", ""))
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user, and so root")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def leases_of(host: Host, owner: Owner | None = None) -> Leases:
    return host.lender(owner).leases


def no_restore(lease: Lease) -> str:
    pytest.fail(f"{lease.record.unit} was restored")


def test_a_lease_says_who_has_what_and_is_free_after_its_release(host: Host) -> None:
    owner = host.process()
    leases = leases_of(host, owner)
    lease = leases.acquire(host.units[GPU], "run 7, cell debian-13", 0)
    (held,) = leases_of(host).held()
    assert (held.unit, held.functions, held.owner) == (GPU, (GPU, SOUND), owner)
    assert (held.token, held.what, held.phase) == (lease.token, "run 7, cell debian-13", Phase.LEASED)
    assert held.uid == os.geteuid()
    lease.release()
    assert leases.held() == []


def test_whoever_comes_second_is_told_who_holds_it(host: Host) -> None:
    owner = host.process()
    leases_of(host, owner).acquire(host.units[GPU], "cell A", 0)
    with pytest.raises(InfraError, match=rf"{GPU} is leased: pid {owner.pid} of \w+ for cell A, since 20"):
        leases_of(host).acquire(host.units[GPU], "cell B", 0)
    leases_of(host).acquire(host.units[ADMINS], "another device", 0)


def test_waiting_is_bounded_and_ends_when_the_device_is_free(host: Host) -> None:
    lease = leases_of(host).acquire(host.units[GPU], "cell A", 0)
    started = time.monotonic()
    with pytest.raises(InfraError, match="waited 1 s"):
        leases_of(host).acquire(host.units[GPU], "cell B", 0.7)
    assert 0.7 <= time.monotonic() - started < 5
    lease.release()
    leases_of(host).acquire(host.units[GPU], "cell B", 0)


def test_a_unit_that_shares_one_function_with_a_leased_one_is_not_free(host: Host) -> None:
    functions = host.units[GPU].functions
    leases_of(host).acquire(PassthroughUnit(functions), "both", 0)
    with pytest.raises(InfraError, match="is leased"):
        leases_of(host).acquire(PassthroughUnit((*host.units[ADMINS].functions, functions[1])), "sound as well", 0)


def test_tokens_grow_from_lease_to_lease_and_survive_release_and_reboot(host: Host) -> None:
    tokens = []
    for turn in range(6):
        lease = leases_of(host).acquire(host.units[GPU if turn % 2 else ADMINS], "x", 0)
        tokens.append(lease.token)
        lease.release()
        if turn == 3:
            host.reboot()
    assert tokens == sorted(set(tokens))


def test_only_the_current_token_releases(host: Host) -> None:
    leases = leases_of(host)
    old = leases.acquire(host.units[GPU], "first", 0)
    old.release()
    new = leases.acquire(host.units[GPU], "second", 0)
    for act in (old.check, old.release, lambda: old.touching(ORIGINALS), lambda: old.abandon("x")):
        with pytest.raises(LeaseLost, match=f"lease {old.token} of {GPU} is not valid any more"):
            act()
    assert [record.token for record in leases.held()] == [new.token]
    new.check()


def test_a_lease_whose_record_was_removed_by_hand_is_lost(host: Host) -> None:
    lease = leases_of(host).acquire(host.units[GPU], "x", 0)
    for path in host.directory.glob("*.lease"):
        path.unlink()
    with pytest.raises(LeaseLost, match="its record was removed"):
        lease.check()
    with pytest.raises(InfraError, match="yet a process keeps its lock"):
        leases_of(host).acquire(host.units[GPU], "y", 0)


def test_originals_are_durable_before_anything_may_be_touched(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = leases_of(host).acquire(host.units[GPU], "x", 0)
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def spy_fsync(handle: int) -> None:
        events.append("fsync file" if stat.S_ISREG(os.fstat(handle).st_mode) else "fsync directory")
        fsync(handle)

    def spy_replace(self: Path, target: Path) -> Path:
        events.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(Path, "replace", spy_replace)
    lease.touching(ORIGINALS)
    assert events == ["fsync file", "rename", "fsync directory"]
    assert leases_of(host).held()[0].originals == ORIGINALS


def test_a_dead_owner_that_touched_nothing_is_simply_replaced(host: Host) -> None:
    owner = host.process()
    left = leases_of(host, owner).acquire(host.units[GPU], "x", 0)
    host.dead.add(owner.pid)
    left.let_go()
    assert leases_of(host).acquire(host.units[GPU], "y", 0).token > left.token


def test_what_a_dead_owner_touched_is_restored_before_the_next_has_it(host: Host) -> None:
    owner = host.process()
    left = leases_of(host, owner).acquire(host.units[GPU], "x", 0)
    left.touching(ORIGINALS)
    host.dead.add(owner.pid)
    left.let_go()
    with pytest.raises(InfraError, match="left half-lent by a killed run: run kdmatrix clean"):
        leases_of(host).acquire(host.units[GPU], "y", 0)
    restored = []

    def restore(lease: Lease) -> str:
        lease.check()
        restored.append(lease.record.originals)
        return "restored"

    lease = leases_of(host).acquire(host.units[GPU], "y", 0, restore)
    assert restored == [ORIGINALS]
    assert lease.record.originals == ()


def test_reaping_leaves_the_living_alone_and_is_harmless_when_repeated(host: Host) -> None:
    living, dying = host.process(), host.process()
    kept = leases_of(host, living).acquire(host.units[ADMINS], "kept", 0)
    left = leases_of(host, dying).acquire(host.units[GPU], "left", 0)
    left.touching(ORIGINALS)
    host.dead.add(dying.pid)
    left.let_go()
    (line,) = leases_of(host).reap(lambda _lease: "restored")
    assert line.startswith(f"{GPU}: restored (left by pid {dying.pid} of ")
    assert leases_of(host).reap(no_restore) == []
    assert [record.unit for record in leases_of(host).held()] == [ADMINS]
    kept.check()


def test_what_cannot_be_restored_stays_to_be_tried_again_by_anybody(host: Host) -> None:
    leases = leases_of(host)
    lease = leases.acquire(host.units[GPU], "x", 0)
    lease.touching(ORIGINALS)
    lease.abandon("the driver does not take it")

    def fail(_lease: Lease) -> str:
        raise InfraError("it still does not")

    assert leases.reap(fail) == [f"{GPU}: left alone: it still does not"]
    (held,) = leases.held()
    assert (held.phase, held.originals, held.note) == (Phase.ABANDONED, ORIGINALS, "it still does not")
    (line,) = leases_of(host).reap(lambda one: f"{len(one.record.originals)} restored")
    assert "2 restored" in line
    assert leases.held() == []


def test_a_reaper_that_is_killed_leaves_the_originals_to_the_next(host: Host) -> None:
    first, second = host.process(), host.process()
    left = leases_of(host, first).acquire(host.units[GPU], "x", 0)
    left.touching(ORIGINALS)
    host.dead.add(first.pid)
    left.let_go()

    def killed(_lease: Lease) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leases_of(host, second).reap(killed)
    assert leases_of(host).reap(no_restore) == [], "the reaper still lives"
    host.dead.add(second.pid)
    seen = []
    leases_of(host).reap(lambda lease: str(seen.append(lease.record.originals)))
    assert seen == [ORIGINALS]


def test_nothing_is_restored_after_a_reboot(host: Host) -> None:
    left = leases_of(host).acquire(host.units[GPU], "x", 0)
    left.touching(ORIGINALS)
    left.let_go()
    host.reboot()
    seen = []
    leases_of(host).reap(lambda lease: f"freed{seen.append(lease.record.originals) or ''}")
    assert seen == [()]
    assert leases_of(host).held() == []


def test_a_pid_that_was_given_to_another_process_does_not_keep_a_lease(tmp_path: Path, host: Host) -> None:
    me = Owner.current()
    earlier = Owner(me.pid, me.start_time - 1, me.boot_id, me.host)
    left = Leases(tmp_path / "real", owner=lambda: earlier).acquire(host.units[GPU], "x", 0)
    left.let_go()
    assert Leases(tmp_path / "real").acquire(host.units[GPU], "y", 0).token > left.token


def test_a_write_that_outlives_its_process_keeps_the_device_until_it_is_over(host: Host) -> None:
    owner = host.process()
    left = leases_of(host, owner).acquire(host.units[GPU], "x", 0)
    left.touching(ORIGINALS)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(left.hold,))
    host.dead.add(owner.pid)
    left.let_go()
    (line,) = leases_of(host).reap(no_restore)
    assert line.startswith(f"{GPU}: left alone: a write of pid {owner.pid} ")
    assert line.endswith("has not come back from the kernel")
    with pytest.raises(InfraError, match="has not come back from the kernel"):
        leases_of(host).acquire(host.units[GPU], "y", 0, no_restore)
    child.communicate(b"\n")
    (line,) = leases_of(host).reap(lambda _lease: "restored")
    assert "restored" in line


def test_a_torn_or_foreign_record_is_never_followed_and_keeps_the_device_from_all(host: Host) -> None:
    leases = leases_of(host)
    lease = leases.acquire(host.units[GPU], "x", 0)
    lease.release()
    (path,) = host.directory.glob("*.lease")
    sound = json.loads(path.read_text())
    for broken in (
        "{",
        json.dumps({**sound, "format": "kdmatrix-lease-2"}),
        json.dumps({**sound, "unit": ADMINS}),
        json.dumps({**sound, "token": -1}),
        json.dumps({**sound, "originals": [{"address": GPU, "driver": "../../x", "override": "", "reset_method": ""}]}),
        json.dumps({**sound, "what": "\x1b[2J"}),
        "x" * 70_000,
    ):
        path.write_text(broken)
        with pytest.raises(InfraError, match=f"what .* says about {GPU} cannot be read"):
            leases.acquire(host.units[GPU], "y", 0, no_restore)
    path.write_text(json.dumps(sound))
    leases.acquire(host.units[GPU], "y", 0)


def test_links_and_pipes_in_the_directory_are_not_followed(host: Host, tmp_path: Path) -> None:
    leases = leases_of(host)
    leases.acquire(host.units[GPU], "x", 0).release()
    (path,) = host.directory.glob("*.lease")
    kept = tmp_path / "kept"
    path.rename(kept)
    path.symlink_to(kept)
    with pytest.raises(InfraError, match="cannot be read"):
        leases.acquire(host.units[GPU], "y", 0)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InfraError, match="no plain file"):
        leases.acquire(host.units[GPU], "y", 0)


def test_what_killed_writers_left_goes_with_the_next_reaping(host: Host) -> None:
    leases_of(host).acquire(host.units[GPU], "x", 0).release()
    (host.directory / ".4711-00.tmp").write_text("half")
    leases_of(host).reap(no_restore)
    assert not list(host.directory.glob(".*"))


def test_nothing_is_held_where_nobody_ever_leased(tmp_path: Path) -> None:
    leases = Leases(tmp_path / "none")
    assert leases.held() == []
    assert leases.reap(no_restore) == []
    assert not (tmp_path / "none").exists()


def test_the_directory_is_the_hosts_unless_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KDMATRIX_HOME", str(tmp_path))
    monkeypatch.delenv("KDMATRIX_LEASES", raising=False)
    assert lending_directory() == Path("/var/lib/kdmatrix/leases"), "two homes are one host"
    monkeypatch.setenv("KDMATRIX_LEASES", str(tmp_path / "named"))
    assert lending_directory() == tmp_path / "named"


def test_a_directory_that_others_may_rewrite_is_refused(host: Host) -> None:
    host.directory.chmod(0o777)
    with pytest.raises(InfraError, match=r"is not sticky: chmod \+t"):
        leases_of(host).acquire(host.units[GPU], "x", 0)
    host.directory.chmod(0o1777)
    leases_of(host).acquire(host.units[GPU], "x", 0)


@as_root
def test_a_directory_of_another_user_is_refused_by_root(host: Host) -> None:
    os.chown(host.directory, 65534, 65534)
    with pytest.raises(InfraError, match="belongs to nobody, who could change what root says"):
        leases_of(host).acquire(host.units[GPU], "x", 0)


def test_a_strict_umask_does_not_hide_who_holds_a_device(host: Host) -> None:
    before = os.umask(0o077)
    try:
        leases_of(host).acquire(host.units[GPU], "x", 0)
    finally:
        os.umask(before)
    modes = {path.suffix: stat.S_IMODE(path.stat().st_mode) for path in host.directory.iterdir()}
    assert modes == {".lease": 0o644, ".hold": 0o444}


OTHER_USER = """
import os, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests"]
# All of it is loaded as root: the other user may not see our files.
from harness.devices.leases import Leases, Original
from harness.errors import InfraError
from harness.model.device import PassthroughUnit, PciFunction
from harness.journal import Owner, owner_alive
owner_alive(Owner.current())
os.setgid(65534); os.setgroups([]); os.setuid(65534)
leases = Leases(Path(sys.argv[2]))
unit = PassthroughUnit((PciFunction("0000:01:00.0", 0x10de, 1, 0x030000),))
try:
    if sys.argv[3] == "touch":
        leases.acquire(unit, "x", 0).touching((Original("0000:01:00.0", "evil", "evil"),))
    elif sys.argv[3] == "lease":
        print(leases.acquire(unit, "x", 0).token)
    else:
        print(*leases.reap(lambda lease: "restored"))
except InfraError as error:
    print(error)
"""


def other_user(directory: Path, what: str) -> str:
    """What the same code says as the user nobody, whose process is dead when this returns."""
    argv = [sys.executable, "-c", OTHER_USER, str(ROOT), str(directory), what]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory for several users, below one that all may enter."""
    with tempfile.TemporaryDirectory(dir="/tmp") as base:
        Path(base).chmod(0o755)
        directory = Path(base, "leases")
        directory.mkdir()
        directory.chmod(0o1777)
        yield directory


@as_root
def test_users_of_one_host_share_its_leases(host: Host, shared: Path) -> None:
    leases = Leases(shared)
    lease = leases.acquire(host.units[GPU], "of root", 0)
    assert f"{GPU} is leased: pid {os.getpid()} of root for of root" in other_user(shared, "lease")
    lease.release()
    theirs = int(other_user(shared, "lease"))
    assert theirs > lease.token, "a record of root's that is done is no obstacle"
    after = leases.acquire(host.units[GPU], "again", 0)
    assert after.token > theirs, "nobody's process is dead"
    after.release()


@as_root
def test_root_does_not_write_to_devices_what_another_user_says(host: Host, shared: Path) -> None:
    other_user(shared, "touch")
    (line,) = Leases(shared).reap(no_restore)
    assert "root does not write to devices what others say" in line
    with pytest.raises(InfraError, match="have nobody run kdmatrix clean"):
        Leases(shared).acquire(host.units[GPU], "x", 0, no_restore)
    assert "restored" in other_user(shared, "reap")
    Leases(shared).acquire(host.units[GPU], "x", 0, no_restore).release()


@as_root
def test_another_user_cannot_reap_what_only_root_can_restore(host: Host, shared: Path) -> None:
    me = Owner.current()
    dead = Owner(me.pid, me.start_time - 1, me.boot_id, me.host)
    left = Leases(shared, owner=lambda: dead).acquire(host.units[GPU], "x", 0)
    left.touching(ORIGINALS)
    left.let_go()
    assert "run kdmatrix clean as root" in other_user(shared, "reap")
    (record,) = Leases(shared).held()
    assert (record.uid, record.originals) == (0, ORIGINALS)


@as_root
def test_root_makes_a_directory_that_the_users_of_libvirt_can_write(tmp_path: Path) -> None:
    with HostDirectory(tmp_path / "new").locked():
        pass
    status = (tmp_path / "new").stat()
    try:
        group = grp.getgrnam("libvirt").gr_gid
    except KeyError:
        assert stat.S_IMODE(status.st_mode) & 0o022 == 0
    else:
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o1775, 0, group)
