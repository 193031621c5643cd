"""The script as text: what is particular to a cell, then ``body.sh``, which is the same in every script."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from harness.errors import UserError
from harness.images.initramfs import GUEST_INIT
from harness.images.recipe import Recipes
from harness.ladder.workshop import emulation_factor
from harness.machines.domain import Domain
from harness.model.cell import Cell
from harness.model.records import Attempt
from harness.placing import sha256_file
from harness.repro.boot import Boot
from harness.repro.commands import command_lines
from harness.repro.qemu import CONSOLE, qemu_argv
from harness.repro.seed import seed_lines
from harness.suites.manifest import TestSpec, pick_tests

_BODY = Path(__file__).with_name("body.sh")


def script(
    cell: Cell, boot: Boot, recipes: Recipes, tests: Mapping[str, TestSpec], attempt: Attempt | None = None
) -> str:
    """Return a POSIX shell script that boots ``boot`` and runs the commands of ``cell``.

    ``tests`` are all compute tests by name; ``attempt`` is told in the head of the script. Every file that the script
    reads is named with its SHA-256, which takes about a second per gigabyte here and there.

    Raises:
        UserError: a file that it needs is gone.
    """
    stack = recipes.stack(cell.guest, cell.stack)
    picked = pick_tests(tests, cell.tests)
    scale = emulation_factor() if boot.domain.accelerator == "qemu" else 1.0
    init = GUEST_INIT if (stack.init or recipes.guest(cell.guest).init) == "minimal" else "/sbin/init"
    steps = command_lines(cell, stack, picked, scale)
    return "".join(
        [
            _head(cell, boot, attempt),
            _settings(cell, boot, scale),
            f"start_qemu() {{\n    launch {_qemu_words(boot.domain)}\n}}\n\n",
            "commands() {\n" + "".join(f"    {step}\n" for step in steps) + "}\n\n",
            "guest_files() {\n" + seed_lines(boot.domain.disks, recipes.boot_dir, init) + "}\n",
            "\n" + _BODY.read_text(encoding="utf-8"),
        ]
    )


def _head(cell: Cell, boot: Boot, attempt: Attempt | None) -> str:
    lines = [f"Boots {cell.id} (Linux {boot.release}) and runs its commands; written by kdmatrix."]
    if attempt is not None:
        rest = f" on {attempt.rung}: {attempt.reason}" if attempt.reason else f", up to {attempt.rung}"
        lines.append(f"Attempt {attempt.number} of run {attempt.run_id} was {attempt.outcome}{rest}")
    lines += ["Needs sh, coreutils, grep, cpio, OpenSSH and QEMU. Options: see --help."]
    # What a guest said may be in the reason: one line each, so that none of it becomes a command.
    return "#!/bin/sh\n" + "".join(f"# {_one_line(line)}\n" for line in lines) + "\n"


def _one_line(text: str) -> str:
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def _settings(cell: Cell, boot: Boot, scale: float) -> str:
    domain = boot.domain
    firmware = [path for path in (domain.loader, domain.variables) if path is not None]
    files = [domain.kernel, domain.initramfs, *firmware, *(disk.path for disk in domain.disks)]
    checks = "".join(f"    check_file {_sha256(path)} {shlex.quote(str(path))}\n" for path in files)
    settings = {
        "name": cell.slug,
        "release": boot.release,
        "qemu": domain.emulator,
        "accelerator": domain.accelerator,
        "initramfs": str(domain.initramfs),
        "lent": " ".join(one.address for one in domain.passthrough.functions),
        "boot_seconds": f"{cell.timeouts.boot * scale:.0f}",
    }
    lines = "".join(f"{name}={_quoted(value)}\n" for name, value in settings.items())
    return f"{lines}\ncheck_files() {{\n{checks}}}\n\n"


def _quoted(text: str) -> str:
    """Quote for the shell even what needs no quotes: ``a=b-c`` looks like arithmetic to linters."""
    return "'" + text.replace("'", "'\"'\"'") + "'"


def _sha256(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise UserError(f"{path} is gone ({error.strerror}): run the cell again to make it anew") from error


def _qemu_words(domain: Domain) -> str:
    """QEMU's arguments as shell words, an option and its value per line, with the script's variables in them."""
    variables = {
        str(domain.initramfs): "${work}/initramfs",
        str(CONSOLE): "${console_option}",
        f"127.0.0.1:{domain.ssh_port}-": "127.0.0.1:${port}-",
    }
    # The emulator comes first; the script has it in a variable.
    words = [_word(word, variables) for word in qemu_argv(domain)[1:]]
    lines: list[str] = []
    for word in words:
        if word.startswith("-") or not lines:
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    return " \\\n        ".join(lines)


def _word(text: str, variables: Mapping[str, str]) -> str:
    """Quote ``text`` for the shell, with each variable's literal value replaced by a reference to it."""
    for literal, variable in variables.items():
        before, found, after = text.partition(literal)
        if found:
            return "".join(
                (shlex.quote(before) if before else "", f'"{variable}"', shlex.quote(after) if after else "")
            )
    return shlex.quote(text)
