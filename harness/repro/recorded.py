"""What an attempt booted, read back from what it left, and the script of it."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

from harness.errors import UserError
from harness.lab import Lab
from harness.machines.domain import WINDOW, Disk, Domain
from harness.machines.firmware import plain_firmware
from harness.machines.passthrough import HostFunction, Mediated, Passthrough
from harness.model.cell import Cell
from harness.model.records import Attempt
from harness.repro.boot import Boot
from harness.repro.writing import script
from harness.store.run import StoredRun

_QEMU = {"qemu": "http://libvirt.org/schemas/domain/qemu/1.0"}


def script_for(lab: Lab, run: StoredRun, cell: Cell, attempt: Attempt) -> str:
    """Return the script of a recorded attempt.

    It boots what that attempt booted, from the paths in its ``domain.xml``; no mirror is asked as long as the cache
    holds them.

    Raises:
        UserError: the attempt never came to boot, or what it booted is no longer in the cache.
    """
    files = [file for stage in attempt.stages for file in stage.evidence if file.name == "domain.xml"]
    release = attempt.facts.get("kernel.release", "")
    if not files or not release:
        which = f"attempt {attempt.number} of {cell.id} in run {run.info.id}"
        raise UserError(f"{which} booted nothing (it ended on {attempt.rung}), so there is nothing to repeat")
    domain = recorded_domain(lab.evidence.read(files[0].sha256, files[0].size))
    if not domain.initramfs.is_file():
        domain = replace(domain, initramfs=_initramfs(lab, cell, attempt))
    return script(cell, Boot(domain, release), lab.recipes, lab.tests, attempt)


def _initramfs(lab: Lab, cell: Cell, attempt: Attempt) -> Path:
    """Find the initramfs of a kernel that was booted compressed, and so lies elsewhere than its initramfs."""
    kernel = lab.images.boot_kernel(cell.kernel)
    if kernel.identity.digest != attempt.facts.get("kernel.digest"):
        was = f"{attempt.facts.get('kernel.release')} ({attempt.facts.get('kernel.version')})"
        now = f"{kernel.identity.release} ({kernel.identity.version})"
        raise UserError(f"{cell.id}: the attempt ran {was}, but {cell.kernel.name} is {now} by now: run it again")
    return kernel.initramfs


def recorded_domain(xml: bytes, initramfs: Path | None = None) -> Domain:
    """Read a domain back from the ``domain.xml`` that an attempt left as evidence.

    ``initramfs`` is the cached one; without it, the one beside the kernel in the cache is taken. (The file that the
    XML names held the keys of that boot and went with it.)

    Raises:
        UserError: this is no domain of ours.
    """
    try:
        root = ElementTree.fromstring(xml)  # noqa: S314  written by ourselves, its SHA-256 verified; expat is bounded
        loader = root.find("os/loader")
        if loader is not None and loader.get("secure") == "yes":
            raise UserError("the attempt booted through Secure Boot with keys of this lab: repeat it with kdmatrix run")
        kernel = Path(_text(root, "os/kernel"))
        marks = root.find("metadata/{urn:kdmatrix:domain:1}cell")
        return Domain(
            name="kdmatrix-repro",
            cell_id="" if marks is None else marks.get("id", ""),
            run_id="" if marks is None else marks.get("run", ""),
            accelerator="kvm" if root.get("type") == "kvm" else "qemu",
            emulator=_text(root, "devices/emulator"),
            kernel=kernel,
            initramfs=initramfs or kernel.parent / "initramfs.cpio",
            cmdline=_text(root, "os/cmdline"),
            disks=tuple(_recorded_disk(disk) for disk in root.iterfind("devices/disk")),
            ssh_port=22022,
            memory=int(_text(root, "memory")),
            vcpus=int(_text(root, "vcpu")),
            loader=Path(loader.text) if loader is not None and loader.text else None,
            variables=plain_firmware()[1] if loader is not None else None,
            passthrough=_recorded_passthrough(root),
            uuid=_text(root, "uuid"),
        )
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"domain.xml of the attempt cannot be read: {error}") from error


def _recorded_passthrough(root: ElementTree.Element) -> Passthrough:
    functions: list[HostFunction] = []
    mediated: list[Mediated] = []
    for node in root.iterfind("devices/hostdev"):
        port = int(_attribute(node, "address", "bus"), 0)
        if node.get("type") == "mdev":
            mediated.append(Mediated(_attribute(node, "source/address", "uuid"), port))
            continue
        host = [int(_attribute(node, "source/address", key), 0) for key in ("domain", "bus", "slot", "function")]
        place, rom = node.find("address"), node.find("rom")
        several = place is not None and place.get("multifunction") == "on"
        function = int(_attribute(node, "address", "function"), 0)
        here = rom is None or rom.get("bar") != "off"
        functions.append(HostFunction(host[0], host[1], host[2], host[3], port, function, several, here))
    words = [word.get("value", "") for word in root.iterfind("qemu:commandline/qemu:arg", _QEMU)]
    window = next((word.removeprefix(WINDOW) for word in words if word.startswith(WINDOW)), "0")
    return Passthrough(
        tuple(functions),
        tuple(mediated),
        int(window),
        uefi=root.find("os/loader") is not None,
        display=root.find("devices/video/model[@type='vga']") is not None,
    )


def _text(node: ElementTree.Element, path: str) -> str:
    found = node.findtext(path)
    if not found:
        raise ValueError(f"it has no {path}")
    return found


def _attribute(node: ElementTree.Element, path: str, name: str) -> str:
    child = node.find(path)
    value = None if child is None else child.get(name)
    if not value:
        raise ValueError(f"a {node.tag} has no {path} {name}")
    return value


def _recorded_disk(node: ElementTree.Element) -> Disk:
    return Disk(
        serial=_text(node, "serial"),
        path=Path(_attribute(node, "source", "file")),
        target=_attribute(node, "target", "dev"),
        slot=int(_attribute(node, "address", "slot"), 0),
    )
