"""The outer machine: a VM with an emulated IOMMU and two displays, in which the program is installed as on a host.

It is QEMU alone, under plain emulation, started by the test and unknown to the program. It boots as the program's own
guests do (layers, initramfs, seed), which is how it is up within seconds. Facts that this stands on: interrupts must be
remapped, or VFIO refuses; the ELF kernel starts much sooner than the compressed one.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import InfraError
from harness.images.builder import Images, content_key, digest_of_tree
from harness.images.initramfs import GUEST_INIT, Seed, write_seed
from harness.machines.booting import free_port
from harness.machines.ssh import KeyPair, SshShell
from harness.model.cell import DebianKernel, KernelSpec, Series
from harness.model.image import BootKernel, Layer
from harness.model.shell import Completed
from harness.placing import digest_of_parts, placed_once, sha256_file

from .inner import Inner, fill_home, make_inner

ROOT = Path(__file__).resolve().parents[3]
SOURCES = ("harness", "guests", "gpu_tests", "reports", "matrices", "matrix.yaml", "pyproject.toml")
KERNEL = KernelSpec("outer", Series.LONGTERM, DebianKernel("trixie"))
MEMORY = 2560
"""MiB; what is written lies in memory, too."""
CPU = "Nehalem"
"""Without AVX: what the inner QEMU makes of it would be emulated once more, at more than twice the time."""
DISPLAY = "0000:00:04.0"
"""A display straight on the root bus: nothing can reset it."""
CARD_PORT, GPU, SOUND = "0000:00:06.0", "0000:01:00.0", "0000:01:00.1"
"""A card behind a root port, with a GPU that can be reset by itself and sound that cannot: one unit. Both read their
driver's memory; the sound, once it plays, goes round in its buffer whether a processor runs or not."""
PORT, PLUGGED = "0000:00:08.0", "0000:02:00.0"
"""A display behind a root port, which resets its bus. Its bus has the highest number, because that is what the kernel
gives to a bus that it finds again."""
DRIVERS = {DISPLAY: "bochs-drm", PLUGGED: "bochs-drm", GPU: "virtio-pci", SOUND: "snd_hda_intel"}
"""What each has while it is the host's."""

TRANSLATED, DRAWN = "vtd_iotlb_page_hit", "virtio_gpu_cmd_res_xfer_toh_2d"
"""What QEMU notes: each access of a device to memory through the IOMMU, and each picture that the GPU fetches."""

CONTAINERFILE = """ARG BASE
FROM ${BASE}
RUN apt-get update \\
 && apt-get install --yes --no-install-recommends qemu-system-x86 libvirt-daemon libvirt-daemon-driver-qemu g++ \\
      python3-alembic python3-cryptography python3-distributed python3-jinja2 python3-libvirt python3-pandas \\
      python3-paramiko python3-pydantic python3-rich python3-sqlalchemy python3-typer python3-virt-firmware \\
      python3-yaml python3-zstandard pci.ids \\
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb
"""
COMMAND = "#!/usr/bin/python3\nimport sys\nfrom harness.cli import main\nsys.exit(main())\n"
HOSTS = "127.0.0.1 localhost outer\n"
PACKAGES = "usr/lib/python3/dist-packages"
RUNNER = """
import sys
from pathlib import Path
from harness.suites.build import build_runner
build_runner(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@dataclass(frozen=True)
class Parts:
    """What the outer machine boots from."""

    kernel: BootKernel
    layers: tuple[Layer, ...]
    """Topmost first."""
    boot_dir: Path
    inner: Inner


def make_parts(images: Images, shared: Path) -> Parts:
    """Make whatever is not cached: the outer machine's root, the program in it, and all that its cells need."""
    root_key = content_key("outer root", CONTAINERFILE, images.base_key("debian-13"))
    reference = images.buildah.reference("outer", root_key)
    if not images.buildah.exists(reference):
        _build_root(images, reference)

    def pack_root(into: Path) -> None:
        images.buildah.mkfs(reference, ["mkfs.erofs", "--quiet", "-Enoinline_data", into / "layer.erofs"], timeout=900)

    root = placed_once(shared / "nested" / f"root-{root_key[:32]}", pack_root) / "layer.erofs"
    program_key = content_key("outer program", root_key, COMMAND, HOSTS, _digest_of_sources())
    program = images.layer_of("outer-program", program_key, "program", lambda tree: _program(images, reference, tree))
    runner = _runner(images, reference, shared, root_key)
    inner = make_inner(images, shared, runner)
    home_key = content_key("outer home", digest_of_tree(inner.content), inner.package.parent.name, runner.name, "1")
    home = images.layer_of("outer-home", home_key, "lab home", lambda tree: fill_home(inner, tree))
    kernel = images.boot_kernel(KERNEL)
    layers = (
        Layer("home", home),
        Layer("program", program),
        Layer("kernel", images.kernel_layer(kernel)),
        Layer("root", root),
    )
    return Parts(kernel, layers, images.recipes.boot_dir, inner)


