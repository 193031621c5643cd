"""Which boot entry boots which release, for what systemd-boot and GRUB really print."""

from __future__ import annotations

import json

import pytest

from harness.errors import InfraError
from harness.machines.labbox.entries import (
    BootEntry,
    bls_entries,
    choose,
    grub_entries,
    newest_first,
    systemd_boot_entries,
)

GRUB = r"""
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
fi
function gfxmode {
	set gfxpayload="${1}"
}
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-77ca' {
	load_video
	if [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
	search --no-floppy --fs-uuid --set=root 77ca
	linux	/boot/vmlinuz-6.12.9-amd64 root=UUID=77ca ro  quiet
	initrd	/boot/initrd.img-6.12.9-amd64
}
submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-77ca' {
	menuentry 'Debian GNU/Linux, with Linux 6.1.0-50-amd64' --class os $menuentry_id_option 'gnulinux-6.1-adv' {
		linux	/boot/vmlinuz-6.1.0-50-amd64 root=UUID=77ca ro  quiet
	}
	menuentry 'Debian, 6.1.0-5-amd64 > old' {
		linux	/boot/vmlinuz-6.1.0-5-amd64 root=UUID=77ca ro
	}
}
menuentry 'UEFI Firmware Settings' $menuentry_id_option 'uefi-firmware' {
	fwsetup
}
"""


def test_entries_of_grub_are_told_by_the_path_that_grub_reboot_takes() -> None:
    assert [(one.id, one.kernel) for one in grub_entries(GRUB)] == [
        ("gnulinux-simple-77ca", "/boot/vmlinuz-6.12.9-amd64"),
        ("gnulinux-advanced-77ca>gnulinux-6.1-adv", "/boot/vmlinuz-6.1.0-50-amd64"),
        ("gnulinux-advanced-77ca>Debian, 6.1.0-5-amd64 >> old", "/boot/vmlinuz-6.1.0-5-amd64"),
    ]


def test_entries_of_systemd_boot_are_those_that_boot_a_kernel() -> None:
    unified = "/boot/EFI/Linux/fedora-7.3.4-200.fc44.x86_64.efi"
    said = [
        {"type": "type1", "id": "a.conf", "root": "/efi", "linux": "/m/6.1.0-50-amd64/linux", "version": "6.1.0"},
        {"type": "type2", "id": "fedora.efi", "path": unified, "root": "/boot"},
        {"type": "auto", "id": "auto-reboot-to-firmware-setup", "path": "/sys/firmware"},
    ]
    entries = systemd_boot_entries(json.dumps(said))
    assert [one.id for one in entries] == ["a.conf", "fedora.efi"]
    assert entries[0].kernel == "/efi/m/6.1.0-50-amd64/linux"
    assert entries[1].boots("7.3.4-200.fc44.x86_64")
    for wrong in ("", "null", "{}", "[1]", "[{}]", "no boot loader"):
        with pytest.raises(InfraError, match="bootctl lists no boot entries"):
            systemd_boot_entries(wrong)


def test_entries_of_the_boot_loader_specification_are_called_after_their_files() -> None:
    text = (
        "@ /boot/loader/entries/abc-7.3.4.conf\ntitle Fedora\nversion 7.3.4-200.fc44.x86_64\nlinux /vmlinuz-7.3.4\n\n"
    )
    assert bls_entries(text) == [BootEntry("abc-7.3.4", "7.3.4-200.fc44.x86_64", "/vmlinuz-7.3.4")]


@pytest.mark.parametrize(
    ("path", "boots"),
    [
        ("/vmlinuz-6.1.0-5-amd64", True),
        ("/debian/6.1.0-5-amd64/linux", True),
        ("/EFI/Linux/debian-6.1.0-5-amd64.efi", True),
        ("/vmlinuz-6.1.0-50-amd64", False),
        ("/vmlinuz-16.1.0-5-amd64", False),
        ("/vmlinuz-6.1.0-5-amd64-rt", False),
        ("/vmlinuz-6.1.0-5-amd64.1", False),
        ("", False),
    ],
)
def test_a_file_named_after_a_longer_release_boots_another_kernel(path: str, boots: bool) -> None:
    assert BootEntry("x", kernel=path).boots("6.1.0-5-amd64") is boots


def test_releases_are_compared_as_numbers_and_candidates_come_before_releases() -> None:
    order = ["6.12.10-amd64", "6.12.9-amd64", "6.12.0", "6.12.0-rc7", "6.12.0-rc2", "6.1.0-50-amd64", "6.1.0-5-amd64"]
    assert newest_first(reversed(order)) == order


def test_the_newest_release_that_fits_and_can_be_booted_is_chosen() -> None:
    entries = [BootEntry("old", "6.12.9"), BootEntry("new", "6.12.10"), BootEntry("other", "7.0.1")]
    assert choose("6.12.*", "", ["6.12.9", "7.0.1", "6.12.10", "6.12.11"], entries) == ("6.12.10", entries[1])
    assert choose("6.12.*", "old", ["6.12.9", "6.12.10"], entries) == ("6.12.9", entries[0])


@pytest.mark.parametrize(
    ("pattern", "entry", "complaint"),
    [
        ("5.*", "", "no installed kernel fits 5.*; installed are: 6.12.9, 6.1.1"),
        ("6.*", "none", "there is no boot entry none; there are: a (6.12.9), b (6.12.9)"),
        ("6.12.*", "", "several boot entries boot 6.12.9: a (6.12.9), b (6.12.9); name one: entry: a"),
        ("6.1.*", "", "no boot entry boots 6.1.1; there are: a (6.12.9), b (6.12.9)"),
        ("6.1.*", "a", "boot entry a boots none of 6.1.1; there are: a (6.12.9), b (6.12.9)"),
    ],
)
def test_what_cannot_be_chosen_says_what_there_is(pattern: str, entry: str, complaint: str) -> None:
    with pytest.raises(InfraError) as error:
        choose(pattern, entry, ["6.1.1", "6.12.9"], [BootEntry("a", "6.12.9"), BootEntry("b", "6.12.9")])
    assert str(error.value) == complaint
