"""What a lab box itself kept of a boot that went wrong: its journal, and the kernel's persistent storage."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.errors import InfraError
from harness.machines.console import Console, Trouble
from harness.machines.labbox.claim import FOLDER
from harness.machines.labbox.remote import Remote

_PSTORE = f"""
find /sys/fs/pstore /var/lib/systemd/pstore -type f -newer {FOLDER}/owner 2>/dev/null | sort | head -n 40 |
while read -r file; do echo "@ $file"; head -c 200000 "$file"; echo; done
"""
"""systemd-pstore moves what the kernel left in /sys/fs/pstore to the second place; systemd-pstore.service(8)."""
_JOURNAL = """
command -v journalctl >/dev/null || exit 0
id=$(journalctl -q -b -1 -n 1 -o json --no-pager 2>/dev/null | sed -n 's/.*"_BOOT_ID" *: *"\\([0-9a-f]*\\)".*/\\1/p')
[ -n "$id" ] && [ "$id" != "$1" ] || exit 0
journalctl -q -b -1 -k -o short-monotonic -n 4000 --no-pager
"""
_AGAINST = (Trouble.PANIC, Trouble.OOPS, Trouble.HARD_LOCKUP, Trouble.SOFT_LOCKUP)


@dataclass(frozen=True, slots=True)
class Remains:
    """What was found."""

    files: dict[str, bytes] = field(default_factory=dict)
    """Evidence by file name."""
    complaint: str = ""
    """What in it speaks against the tested kernel."""


def remains(remote: Remote, release: str, boot_before: str) -> Remains:
    """Look for traces of the boot between ``boot_before`` and the one that runs now.

    Only what names the tested kernel's ``release`` speaks against it: each trace of the kernel does.
    """
    files: dict[str, bytes] = {}
    complaint = ""
    for name, script in (("pstore.txt", _PSTORE), ("journal-lost-boot.txt", _JOURNAL)):
        try:
            text = remote.script(script, boot_before.replace("-", ""))
        except InfraError:
            continue  # nothing is known then, which is what nothing found means, too
        if not text.strip() or release not in text:
            continue
        files[name] = text.encode()
        seen = Console()
        seen.feed(files[name])
        worst = seen.worst(*_AGAINST)
        if worst is not None and not complaint:
            complaint = f"{worst.trouble}: {worst.text} (the box kept it: {name})"
    return Remains(files, complaint)
