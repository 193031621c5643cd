"""Commands about one cell: logs, shell, repro."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.output import OK, fail, out, reported, say, warn
from harness.cli.runs import latest
from harness.errors import UserError
from harness.lab import Lab
from harness.machines.acceleration import prove
from harness.machines.booting import boot
from harness.machines.hypervisor import Hypervisor
from harness.machines.ssh import KeyPair
from harness.machines.vm import BootFailure, BootRequest
from harness.model.cell import Cell
from harness.model.records import Attempt
from harness.model.select import pick_cell
from harness.store.run import StoredRun
from harness.store.store import Store

CellId = Annotated[str, typer.Argument(metavar="CELL", help="Cell id, or any part of it that only one cell has.")]
RunId = Annotated[str | None, typer.Option("--run", help="Run; the latest when not given.", show_default=False)]
Number = Annotated[
    int | None, typer.Option("--attempt", min=1, help="Attempt; the last when not given.", show_default=False)
]


@reported
def logs(
    cell: CellId,
    name: Annotated[
        str | None, typer.Argument(help="Evidence to print; all are listed when not given.", show_default=False)
    ] = None,
    run_id: RunId = None,
    number: Number = None,
) -> None:
    """List the evidence of a cell, or print one file of it."""
    lab = Lab.open()
    with lab.store() as store:
        stored = store.load_run(run_id or latest(store))
    attempt = _attempt(stored, _find(stored, cell).id, number)
    files = [(stage.stage, file) for stage in attempt.stages for file in stage.evidence]
    if name is None:
        for stage, file in files:
            cut = " (truncated)" if file.truncated else ""
            say(f"{stage:<11} {file.name:<28} {file.size:>9} bytes  {file.sha256[:16]}{cut}")
        return
    matches = [file for _, file in files if file.name == name]
    if not matches:
        raise UserError(f"{attempt.cell_id} has no evidence {name!r}; it has: {', '.join(f.name for _, f in files)}")
    data = lab.evidence.read(matches[-1].sha256, matches[-1].size)
    if sys.stdout.isatty():
        # A guest's output must not drive the reader's terminal.
        text = data.decode("utf-8", "replace")
        out.out("".join(c if c.isprintable() or c in "\n\t" else "�" for c in text), highlight=False)
    else:
        sys.stdout.buffer.write(data)


@reported
def shell(
    cell: CellId,
    run_id: RunId = None,
    command: Annotated[
        list[str] | None, typer.Argument(help="Command to run instead of a login shell.", show_default=False)
    ] = None,
) -> None:
    """Boot a cell again and open an SSH session in it."""
    lab = Lab.open()
    with lab.store() as store:
        chosen = _cell(lab, store, run_id, cell)
    recipe, stack = lab.recipes.guest(chosen.guest), lab.recipes.stack(chosen.guest, chosen.stack)
    image = lab.images.prepare(chosen.guest, chosen.stack, chosen.kernel, timeout=chosen.timeouts.image)
    acceleration = prove(image.kernel.vmlinuz, image.kernel.initramfs, lab.home.cache)
    if acceleration.accelerator == "qemu":
        warn(f"no hardware acceleration ({acceleration.reason}): the VM is emulated")
    blacklist = f"modprobe.blacklist={','.join(stack.blacklist)}" if stack.blacklist else ""
    request = BootRequest(
        cell_id=chosen.id,
        run_id="shell",
        image=image,
        boot_dir=lab.recipes.boot_dir,
        accelerator=acceleration.accelerator,
        init=stack.init or recipe.init,
        memory=1 << 30,
        vcpus=1,
        cmdline=" ".join(word for word in (blacklist, stack.cmdline, chosen.kernel.cmdline) if word),
        work=lab.home.runs / "shell",
    )
    key = KeyPair.generate("kdmatrix-shell")
    with (
        Hypervisor.connect(lab.home.root / "libvirt") as hypervisor,
        boot(hypervisor, request, lab.journal("shell"), key) as machine,
        tempfile.TemporaryDirectory(prefix="kdmatrix-shell-") as folder,
    ):
        try:
            machine.wait_for_ssh(time.monotonic() + 600, 20)
        except BootFailure as error:
            sys.stderr.write(machine.console.content().decode("utf-8", "replace")[-4000:])
            fail(f"{chosen.id} does not boot: {error.reason}", 1)
        identity, known = Path(folder) / "key", Path(folder) / "known_hosts"
        identity.write_bytes(key.private)
        identity.chmod(0o600)
        port = machine.domain.ssh_port
        known.write_text(f"[127.0.0.1]:{port} {machine.host_key.public.decode()}")
        argv = ["ssh", "-p", str(port), "-i", str(identity), "-o", f"UserKnownHostsFile={known}", "-F", "none"]
        argv += [
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "LogLevel=ERROR",
            "root@127.0.0.1",
        ]
        status = subprocess.run(
            [*argv, *(command or [])], check=False, env={**os.environ, "SSH_AUTH_SOCK": ""}
        ).returncode
    raise typer.Exit(status)


@reported
def repro(
    cell: CellId,
    into: Annotated[
        Path | None, typer.Option("-o", "--output", help="File; standard output when not given.", show_default=False)
    ] = None,
    run_id: RunId = None,
    number: Number = None,
) -> None:
    """Print a shell script of the exact QEMU and SSH commands of a cell; it needs nothing of ours."""
    from harness.repro import script_for

    lab = Lab.open()
    with lab.store() as store:
        stored = store.load_run(run_id or latest(store))
    chosen = _find(stored, cell)
    text = script_for(lab, stored, chosen, _attempt(stored, chosen.id, number))
    if into is None:
        sys.stdout.write(text)
        raise typer.Exit(OK)
    into.write_text(text)
    into.chmod(0o755)
    say(f"wrote {into}")


def _cell(lab: Lab, store: Store, run_id: str | None, wanted: str) -> Cell:
    """The cell of a run, or of the default matrix when there is no run yet."""
    from harness.planning import choose

    if run_id or store.latest_run():
        stored = store.load_run(run_id or latest(store))
        if run_id or any(wanted in cell.id for cell in stored.cells):
            return _find(stored, wanted)
    return pick_cell(choose(lab, None, preset=None, expression=None).cells, wanted)


def _find(stored: StoredRun, wanted: str) -> Cell:
    return pick_cell(stored.cells, wanted)


def _attempt(stored: StoredRun, cell_id: str, number: int | None) -> Attempt:
    mine = [one for one in stored.attempts if one.cell_id == cell_id and number in (None, one.number)]
    if not mine:
        which = f"attempt {number}" if number else "an attempt"
        raise UserError(f"{cell_id} has no record of {which} in run {stored.info.id}")
    return mine[-1]
