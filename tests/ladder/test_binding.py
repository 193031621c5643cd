"""Which driver holds a device, from what a guest's sysfs says."""

from __future__ import annotations

import pytest

from harness.ladder.binding import misbound, pci_functions
from harness.model.outcome import Outcome
from ladder.scripted_guest import FakeShell, a_guest

PCI = """0000:00:01.0 0x038000 0x1234 0x1111 bochs-drm
0000:00:02.0 0x020000 0x1af4 0x1041 virtio-pci
0000:01:00.0 0x030000 0x10de 0x2684 nova-core
0000:01:00.1 0x040300 0x10de 0x22ba snd_hda_intel
0000:02:00.0 0x120000 0x1002 0x74a1
"""


def test_functions_are_read_with_class_and_driver() -> None:
    functions = pci_functions(a_guest(FakeShell(pci=PCI)), 10.0)
    assert [(one.address, one.driver, one.computes) for one in functions] == [
        ("0000:00:01.0", "bochs-drm", False),
        ("0000:00:02.0", "virtio-pci", False),
        ("0000:01:00.0", "nova-core", True),
        ("0000:01:00.1", "snd_hda_intel", False),
        ("0000:02:00.0", "", True),
    ]


@pytest.mark.parametrize(
    ("drivers", "among", "outcome", "reason"),
    [
        (["virtio-pci"], ["0000:00:02.0"], Outcome.PASS, ""),
        (["nova_core"], ["0000:01:00.0"], Outcome.PASS, ""),
        (["nvidia"], ["0000:01:00.0"], Outcome.FAIL, "0000:01:00.0 (10de:2684) is held by nova-core; expected nvidia"),
        (["amdgpu"], ["0000:02:00.0"], Outcome.FAIL, "0000:02:00.0 (1002:74a1) is bound to no driver; expected amdgpu"),
        (["amdgpu"], ["0000:09:00.0"], Outcome.MISS, "the guest sees no display device or accelerator"),
    ],
)
def test_a_rival_or_nobody_at_the_device_is_a_finding(
    drivers: list[str], among: list[str], outcome: Outcome, reason: str
) -> None:
    found, why, _ = misbound(a_guest(FakeShell(pci=PCI)), drivers, 10.0, among)
    assert found is outcome
    assert why.startswith(reason)


def test_by_default_only_devices_that_were_handed_in_are_judged() -> None:
    outcome, reason, seen = misbound(a_guest(FakeShell(pci=PCI)), ["amdgpu", "nova-core"], 10.0)
    assert outcome is Outcome.FAIL
    assert reason == "0000:02:00.0 (1002:74a1) is bound to no driver; expected amdgpu or nova-core"
    assert seen == {"0000:01:00.0": "nova-core", "0000:02:00.0": "none"}
