"""Proves a build by its products: the module files, what they say of themselves, and for which kernel they are made.

Source: modinfo(8); the kernel compares vermagic in kernel/module/main.c (same_magic).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.drivers.result import ModuleFile
from harness.hostcmd import must
from harness.placing import sha256_file

_FIELDS = ("vermagic", "version", "srcversion", "license", "signer", "depends")


def read_module(path: Path) -> ModuleFile:
    """What one module file says of itself.

    Raises:
        InfraError: ``modinfo`` cannot read it.
    """
    said: dict[str, str] = {}
    for entry in must(["modinfo", "--null", path], timeout=60).decode(errors="replace").split("\0"):
        name, _, value = entry.partition("=")
        said.setdefault(name, value.strip())
    return ModuleFile(path.stem, sha256_file(path), **{name: said.get(name, "") for name in _FIELDS})


def complaint(modules: Sequence[ModuleFile], promised: Sequence[str], release: str) -> str:
    """What is wrong with the products of a build that claims success; empty when nothing is."""
    there = {module.name.replace("-", "_") for module in modules}
    missing = [name for name in promised if name.replace("-", "_") not in there]
    if missing:
        have = ", ".join(module.name for module in modules) or "none"
        return f"the build ended well without {', '.join(missing)}; modules that it made: {have}"
    for module in modules:
        made_for = module.vermagic.split(" ", 1)[0]
        if made_for != release:
            return f"{module.name} is made for {made_for or 'no kernel at all'}, not for {release}"
    return ""
