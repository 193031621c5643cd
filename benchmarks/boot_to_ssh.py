"""From the start of a VM to the first command that it answers: we against virtme-ng, and tmt where it runs.

Ours counts from before libvirt is asked until ``uname -r`` has come back over SSH. virtme-ng counts from the start of
its command until ``uname -r`` appears on its console: it needs no SSH server for that, so the comparison favours it.
It gets the same kernel twice: compressed, as a distribution ships it, and uncompressed, as we boot it under emulation.

Needs ``vng`` (virtme-ng) in PATH or in $VNG; tmt is tried where $TMT names it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from sampling import CELL, Samples, arguments, interleave, prepared, ratio, report

from harness.lab import Lab
from harness.machines.booting import boot
from harness.machines.domain import Accelerator
from harness.machines.hypervisor import Hypervisor
from harness.machines.ssh import KeyPair
from harness.machines.vm import BootRequest
from harness.model.image import BootKernel, Image

_LIMIT = 300.0


def ours(lab: Lab, hypervisor: Hypervisor, image: Image, accelerator: Accelerator) -> float:
    """Boot our image and run one command."""
    request = BootRequest(
        cell_id=CELL.id,
        run_id="benchmark",
        image=image,
        boot_dir=lab.recipes.boot_dir,
        accelerator=accelerator,
        init=lab.recipes.guest(CELL.guest).init,
        memory=1 << 30,
        vcpus=1,
        cmdline="",
        work=lab.home.runs / "benchmark",
    )
    key = KeyPair.generate("kdmatrix-benchmark")
    started = time.monotonic()
    with boot(hypervisor, request, lab.journal("benchmark"), key) as machine:
        shell = machine.wait_for_ssh(started + _LIMIT, _LIMIT)
        done = shell.run(["uname", "-r"], timeout=60)
        seconds = time.monotonic() - started
    if done.stdout.decode().strip() != image.kernel.identity.release:
        raise RuntimeError("the guest does not run the kernel")
    return seconds


def vng_layout(kernel: BootKernel, image: Path, folder: Path) -> Path:
    """A directory in which vng finds a kernel and its modules as in an unpacked package; returns the kernel."""
    release = kernel.identity.release
    (folder / "boot").mkdir(parents=True)
    shutil.copyfile(image, folder / "boot" / f"vmlinuz-{release}")
    shutil.copyfile(kernel.config, folder / "boot" / f"config-{release}")
    (folder / "lib" / "modules").mkdir(parents=True)
    (folder / "lib" / "modules" / release).symlink_to(kernel.modules)
    return folder / "boot" / f"vmlinuz-{release}"


def vng(program: str, kernel: Path, release: str, accelerator: Accelerator) -> float:
    """Run one command in a vng guest on the host's own root.

    ``--verbose`` puts the serial console on standard output (without udev in the guest, which would cost it seconds
    more, that is where a script's output goes); ``quiet`` then keeps the kernel's log off the slow emulated port.
    """
    argv = [program, "--run", str(kernel), "--cpus", "1", "--memory", "1G", "--verbose"]
    argv += ["--append", "quiet", "--append", "loglevel=1", "--exec", "uname -r"]
    if accelerator == "qemu":
        argv.append("--disable-kvm")
    return until_line(argv, release, cwd=kernel.parent)


def tmt(program: str) -> float:
    """Provision tmt's virtual guest and run one command in it.

    $TMT_IMAGE names its cloud image (a path or URL); without it tmt asks its distribution's services for one.
    """
    with tempfile.TemporaryDirectory(prefix="tmt-") as folder:
        root = Path(folder) / "root"
        root.mkdir()
        subprocess.run([program, "init", "--template", "mini"], cwd=root, capture_output=True, check=False)
        argv = [program, "--feeling-safe", "run", "--id", f"{folder}/run", "--remove", "plan", "--default"]
        argv += ["provision", "--how", "virtual", "--connection", "session", "--memory", "1024"]
        if os.environ.get("TMT_IMAGE"):
            argv += ["--image", os.environ["TMT_IMAGE"]]
        argv += ["login", "--command", "echo first-command-answered", "finish"]
        return until_line(argv, "first-command-answered", cwd=root)


def until_line(argv: list[str], wanted: str, *, cwd: Path) -> float:
    """Seconds until a line equal to ``wanted`` comes out of ``argv``, which is ended then with all its children."""
    started = time.monotonic()
    process = subprocess.Popen(
        argv,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    guard = threading.Timer(_LIMIT, _end, (process,))
    guard.start()
    last = ""
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == wanted:
                return time.monotonic() - started
            last = line.strip() or last
        raise RuntimeError(f"{Path(argv[0]).name} ended without an answer: {last[:300]}")
    finally:
        guard.cancel()
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def main() -> None:
    """Measure and report."""
    n = arguments(__doc__ or "").n
    lab = Lab.open()
    image, accelerator = prepared(lab)
    release = image.kernel.identity.release
    program = os.environ.get("VNG") or shutil.which("vng")
    with tempfile.TemporaryDirectory(prefix="vng-") as folder, Hypervisor.connect(lab.home.root / "libvirt") as host:
        contenders = {"kdmatrix (SSH)": lambda: ours(lab, host, image, accelerator)}
        missing: list[Samples] = []
        if program:
            os.environ["PATH"] = f"{Path(program).parent}{os.pathsep}{os.environ['PATH']}"
            packed = vng_layout(image.kernel, image.kernel.vmlinuz, Path(folder) / "packed")
            contenders["vng, vmlinuz (console)"] = lambda: vng(program, packed, release, accelerator)
            if image.kernel.vmlinux:
                plain = vng_layout(image.kernel, image.kernel.vmlinux, Path(folder) / "plain")
                contenders["vng, vmlinux (console)"] = lambda: vng(program, plain, release, accelerator)
        else:
            missing.append(Samples("vng", "s", not_run="virtme-ng is not installed (pip install virtme-ng)"))
        other = os.environ.get("TMT")
        if other:
            contenders["tmt provision virtual"] = lambda: tmt(other)
        else:
            missing.append(Samples("tmt provision virtual", "s", not_run="$TMT does not name it"))
        found = interleave(n, contenders)
        shutil.rmtree(lab.home.runs / "benchmark", ignore_errors=True)
    series = [*found.values(), *missing]
    first = found["kdmatrix (SSH)"]
    report(
        "boot_to_ssh",
        series,
        [ratio(first, one) for one in found.values() if one is not first],
        accelerator=accelerator,
        kernel=release,
    )


if __name__ == "__main__":
    main()
