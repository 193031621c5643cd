"""Chooses a kernel of a lab box for one boot only, so that whatever happens, the next boot is the default kernel's.

Three ways: systemd-boot takes the variable ``LoaderEntryOneShot`` out of the firmware before it starts what it names;
GRUB takes ``next_entry`` out of its environment block; and kexec leaves no trace at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from harness.errors import InfraError
from harness.machines.labbox.entries import BootEntry, bls_entries, choose, grub_entries, systemd_boot_entries
from harness.machines.labbox.remote import Remote
from harness.model.cell import InstalledKernel
from harness.model.machine import BootMethod

_ONESHOT = "/sys/firmware/efi/efivars/LoaderEntryOneShot-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
"""https://systemd.io/BOOT_LOADER_INTERFACE"""

_RELEASES = 'for one in /lib/modules/*/modules.dep; do one=${one%/modules.dep}; echo "${one##*/}"; done'

_FILES = """
for kernel in /boot/vmlinuz-$1 /lib/modules/$1/vmlinuz /boot/vmlinux-$1 /boot/linux-$1; do
  [ -f "$kernel" ] && break; kernel=; done
for initrd in /boot/initrd.img-$1 /boot/initramfs-$1.img /boot/initrd-$1 /boot/initrd-$1.img; do
  [ -f "$initrd" ] && break; initrd=; done
echo "$kernel"; echo "$initrd"; cat /proc/cmdline
"""

_GRUB = """
for folder in /boot/grub /boot/grub2; do [ -f $folder/grub.cfg ] && break; done
[ -f $folder/grub.cfg ] || { echo "there is no grub.cfg below /boot" >&2; exit 1; }
reboot=$(command -v grub-reboot || command -v grub2-reboot) || { echo "grub-reboot is not installed" >&2; exit 1; }
editenv=$(command -v grub-editenv || command -v grub2-editenv) || { echo "grub-editenv is not installed" >&2; exit 1; }
probe=$(command -v grub-probe || command -v grub2-probe) || { echo "grub-probe is not installed" >&2; exit 1; }
echo "$folder"; echo "$reboot"; echo "$editenv"
[ -f $folder/grubenv ] || "$editenv" $folder/grubenv create
echo "$("$probe" --target=abstraction $folder/grubenv 2>/dev/null) $("$probe" --target=fs $folder/grubenv)"
cat $folder/grub.cfg
"""

_READ_ONLY = {"btrfs", "zfs", "cryptodisk", "diskfilter", "lvm", "mdraid09", "mdraid1x", "luks", "luks2"}
"""Where GRUB reads its environment block and cannot write it: it would never forget ``next_entry``
(https://www.gnu.org/software/grub/manual, Environment block)."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A kernel that a box is about to boot once."""

    release: str
    entry: str
    fire: tuple[str, ...] = ("systemctl", "reboot")
    """The command that leaves the running kernel for it."""


class OneShot(Protocol):
    """A way to choose a kernel for one boot."""

    def find(self, remote: Remote, wanted: InstalledKernel) -> tuple[str, BootEntry]:
        """Return the release that is meant, and what boots it. Raises InfraError."""
        ...

    def arm(self, remote: Remote, release: str, entry: BootEntry, more: str) -> Chosen:
        """Have the next boot be that one, and check that it will be. Raises InfraError.

        ``more`` are kernel arguments to add, where the way allows to.
        """
        ...

    def armed(self, remote: Remote) -> bool:
        """Whether a next boot is still chosen: after a boot, that means that the loader did not forget it."""
        ...

    def disarm(self, remote: Remote) -> None:
        """Have the next boot be the default again. Raises InfraError."""
        ...


def one_shot(method: BootMethod) -> OneShot:
    """The way that a matrix names."""
    ways: dict[BootMethod, OneShot] = {"systemd-boot": SystemdBoot(), "grub": Grub(), "kexec": Kexec()}
    return ways[method]


def _releases(remote: Remote) -> list[str]:
    return [one for one in remote.script(_RELEASES).split() if one != "*"]


class SystemdBoot:
    """``bootctl set-oneshot``."""

    def find(self, remote: Remote, wanted: InstalledKernel) -> tuple[str, BootEntry]:
        """See :meth:`OneShot.find`."""
        entries = systemd_boot_entries(remote.ask(["bootctl", "list", "--json=short", "--no-pager"]))
        return choose(wanted.pattern, wanted.entry, _releases(remote), entries)

    def arm(self, remote: Remote, release: str, entry: BootEntry, more: str) -> Chosen:
        """See :meth:`OneShot.arm`."""
        remote.ask(["bootctl", "set-oneshot", entry.id])
        if not self.armed(remote):
            raise InfraError(f"{remote.box}: bootctl set no one-time entry; the firmware did not keep the variable")
        return Chosen(release, entry.id)

    def armed(self, remote: Remote) -> bool:
        """See :meth:`OneShot.armed`."""
        return remote.script(f"if [ -e {_ONESHOT} ]; then echo yes; fi").strip() == "yes"

    def disarm(self, remote: Remote) -> None:
        """See :meth:`OneShot.disarm`."""
        if self.armed(remote):
            remote.ask(["bootctl", "set-oneshot", ""])


