"""Where lent devices appear in a guest, and what the domain adds for them."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from harness.machines.passthrough import Passthrough, Placement, passthrough_of, place
from harness.model.device import Bar, PassthroughUnit, PciFunction

from .test_domain import domain

GOLDEN = Path(__file__).parent / "golden"
GIB = 1 << 30
UEFI = {"loader": Path("/usr/share/OVMF/CODE.fd"), "variables": Path("/runs/work/variables.fd")}
UUID = "8a2f3a5e-7d1c-4b0e-9a57-000000000001"


def gpu(address: str, size: int, *, code: int = 0x030000, **more: object) -> PciFunction:
    bars = (Bar(0, 16 << 20), Bar(1, size, wide=True, prefetchable=True))
    return PciFunction(address, 0x10DE, 0x2684, code, bars=bars, **more)  # type: ignore[arg-type]  # fields by name


def audio(address: str) -> PciFunction:
    return PciFunction(address, 0x10DE, 0x22BA, 0x040300, bars=(Bar(0, 16 << 10),))


CARD = PassthroughUnit((gpu("0000:01:00.0", 256 << 20), audio("0000:01:00.1")))
H100 = PassthroughUnit((gpu("0000:81:00.0", 128 * GIB, code=0x030200, numa_node=1),))
SHARED = PassthroughUnit((gpu("0000:21:00.0", 256 << 20), audio("0000:21:00.1"), gpu("0000:22:00.0", 256 << 20)))
VIRTUAL = PassthroughUnit((gpu("0001:03:01.4", 16 << 20, physical="0001:03:00.0"),))
TOY = PassthroughUnit((gpu("0000:00:04.0", 16 << 20, code=0x038000),))

KINDS: dict[str, Passthrough] = {
    "card": passthrough_of([CARD]),
    "accelerator": passthrough_of([H100], placement=Placement(1, "16-31,48-63", 1 << 20)),
    "pair": passthrough_of([CARD, H100]),
    "group": passthrough_of([SHARED]),
    "virtual": passthrough_of([VIRTUAL]),
    "mediated": passthrough_of([], [UUID]),
    "display": passthrough_of([CARD], display=True),
}


def of(kind: str, accelerator: str = "kvm") -> str:
    wanted = KINDS[kind]
    return domain(accelerator, passthrough=wanted, **(UEFI if wanted.uefi else {})).xml()  # type: ignore[arg-type]  # one of two words


@pytest.mark.parametrize("kind", KINDS)
def test_the_xml_is_the_golden_file(kind: str) -> None:
    path = GOLDEN / f"passthrough-{kind}.xml"
    if os.environ.get("KDMATRIX_WRITE_GOLDEN"):
        path.write_text(of(kind) + "\n")
    assert of(kind) + "\n" == path.read_text()


@pytest.mark.parametrize("accelerator", ["kvm", "qemu"])
@pytest.mark.parametrize("kind", KINDS)
def test_libvirts_own_schema_accepts_it(kind: str, accelerator: str) -> None:
    libvirt = pytest.importorskip("libvirt")
    connection = libvirt.open("test:///default")
    try:
        connection.defineXMLFlags(of(kind, accelerator), libvirt.VIR_DOMAIN_DEFINE_VALIDATE).undefine()
        broken = of(kind, accelerator).replace('managed="no"', 'managed="never"')
        with pytest.raises(libvirt.libvirtError):
            connection.defineXMLFlags(broken, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    finally:
        connection.close()


@pytest.mark.parametrize("kind", KINDS)
def test_every_place_in_the_guest_is_taken_once_and_every_port_is_there(kind: str) -> None:
    root = ET.fromstring(of(kind))
    places = [tuple(sorted(one.attrib.items())) for one in root.findall("devices/*/address")]
    assert len(places) == len(set(places))
    ports = {one.attrib["index"] for one in root.findall("devices/controller[@model='pcie-root-port']")}
    assert ports == {one.attrib["bus"] for one in root.findall("devices/hostdev/address")}
    assert {one.attrib["managed"] for one in root.findall("devices/hostdev")} == {"no"}


@pytest.mark.parametrize("kind", KINDS)
def test_no_display_is_emulated_beside_a_gpu_unless_it_is_asked_for(kind: str) -> None:
    videos = ET.fromstring(of(kind)).findall("devices/video")
    assert [one.find("model").get("type") for one in videos] == ["vga" if kind == "display" else "none"]  # type: ignore[union-attr]


def guest_places(wanted: Passthrough) -> list[tuple[int, int, bool]]:
    return [(one.port, one.guest_function, one.multifunction) for one in wanted.functions]


def test_functions_of_one_slot_stay_functions_of_one_slot() -> None:
    assert guest_places(passthrough_of([CARD])) == [(1, 0, True), (1, 1, False)]
    assert guest_places(passthrough_of([SHARED])) == [(1, 0, True), (1, 1, False), (2, 0, False)]


def test_a_virtual_function_becomes_function_zero_or_no_guest_would_find_it() -> None:
    (only,) = passthrough_of([VIRTUAL]).functions
    assert (only.domain, only.bus, only.slot, only.function) == (1, 3, 1, 4)
    assert (only.guest_function, only.multifunction, only.rom) == (0, False, False)


def test_several_units_and_mediated_devices_get_ports_of_their_own() -> None:
    made = passthrough_of([CARD, H100], [UUID])
    assert made.ports == (1, 2, 3)
    assert made.mediated[0].port == 3


def test_a_large_window_wants_firmware_that_makes_room_for_it() -> None:
    assert (passthrough_of([TOY]).uefi, passthrough_of([TOY]).window) == (False, 0)
    wanted = passthrough_of([H100])
    assert wanted.uefi
    assert wanted.window == 256 << 10
    argument = domain(passthrough=wanted, **UEFI).qemu_arguments
    assert argument[:2] == ("-fw_cfg", "name=opt/ovmf/X-PciMmio64Mb,string=262144")
    eight = [PassthroughUnit((gpu(f"0000:{bus:02x}:00.0", 128 * GIB, code=0x030200),)) for bus in range(1, 9)]
    assert passthrough_of(eight).window == 2 << 20, "eight of them need eight times as much"


def test_accelerators_without_a_screen_leave_their_option_rom_out() -> None:
    assert [one.rom for one in passthrough_of([CARD, H100]).functions] == [True, True, False]


def test_firmware_without_secure_boot_is_handed_the_kernel() -> None:
    root = ET.fromstring(of("accelerator"))
    loader = root.find("os/loader")
    assert loader is not None
    assert loader.attrib["secure"] == "no"
    assert root.findtext("os/kernel")
    assert root.find("features/smm") is None


def host(root: Path, nodes: int, free: dict[tuple[int, int], int]) -> Path:
    for node in range(nodes):
        folder = root / f"sys/devices/system/node/node{node}"
        folder.mkdir(parents=True)
        (folder / "cpulist").write_text(f"{node * 16}-{node * 16 + 15}\n")
        for size in (1 << 20, 2048):
            pages = folder / f"hugepages/hugepages-{size}kB"
            pages.mkdir(parents=True)
            (pages / "free_hugepages").write_text(f"{free.get((node, size), 0)}\n")
    return root


def test_a_vm_is_kept_to_the_node_of_its_device(tmp_path: Path) -> None:
    root = host(tmp_path, 2, {(1, 1 << 20): 2, (0, 2048): 4096})
    assert place([H100], 2 * GIB, root) == Placement(1, "16-31", 1 << 20)
    assert place([H100], 4 * GIB, root) == Placement(1, "16-31", 0), "too few huge pages there"
    assert place([CARD], 2 * GIB, root).node is None, "it does not say where it is"


def test_a_host_with_one_node_or_devices_at_two_pins_nothing(tmp_path: Path) -> None:
    assert place([H100], GIB, host(tmp_path / "one", 1, {})) == Placement()
    other = PassthroughUnit((gpu("0000:41:00.0", GIB, numa_node=0),))
    assert place([H100, other], GIB, host(tmp_path / "two", 2, {})) == Placement()
