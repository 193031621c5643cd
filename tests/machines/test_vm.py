"""VMs come up or are told apart by how they do not; whatever happens, nothing of them stays."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from harness.content import content_dir
from harness.drivers.build import Drivers
from harness.drivers.roots import Roots
from harness.errors import InfraError
from harness.images.builder import BootKernel, Image, Images, Layer
from harness.journal import Journal
from harness.keys import SigningKeys
from harness.ladder.cell import execute
from harness.ladder.workshop import Workshop
from harness.machines import booting
from harness.machines.booting import boot
from harness.machines.guest import Guest, GuestLost
from harness.machines.hypervisor import Hypervisor
from harness.machines.passthrough import Passthrough
from harness.machines.ssh import KeyPair
from harness.machines.vm import BootFailure, BootRequest, VirtualMachine
from harness.model.cell import Cell, DebianKernel, KernelIdentity, KernelSpec, Series
from harness.model.outcome import Outcome
from harness.model.stage import Stage
from harness.store.evidence import EvidenceStore
from machines.bare_kernel import (
    HALTS,
    RESETS,
    SPINS_WITH_INTERRUPTS_OFF,
    TELLS_PVPANIC,
    WORKS_FOR_EVER,
    bare_kernel,
)

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
]

Start = Callable[..., AbstractContextManager[VirtualMachine]]
CLIENT = KeyPair.generate("test")
BANNER = "Linux version 0 (bare)\r\n"
BLOCKED_IN_THE_KERNEL = """export PATH=/usr/sbin:/usr/bin:/sbin:/bin
modprobe test_firmware
echo 0 >/sys/class/firmware/timeout
(echo -n nowhere >/sys/devices/virtual/misc/test_firmware/trigger_custom_fallback) &"""
"""A kernel without a limit waits for firmware that nobody brings."""
BLOCKED_BY_A_DISK = "modprobe null_blk irqmode=2 completion_nsec=1000000000000000 &"
"""A disk that answers in eleven days."""


@pytest.fixture
def boot_dir(tmp_path: Path) -> Path:
    made = tmp_path / "boot"
    shutil.copytree(content_dir("guests") / "_boot", made)
    return made


@pytest.fixture
def start(hypervisor: Hypervisor, tmp_path: Path, boot_dir: Path) -> Iterator[Start]:
    """Boots a kernel and sees to it afterwards that no domain, file or journal entry is left."""
    journal = Journal(tmp_path / "journal", "run")

    def request_for(image: Image, **changes: object) -> BootRequest:
        made = BootRequest("c/k/s/none", "run", image, boot_dir, "qemu", "minimal", 256 << 20, 1, "", tmp_path / "work")
        return replace(made, **changes)  # type: ignore[arg-type]

    @contextmanager
    def starter(kernel: bytes | Image, **changes: object) -> Iterator[VirtualMachine]:
        image = kernel if isinstance(kernel, Image) else _bare(tmp_path, kernel)
        with boot(hypervisor, request_for(image, **changes), journal, CLIENT) as machine:
            assert [entry.kind for entry in journal.entries()] == ["path", "domain"]
            yield machine

    yield starter
    assert journal.entries() == []
    assert not (tmp_path / "work").exists() or list((tmp_path / "work").iterdir()) == []
    assert [name for name in hypervisor.domain_names() if name.startswith("kdmatrix-")] == []


def _bare(folder: Path, kernel: bytes) -> Image:
    for name, data in (("kernel", kernel), ("initramfs", b"\0" * 512), ("config", b"")):
        (folder / name).write_bytes(data)
    identity = KernelIdentity("0", "0", "bare", "0" * 64)
    made = BootKernel(identity, folder / "kernel", folder / "kernel", folder / "initramfs", folder / "config", folder)
    return Image(made, ())


@pytest.mark.parametrize("asked", [False, True])
def test_qemu_emulates_a_display_only_where_it_is_asked_for(start: Start, asked: bool) -> None:
    kernel = bare_kernel(BANNER, WORKS_FOR_EVER)
    with start(kernel, passthrough=Passthrough(display=asked)) as machine:
        assert ("VGA controller" in machine.monitor("info pci")) is asked


def failure(machine: VirtualMachine, seconds: float = 60.0, quiet: float = 1.0) -> BootFailure:
    with pytest.raises(BootFailure) as caught:
        machine.wait_for_ssh(time.monotonic() + seconds, quiet)
    return caught.value


@pytest.mark.parametrize(
    ("says", "then", "outcome", "reason"),
    [
        (BANNER, HALTS, Outcome.FAIL, "hang in phase kernel: every CPU is idle and the console silent"),
        (
            BANNER,
            SPINS_WITH_INTERRUPTS_OFF,
            Outcome.FAIL,
            "hang in phase kernel: a CPU spins with interrupts off at 0x1",
        ),
        (
            BANNER + "BUG: kernel NULL pointer dereference, address: 8\r\n",
            HALTS,
            Outcome.FAIL,
            "; before it: BUG: kernel NULL pointer dereference, address: 8",
        ),
        (
            BANNER + "Kernel panic - not syncing: drm went away\r\n",
            HALTS,
            Outcome.FAIL,
            "kernel panic: drm went away",
        ),
        (
            BANNER + "Kernel panic - not syncing: VFS: Unable to mount root fs on x\r\n",
            RESETS,
            Outcome.MISS,
            "the initramfs is not usable: VFS: Unable to mount root fs",
        ),
        (BANNER, TELLS_PVPANIC, Outcome.FAIL, "kernel panic reported by pvpanic in phase kernel"),
        (BANNER, RESETS, Outcome.MISS, "the VM stopped by itself"),
        (BANNER + "kdmatrix-initramfs: no disk with serial root\r\n", HALTS, Outcome.MISS, "initramfs: no disk with"),
        ("", HALTS, Outcome.FAIL, "hang in phase firmware"),
    ],
    ids=["idle", "spinning", "oops", "panic", "no-root", "pvpanic", "reset", "initramfs", "firmware"],
)
def test_each_way_not_to_come_up_is_told(
    start: Start,
    says: str,
    then: bytes,
    outcome: Outcome,
    reason: str,
) -> None:
    with start(bare_kernel(says, then)) as machine:
        found = failure(machine)
    assert reason in found.reason
    assert found.outcome is outcome
    assert machine.console.content().decode().endswith(says)


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (BANNER, "not up within 5 s, still working in phase kernel: slow host or kernel"),
        (BANNER + "kdmatrix-guest: starting sshd\r\n", "the SSH server did not answer within 5 s (no SSH connection"),
    ],
    ids=["kernel", "ssh"],
)
def test_a_guest_that_still_works_at_the_deadline_is_slow_and_not_broken(
    start: Start,
    says: str,
    reason: str,
) -> None:
    with start(bare_kernel(says, WORKS_FOR_EVER)) as machine:
        found = failure(machine, seconds=5.0)
    assert found.outcome is Outcome.MISS
    assert reason in found.reason.replace("within 6 s", "within 5 s").replace("within 7 s", "within 5 s")


def test_a_vm_ends_with_its_block_even_when_the_block_fails(start: Start, hypervisor: Hypervisor) -> None:
    with suppress(ZeroDivisionError), start(bare_kernel(BANNER, WORKS_FOR_EVER)) as machine:
        assert machine.domain.name in hypervisor.domain_names()
        assert machine.running
        assert "RIP=" in machine.monitor("info registers -a") or "EIP=" in machine.monitor("info registers -a")
        raise ZeroDivisionError
    assert not hypervisor.destroy(machine.domain.uuid)
    assert machine.monitor("info status") == ""


def test_what_ends_all_vms_of_a_run_ends_this_one_while_somebody_waits_for_it(
    start: Start, hypervisor: Hypervisor
) -> None:
    with start(bare_kernel(BANNER, WORKS_FOR_EVER)) as machine:
        timer = threading.Timer(1.0, hypervisor.destroy_all_of_this_process)
        timer.start()
        found = failure(machine)
        timer.join()
    assert found.outcome is Outcome.MISS
    assert "destroyed" in found.reason


def test_a_port_that_somebody_takes_in_between_is_replaced_by_another(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = iter([taken.getsockname()[1], booting.free_port()])
        monkeypatch.setattr(booting, "free_port", lambda: next(ports))
        with start(bare_kernel(BANNER, HALTS)) as machine:
            assert machine.domain.ssh_port != taken.getsockname()[1]


def test_a_domain_that_libvirt_refuses_is_an_infra_error(start: Start) -> None:
    with pytest.raises(InfraError, match="libvirt did not start the VM"), start(bare_kernel("", HALTS), vcpus=100000):
        pass


LTS = KernelSpec("lts", Series.LONGTERM, DebianKernel("trixie"))


@pytest.fixture(scope="session")
def real_image(real_images: Images, real_boot_kernel: BootKernel) -> Image:
    """Debian 13 with its own kernel, made once and kept in the shared cache."""
    layers = (
        Layer("kernel", real_images.kernel_layer(real_boot_kernel)),
        Layer("root", real_images.root_layer("debian-13", "intree", 1800)),
    )
    return Image(real_boot_kernel, layers)


def test_a_real_kernel_boots_to_ssh_and_its_console_is_recorded_from_the_first_line(
    start: Start, real_images: Images, real_image: Image
) -> None:
    with start(real_image, boot_dir=real_images.recipes.boot_dir, memory=512 << 20) as machine:
        shell = machine.wait_for_ssh(time.monotonic() + 300, 30.0)
        release = shell.run(["uname", "-r"], timeout=120).stdout.decode().strip()
        serials = shell.run(
            ["sh", "-c", "for disk in /sys/block/vd*; do echo $(cat $disk/serial); done"], timeout=120
        ).stdout.split()
        route = shell.run(["ip", "route"], timeout=120).stdout
        keys = shell.run(["cat", "/root/.ssh/authorized_keys"], timeout=120).stdout
    assert release == real_image.kernel.identity.release
    assert set(serials) == {b"kernel", b"root"}
    assert b"default" not in route
    assert keys == CLIENT.public
    first = machine.console.content().lstrip().splitlines()[0]
    assert b"Linux version " + release.encode() in first
    assert machine.console.sightings == []


def test_a_guest_that_answers_is_no_hang_however_silent_its_console_is(
    start: Start, real_image: Image, boot_dir: Path
) -> None:
    init = boot_dir / "guest-init"
    quiet = init.read_text().replace('echo "kdmatrix-guest: starting sshd" >/dev/kmsg\n', "")
    assert "starting sshd" not in quiet
    init.write_text(quiet)
    with start(real_image, memory=512 << 20) as machine:
        shell = machine.wait_for_ssh(time.monotonic() + 300, 3.0)
        assert shell.run(["true"], timeout=120).ok
        assert machine.console.phase == "guest init"


@pytest.mark.parametrize(
    ("init", "outcome", "reason"),
    [
        ("echo c >/proc/sysrq-trigger", Outcome.FAIL, "kernel panic: sysrq triggered crash"),
        pytest.param(
            f"{BLOCKED_IN_THE_KERNEL}\nwhile :; do sleep 1000; done",
            Outcome.FAIL,
            "blocked in trigger_custom_fallback_store [test_firmware]",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "echo o >/proc/sysrq-trigger; sleep 99", Outcome.MISS, "stopped by itself", marks=pytest.mark.slow
        ),
    ],
)
def test_a_real_kernel_that_dies_after_its_root_was_found_is_told(
    start: Start,
    real_image: Image,
    boot_dir: Path,
    init: str,
    outcome: Outcome,
    reason: str,
) -> None:
    (boot_dir / "guest-init").write_text(f"#!/bin/sh\n{init}\n")
    with start(real_image, memory=512 << 20) as machine:
        found = failure(machine, seconds=300, quiet=4.0)
    assert reason in found.reason
    assert found.outcome is outcome
    if "panic" in reason:
        assert b"Call Trace" in machine.console.content()  # the trace that follows the panic's line is kept


@pytest.mark.slow
def test_a_kernel_tells_which_of_its_tasks_are_blocked_and_in_what(
    start: Start, real_image: Image, boot_dir: Path
) -> None:
    told = "kdmatrix-test: planted"
    plant = f"{BLOCKED_IN_THE_KERNEL}\n{BLOCKED_BY_A_DISK}\nsleep 5\necho {told} >/dev/kmsg\nsleep 9999"
    (boot_dir / "guest-init").write_text(f"#!/bin/sh\n{plant}\n")
    with start(real_image, memory=512 << 20) as machine:
        until = time.monotonic() + 300
        while told.encode() not in machine.console.content() and time.monotonic() < until:
            time.sleep(0.2)
        sysrq = machine.sysrq()
        assert sysrq is not None
        blocked = sysrq.blocked(60.0)
        again = sysrq.blocked(60.0)
    assert blocked is not None
    assert again == blocked
    tasks = {task.name: task for task in blocked}
    assert {"kdmatrix-init", "modprobe"} <= set(tasks)
    assert not tasks["kdmatrix-init"].waits_for_disk
    assert "[test_firmware]" in " ".join(tasks["kdmatrix-init"].frames)
    assert tasks["modprobe"].waits_for_disk  # the new disk's partitions are looked for
    assert b"sysrq: Show Blocked State" in machine.console.content()


@pytest.mark.slow
def test_a_guest_that_stops_answering_at_work_is_judged_by_what_its_kernel_says(
    start: Start, real_image: Image
) -> None:
    """A command that takes its time and a VM that the host has paused look alike over SSH."""
    with start(real_image, memory=512 << 20, patience=0.3) as machine:
        machine.wait_for_ssh(time.monotonic() + 300, 30.0)
        guest = Guest(machine)
        guest.must(["modprobe", "msr"], timeout=120)
        assert _judged(guest, ["sleep", "99"]) == (
            Outcome.MISS,
            "sleep in the guest did not answer in time; the kernel answers SysRq and has no task blocked twice: "
            "what is silent waits by itself",
        )
        machine.monitor("stop")
        assert _judged(guest, ["true"]) == (Outcome.MISS, "true in the guest did not answer in time")


def _judged(guest: Guest, command: list[str]) -> tuple[Outcome, str]:
    with pytest.raises(GuestLost) as caught:
        guest.must(command, timeout=10)
    return caught.value.outcome, caught.value.reason


def test_a_guest_that_runs_another_kernel_than_the_cells_says_nothing_about_it(
    hypervisor: Hypervisor, tmp_path: Path, real_images: Images, real_image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = replace(real_image.kernel.identity, release="6.99-other")
    other = replace(real_image, kernel=replace(real_image.kernel, identity=identity))
    monkeypatch.setattr(Images, "prepare", lambda *_args, **_kwargs: other)

    def no_key() -> SigningKeys:
        raise AssertionError("nothing is signed here")

    shop = Workshop(
        run_id="run",
        images=real_images,
        recipes=real_images.recipes,
        hypervisor=hypervisor,
        journal=Journal(tmp_path / "journal", "run"),
        evidence=EvidenceStore(tmp_path / "evidence"),
        tests={},
        drivers=Drivers(
            real_images, Roots(real_images, real_images.archive), lambda: pytest.fail("no key"), 1, tmp_path
        ),
        accelerator="qemu",
        work=tmp_path / "work",
        memory=512 << 20,
    )
    attempt = execute(Cell("debian-13", LTS, "intree"), 1, shop)
    assert (attempt.outcome, attempt.rung) == (Outcome.MISS, Stage.BOOT)
    assert f"the guest runs {real_image.kernel.identity.release}, not 6.99-other" in attempt.reason
    assert attempt.facts["uname_release"] == real_image.kernel.identity.release
    assert {stage.reason for stage in attempt.stages[3:]} == {"blocked: boot was MISS"}
    assert "console.log" in {file.name for stage in attempt.stages for file in stage.evidence}
    assert list((tmp_path / "work").iterdir()) == []
    assert shop.journal.entries() == []
