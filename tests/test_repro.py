"""The script that boots a cell again without us: the same machine as libvirt's, and no trace left in any way out."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.content import content_dir
from harness.errors import InfraError, UserError
from harness.images.builder import Images
from harness.images.recipe import Module, Recipes, StackRecipe, Step
from harness.lab import Lab
from harness.machines.daemon import choose_uri
from harness.machines.domain import Accelerator, Domain, disks_for, kernel_cmdline
from harness.machines.firmware import plain_firmware
from harness.machines.hypervisor import Hypervisor
from harness.machines.passthrough import passthrough_of
from harness.model.cell import Cell, DebianKernel, KernelSpec, Series
from harness.model.device import Bar, PassthroughUnit, PciFunction
from harness.model.outcome import Outcome
from harness.model.records import Attempt, StageResult
from harness.model.stage import Stage
from harness.repro import Boot, boot_of, qemu_argv, recorded_domain, script, script_for
from harness.store.run import RunInfo, RunState, StoredRun
from harness.suites.build import build_runner
from harness.suites.manifest import load_tests

KERNEL = KernelSpec("lts-6.12", Series.LONGTERM, DebianKernel("trixie"))
CELL = Cell("debian-13", KERNEL, "cpu-opencl")
RECIPES = Recipes(content_dir("guests"))
TESTS = load_tests(content_dir("gpu_tests"))
RELEASE = "6.12.1-test"


def make_domain(
    folder: Path, accelerator: Accelerator = "qemu", emulator: str = "/usr/bin/qemu-system-x86_64"
) -> Domain:
    layers = []
    for name in ("kernel", "initramfs", "tests", "modules", "root"):
        (folder / name).write_bytes(name.encode())
    for serial in ("tests", "modules", "root"):
        layers.append((serial, folder / serial))
    return Domain(
        name="kdmatrix-22022-1",
        cell_id=CELL.id,
        run_id="run",
        accelerator=accelerator,
        emulator=emulator,
        kernel=folder / "kernel",
        initramfs=folder / "initramfs",
        cmdline=kernel_cmdline(accelerator, "modprobe.blacklist=a,b x='y z'"),
        disks=disks_for(tuple(layers)),
        ssh_port=22022,
        memory=768 << 20,
        vcpus=2,
    )


def options(argv: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for index, word in enumerate(argv):
        if word.startswith("-"):
            value = argv[index + 1] if index + 1 < len(argv) and not argv[index + 1].startswith("-") else ""
            found.setdefault(word, []).append(value)
    return found


def devices(argv: list[str]) -> dict[str, dict[str, object]]:
    """Devices given as JSON, by driver and serial number, with what only names things in this QEMU left out."""
    found = {}
    for text in options(argv)["-device"]:
        if text.startswith("{"):
            device = json.loads(text)
            key = f"{device['driver']} {device.get('serial', '')}"
            found[key] = {k: v for k, v in device.items() if k not in ("id", "drive", "chardev", "rng", "bootindex")}
    return found


@pytest.fixture(scope="module")
def hypervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hypervisor]:
    state = tmp_path_factory.mktemp("libvirt")
    try:
        with Hypervisor.connect(state) as connected:
            yield connected
    except InfraError as error:
        pytest.skip(str(error))
    finally:
        daemon = choose_uri(state)[1]
        if daemon is not None:
            daemon.stop()
            shutil.rmtree(daemon.socket_dir, ignore_errors=True)


@pytest.mark.parametrize("accelerator", ["qemu", "kvm"])
def test_qemu_is_given_the_machine_that_libvirt_gives_it(
    hypervisor: Hypervisor, tmp_path: Path, accelerator: Accelerator
) -> None:
    domain = make_domain(tmp_path, accelerator)
    native = shlex.split(hypervisor.connection.domainXMLToNative("qemu-argv", domain.xml(), 0))
    native = native[native.index(domain.emulator) :]
    ours = qemu_argv(domain)
    for name in ("-accel", "-cpu", "-m", "-smp", "-uuid", "-kernel", "-initrd", "-append", "-netdev", "-display"):
        assert options(ours)[name] == options(native)[name], name
    for name in ("-nodefaults", "-no-user-config", "-rtc", "-boot", "-overcommit", "-sandbox"):
        assert options(ours)[name] == options(native)[name], name
    assert devices(ours) == devices(native)
    plain = [text for text in options(native)["-device"] if not text.startswith("{")]
    assert [text for text in options(ours)["-device"] if not text.startswith("{")] == plain
    machine = options(native)["-machine"][0]
    assert machine.startswith("pc-q35")
    assert options(ours)["-machine"][0].removeprefix("q35") in machine
    filenames = [json.loads(text).get("filename") for text in options(native)["-blockdev"]]
    blocks = [json.loads(text) for text in options(ours)["-blockdev"]]
    assert [block["file"]["filename"] for block in blocks] == [name for name in filenames if name]
    assert all(block["read-only"] for block in blocks)


def test_a_recorded_domain_reads_back_as_it_was(tmp_path: Path) -> None:
    domain = make_domain(tmp_path)
    read = recorded_domain(domain.xml().encode(), domain.initramfs)
    assert replace(read, name=domain.name) == domain


CARD = PciFunction("0000:01:00.0", 0x10DE, 0x2684, 0x030000, bars=(Bar(0, 16 << 20), Bar(1, 64 << 30, wide=True)))
AUDIO = PciFunction("0000:01:00.1", 0x10DE, 0x22BA, 0x040300)
H100 = PciFunction("0000:81:00.0", 0x10DE, 0x2330, 0x030200, bars=(Bar(1, 128 << 30, wide=True),))
MEDIATED = "8a2f3a5e-7d1c-4b0e-9a57-000000000001"
LENT = passthrough_of([PassthroughUnit((CARD, AUDIO)), PassthroughUnit((H100,))], [MEDIATED])


@pytest.mark.parametrize("display", [False, True])
def test_a_recorded_domain_with_lent_devices_reads_back_as_it_was(tmp_path: Path, display: bool) -> None:
    try:
        code, variables = plain_firmware()
    except InfraError as error:
        pytest.skip(str(error))
    lent = replace(LENT, display=display)
    domain = replace(make_domain(tmp_path), passthrough=lent, loader=code, variables=variables)
    assert replace(recorded_domain(domain.xml().encode(), domain.initramfs), name=domain.name) == domain


def test_qemu_is_given_lent_devices_at_their_places_and_firmware_that_forgets(tmp_path: Path) -> None:
    firmware = {"loader": Path("/fw/code.fd"), "variables": Path("/fw/vars.fd")}
    argv = qemu_argv(replace(make_domain(tmp_path, "kvm"), passthrough=LENT, **firmware))  # type: ignore[arg-type]
    found = [json.loads(text) for text in options(argv)["-device"] if "vfio-pci" in text or "root-port" in text]
    ports = [(one["id"], one["addr"], one.get("multifunction", False)) for one in found if "chassis" in one]
    assert ports == [("pci.1", "0x10", True), ("pci.2", "0x10.0x1", False), ("pci.3", "0x10.0x2", False)]
    lent = [(one["host"], one["bus"], one["addr"], one.get("rombar")) for one in found if "host" in one]
    assert lent == [
        ("0000:01:00.0", "pci.1", "0x0", None),
        ("0000:01:00.1", "pci.1", "0x0.0x1", None),
        ("0000:81:00.0", "pci.2", "0x0", 0),
    ]
    assert found[-1]["sysfsdev"] == f"/sys/bus/mdev/devices/{MEDIATED}"
    assert options(argv)["-cpu"] == ["host,migratable=off,host-phys-bits=on"]
    assert "snapshot=on" in options(argv)["-drive"][1]
    assert options(argv)["-fw_cfg"] == ["name=opt/ovmf/X-PciMmio64Mb,string=524288"]


def test_qemu_is_given_the_display_that_was_asked_for_and_no_other(tmp_path: Path) -> None:
    asked = qemu_argv(replace(make_domain(tmp_path), passthrough=replace(LENT, display=True)))
    (vga,) = [json.loads(text) for text in options(asked)["-device"] if "VGA" in text]
    assert (vga["bus"], vga["addr"]) == ("pcie.0", "0x1")
    assert not any("VGA" in text for text in options(qemu_argv(make_domain(tmp_path)))["-device"])


def test_a_boot_through_secure_boot_is_no_script() -> None:
    xml = b"<domain><os><loader secure='yes'>/c</loader></os></domain>"
    with pytest.raises(UserError, match="repeat it with kdmatrix run"):
        recorded_domain(xml)


def test_a_device_that_another_driver_holds_is_told_before_anything_starts(tmp_path: Path) -> None:
    absent = PassthroughUnit((PciFunction("0fff:fe:1f.7", 0x10DE, 0x2684, 0x030000),))
    domain = replace(make_domain(tmp_path, emulator=fake_qemu(tmp_path, "")), passthrough=passthrough_of([absent]))
    done = run_script(write_script(tmp_path, script(CELL, Boot(domain, RELEASE), RECIPES, TESTS)))
    assert done.returncode == 2
    assert "0fff:fe:1f.7 is bound to none: look who uses it" in done.stderr
    assert not (tmp_path / "qemu.pid").exists()


@pytest.mark.parametrize("xml", [b"", b"<domain/>", b"<domain type='kvm'><memory>x</memory></domain>"])
def test_what_is_no_domain_of_ours_is_refused_in_one_line(xml: bytes) -> None:
    with pytest.raises(UserError, match=r"^domain\.xml of the attempt cannot be read: [^\n]+$"):
        recorded_domain(xml)


def write_script(folder: Path, text: str) -> Path:
    path = folder / "repro.sh"
    path.write_text(text)
    return path


def run_script(path: Path, *words: str, shell: str = "sh") -> subprocess.CompletedProcess[str]:
    scratch = path.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    done = subprocess.run(
        [shell, path, *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=path.parent,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    assert "--keep" in words or list(scratch.iterdir()) == [], "the temporary directory is left"
    return done


def fake_qemu(folder: Path, body: str) -> str:
    """A stand-in that is started in QEMU's place; it says who it is in a file."""
    path = folder / "fake-qemu"
    path.write_text(f"#!/bin/sh\necho $$ >{shlex.quote(str(folder / 'qemu.pid'))}\n{body}\n")
    path.chmod(0o755)
    return str(path)


