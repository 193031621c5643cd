"""Each way in which a signature keeps a module out is told from the others, and from every other failure."""

from __future__ import annotations

import pytest

from harness.machines.refusal import refusal

REJECTED = "modprobe: ERROR: could not insert 'x': Key was rejected by service"
DENIED = "modprobe: ERROR: could not insert 'x': Operation not permitted"
UNSIGNED = "Loading of unsigned module is rejected"
NO_KEY = "Loading of module with unavailable key is rejected"
LOCKED = "Lockdown: modprobe: unsigned module loading is restricted; see man kernel_lockdown.7"


@pytest.mark.parametrize(
    ("stderr", "messages", "signer", "says"),
    [
        (REJECTED, UNSIGNED, "", "the module is unsigned"),
        (REJECTED, "", "", "the module is unsigned"),
        (DENIED, LOCKED, "", "the module is unsigned"),
        (REJECTED, NO_KEY, "somebody", "signed by somebody, whom this kernel does not trust"),
        # A kernel that is locked down and does not enforce signatures calls a foreign signature none at all.
        (DENIED, LOCKED, "somebody", "signed by somebody, whom this kernel does not trust"),
        (REJECTED, "", "somebody", "the signature by somebody does not fit the module"),
        ("modprobe: ERROR: could not insert 'x': Bad message", "", "somebody", "does not fit the module"),
        (
            "modprobe: ERROR: could not insert 'x': Package not installed",
            "Loading of module with unsupported crypto is rejected",
            "somebody",
            "in a way that this kernel cannot verify",
        ),
    ],
    ids=["enforced", "silent", "locked", "foreign", "foreign-locked", "changed", "malformed", "algorithm"],
)
def test_the_reason_says_which_refusal_it_was(stderr: str, messages: str, signer: str, says: str) -> None:
    said = refusal(stderr, messages, signer)
    assert said is not None
    assert said.startswith("refused: ")
    assert says in said


@pytest.mark.parametrize(
    ("stderr", "messages"),
    [
        ("modprobe: ERROR: could not insert 'x': No such device", ""),
        ("modprobe: ERROR: could not insert 'x': Unknown symbol in module", "x: Unknown symbol foo (err -2)"),
        (DENIED, "Lockdown: modprobe: unsafe module parameters is restricted; see man kernel_lockdown.7"),
        ("modprobe: ERROR: could not insert 'x': Exec format error", "x: version magic 'a' should be 'b'"),
        ("", "x: module verification failed: signature and/or required key missing - tainting kernel"),
    ],
    ids=["device", "symbol", "parameter", "vermagic", "tolerated"],
)
@pytest.mark.parametrize("signer", ["", "somebody"])
def test_what_has_nothing_to_do_with_signatures_is_left_to_others(stderr: str, messages: str, signer: str) -> None:
    assert refusal(stderr, messages, signer) is None
