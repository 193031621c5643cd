"""What a module leaves in the kernel when it is gone: references, devices, memory, interrupts.

Slab caches are not looked at: the kernel merges caches of the same size, and a merged one keeps whichever name came
first for as long as anybody uses it (mm/slab_common.c), so a name that stays accuses nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from harness.machines.guest import Guest

_KMEMLEAK = "/sys/kernel/debug/kmemleak"
_READ = f"""
echo @modules; cat /proc/modules
echo @sysfs; for name in /sys/module/*/initstate; do name=${{name%/*}}; echo "${{name##*/}}"; done
echo @devices; cat /proc/devices
echo @iomem; cat /proc/iomem
echo @interrupts; cat /proc/interrupts
echo @debugfs; ls /sys/kernel/debug 2>/dev/null
echo @kmemleak; if [ -e {_KMEMLEAK} ]; then
  [ "$1" = fresh ] && echo clear >{_KMEMLEAK}
  [ "$1" = fresh ] || {{ echo scan >{_KMEMLEAK}; grep -o '\\[[a-z0-9_]*\\]' {_KMEMLEAK} | sort -u; }}
fi
echo @end
"""
_PLACES = {
    "sysfs": "/sys/module",
    "devices": "/proc/devices",
    "iomem": "/proc/iomem",
    "interrupts": "/proc/interrupts",
    "debugfs": "/sys/kernel/debug",
    "kmemleak": "kmemleak's list of lost memory",
}


@dataclass(frozen=True, slots=True)
class LoadedModule:
    """A line of ``/proc/modules``."""

    name: str
    references: int
    users: tuple[str, ...]
    """The modules that hold some of the references."""

    @property
    def unexplained(self) -> int:
        """References that no other module holds: open devices, or forgotten ones."""
        return self.references - len(self.users)


@dataclass(frozen=True, slots=True)
class Traces:
    """Where modules leave traces in a kernel, at one moment."""

    modules: dict[str, LoadedModule]
    places: dict[str, frozenset[str]]
    """Entries by place: what they say, without counters and addresses."""


def traces(guest: Guest, timeout: float, *, fresh: bool) -> Traces:
    """Read the traces; ``fresh`` forgets what was lost before, where the kernel keeps track of lost memory.

    Raises:
        GuestLost: the guest is gone, or cannot say.
    """
    said = guest.must(["sh", "-c", _READ, "sh", "fresh" if fresh else "again"], timeout=timeout)
    parts: dict[str, list[str]] = {}
    for line in said.splitlines():
        if line.startswith("@"):
            parts[line[1:]] = []
        elif parts:
            parts[[*parts][-1]].append(line)
    places = {place: frozenset(map(_plain, parts.get(place, []))) for place in _PLACES}
    return Traces(loaded_modules("\n".join(parts.get("modules", []))), places)


def loaded_modules(text: str) -> dict[str, LoadedModule]:
    """Parse ``/proc/modules``: name, size, references, users with a comma after each, state, address."""
    found = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) > 3 and fields[2].isdigit():
            users = tuple(one for one in fields[3].split(",") if one not in ("", "-"))
            # "[permanent]" and the like are marks, not users.
            users = tuple(one for one in users if not one.startswith("["))
            found[fields[0]] = LoadedModule(fields[0], int(fields[2]), users)
    return found


def needed_by(names: Iterable[str], modules: bytes) -> set[str]:
    """The loaded modules that any of ``names`` uses, directly or through others."""
    loaded = loaded_modules(modules.decode("utf-8", "replace"))
    found: set[str] = set()
    wanted = set(names)
    while wanted:
        new = {one.name for one in loaded.values() if wanted.intersection(one.users)} - found
        found |= new
        wanted = new
    return found - set(names)


def holders(name: str, modules: bytes) -> str:
    """Who keeps a module that does not go."""
    module = loaded_modules(modules.decode("utf-8", "replace")).get(name)
    if module is None:
        return "it is gone"
    users = f"by {', '.join(module.users)}" if module.users else "by no module"
    return f"{module.references} references, held {users}"


def leaks(before: Traces, after: Traces, names: Iterable[str], needed: Iterable[str]) -> list[str]:
    """What the modules ``names`` left behind after their removal, and the references that they still hold on others."""
    found = []
    words = {name: re.compile(rf"(?<![a-z0-9]){re.escape(name)}(?![a-z0-9])") for name in names}
    for place, where in _PLACES.items():
        for entry in sorted(after.places[place] - before.places[place]):
            name = next((name for name, word in words.items() if word.search(entry.replace("-", "_").lower())), "")
            if name:
                found.append(f"{where} still has {entry!r}")
    for name in sorted(needed):
        left = after.modules.get(name)
        held = before.modules[name].unexplained if name in before.modules else 0
        if left is not None and left.unexplained > held:
            found.append(f"{name} is held by {left.unexplained - held} references more than before, and by no module")
    return found


def _plain(entry: str) -> str:
    """An entry without what changes by itself: counters of interrupts, addresses of memory, numbers of devices."""
    entry = re.sub(r"^\s*[0-9a-f]+-[0-9a-f]+ : ", "", entry)
    entry = re.sub(r"^\s*\w+:(\s+\d+)+\s*", "", entry)
    return re.sub(r"^\s*\d+ ", "", entry).strip()
