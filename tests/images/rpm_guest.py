"""A guest of the small distribution of RPMs, with a stack of one package and two whose modules akmods builds."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from images.rpm_distribution import BASE, TOOLS, Distribution


def write_guest(guests: Path, distribution: Distribution) -> None:
    """Write a guest of this distribution into ``guests``, with a stack of one package and two that build a module."""
    folder = guests / "tiny-rpm"
    recipe = GUEST.format(repository=distribution.repository, include=", ".join(BASE))
    files = {"guest.yaml": recipe, "Containerfile": CONTAINERFILE, "Containerfile.build": TOOLCHAIN}
    for stack, (package, texts) in STACKS.items():
        files |= {f"stacks/{stack}/{name}": text for name, text in texts.items()}
        (folder / "stacks" / stack).mkdir(parents=True)
        shutil.copy(distribution.package(package), folder / "stacks" / stack)
    for name, text in files.items():
        (folder / name).write_text(text)
    for tool in TOOLS:
        shutil.copy(distribution.package(tool), folder)


GUEST = """
description: a small distribution made of RPMs
distribution: tiny
release: "1"
base:
  dnf:
    release: "1"
    repositories: ["{repository}"]
    include: [{include}]
    unsigned: "yes"
packages: [rpm, --dbpath=/usr/lib/sysimage/rpm, --query, --all]
compilers: {{gcc-14: base}}
"""
CONTAINERFILE = """
FROM scratch
ADD base.tar /
RUN install -d -m 0755 /etc/kdmatrix /run/sshd /etc/rpm \\
 && printf '%%_dbpath /usr/lib/sysimage/rpm\\n' >/etc/rpm/macros.place
"""
TOOLCHAIN = """
ARG BASE
FROM ${BASE}
COPY *.rpm /tmp/packages/
RUN rpm --install /tmp/packages/*.rpm && ln -s mawk /usr/bin/awk && rm -r /tmp/packages
"""
_INSTALL = (
    "ARG BASE\nFROM ${BASE}\nCOPY *.rpm /tmp/packages/\nRUN rpm --install /tmp/packages/*.rpm && rm -r /tmp/packages\n"
)
_NOTHING = "ARG BASE\nFROM ${BASE}\n"
_BUILT = """
description: a module that akmods builds
kind: none
device: none
modules: [{{name: {name}}}]
build: {{method: akmods, produces: [{name}]}}
"""
_TOOL = """
description: a module of the kernel and a program of the distribution
kind: none
device: none
modules: [{name: dummy}]
verify:
  - {run: [tiny-tool], match: "tiny tool 1"}
  - {run: [rpm, --query, tiny-tool], match: "tiny-tool-1-1"}
"""
STACKS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "tool": ("tiny-tool", {"stack.yaml": _TOOL, "Containerfile": _INSTALL}),
    "akmods": (
        "akmod-tiny",
        {"stack.yaml": _BUILT.format(name="tiny"), "Containerfile": _NOTHING, "Containerfile.modules": _INSTALL},
    ),
    "torn": (
        "akmod-torn",
        {"stack.yaml": _BUILT.format(name="torn"), "Containerfile": _NOTHING, "Containerfile.modules": _INSTALL},
    ),
}