def text_for(folder: Path, emulator: str, cell: Cell = CELL, recipes: Recipes = RECIPES) -> str:
    return script(cell, Boot(make_domain(folder, emulator=emulator), RELEASE), recipes, TESTS)


@pytest.mark.parametrize("cell", [CELL, replace(CELL, stack="intree"), replace(CELL, tests=("vecadd",))])
def test_the_script_is_sound_for_every_shell_and_for_shellcheck(tmp_path: Path, cell: Cell) -> None:
    path = write_script(tmp_path, text_for(tmp_path, "qemu-system-x86_64", cell))
    for shell in ("sh", "dash", "bash", "busybox"):
        if shutil.which(shell):
            subprocess.run([shell, *(["sh"] if shell == "busybox" else []), "-n", path], check=True)
    if shutil.which("shellcheck"):
        done = subprocess.run(["shellcheck", path], capture_output=True, text=True, check=False)
        assert done.stdout == ""


def test_only_the_tests_of_the_cell_are_in_its_script(tmp_path: Path) -> None:
    text = text_for(tmp_path, "qemu", replace(CELL, tests=("vecadd",)))
    assert "gtrun run vecadd --backend opencl" in text
    assert "triad" not in text


MY_GPU = Module(name="my-gpu", parameters=("modeset=1",), loads_as="gpu", refusal="No such device|no GPU")


