"""The domain's XML is what libvirt's schema allows, the same for the same input, and closed to what a name may hold."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.machines.domain import Accelerator, Domain, disks_for, firmware_disk, kernel_cmdline

GOLDEN = Path(__file__).parent / "golden"
KINDS: list[tuple[Accelerator, bool]] = [("kvm", True), ("kvm", False), ("qemu", True), ("qemu", False)]
QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"


def domain(accelerator: Accelerator = "qemu", privileged: bool = True, **changes: Any) -> Domain:
    values: dict[str, Any] = {
        "name": "kdmatrix-1",
        "cell_id": "debian-13/lts-6.12/cpu-opencl/none",
        "run_id": "20260412t101530123z-7k3m9q2xwb",
        "accelerator": accelerator,
        "emulator": "/usr/bin/qemu-system-x86_64",
        "kernel": Path("/cache/boot/vmlinux"),
        "initramfs": Path("/runs/work/initramfs"),
        "cmdline": kernel_cmdline(accelerator, "quiet", ""),
        "disks": disks_for((("tests", Path("/cache/t.erofs")), ("root", Path("/cache/r.erofs")))),
        "ssh_port": 40022,
        "privileged": privileged,
        "uuid": "5c1e2f7a-9b0d-4c3e-8f6a-0123456789ab",
    }
    return Domain(**{**values, **changes})


def secure(accelerator: Accelerator = "qemu", privileged: bool = True) -> Domain:
    layers = disks_for((("root", Path("/cache/r.erofs")),))
    disks = (*layers, firmware_disk(Path("/runs/work/esp.img"), layers))
    firmware = {"loader": Path("/usr/share/OVMF/CODE.secboot.fd"), "variables": Path("/runs/work/variables.fd")}
    firmware |= {"secure": True}
    return domain(accelerator, privileged, disks=disks, **firmware)


@pytest.mark.parametrize(("accelerator", "privileged"), KINDS)
@pytest.mark.parametrize("start", ["domain", "secure"])
def test_the_xml_is_the_golden_file(accelerator: Accelerator, privileged: bool, start: str) -> None:
    path = GOLDEN / f"{start}-{accelerator}-{'system' if privileged else 'session'}.xml"
    made = {"domain": domain, "secure": secure}[start](accelerator, privileged).xml() + "\n"
    if os.environ.get("KDMATRIX_WRITE_GOLDEN"):
        path.write_text(made)
    assert made == path.read_text()


@pytest.mark.parametrize(("accelerator", "privileged"), KINDS)
def test_libvirts_own_schema_accepts_it(accelerator: Accelerator, privileged: bool) -> None:
    libvirt = pytest.importorskip("libvirt")
    connection = libvirt.open("test:///default")
    try:
        defined = connection.defineXMLFlags(domain(accelerator, privileged).xml(), libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
        defined.undefine()
        broken = domain(accelerator, privileged).xml().replace("<vcpu>", "<vcpus>").replace("</vcpu>", "</vcpus>")
        with pytest.raises(libvirt.libvirtError, match=r"XML document failed to validate|Invalid|Extra element"):
            connection.defineXMLFlags(broken, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    finally:
        connection.close()


def test_secure_boot_keeps_the_variables_from_the_kernel_and_starts_from_one_disk() -> None:
    root = ET.fromstring(secure().xml())
    loader = root.find("os/loader")
    assert loader is not None
    assert (loader.attrib["secure"], loader.attrib["readonly"]) == ("yes", "yes")
    assert root.find("features/smm[@state='on']") is not None
    assert root.findtext("os/nvram") == "/runs/work/variables.fd"
    assert root.find("os/kernel") is None, "the kernel comes from the disk, where it is signed"
    first = [disk.findtext("serial") for disk in root.findall("devices/disk") if disk.find("boot") is not None]
    assert first == ["esp"]
    slots = [one.attrib["slot"] for one in root.findall("devices/*/address")]
    assert len(slots) == len(set(slots))


def test_libvirts_own_schema_accepts_secure_boot() -> None:
    libvirt = pytest.importorskip("libvirt")
    connection = libvirt.open("test:///default")
    try:
        connection.defineXMLFlags(secure().xml(), libvirt.VIR_DOMAIN_DEFINE_VALIDATE).undefine()
    finally:
        connection.close()


text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Cn"]), max_size=20)


@settings(max_examples=100, deadline=None)
@given(text, text, text)
def test_no_name_can_leave_its_place(cell: str, cmdline: str, path: str) -> None:
    hostile = "\"'/><qemu:arg value='-S'/>&lt;"
    made = domain(
        cell_id=cell + hostile,
        cmdline=cmdline + hostile,
        disks=disks_for((("root", Path("/" + path + hostile)),)),
    )
    root = ET.fromstring(made.xml())
    cell_element = root.find("metadata/{urn:kdmatrix:domain:1}cell")
    assert cell_element is not None
    assert cell_element.attrib["id"] == cell + hostile
    assert root.findtext("os/cmdline") == cmdline + hostile
    source = root.find("devices/disk/source")
    assert source is not None
    assert source.attrib["file"] == str(Path("/" + path + hostile))
    assert [one.attrib["value"] for one in root.findall(f"{QEMU}commandline/{QEMU}arg")] == list(made.qemu_arguments)


def test_the_guest_is_reached_through_one_loopback_port_and_reaches_nothing() -> None:
    netdev = domain().qemu_arguments[1]
    assert "restrict=on" in netdev
    assert "hostfwd=tcp:127.0.0.1:40022-:22" in netdev
    assert ET.fromstring(domain().xml()).findall("devices/interface") == []


def test_layers_are_read_only_shared_disks_with_slots_of_their_own() -> None:
    root = ET.fromstring(domain().xml())
    disks = root.findall("devices/disk")
    assert [disk.findtext("serial") for disk in disks] == ["tests", "root"]
    assert all(disk.find("readonly") is not None and disk.find("shareable") is not None for disk in disks)
    slots = [one.attrib["slot"] for one in root.findall("devices/*/address")]
    assert len(slots) == len(set(slots)) == 3


def test_the_kernel_ends_the_vm_at_a_panic_and_skips_the_timer_check_only_under_emulation() -> None:
    assert (
        kernel_cmdline("kvm", "", "a=b", "") == "console=ttyS0,115200 panic=-1 8250.nr_uarts=1 sysrq_always_enabled a=b"
    )
    assert "no_timer_check" in kernel_cmdline("qemu")
    root = ET.fromstring(domain().xml())
    assert {root.findtext(f"on_{what}") for what in ("poweroff", "reboot", "crash")} == {"destroy"}


def test_each_domain_has_a_uuid_and_an_address_of_its_own() -> None:
    first, second = domain(uuid=str(uuid4())), domain(uuid=str(uuid4()))
    assert first.mac != second.mac
    assert first.mac.startswith("52:54:00:")