class Grub:
    """``grub-reboot``, or ``grub2-reboot``."""

    def find(self, remote: Remote, wanted: InstalledKernel) -> tuple[str, BootEntry]:
        """See :meth:`OneShot.find`."""
        return choose(wanted.pattern, wanted.entry, _releases(remote), self._entries(remote))

    def arm(self, remote: Remote, release: str, entry: BootEntry, more: str) -> Chosen:
        """See :meth:`OneShot.arm`."""
        remote.ask([_grub(remote).reboot, entry.id])
        if not self.armed(remote):
            raise InfraError(f"{remote.box}: grub-reboot left no next_entry in GRUB's environment block")
        return Chosen(release, entry.id)

    def armed(self, remote: Remote) -> bool:
        """See :meth:`OneShot.armed`."""
        grub = _grub(remote)
        lines = remote.ask([grub.editenv, grub.environment, "list"]).splitlines()
        return any(line.startswith("next_entry=") and line != "next_entry=" for line in lines)

    def disarm(self, remote: Remote) -> None:
        """See :meth:`OneShot.disarm`."""
        grub = _grub(remote)
        remote.ask([grub.editenv, grub.environment, "unset", "next_entry"])

    def _entries(self, remote: Remote) -> list[BootEntry]:
        grub = _grub(remote)
        grub.check(remote)
        entries = grub_entries(grub.config)
        if "blscfg" in grub.config:
            listed = 'for one in /boot/loader/entries/*.conf; do [ -f "$one" ] && echo "@ $one" && cat "$one"; done; :'
            entries += bls_entries(remote.script(listed))
        return entries


@dataclass(frozen=True, slots=True)
class _GrubFiles:
    folder: str
    reboot: str
    editenv: str
    where: tuple[str, ...]
    """What its environment block lies on: abstractions, then the file system."""
    config: str

    @property
    def environment(self) -> str:
        return f"{self.folder}/grubenv"

    def check(self, remote: Remote) -> None:
        """Refuse a GRUB that would boot the chosen kernel for ever."""
        if "save_env next_entry" not in self.config:
            raise InfraError(
                f"{remote.box}: {self.folder}/grub.cfg does not know next_entry; set GRUB_DEFAULT=saved in "
                "/etc/default/grub and make grub.cfg anew, or say boot: kexec"
            )
        bad = [one for one in self.where if one in _READ_ONLY]
        if bad:
            raise InfraError(
                f"{remote.box}: {self.environment} lies on {bad[0]}, which GRUB cannot write, so it would boot the "
                "chosen kernel again and again; say boot: kexec"
            )


def _grub(remote: Remote) -> _GrubFiles:
    folder, reboot, editenv, where, *config = remote.script(_GRUB).split("\n")
    return _GrubFiles(folder, reboot, editenv, tuple(where.split()), "\n".join(config))


class Kexec:
    """``kexec``: the running kernel starts the other one; firmware and boot loader never hear of it."""

    def find(self, remote: Remote, wanted: InstalledKernel) -> tuple[str, BootEntry]:
        """See :meth:`OneShot.find`. There are no entries; the files say what can be started."""
        if wanted.entry:
            raise InfraError(f"{remote.box}: boot: kexec knows no boot entries; leave entry: {wanted.entry} out")
        releases = _releases(remote)
        entries = [BootEntry(f"kexec {one}", one, kernel) for one in releases if (kernel := _files(remote, one)[0])]
        return choose(wanted.pattern, "", releases, entries)

    def arm(self, remote: Remote, release: str, entry: BootEntry, more: str) -> Chosen:
        """See :meth:`OneShot.arm`."""
        kernel, initrd, cmdline = _files(remote, release)
        words = [word for word in cmdline.split() if not word.startswith(("BOOT_IMAGE=", "initrd="))]
        argv = ["kexec", "--load", kernel, f"--command-line={' '.join([*words, *more.split()])}"]
        remote.ask([*argv, f"--initrd={initrd}"] if initrd else argv)
        if not self.armed(remote):
            raise InfraError(f"{remote.box}: kexec loaded no kernel")
        return Chosen(release, entry.id, ("systemctl", "kexec"))

    def armed(self, remote: Remote) -> bool:
        """See :meth:`OneShot.armed`."""
        return remote.script("cat /sys/kernel/kexec_loaded 2>/dev/null || echo 0").strip() == "1"

    def disarm(self, remote: Remote) -> None:
        """See :meth:`OneShot.disarm`."""
        if self.armed(remote):
            remote.ask(["kexec", "--unload"])


def _files(remote: Remote, release: str) -> tuple[str, str, str]:
    """Paths of kernel and initramfs, and the command line of the running kernel."""
    kernel, initrd, cmdline = remote.script(_FILES, release).split("\n")[:3]
    return kernel, initrd, cmdline
