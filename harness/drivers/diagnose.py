"""Reads a build log: the first error, the kernel's symbol at fault, and signs that the build root is to blame.

Sources: GCC's and Clang's diagnostic formats, scripts/mod/modpost.c, GNU make's manual (errors).
"""

from __future__ import annotations

import re

from harness.drivers.result import CompilerError

_COMPILE = re.compile(
    r"^(?P<file>[^\s:][^:\n]*):(?P<line>\d+)(?::\d+)?: (?:fatal )?error: (?P<message>.+)$", re.MULTILINE
)
_MODPOST = re.compile(r"^(?:ERROR|FATAL): modpost: (?P<message>.+)$", re.MULTILINE)
_OBJTOOL = re.compile(r"^(?P<file>\S+\.o): (?:error|warning): objtool: (?P<message>.+)$", re.MULTILINE)
_LINK = re.compile(r"^(?:\S*ld(?:\.\w+)?): (?P<message>.+)$", re.MULTILINE)
_MAKE = re.compile(r"^make(?:\[\d+\])?: \*\*\* (?P<message>.+)$", re.MULTILINE)
_SYMBOLS = tuple(
    re.compile(pattern)
    for pattern in (
        r"^(?P<symbol>[\w./-]+\.h): No such file or directory",
        r"implicit declaration of function ['‘](?P<symbol>\w+)['’]",
        r"has no member named ['‘](?P<symbol>\w+)['’]",
        r"(?:too (?:few|many) arguments to function|incompatible type for argument \d+ of) ['‘](?P<symbol>\w+)",
        r"passing argument \d+ of ['‘](?P<symbol>\w+)['’]",
        r"['‘](?:struct |union |enum )?(?P<symbol>\w+)[^'’]*['’] (?:undeclared|has no|has incomplete|declared inside)",
        r"unknown type name ['‘](?P<symbol>\w+)['’]",
        r"invalid use of (?:undefined|incomplete)[^'‘]*['‘](?:(?:struct|union|enum) )?(?P<symbol>\w+)['’]",
        r"conflicting types for ['‘](?P<symbol>\w+)['’]",
        r"(?:redefinition|redeclaration) of ['‘](?:struct |union |enum )?(?P<symbol>\w+)",
        r"initialization of ['‘].+['’] from incompatible pointer type",
        r"['\"‘](?P<symbol>\w+)['\"’] \[\S+\] undefined",
        r"GPL-incompatible module \S+ uses GPL-only symbol ['\"‘](?P<symbol>\w+)",
        r"uses symbol (?P<symbol>\w+) from namespace",
        r"undefined reference to [`'‘](?P<symbol>\w+)",
        r"['‘](?:const )?(?:struct |union |enum )?(?P<symbol>\w+)[^'’]*['’]",
    )
)
_NEAR = re.compile(
    r"(?:(?!.*\b(?:error|warning): ).*\n){1,8}?.*near initialization for ['‘][^.'’]*\.(?P<member>[\w.]+)['’]\)"
)
"""A note of the same error: no other error stands in between."""
_NOTE_WITHIN = 2000
"""Characters."""
_INFRASTRUCTURE = tuple(
    (re.compile(pattern, re.MULTILINE), reason)
    for pattern, reason in (
        (r"No space left on device", "no space left in the build root"),
        (r"(?:fatal error: )?Killed(?: signal terminated program \w+)?$", "the compiler was killed: out of memory?"),
        (r"[Cc]annot allocate memory|virtual memory exhausted", "the build root ran out of memory"),
        (r"cannot execute ['‘]?(?:cc1|as|collect2|ld)\b", "the build root's compiler is not complete"),
        (
            r"pahole: (?:command )?not found|pahole: unrecognized option",
            "the build root's pahole does not fit the kernel",
        ),
        (
            r"(?:^|[\s/:])(?:[\w]+-linux-gnu-)?(?:gcc|clang|ld|ccache)(?:-\d+)?: "
            r"(?:not found|command not found|No such file or directory)$",
            "the build root lacks the kernel's compiler",
        ),
        (r"read_stack_limit: fopen failed", "the build root has no /proc, which objtool reads"),
        (r"version [`'‘]GLIBC_[\d.]+['’] not found", "the headers' programs need a newer C library"),
        (r"incompatible gcc/plugin versions", "the kernel's compiler plugins are made for another compiler"),
    )
)


def first_error(log: str) -> CompilerError | None:
    """The first error of a build log; None when it holds none that is known."""
    for match in _COMPILE.finditer(log):
        # Probes for the kernel's interfaces are meant to fail; their files are called so.
        if "conftest" not in match["file"]:
            message = match["message"].strip()
            symbol = _symbol(message) or _member(log[match.end() : match.end() + _NOTE_WITHIN])
            return CompilerError(message, match["file"], int(match["line"]), symbol)
    for pattern, kind in ((_MODPOST, "link"), (_OBJTOOL, "objtool"), (_LINK, "link"), (_MAKE, "make")):
        found = pattern.search(log)
        if found and (kind != "objtool" or "error: objtool" in found[0]):
            message = found["message"].strip()
            return CompilerError(message, found.groupdict().get("file") or "", 0, _symbol(message), kind)
    return None


def infrastructure_fault(log: str) -> str:
    """Why a failed build says nothing about the driver; empty when it does say something."""
    return next((reason for pattern, reason in _INFRASTRUCTURE if pattern.search(log)), "")


def _member(rest: str) -> str:
    """The member whose type changed, from the note that follows: ``notify.fn`` of ``(near initialization for …)``."""
    note = _NEAR.match(rest)
    return note["member"] if note else ""


def _symbol(message: str) -> str:
    for pattern in _SYMBOLS:
        if match := pattern.search(message):
            return match.groupdict().get("symbol") or ""
    return ""
