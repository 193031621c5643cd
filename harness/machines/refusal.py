"""Why a kernel refused a module because of its signature, in words that say which of the reasons it was.

Sources: kernel/module/signing.c, security/lockdown/lockdown.c, crypto/asymmetric_keys/pkcs7_verify.c, strerror(3).
"""

from __future__ import annotations

_UNSIGNED = "Loading of unsigned module is rejected"
_NO_KEY = "Loading of module with unavailable key is rejected"
_NO_CRYPTO = "Loading of module with unsupported crypto is rejected"
_LOCKED = "unsigned module loading is restricted"
_REJECTED = "Key was rejected by service"
_MALFORMED = "Bad message"


def refusal(stderr: str, messages: str, signer: str) -> str | None:
    """Return why a module's signature kept it out; None when something else did.

    ``stderr`` is modprobe's, ``messages`` what the kernel logged while it loaded, and ``signer`` the name that
    ``modinfo`` shows, empty for a module without a signature. A locked down kernel that does not enforce signatures
    calls a module unsigned when it merely lacks the key, so a known signer decides between the two.
    """
    said = f"{stderr}\n{messages}"
    if not signer:
        unsigned = any(needle in said for needle in (_UNSIGNED, _LOCKED, _REJECTED))
        return "refused: the module is unsigned, and this kernel loads signed modules only" if unsigned else None
    if _NO_CRYPTO in messages:
        return f"refused: the module is signed by {signer} in a way that this kernel cannot verify"
    if _NO_KEY in messages or _LOCKED in messages:
        return f"refused: the module is signed by {signer}, whom this kernel does not trust"
    if _REJECTED in stderr or _MALFORMED in stderr:
        return f"refused: the signature by {signer} does not fit the module, or its key is revoked"
    return None