def test_modules_steps_and_their_limits_are_in_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = StackRecipe(
        description="",
        modules=(MY_GPU, Module(name="other", required=False)),
        activate=(Step(run=("start", "it's"), timeout=7),),
        verify=(Step(run=("ask",), match="^GPU [0-9]", stage=Stage.ENUMERATE),),
    )
    monkeypatch.setattr(Recipes, "stack", lambda _self, _guest, _name: stack)
    text = text_for(tmp_path, "qemu")
    commands = text[text.index("commands() {") :].split("}")[0].splitlines()[1:]
    assert [line.strip() for line in commands if line.strip()] == [
        "load_module required 480 my-gpu 'my-gpu modeset=1' gpu 'No such device|no GPU'",
        "load_module optional 480 other other other",
        """step 28 '' 'start '"'"'it'"'"'"'"'"'"'"'"'s'"'"''""",
        "step 240 '^GPU [0-9]' ask",
        "unload_modules 480",
    ]


def test_a_reason_that_a_guest_made_up_stays_a_comment(tmp_path: Path) -> None:
    attempt = Attempt("r", CELL.id, 1, "", "", Outcome.FAIL, Stage.BOOT, "panic\n\rtouch /tmp/x\x1b[2J\u2028rm", ())
    text = script(CELL, Boot(make_domain(tmp_path), RELEASE), RECIPES, TESTS, attempt)
    line = next(line for line in text.splitlines() if "was FAIL" in line)
    assert line == "# Attempt 1 of run r was FAIL on boot: panic touch /tmp/x [2J rm"


