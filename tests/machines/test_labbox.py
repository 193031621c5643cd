"""A box behind a real SSH server: known by its key or refused, had by one at a time, told from another boot of it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import InfraError, UserError
from harness.journal import Owner
from harness.machines.labbox import claim
from harness.machines.labbox.box import Interrupted, LabBoxMachine, NoAnswer
from harness.machines.labbox.entries import BootEntry
from harness.machines.labbox.identity import HostKeyRefused, Identity
from harness.machines.labbox.oneshot import Grub, one_shot
from harness.machines.labbox.remains import remains
from harness.machines.labbox.remote import Remote
from harness.machines.ssh import KeyPair
from harness.model.cell import InstalledKernel
from harness.model.machine import LabBox
from harness.model.outcome import Outcome
from machines.sshd import Server, needs_sshd, serving

pytestmark = needs_sshd

BOOT_ID = Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # The box has directories of its own; what our scripts write there is not on this host.
    with serving(tmp_path_factory.mktemp("sshd"), ("/var/lib", "/boot")) as made:
        yield made


@pytest.fixture
def box(server: Server, tmp_path: Path) -> LabBox:
    key = tmp_path / "key"
    key.write_bytes(server.client_key.private)
    key.chmod(0o600)
    pinned = " ".join(server.host_key.public.decode().split()[:2])
    return LabBox("box", "debian-13", "127.0.0.1", "grub", str(key), host_key=pinned, port=server.port)


@pytest.fixture
def machine(box: LabBox) -> Iterator[LabBoxMachine]:
    made = LabBoxMachine(Identity.read(box), lambda: False)
    yield made
    made.close()


@pytest.fixture
def remote(machine: LabBoxMachine) -> Remote:
    return machine.connect(20.0)


def known_hosts(tmp_path: Path, *lines: str) -> str:
    path = tmp_path / "known_hosts"
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def connects(box: LabBox) -> bool:
    machine = LabBoxMachine(Identity.read(box), lambda: False)
    try:
        return machine.connect(20.0).alive
    finally:
        machine.close()


# Who answers.


def test_a_known_box_is_let_in_by_the_matrix_or_by_a_file(box: LabBox, server: Server, tmp_path: Path) -> None:
    assert connects(box)
    public = server.host_key.public.decode().strip()
    line = f"other,[127.0.0.1]:{server.port} {public}"
    assert connects(replace(box, host_key="", known_hosts=known_hosts(tmp_path, "# a comment", "damaged", line)))


def test_names_in_a_file_may_be_hashed_as_openssh_does_it(box: LabBox, server: Server, tmp_path: Path) -> None:
    file = known_hosts(tmp_path, f"[127.0.0.1]:{server.port} {server.host_key.public.decode().strip()}")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", file], check=True, capture_output=True)
    assert "127.0.0.1" not in Path(file).read_text()
    assert connects(replace(box, host_key="", known_hosts=file))


def test_a_box_that_no_file_names_is_refused_before_anything_is_sent(
    box: LabBox, server: Server, tmp_path: Path
) -> None:
    public = server.host_key.public.decode().strip()
    others = (
        f"[127.0.0.1]:{server.port + 1} {public}",
        f"127.0.0.1 {public}",
        f"!*,[127.0.0.1]:{server.port} {public}",
        f"@cert-authority [127.0.0.1]:{server.port} {public}",
    )
    for line in others:
        with pytest.raises(HostKeyRefused, match="names no host key for") as error:
            Identity.read(replace(box, host_key="", known_hosts=known_hosts(tmp_path, line)))
        assert f"ssh-keyscan -p {server.port} 127.0.0.1" in str(error.value)


def test_a_changed_key_is_refused_in_one_line_with_both_fingerprints(box: LabBox) -> None:
    stranger = KeyPair.generate("stranger").public.decode()
    with pytest.raises(HostKeyRefused) as error:
        connects(replace(box, host_key=" ".join(stranger.split()[:2])))
    said = str(error.value)
    assert said.count("SHA256:") == 2
    assert "another machine answers there" in said
    assert "\n" not in said


def test_a_changed_key_ends_the_waiting(box: LabBox) -> None:
    stranger = KeyPair.generate("stranger").public.decode()
    machine = LabBoxMachine(Identity.read(replace(box, host_key=" ".join(stranger.split()[:2]))), lambda: False)
    started = time.monotonic()
    with pytest.raises(HostKeyRefused):
        machine.arrive(60.0)
    assert time.monotonic() < started + 20
    machine.close()


def test_a_revoked_key_is_refused_though_it_is_pinned_too(box: LabBox, server: Server, tmp_path: Path) -> None:
    line = f"[127.0.0.1]:{server.port} {server.host_key.public.decode().strip()}"
    with pytest.raises(HostKeyRefused, match="marked as revoked"):
        connects(replace(box, host_key="", known_hosts=known_hosts(tmp_path, line, f"@revoked {line}")))


def test_the_private_key_must_be_ours_alone_and_usable(box: LabBox, tmp_path: Path) -> None:
    Path(box.key).chmod(0o640)
    with pytest.raises(UserError, match="may be read by others; chmod 600"):
        Identity.read(box)
    locked = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", locked], check=True)
    with pytest.raises(UserError, match="has a passphrase"):
        Identity.read(replace(box, key=str(locked)))
    with pytest.raises(UserError, match="cannot be read: No such file"):
        Identity.read(replace(box, key=str(tmp_path / "absent")))
    locked.write_text("no key at all")
    with pytest.raises(UserError, match="no private key that can be used"):
        Identity.read(replace(box, key=str(locked)))


def test_a_stranger_is_not_let_in_and_that_is_the_labs_fault(box: LabBox) -> None:
    Path(box.key).write_bytes(KeyPair.generate("stranger").private)
    with pytest.raises(NoAnswer, match="Authentication failed"):
        connects(box)


# Which boot runs.


def test_the_running_boot_is_told_by_its_id(machine: LabBoxMachine) -> None:
    running = machine.arrive(20.0)
    assert (running.boot_id, running.release) == (BOOT_ID, os.uname().release)
    assert running.cmdline == Path("/proc/cmdline").read_text().strip()


def test_a_box_that_never_left_its_boot_did_not_arrive(machine: LabBoxMachine) -> None:
    with pytest.raises(NoAnswer, match=r"did not answer within 2 s \(.*, which was to be left, still runs\)"):
        machine.arrive(2.0, after=BOOT_ID)


def test_nobody_at_the_port_is_told_with_the_reason(box: LabBox) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        machine = LabBoxMachine(Identity.read(replace(box, port=closed.getsockname()[1])), lambda: False)
        with pytest.raises(NoAnswer, match=r"did not answer within 1 s .*refused"):
            machine.arrive(1.0)
        machine.close()


def test_the_same_boot_is_found_again_and_another_one_is_a_restart(machine: LabBoxMachine) -> None:
    machine.arrive(20.0)
    machine.disconnect()
    assert machine.reconnect(20.0) is not None
    assert machine.death() is None
    assert machine.running is not None
    machine.running = replace(machine.running, boot_id="the-tested-boot")
    assert machine.reconnect(20.0) is None
    death = machine.death()
    assert death is not None
    assert death[0] is Outcome.MISS
    assert "restarted by itself" in death[1]


def test_an_interrupt_ends_the_waiting_and_the_command_that_runs(box: LabBox) -> None:
    stop = threading.Event()
    machine = LabBoxMachine(Identity.read(box), stop.is_set)
    remote = machine.connect(20.0)
    threading.Timer(0.5, stop.set).start()
    done = remote.run(["sleep", "60"], timeout=60)
    assert done.lost
    assert done.seconds < 20
    with pytest.raises(Interrupted):
        machine.arrive(60.0)
    machine.close()


def test_the_power_command_is_run_word_by_word_and_its_failure_is_told(box: LabBox, tmp_path: Path) -> None:
    for argv, complaint in (
        (("touch", f"{tmp_path}/$(id) ;a"), ""),
        (("sh", "-c", "echo no such chassis >&2; exit 4"), "power command sh returned 4: no such chassis"),
        ((), "the matrix names no power: command"),
    ):
        machine = LabBoxMachine(Identity.read(replace(box, power=argv)), lambda: False)
        if complaint:
            with pytest.raises(InfraError, match=complaint):
                machine.cycle_power()
        else:
            machine.cycle_power()
        machine.close()
    assert (tmp_path / "$(id) ;a").is_file()


# Who has it.


def test_a_box_is_had_by_one_process_at_a_time(remote: Remote) -> None:
    mine, dead = claim.take(remote, "6.12.0", BOOT_ID, "run-1", 5.0, lambda: False)
    assert dead is None
    assert mine.owner == Owner.current()
    assert claim.held_by(remote, mine.owner)
    # A living process of this host; its claim is written as the box would have it.
    with subprocess.Popen(["sleep", "600"]) as other:
        holder = replace(mine, owner=Owner.of(other.pid))
        remote.script(f"cat >{claim.FOLDER}/owner", stdin=holder.dump())
        with pytest.raises(InfraError, match=f"in use by process {other.pid} on .*, run run-1, since"):
            claim.take(remote, "6.12.0", BOOT_ID, "run-2", 0.0, lambda: False)
        assert not claim.held_by(remote, mine.owner)
        other.kill()
    again, dead = claim.take(remote, "6.1.0-tested", BOOT_ID, "run-2", 0.0, lambda: False)
    assert dead == holder
    assert again.default == "6.12.0", "the default is what it was before anything was booted"
    claim.give_back(remote)
    assert remote.script("ls /var/lib") == ""


def test_of_many_that_come_at_once_one_gets_the_box(box: LabBox) -> None:
    program = (
        "import json, sys\n"
        "from harness.machines.labbox import claim\n"
        "from harness.machines.labbox.box import LabBoxMachine\n"
        "from harness.machines.labbox.identity import Identity\n"
        "from harness.model.machine import LabBox\n"
        "from harness.errors import InfraError\n"
        "box = LabBox(**json.loads(sys.argv[1]))\n"
        "machine = LabBoxMachine(Identity.read(box), lambda: False)\n"
        "try:\n"
        "    claim.take(machine.connect(30.0), 'd', 'b', 'r', 0.0, lambda: False)\n"
        "except InfraError:\n"
        "    print('refused', flush=True)\n"
        "else:\n"
        "    print('taken', flush=True)\n"
        "sys.stdin.read()\n"
    )
    said = {"name": "box", "guest": "debian-13", "host": box.host, "boot": "grub", "key": box.key, "port": box.port}
    argv = [sys.executable, "-c", program, json.dumps({**said, "host_key": box.host_key})]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) for _ in range(4)]
    answers = [process.stdout.readline().strip() for process in processes if process.stdout]
    for process in processes:
        process.communicate()
    assert sorted(answers) == ["refused", "refused", "refused", "taken"]
    machine = LabBoxMachine(Identity.read(box), lambda: False)
    claim.give_back(machine.connect(20.0))
    machine.close()


def test_what_stands_on_the_box_and_cannot_be_read_is_not_broken(remote: Remote) -> None:
    remote.script(f"mkdir {claim.FOLDER} && echo hello >{claim.FOLDER}/owner")
    with pytest.raises(InfraError, match="says nothing that can be read; remove it"):
        claim.take(remote, "6.12.0", BOOT_ID, "run-1", 5.0, lambda: False)
    remote.script(f"rm -r {claim.FOLDER}")


def test_cells_of_one_lab_wait_for_one_another_by_the_address_of_the_box(box: LabBox, tmp_path: Path) -> None:
    with claim.alone(tmp_path / "boxes", box, 1.0, lambda: False):
        started = time.monotonic()
        with (
            pytest.raises(InfraError, match="another cell of this lab has it"),
            claim.alone(tmp_path / "boxes", replace(box, name="same"), 1.0, lambda: False),
        ):
            pass
        assert time.monotonic() >= started + 1.0
    with claim.alone(tmp_path / "boxes", box, 1.0, lambda: False):
        pass


# What it kept.


def test_a_panic_that_the_box_kept_speaks_against_the_kernel_that_it_names(remote: Remote) -> None:
    kept = b"<0>[  9.1] Kernel panic - not syncing: Fatal exception\n<4>[  9.1] Not tainted 6.1.0-tested #1 Debian\n"
    folder = "/var/lib/systemd/pstore/7"
    remote.script(f"mkdir -p {claim.FOLDER} {folder} && cat >{folder}/old", stdin=kept)
    remote.script(f"sleep 0.05; echo >{claim.FOLDER}/owner; sleep 0.05")
    assert remains(remote, "6.1.0-tested", BOOT_ID).files == {}, "it was there before the box was taken"
    remote.script(f"cat >{folder}/dmesg.txt", stdin=kept)
    found = remains(remote, "6.1.0-tested", BOOT_ID)
    assert found.complaint == "kernel panic: Fatal exception (the box kept it: pstore.txt)"
    assert kept in found.files["pstore.txt"]
    assert b"/pstore/7/old" not in found.files["pstore.txt"]
    assert remains(remote, "6.12.0-default", BOOT_ID).complaint == ""
    remote.script(f"rm -r {claim.FOLDER} /var/lib/systemd")


# What boots next.

GRUB_CFG = """
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
fi
menuentry 'tested' $menuentry_id_option 'tested-id' {
    linux /boot/vmlinuz-RELEASE root=/dev/vda2
}
"""


def test_grub_boots_the_chosen_entry_once(remote: Remote) -> None:
    remote.script("mkdir -p /boot/grub && cat >/boot/grub/grub.cfg", stdin=GRUB_CFG.encode())
    grub = Grub()
    assert not grub.armed(remote)
    chosen = grub.arm(remote, "6.1.0", BootEntry("tested-id"), "")
    assert (chosen.entry, chosen.fire) == ("tested-id", ("systemctl", "reboot"))
    assert "next_entry=tested-id" in remote.script("cat /boot/grub/grubenv")
    assert grub.armed(remote)
    grub.disarm(remote)
    assert not grub.armed(remote)
    with pytest.raises(InfraError, match=r"no installed kernel fits 6\.1\.0"):
        grub.find(remote, InstalledKernel("6.1.0"))


def test_a_grub_that_would_never_forget_its_choice_is_refused(remote: Remote) -> None:
    remote.script("mkdir -p /boot/grub && cat >/boot/grub/grub.cfg", stdin=b"set default=0\n")
    with pytest.raises(InfraError, match="set GRUB_DEFAULT=saved in /etc/default/grub"):
        Grub().find(remote, InstalledKernel("*"))
    remote.script("rm -r /boot/grub")
    with pytest.raises(InfraError, match=r"there is no grub\.cfg below /boot"):
        Grub().find(remote, InstalledKernel("*"))


def test_kexec_takes_no_entry(remote: Remote) -> None:
    with pytest.raises(InfraError, match="knows no boot entries; leave entry: x out"):
        one_shot("kexec").find(remote, InstalledKernel("6.*", "x"))


def test_a_loader_that_is_not_there_is_told_by_its_own_words(remote: Remote) -> None:
    with pytest.raises(
        InfraError, match=r"box \(root@127.0.0.1:\d+\): bootctl set-oneshot x.conf: status 127: .*not found"
    ):
        one_shot("systemd-boot").arm(remote, "6.12.0", BootEntry("x.conf"), "")
