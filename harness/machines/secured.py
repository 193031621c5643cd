"""What a booted guest says about Secure Boot: whether it is on, what the kernel locked, which keys it holds."""

from __future__ import annotations

import re

from harness.machines.guest import Guest

STATE = r"""
mountpoint -q /sys/kernel/security || mount -t securityfs securityfs /sys/kernel/security
if [ -d /sys/firmware/efi ]; then
    modprobe -q efivarfs
    mountpoint -q /sys/firmware/efi/efivars || mount -t efivarfs efivarfs /sys/firmware/efi/efivars
fi
echo "secureboot $(od -An -tu1 -j4 -N1 /sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c)"
echo "lockdown $(cat /sys/kernel/security/lockdown)"
echo "enforce $(cat /sys/module/module/parameters/sig_enforce)"
cat /proc/keys
"""
"""Shell program that prints what :func:`secured` reads; what cannot be told is left empty."""

_KEYRING = re.compile(r"\bkeyring\s+(\.[\w-]+): (empty|\d+)$")
_SHOWN = (".builtin_trusted_keys", ".secondary_trusted_keys", ".machine", ".platform")


def secured(said: str, owner: str) -> dict[str, str]:
    """Facts for the record, out of what :data:`STATE` printed; ``owner`` is the name on the machine owner's key."""
    facts = {"secureboot.state": "unknown", "secureboot.lockdown": "unknown", "secureboot.owner_key": "absent"}
    rings: list[str] = []
    for line in said.splitlines():
        word, _, rest = line.partition(" ")
        if word == "secureboot":
            facts["secureboot.state"] = {"1": "enabled", "0": "disabled"}.get(rest.strip(), "unknown")
        elif word == "lockdown":
            chosen = re.search(r"\[(\w+)\]", rest)
            facts["secureboot.lockdown"] = chosen[1] if chosen else "unknown"
        elif word == "enforce":
            facts["secureboot.module_signatures"] = "enforced" if rest.strip() == "Y" else "not enforced"
        elif ring := _KEYRING.search(line):
            if ring[1] in _SHOWN:
                rings.append(f"{ring[1]} {ring[2].replace('empty', '0')}")
        elif owner and " asymmetri " in line and owner in line:
            facts["secureboot.owner_key"] = "held by the kernel"
    facts["secureboot.keyrings"] = ", ".join(sorted(rings))
    return facts


def look(guest: Guest, owner: str, timeout: float) -> dict[str, str]:
    """Ask a guest; see :func:`secured`."""
    return secured(guest.must(["sh", "-c", STATE], timeout=timeout), owner)