def test_a_file_that_is_gone_is_told_in_one_line_when_the_script_is_written(tmp_path: Path) -> None:
    domain = make_domain(tmp_path)
    (tmp_path / "root").unlink()
    with pytest.raises(UserError, match=r"root is gone \(No such file or directory\): run the cell again"):
        script(CELL, Boot(domain, RELEASE), RECIPES, TESTS)


def test_a_file_that_went_since_is_told_in_one_line(tmp_path: Path) -> None:
    path = write_script(tmp_path, text_for(tmp_path, fake_qemu(tmp_path, "exit 1")))
    (tmp_path / "root").unlink()
    done = run_script(path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"{path}: {tmp_path}/root is gone or not readable: the image cache was cleaned or is on another machine"
    ]


def test_a_file_that_changed_since_is_told_in_one_line(tmp_path: Path) -> None:
    path = write_script(tmp_path, text_for(tmp_path, fake_qemu(tmp_path, "exit 1")))
    (tmp_path / "modules").write_bytes(b"other")
    done = run_script(path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"{path}: {tmp_path}/modules is no longer what the cell booted (its SHA-256 differs)"
    ]


@pytest.mark.parametrize("words", [("--nonsense",), ("--console",), ("--console", "/no/such/folder/file")])
def test_bad_options_are_told_in_one_line(tmp_path: Path, words: tuple[str, ...]) -> None:
    path = write_script(tmp_path, text_for(tmp_path, fake_qemu(tmp_path, "exit 1")))
    done = run_script(path, *words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{path}: ") or "no/such" in done.stderr


def test_a_qemu_that_will_not_start_is_quoted(tmp_path: Path) -> None:
    path = write_script(tmp_path, text_for(tmp_path, fake_qemu(tmp_path, "echo no such machine >&2; exit 1")))
    done = run_script(path)
    assert done.returncode == 4
    assert "no such machine" in done.stdout
    assert "the VM ended while it booted" in done.stderr


def test_a_taken_port_is_tried_no_more_and_another_one_is(tmp_path: Path) -> None:
    body = f"""
echo try >>{tmp_path}/tries
[ $(wc -l <{tmp_path}/tries) -ge 3 ] || {{ echo "Could not set up host forwarding rule 'tcp'" >&2; exit 1; }}
echo Kernel panic; exit 1"""
    path = write_script(tmp_path, text_for(tmp_path, fake_qemu(tmp_path, body)))
    done = run_script(path)
    assert done.returncode == 4
    assert (tmp_path / "tries").read_text() == "try\n" * 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_interrupted_script_ends_qemu_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    path = write_script(tmp_path, text_for(tmp_path, fake_qemu(tmp_path, "exec sleep 300")))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = subprocess.Popen(["sh", path], env={**os.environ, "TMPDIR": str(scratch)}, cwd=tmp_path)
    pid = _appears(tmp_path / "qemu.pid")
    assert list(scratch.iterdir())
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    assert list(scratch.iterdir()) == []
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv ties QEMU to its script")
def test_a_killed_script_takes_qemu_with_it(tmp_path: Path) -> None:
    path = write_script(tmp_path, text_for(tmp_path, fake_qemu(tmp_path, "exec sleep 300")))
    process = subprocess.Popen(["sh", path], env={**os.environ, "TMPDIR": str(tmp_path)}, cwd=tmp_path)
    pid = _appears(tmp_path / "qemu.pid")
    process.kill()
    process.wait(30)
    deadline = time.monotonic() + 10
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _appears(path: Path) -> int:
    deadline = time.monotonic() + 60
    while not path.exists() or not path.read_text().strip():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return int(path.read_text())


def stored(*attempts: Attempt) -> StoredRun:
    info = RunInfo("run-1", "", None, RunState.FINISHED, "", "", {}, "", {})
    return StoredRun(info, (CELL,), (), attempts)


def test_an_attempt_is_reproduced_from_its_own_domain(tmp_path: Path) -> None:
    lab = Lab.open()
    lab = Lab(replace(lab.home, root=tmp_path / "home"))
    domain = replace(make_domain(tmp_path), memory=320 << 20)
    (tmp_path / "initramfs.cpio").write_bytes(b"cached")
    evidence = lab.evidence.put(domain.xml().encode(), "domain.xml")
    stages = (StageResult(Stage.BOOT, Outcome.PASS, evidence=(evidence,)),)
    facts = {"kernel.release": RELEASE}
    attempt = Attempt("run-1", CELL.id, 2, "", "", Outcome.PASS, Stage.COMPUTE, "", stages, facts=facts)
    text = script_for(lab, stored(attempt), CELL, attempt)
    assert "Attempt 2 of run run-1 was PASS" in text
    assert "-m 320 \\\n" in text
    assert f"initramfs='{tmp_path}/initramfs.cpio'\n" in text


def test_an_attempt_that_booted_nothing_is_told_in_one_line(tmp_path: Path) -> None:
    lab = Lab(replace(Lab.open().home, root=tmp_path))
    attempt = Attempt("run-1", CELL.id, 1, "", "", Outcome.MISS, Stage.IMAGE, "no mirror", ())
    with pytest.raises(UserError) as caught:
        script_for(lab, stored(attempt), CELL, attempt)
    assert str(caught.value) == (
        "attempt 1 of debian-13/lts-6.12/cpu-opencl/none in run run-1 booted nothing (it ended on image), "
        "so there is nothing to repeat"
    )


@pytest.mark.vm
def test_the_script_boots_a_cell_and_all_its_commands_pass(
    tmp_path: Path, real_images: Images, shared_cache: Path
) -> None:
    images = replace(real_images, tests=lambda: build_runner(content_dir("gpu_tests"), shared_cache / "gpu_tests"))
    cell = replace(CELL, tests=("enumerate", "vecadd", "triad"))  # all of them take an emulated processor minutes
    image = images.prepare(cell.guest, cell.stack, cell.kernel, timeout=1800)
    boot = boot_of(cell, image, RECIPES, accelerator="qemu", memory=1 << 30, vcpus=1)
    path = write_script(tmp_path, script(cell, boot, RECIPES, TESTS))
    done = run_script(path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert done.stdout.endswith("all passed\n")
    calls = re.findall(r"^ *(?:step|compute) ", path.read_text(), re.MULTILINE)
    assert len(calls) >= 4
    assert done.stdout.count("[exit status 0") == len(calls)
    console = tmp_path / f"{CELL.slug}-console.log"
    assert b"kdmatrix-guest: starting sshd" in console.read_bytes()
