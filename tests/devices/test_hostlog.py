"""What the host's kernel says of PCI devices is told apart by device, and "not read" from "nothing said"."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from harness.devices import hostlog
from harness.devices.hostlog import Complaint, HostComplaints, addresses_in, attribute, complaint, watched

GPU, SOUND, PORT = "0000:01:00.0", "0000:01:00.1", "0000:00:01.0"

# As kernels print them; the texts are in the sources that harness/devices/hostlog.py names.
BAD = [
    ("aer", (PORT, GPU), f"pcieport {PORT}: AER: Correctable error message received from {GPU}"),
    ("aer", (GPU,), f"vfio-pci {GPU}: PCIe Bus Error: severity=Uncorrectable (Fatal), type=Transaction Layer"),
    ("aer", (PORT,), f"pcieport {PORT}: DPC: containment event, status:0x1f01 source:0x0000"),
    (
        "iommu",
        ("0000:01:00.0",),
        "DMAR: [DMA Read NO_PASID] Request device [01:00.0] fault addr 0xfffe0000 [fault reason 0x06]",
    ),
    ("iommu", (), "DMAR: DRHD: handling fault status reg 3"),
    ("iommu", (GPU,), f"vfio-pci {GPU}: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0017 address=0xdf8 flags=0x0020]"),
    ("iommu", ("0000:c1:00.0",), "AMD-Vi: Event logged [IO_PAGE_FAULT device=c1:00.0 domain=0x0011 address=0x0]"),
    ("reset", (GPU,), f"vfio-pci {GPU}: not ready 65535ms after FLR; giving up"),
    ("reset", (PORT,), f"pcieport {PORT}: AER: device recovery failed"),
    ("power", (GPU,), f"vfio-pci {GPU}: can't change power state from D3cold to D0 (config space inaccessible)"),
    ("power", (GPU,), f"vfio-pci {GPU}: Unable to change power state from D3hot to D0, device inaccessible"),
    ("power", (GPU,), f"vfio-pci {GPU}: stuck in D3"),
    ("xid", ("0000:01:00",), "NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>', GPU has fallen off the bus."),
    ("link", (PORT,), f"pcieport {PORT}: pciehp: Slot(0): Link Down"),
    ("vfio", (GPU,), f"vfio-pci {GPU}: Invalid PCI ROM header signature: expecting 0xaa55, got 0xffff"),
    ("vfio", (GPU,), f"vfio-pci {GPU}: vfio_bar_restore: reset recovery - restoring BARs"),
    ("vfio", (GPU,), f'vfio-pci {GPU}: device is currently in use, task "qemu" (42) blocked until device is released'),
]
FINE = [
    f"vfio-pci {GPU}: enabling device (0000 -> 0003)",
    f"vfio-pci {GPU}: vfio_ecap_init: hiding ecap 0x1e@0x258",
    f"vfio-pci {GPU}: resetting",
    f"vfio-pci {GPU}: reset done",
    f"vfio-pci {GPU}: vgaarb: VGA decodes changed: olddecodes=io+mem,decodes=none:owns=none",
    f"vfio-pci {GPU}: Unsupported reset method 'bus'",
    "VFIO - User Level meta-driver version: 0.3",
    "DMAR: Intel(R) Virtualization Technology for Directed I/O",
    "AMD-Vi: Interrupt remapping enabled",
    f"pcieport {PORT}: AER enabled with IRQ 26",
    "usb 1-1: new high-speed USB device number 2 using xhci_hcd",
    "eth0: link becomes ready",
]


@pytest.mark.parametrize(("kind", "addresses", "text"), BAD)
def test_a_complaint_is_known_by_its_text_and_names_its_devices(
    kind: str, addresses: tuple[str, ...], text: str
) -> None:
    assert complaint(text, 1.5) == Complaint(kind, addresses, 1.5, text)


@pytest.mark.parametrize("text", FINE)
def test_what_is_said_when_all_is_well_is_no_complaint(text: str) -> None:
    assert complaint(text) is None


def test_addresses_are_read_in_all_the_ways_that_kernels_write_them() -> None:
    assert addresses_in("a 0000:01:00.0 b 10000:E1:00.0, device=c1:00.0 [01:1f.7] (PCI:0000:41:00)") == (
        "0000:01:00.0",
        "10000:e1:00.0",
        "0000:c1:00.0",
        "0000:01:1f.7",
        "0000:41:00",
    )
    assert addresses_in("mac 00:11:22:33:44:55 at 12:34:56.789, 0000:01:3f.0") == ()


def test_a_port_that_reports_for_another_device_says_nothing_about_ours() -> None:
    other, own, port, slot = (
        Complaint("aer", (PORT, "0000:05:00.0"), 0, "other"),
        Complaint("aer", (PORT, GPU), 0, "own"),
        Complaint("aer", (PORT,), 0, "port"),
        Complaint("xid", ("0000:01:00",), 0, "slot"),
    )
    nameless = Complaint("iommu", (), 0, "nameless")
    ours, others = attribute((other, own, port, slot, nameless), (GPU, SOUND), (PORT,))
    assert ours == (own, port, slot)
    assert others == (other, nameless)


def record(sequence: int, text: str) -> bytes:
    return f"3,{sequence},{sequence * 1000},-;{text}\n SUBSYSTEM=pci\n DEVICE=+pci:{GPU}\n".encode()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kmsg").write_bytes(record(1, f"vfio-pci {GPU}: stuck in D3"))
    return tmp_path


def say(root: Path, *records: bytes) -> None:
    with (root / "dev/kmsg").open("ab") as stream:
        stream.write(b"".join(records))


def test_only_what_was_said_during_the_block_counts(log: Path) -> None:
    with watched(log, (GPU, SOUND), (PORT,)) as result:
        assert result.complaints.not_collected
        say(
            log,
            record(2, "usb 1-1: new device"),
            record(3, f"vfio-pci {SOUND}: not ready 1023ms after bus reset; waiting"),
        )
        say(log, record(4, "DMAR: DRHD: handling fault status reg 2"))
    say(log, record(5, f"vfio-pci {GPU}: stuck in D3"))
    assert [(one.kind, one.seconds) for one in result.complaints.unit] == [("reset", 0.003)]
    assert [one.kind for one in result.complaints.others] == ["iommu"]
    assert (result.complaints.not_collected, result.complaints.lost) == ("", 0)


def test_a_clean_log_says_none_and_one_that_cannot_be_read_never_does(log: Path, tmp_path: Path) -> None:
    with watched(log, (GPU,)) as result:
        pass
    assert result.complaints == HostComplaints()
    assert result.complaints.describe() == "none"
    (log / "dev/kmsg").unlink()
    with watched(log, (GPU,)) as result:
        pass
    assert result.complaints.describe() == "not collected: /dev/kmsg: No such file or directory"


def test_lines_that_were_overwritten_before_they_were_read_are_counted(log: Path) -> None:
    with watched(log, (GPU,)) as result:
        say(log, record(2, "a"), record(12, "b"))
    assert result.complaints.lost == 9
    assert result.complaints.describe() == "9 lines lost"


def test_a_storm_is_counted_and_not_kept(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostlog, "MOST", 5)
    with watched(log, (GPU,)) as result:
        say(log, *(record(number, f"vfio-pci {GPU}: stuck in D3") for number in range(2, 22)))
    assert (len(result.complaints.unit), result.complaints.lost) == (5, 15)


def test_a_reader_that_fails_has_not_seen_a_clean_log(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(text: str, seconds: float) -> None:
        raise ValueError(text)

    monkeypatch.setattr(hostlog, "complaint", fail)
    with watched(log, (GPU,)) as result:
        say(log, record(2, "x"))
    assert "the reader failed" in result.complaints.not_collected


def test_control_characters_of_a_device_do_not_reach_a_terminal(log: Path) -> None:
    with watched(log, (GPU,)) as result:
        say(log, record(2, f"vfio-pci {GPU}: stuck in D3 \x1b[2J"))
    assert result.complaints.unit[0].text.endswith("stuck in D3 ?[2J")


def test_a_record_that_comes_in_two_reads_is_one(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    os.mkfifo(tmp_path / "dev/kmsg")
    whole = record(2, f"vfio-pci {GPU}: stuck in D3")
    with watched(tmp_path, (GPU,)) as result, (tmp_path / "dev/kmsg").open("wb", buffering=0) as stream:
        stream.write(whole[:30])
        time.sleep(0.3)
        stream.write(whole[30:])
    assert [one.kind for one in result.complaints.unit] == ["power"]


def test_no_thread_outlives_the_block(log: Path) -> None:
    with watched(log, (GPU,)):
        assert "host log" in [thread.name for thread in threading.enumerate()]
    assert "host log" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.skipif(not os.access("/dev/kmsg", os.R_OK | os.W_OK), reason="needs the host's log")
def test_the_log_of_this_host_is_read() -> None:
    with watched(Path("/"), ("0000:fe:1f.7",)) as result:
        Path("/dev/kmsg").write_text("<7>kdmatrix-test 0000:fe:1f.7: AER: this is a test of kdmatrix\n")
    assert result.complaints.not_collected == ""
    assert [one.text for one in result.complaints.unit] == [
        "kdmatrix-test 0000:fe:1f.7: AER: this is a test of kdmatrix"
    ]
