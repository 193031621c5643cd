"""What a guest prints about Secure Boot becomes facts, and what it does not say stays unknown."""

from __future__ import annotations

from harness.machines.secured import secured

OWNER = "kdmatrix lab 81a54729"
SAID = f"""secureboot    1
lockdown none [integrity] confidentiality
enforce Y
01c2d3e4 I------     1 perm 1f0b0000     0     0 keyring   .builtin_trusted_keys: 1
0a0b0c0d I------     1 perm 1f0f0000     0     0 keyring   .machine: 2
0a0b0c0e I------     1 perm 1f0f0000     0     0 keyring   .platform: empty
0a0b0c0f I--Q---     1 perm 1f3f0000     0 65534 keyring   _uid.0: empty
1a2b3c4d I------     1 perm 1f030000     0     0 asymmetri {OWNER}: 92140cc92ef5287e: X509.rsa 57b0c410 []
"""


def test_a_locked_guest_is_read() -> None:
    assert secured(SAID, OWNER) == {
        "secureboot.state": "enabled",
        "secureboot.lockdown": "integrity",
        "secureboot.module_signatures": "enforced",
        "secureboot.owner_key": "held by the kernel",
        "secureboot.keyrings": ".builtin_trusted_keys 1, .machine 2, .platform 0",
    }


def test_a_key_of_somebody_else_is_not_the_owners() -> None:
    assert secured(SAID, "kdmatrix lab 00000000")["secureboot.owner_key"] == "absent"


def test_secure_boot_that_is_off_is_said() -> None:
    off = SAID.replace("secureboot    1", "secureboot    0").replace("enforce Y", "enforce N")
    facts = secured(off.replace("none [integrity]", "[none] integrity"), OWNER)
    assert facts["secureboot.state"] == "disabled"
    assert facts["secureboot.lockdown"] == "none"
    assert facts["secureboot.module_signatures"] == "not enforced"


def test_a_guest_that_cannot_tell_leaves_it_unknown() -> None:
    facts = secured("secureboot \nlockdown \nenforce \n", OWNER)
    assert facts["secureboot.state"] == facts["secureboot.lockdown"] == "unknown"