def _digest_of_sources() -> str:
    """Of what goes into the wheel; bytecode comes and goes."""
    files = [
        path
        for name in SOURCES
        for path in ([ROOT / name] if (ROOT / name).is_file() else sorted((ROOT / name).rglob("*")))
        if path.is_file() and "__pycache__" not in path.parts
    ]
    return digest_of_parts(tuple((str(path.relative_to(ROOT)), sha256_file(path)) for path in files))


def _build_root(images: Images, reference: str) -> None:
    context = images.scratch() / "outer"
    context.mkdir(exist_ok=True)
    containerfile = context / "Containerfile"
    containerfile.write_text(CONTAINERFILE)
    images.build("debian-13", reference, containerfile, context, {"BASE": images.base("debian-13", 1800)}, 3000)
    shutil.rmtree(context)


def _program(images: Images, reference: str, tree: Path) -> None:
    """The wheel, unpacked as an installer would, compiled by the interpreter that is to run it."""
    into = tree / PACKAGES
    into.mkdir(parents=True)
    wheels = tree / "wheels"
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet")
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, ROOT, "-w", wheels], check=True)
    (wheel,) = wheels.glob("kdmatrix-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(into)
    shutil.rmtree(wheels)
    command = tree / "usr/bin/kdmatrix"
    command.parent.mkdir(parents=True)
    command.write_text(COMMAND)
    command.chmod(0o755)
    (tree / "etc").mkdir()
    (tree / "etc/hosts").write_text(HOSTS)
    argv = ["python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    argv += ["-s", "/mnt", "-p", f"/{PACKAGES}", "/mnt"]
    done = images.buildah.run(reference, argv, volumes=[(into, "/mnt", "rw")], timeout=900)
    assert done.returncode == 0, done.stderr


def _runner(images: Images, reference: str, shared: Path, root_key: str) -> Path:
    """The compute tests built by the outer machine's own compiler, as it would build them itself."""
    sources = ROOT / "gpu_tests"
    key = content_key("outer runner", root_key, digest_of_tree(sources))[:32]

    def build(into: Path) -> None:
        (into / "gpu_tests").mkdir()
        volumes = [(ROOT, "/src", "ro"), (into / "gpu_tests", "/out", "rw")]
        argv = ["python3", "-c", RUNNER, "/src/gpu_tests", "/out"]
        done = images.buildah.run(reference, argv, volumes=volumes, env={"PYTHONPATH": "/src"}, timeout=900)
        assert done.returncode == 0, done.stderr

    made = placed_once(shared / "nested" / f"runner-{key}", build)
    (found,) = (made / "gpu_tests").iterdir()
    return placed_once(shared / "gpu_tests" / found.name, lambda into: _copy(found, into))


def _copy(source: Path, into: Path) -> None:
    shutil.copytree(source, into, dirs_exist_ok=True)


@dataclass
class Outer:
    """The outer machine while it runs."""

    folder: Path
    process: subprocess.Popen[bytes] = field(repr=False)
    port: int
    host_key: KeyPair = field(repr=False)
    client_key: KeyPair = field(repr=False)
    shell: SshShell | None = field(default=None, repr=False)

    @property
    def console(self) -> str:
        """All that it wrote to its serial port."""
        return (self.folder / "console.log").read_text(errors="replace")

    @property
    def cpu_seconds(self) -> float:
        """Processor time that it has taken from this machine."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def connect(self, timeout: float) -> SshShell:
        """Wait until it takes commands."""
        deadline = time.monotonic() + timeout
        failure = "nothing was tried"
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the outer machine ended:\n{self.console[-4000:]}"
            try:
                self.shell = SshShell.connect(self.port, self.host_key, self.client_key, timeout=60)
            except InfraError as error:
                failure = str(error)
                time.sleep(0.2)
            else:
                return self.shell
        raise AssertionError(f"{failure}; the outer machine's console:\n{self.console[-4000:]}")

    def run(self, argv: Sequence[str], timeout: float = 600) -> Completed:
        """Run a command in it."""
        assert self.shell is not None
        done = self.shell.run(argv, timeout=timeout)
        assert not done.lost, f"the connection broke; console:\n{self.console[-4000:]}"
        assert not done.timed_out, f"{argv} took longer than {timeout:.0f} s: {done.stdout!r} {done.stderr!r}"
        return done

    def must(self, *argv: str, timeout: float = 600) -> str:
        """Run a command that has to succeed; return its output."""
        done = self.run(argv, timeout)
        assert done.exit_status == 0, f"{argv}: {done.stdout.decode()}{done.stderr.decode()}"
        return done.stdout.decode().strip()

    def sh(self, script: str, timeout: float = 600) -> str:
        """Run a shell script that has to succeed; return its output."""
        return self.must("sh", "-ec", script, timeout=timeout)

    def driver(self, address: str) -> str:
        """Name of the driver that is bound to a function; empty for none."""
        link = f"/sys/bus/pci/devices/{address}/driver"
        return self.sh(f'[ ! -e {link} ] || basename "$(readlink {link})"')

    def drivers(self) -> dict[str, str]:
        """The driver of each device that there is to lend."""
        return {address: self.driver(address) for address in DRIVERS}

    def reads(self, address: str) -> int:
        """How often a device has used the IOMMU so far, to get at memory."""
        bus, slot, function = int(address[5:7], 16), int(address[8:10], 16), int(address[-1])
        return self._traced(f" sid {bus << 8 | slot << 3 | function:#x} ")

    def pictures(self) -> int:
        """How many pictures the GPU has fetched so far."""
        return self._traced(DRAWN)

    def _traced(self, word: str) -> int:
        return (self.folder / "trace.log").read_bytes().count(word.encode())

    def until(self, condition: str, timeout: float) -> None:
        """Wait until a shell condition holds."""
        self.must(
            "timeout", str(int(timeout)), "sh", "-c", f"until {condition}; do sleep 0.5; done", timeout=timeout + 60
        )

    def close(self) -> None:
        """End it."""
        if self.shell is not None:
            self.shell.close()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def switch_on(parts: Parts, folder: Path) -> Outer:
    """Start an outer machine with its files in ``folder``; nobody waits until it is up."""
    host_key, client_key = KeyPair.generate("outer"), KeyPair.generate("test")
    seed = Seed(
        host_key=host_key.private,
        authorized_key=client_key.public,
        layers=tuple(layer.serial for layer in parts.layers),
        hostname="outer",
        init=GUEST_INIT,
        overlay_size="2G",
    )
    write_seed(seed, parts.boot_dir, folder / "seed.cpio")
    initramfs = folder / "initramfs"
    initramfs.write_bytes(parts.kernel.initramfs.read_bytes() + (folder / "seed.cpio").read_bytes())
    port = free_port()
    argv = [*arguments(parts, folder, initramfs), "-netdev"]
    argv += [f"user,id=net,ipv6=off,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"]
    argv += ["-device", "virtio-net-pci,netdev=net,romfile=,addr=3"]
    return Outer(folder, subprocess.Popen(argv, stdin=subprocess.DEVNULL), port, host_key, client_key)


def arguments(parts: Parts, folder: Path, initramfs: Path) -> list[str]:
    """QEMU's command line but for the network."""
    assert parts.kernel.vmlinux is not None
    cmdline = "console=ttyS0 panic=-1 quiet mitigations=off intel_iommu=on"
    disks = [
        word
        for number, layer in enumerate(parts.layers)
        for word in (
            *("-drive", f"if=none,id=d{number},format=raw,readonly=on,file={layer.path}"),
            *("-device", f"virtio-blk-pci,drive=d{number},serial={layer.serial},addr={16 + number}"),
        )
    ]
    return [
        *("setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "q35,accel=tcg", "-cpu", CPU, "-smp", "2", "-m", str(MEMORY)),
        *("-device", "intel-iommu,intremap=on"),
        *("-device", "bochs-display,addr=4", "-device", "edu,addr=5"),
        *(
            "-device",
            "pcie-root-port,id=behind,chassis=1,slot=1,addr=8",
            "-device",
            "bochs-display,id=plugged,bus=behind",
        ),
        # Of a faster port the kernel wants to see that its link is up, which QEMU does not say of what it starts with.
        *("-device", "pcie-root-port,id=card,chassis=2,slot=2,addr=6,x-speed=5"),
        # Without iommu_platform its memory accesses would go past the IOMMU.
        *("-device", "virtio-gpu-pci,bus=card,addr=0.0,multifunction=on,disable-legacy=on,iommu_platform=on"),
        *("-audiodev", "none,id=silence", "-device", "ich9-intel-hda,id=sound,bus=card,addr=0.1"),
        *("-device", "hda-output,bus=sound.0,audiodev=silence"),
        *("-trace", TRANSLATED, "-trace", DRAWN, "-msg", "timestamp=on", "-D", str(folder / "trace.log")),
        *("-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng,addr=7"),
        *disks,
        *("-kernel", str(parts.kernel.vmlinux), "-initrd", str(initramfs), "-append", cmdline),
        *("-chardev", f"file,id=serial,path={folder}/console.log", "-serial", "chardev:serial"),
    ]
