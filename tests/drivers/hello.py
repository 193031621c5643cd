"""A driver of a dozen lines, and the ways in which it can go wrong, each a stack made of content alone."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.content import content_dir

SOURCE = """#include <linux/init.h>
#include <linux/module.h>
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("a driver for tests");
MODULE_VERSION("1.0");
%s
static int __init hello_init(void) { %s return 0; }
static void __exit hello_exit(void) { }
module_init(hello_init);
module_exit(hello_exit);
"""

DKMS = """PACKAGE_NAME="hello"
PACKAGE_VERSION="1.0"
BUILT_MODULE_NAME[0]="hello"
DEST_MODULE_LOCATION[0]="/updates"
MAKE[0]="make -C $kernel_source_dir M=$dkms_tree/hello/1.0/build modules"
AUTOINSTALL="yes"
"""

STACK = """description: a driver for tests
kind: none
device: none
modules: [{{name: hello}}]
build: {{method: {method}, produces: [{produces}], sign: {sign}}}
"""

STACKS: dict[str, dict[str, str]] = {
    "hello": {},
    "by-make": {"method": "make"},
    "signed": {"method": "make", "sign": "lab"},
    "foreign": {"method": "make", "sign": "stranger"},
    "wrong-call": {"body": "gone_in_the_next_release(1);"},
    "no-header": {"top": "#include <linux/of_gpio_of_old.h>"},
    "no-symbol": {"top": "extern int not_exported(void);", "body": "not_exported();"},
    "excluded": {"dkms": 'BUILD_EXCLUSIVE_KERNEL="^2\\.6\\..*"\n'},
    "other-module": {"produces": "hello, goodbye"},
    "no-source": {"copy": "hello /usr/src/elsewhere/hello-1.0"},
    "full-disk": {"dkms": 'PRE_BUILD="full.sh"\n'},
}
"""What differs from the plain ``hello``, by stack."""


def write_content(root: Path) -> Path:
    """Copy the shipped guests to ``root`` and add every stack of :data:`STACKS`; return the folder of the guests."""
    guests = root / "guests"
    shutil.copytree(content_dir("guests"), guests)
    stacks = guests / "debian-13" / "stacks"
    for name, change in STACKS.items():
        method = change.get("method", "dkms")
        place = "/usr/src/hello-1.0" if method == "dkms" else "/usr/src/kdmatrix/hello"
        folder = stacks / name
        source = folder / "hello"
        source.mkdir(parents=True)
        (source / "hello.c").write_text(SOURCE % (change.get("top", ""), change.get("body", "")))
        (source / "Makefile").write_text("obj-m := hello.o\n")
        (source / "dkms.conf").write_text(DKMS + change.get("dkms", ""))
        full = source / "full.sh"
        full.write_text("#!/bin/sh\necho 'cc1: error: No space left on device'\nexit 1\n")
        full.chmod(0o755)
        copy = change.get("copy", f"hello {place}")
        (folder / "Containerfile.modules").write_text(f"ARG BASE\nFROM ${{BASE}}\nCOPY {copy}\n")
        (folder / "Containerfile").write_text("ARG BASE\nFROM ${BASE}\n")
        (folder / "stack.yaml").write_text(
            STACK.format(method=method, produces=change.get("produces", "hello"), sign=change.get("sign", "none"))
        )
    return guests
