"""What is told from the traces of modules before and after."""

from __future__ import annotations

import pytest

from harness.ladder.leaks import Traces, holders, leaks, loaded_modules, needed_by, traces
from ladder.scripted_guest import FakeShell, a_guest, said

LIVE = b"""nvidia_drm 131072 0 - Live 0x0000000000000000 (POE)
nvidia 62000000 2 nvidia_drm,nvidia_uvm, Live 0x0000000000000000 (POE)
drm_kms_helper 253952 1 nvidia_drm, Live 0x0000000000000000
drm 774144 4 nvidia_drm,drm_kms_helper, Live 0x0000000000000000
ext4 1146880 1 - Live 0x0000000000000000
forever 4096 1 [permanent], Live 0x0000000000000000
"""
SAID = """@modules
drm 774144 1 - Live 0x0
@sysfs
drm
@devices
Character devices:
195 nvidia-frontend
@iomem
  fe000000-fe000fff : nvidia
@interrupts
 24:          1          0   PCI-MSI 524288-edge      nvidia
@debugfs
@kmemleak
[nvidia]
@end
"""


def before(**places: str) -> Traces:
    names = ("sysfs", "devices", "iomem", "interrupts", "debugfs", "kmemleak")
    return Traces({}, {name: frozenset(places.get(name, "").split("\n")) for name in names})


def test_lines_of_proc_modules_tell_references_from_users() -> None:
    modules = loaded_modules(LIVE.decode())
    assert (modules["drm"].references, modules["drm"].unexplained) == (4, 2)
    assert modules["nvidia"].users == ("nvidia_drm", "nvidia_uvm")
    assert modules["forever"].users == ()


def test_what_a_module_needs_is_found_through_others() -> None:
    assert needed_by({"nvidia_drm"}, LIVE) == {"nvidia", "drm_kms_helper", "drm"}
    assert needed_by({"ext4"}, LIVE) == set()


def test_who_holds_a_module_is_told() -> None:
    assert holders("nvidia", LIVE) == "2 references, held by nvidia_drm, nvidia_uvm"
    assert holders("ext4", LIVE) == "1 references, held by no module"
    assert holders("gone", LIVE) == "it is gone"


def test_every_place_in_which_a_removed_module_is_still_named_is_found() -> None:
    after = traces(a_guest(FakeShell(answers={"sh -c": said(SAID)})), 10.0, fresh=False)
    found = leaks(before(), after, ["nvidia"], [])
    assert found == [
        "/proc/devices still has 'nvidia-frontend'",
        "/proc/iomem still has 'nvidia'",
        "/proc/interrupts still has 'PCI-MSI 524288-edge      nvidia'",
        "kmemleak's list of lost memory still has '[nvidia]'",
    ]


def test_what_was_there_before_and_what_only_resembles_a_name_is_no_leak() -> None:
    after = traces(a_guest(FakeShell(answers={"sh -c": said(SAID)})), 10.0, fresh=False)
    assert leaks(after, after, ["nvidia"], []) == []
    assert leaks(before(), after, ["xe"], []) == []


@pytest.mark.parametrize(("references", "found"), [(0, 0), (1, 1), (3, 1)])
def test_a_reference_that_a_removed_module_still_holds_on_another_is_a_leak(references: int, found: int) -> None:
    after = Traces(loaded_modules(f"drm 1 {references} - Live 0x0"), before().places)
    assert len(leaks(before(), after, ["nvidia"], ["drm"])) == found
    was = Traces(loaded_modules("drm 1 3 - Live 0x0"), before().places)
    assert leaks(was, after, ["nvidia"], ["drm"]) == []


def test_lost_memory_is_forgotten_before_and_looked_for_after() -> None:
    shell = FakeShell()
    for fresh in (True, False):
        traces(a_guest(shell), 10.0, fresh=fresh)
    assert [line.rsplit(" ", 1)[1] for line in shell.ran] == ["fresh", "again"]
