"""A shell script that boots one cell's VM again and runs its commands, without this tool.

Whoever has to fix what a cell found gets a file that needs ``sh``, QEMU, OpenSSH and ``cpio``, and that shows every
command. The VM is the one of :mod:`harness.machines.domain`: what libvirt makes of that XML is said here in QEMU's own
words (:func:`qemu_argv`), less what only libvirt needs (its monitor, its memory object). ``restrict=on`` shuts the
guest in there as here.
"""

from __future__ import annotations

import json
import shlex
import stat
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.cell import EMULATION_FACTOR
from harness.errors import InfraError, UserError
from harness.images.initramfs import GUEST_INIT, Seed, write_seed
from harness.images.recipe import Recipes, StackRecipe, Step
from harness.lab import Lab
from harness.machines.domain import Accelerator, Disk, Domain, disks_for, kernel_cmdline
from harness.machines.hypervisor import emulator
from harness.model.cell import Cell
from harness.model.image import Image
from harness.model.records import Attempt
from harness.model.stage import Stage
from harness.placing import sha256_file
from harness.store.run import StoredRun
from harness.suites.manifest import TestSpec, pick_tests
from harness.suites.run import command

_CONSOLE = Path("console.log")
_STAGES = (Stage.ENUMERATE, Stage.COMPUTE, Stage.THROUGHPUT)


@dataclass(frozen=True, slots=True)
class Boot:
    """What a script boots."""

    domain: Domain
    """Its ``initramfs`` is the cached one, to which the script appends the seed that it makes itself."""
    release: str
    """What ``uname -r`` must print."""


def qemu_argv(domain: Domain, console: Path = _CONSOLE) -> list[str]:
    """Return the argument vector of a QEMU that is the same machine as the libvirt domain.

    The serial port goes to the file ``console``.
    """
    argv = [domain.emulator, "-name", f"guest={domain.name}", "-uuid", domain.uuid]
    argv += ["-machine", "q35,usb=off,dump-guest-core=off", "-accel", "kvm" if domain.accelerator == "kvm" else "tcg"]
    argv += ["-cpu", "host,migratable=off" if domain.accelerator == "kvm" else "max"]
    argv += ["-m", str(-(-domain.memory >> 20)), "-overcommit", "mem-lock=off"]
    argv += ["-smp", f"{domain.vcpus},sockets={domain.vcpus},cores=1,threads=1"]
    argv += ["-display", "none", "-no-user-config", "-nodefaults", "-rtc", "base=utc", "-boot", "strict=on"]
    # What <on_reboot>destroy does; a guest that powers itself off ends QEMU anyway.
    argv += ["-no-reboot"]
    argv += ["-kernel", str(domain.kernel), "-initrd", str(domain.initramfs), "-append", domain.cmdline]
    for disk in domain.disks:
        argv += _disk(disk)
    argv += ["-chardev", f"file,id=charserial0,path={console}"]
    argv += ["-device", _json(driver="isa-serial", chardev="charserial0", id="serial0", index=0)]
    argv += ["-object", _json(**{"qom-type": "rng-random"}, id="objrng0", filename="/dev/urandom")]
    argv += ["-device", _json(driver="virtio-rng-pci", rng="objrng0", id="rng0", bus="pcie.0", addr="0x3")]
    argv += domain.qemu_arguments
    argv += ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
    return [*argv, "-device", _json(driver="pvpanic"), "-msg", "timestamp=on"]


def _disk(disk: Disk) -> list[str]:
    cache = {"direct": False, "no-flush": True}
    node = f"layer-{disk.serial}"
    source = {"driver": "file", "filename": str(disk.path), "cache": cache, "auto-read-only": True}
    device = {
        "driver": "virtio-blk-pci",
        "bus": "pcie.0",
        "addr": f"{disk.slot:#x}",
        "share-rw": True,
        "drive": node,
        "id": f"disk-{disk.serial}",
        "write-cache": "on",
        "serial": disk.serial,
    }
    return [
        "-blockdev",
        _json(driver="raw", **{"node-name": node, "read-only": True}, cache=cache, file=source),
        "-device",
        _json(**device),
    ]


def _json(**values: object) -> str:
    return json.dumps(values, separators=(",", ":"))


def boot_of(cell: Cell, image: Image, recipes: Recipes, *, accelerator: Accelerator, memory: int, vcpus: int) -> Boot:
    """Return what a cell boots from an image now; ``memory`` is in bytes.

    Raises:
        InfraError: this host has no QEMU.
    """
    stack, kernel = recipes.stack(cell.guest, cell.stack), image.kernel
    blacklist = f"modprobe.blacklist={','.join(stack.blacklist)}" if stack.blacklist else ""
    extra = " ".join(word for word in (blacklist, stack.cmdline, cell.kernel.cmdline) if word)
    domain = Domain(
        name="kdmatrix-repro",
        cell_id=cell.id,
        run_id="",
        accelerator=accelerator,
        emulator=emulator(),
        kernel=kernel.vmlinux if accelerator == "qemu" and kernel.vmlinux else kernel.vmlinuz,
        initramfs=kernel.initramfs,
        cmdline=kernel_cmdline(accelerator, extra),
        disks=disks_for(tuple((layer.serial, layer.path) for layer in image.layers)),
        ssh_port=22022,
        memory=memory,
        vcpus=vcpus,
    )
    return Boot(domain, kernel.identity.release)


def recorded_domain(xml: bytes, initramfs: Path | None = None) -> Domain:
    """Read a domain back from the ``domain.xml`` that an attempt left as evidence.

    ``initramfs`` is the cached one; without it, the one beside the kernel in the cache is taken. (The file that the
    XML names held the keys of that boot and went with it.)

    Raises:
        UserError: this is no domain of ours.
    """
    try:
        root = ElementTree.fromstring(xml)  # noqa: S314  written by ourselves, its SHA-256 verified; expat is bounded
        kernel = Path(_text(root, "os/kernel"))
        marks = root.find("metadata/{urn:kdmatrix:domain:1}cell")
        return Domain(
            name="kdmatrix-repro",
            cell_id="" if marks is None else marks.get("id", ""),
            run_id="" if marks is None else marks.get("run", ""),
            accelerator="kvm" if root.get("type") == "kvm" else "qemu",
            emulator=_text(root, "devices/emulator"),
            kernel=kernel,
            initramfs=initramfs or kernel.parent / "initramfs.cpio",
            cmdline=_text(root, "os/cmdline"),
            disks=tuple(_recorded_disk(disk) for disk in root.iterfind("devices/disk")),
            ssh_port=22022,
            memory=int(_text(root, "memory")),
            vcpus=int(_text(root, "vcpu")),
            uuid=_text(root, "uuid"),
        )
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"domain.xml of the attempt cannot be read: {error}") from error


def _text(node: ElementTree.Element, path: str) -> str:
    found = node.findtext(path)
    if not found:
        raise ValueError(f"it has no {path}")
    return found


def _attribute(node: ElementTree.Element, path: str, name: str) -> str:
    child = node.find(path)
    value = None if child is None else child.get(name)
    if not value:
        raise ValueError(f"a {node.tag} has no {path} {name}")
    return value


def _recorded_disk(node: ElementTree.Element) -> Disk:
    return Disk(
        serial=_text(node, "serial"),
        path=Path(_attribute(node, "source", "file")),
        target=_attribute(node, "target", "dev"),
        slot=int(_attribute(node, "address", "slot"), 0),
    )


def script_for(lab: Lab, run: StoredRun, cell: Cell, attempt: Attempt) -> str:
    """Return the script of a recorded attempt.

    It boots what that attempt booted, from the paths in its ``domain.xml``; no mirror is asked as long as the cache
    holds them.

    Raises:
        UserError: the attempt never came to boot, or what it booted is no longer in the cache.
    """
    files = [file for stage in attempt.stages for file in stage.evidence if file.name == "domain.xml"]
    release = attempt.facts.get("kernel.release", "")
    if not files or not release:
        which = f"attempt {attempt.number} of {cell.id} in run {run.info.id}"
        raise UserError(f"{which} booted nothing (it ended on {attempt.rung}), so there is nothing to repeat")
    domain = recorded_domain(lab.evidence.read(files[0].sha256, files[0].size))
    if not domain.initramfs.is_file():
        domain = replace(domain, initramfs=_initramfs(lab, cell, attempt))
    return script(cell, Boot(domain, release), lab.recipes, lab.tests, attempt)


def _initramfs(lab: Lab, cell: Cell, attempt: Attempt) -> Path:
    """Find the initramfs of a kernel that was booted compressed, and so lies elsewhere than its initramfs."""
    kernel = lab.images.boot_kernel(cell.kernel)
    if kernel.identity.digest != attempt.facts.get("kernel.digest"):
        was = f"{attempt.facts.get('kernel.release')} ({attempt.facts.get('kernel.version')})"
        now = f"{kernel.identity.release} ({kernel.identity.version})"
        raise UserError(f"{cell.id}: the attempt ran {was}, but {cell.kernel.name} is {now} by now: run it again")
    return kernel.initramfs


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
    picked = pick_tests(tests, cell.tests) if cell.tests else list(tests.values())
    scale = EMULATION_FACTOR if boot.domain.accelerator == "qemu" else 1.0
    init = GUEST_INIT if (stack.init or recipes.guest(cell.guest).init) == "minimal" else "/sbin/init"
    steps = [
        *_load_steps(cell, stack, scale),
        *_compute_steps(cell, stack, picked, scale),
        f"unload_modules {cell.timeouts.test * scale:.0f}",
    ]
    return "".join(
        [
            _head(cell, boot, attempt),
            _settings(cell, boot, scale),
            f"start_qemu() {{\n    set -- {_qemu_words(boot.domain)}\n{_START}}}\n\n",
            "commands() {\n" + "".join(f"    {step}\n" for step in steps) + "}\n\n",
            "guest_files() {\n" + _seed_files(boot, recipes.boot_dir, init) + "}\n",
            _BODY,
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
    files = [domain.kernel, domain.initramfs, *(disk.path for disk in domain.disks)]
    checks = "".join(f"    check_file {_sha256(path)} {shlex.quote(str(path))}\n" for path in files)
    settings = {
        "name": cell.slug,
        "release": boot.release,
        "qemu": domain.emulator,
        "accelerator": domain.accelerator,
        "initramfs": str(domain.initramfs),
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
        str(_CONSOLE): "${console_option}",
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


def _load_steps(cell: Cell, stack: StackRecipe, scale: float) -> list[str]:
    limit = f"{cell.timeouts.test * scale:.0f}"
    loads = [
        f"load_module {'required' if module.required else 'optional'} {limit} "
        f"{_remote([module.name])} {_remote([module.name, *module.parameters])}"
        for module in stack.modules
    ]
    steps = [*stack.activate, *(step for step in stack.verify if step.stage is Stage.LOAD)]
    return [*loads, *_steps(steps, scale)]


def _compute_steps(cell: Cell, stack: StackRecipe, tests: Sequence[TestSpec], scale: float) -> list[str]:
    lines = []
    for stage in _STAGES:
        lines += _steps((step for step in stack.verify if step.stage is stage), scale)
        for backend in stack.backends:
            for test in (test for test in tests if test.stage is stage and backend in test.backends):
                limit = min(cell.timeouts.test, test.timeout) * scale
                lines.append(f"compute {limit:.0f} {_remote(command(test, backend=backend, timeout=limit))}")
    return lines


def _steps(steps: Iterable[Step], scale: float) -> list[str]:
    return [f"step {step.timeout * scale:.0f} {shlex.quote(step.match or '')} {_remote(step.run)}" for step in steps]


def _remote(argv: Sequence[str]) -> str:
    """One word for the script that is a line for the guest's shell: SSH carries a line, not an argument vector."""
    return shlex.quote(shlex.join(argv))


def _seed_files(boot: Boot, boot_dir: Path, init: str) -> str:
    """Shell lines that write what :func:`write_seed` puts into the archive, less the keys, which the script makes."""
    seed = Seed(b"", b"", tuple(disk.serial for disk in boot.domain.disks), "guest", init)
    with tempfile.TemporaryDirectory(prefix="kdmatrix-seed-") as folder:
        archive = Path(folder) / "seed.cpio"
        try:
            write_seed(seed, boot_dir, archive)
            entries = list(_entries(archive.read_bytes()))
        except OSError as error:
            raise InfraError(f"the seed of a boot cannot be made: {error}") from error
    lines = []
    for name, mode, content in entries:
        if content:
            lines.append(_here_document(name, content.decode()))
            lines.append(f'    chmod {mode & 0o777:o} "$work/{name}"\n')
    return "".join(lines)


def _entries(archive: bytes) -> Iterator[tuple[str, int, bytes]]:
    """(name, mode, content) of every regular file of a ``newc`` archive; see :mod:`harness.images.cpio`."""
    at = 0
    while at < len(archive):
        fields = [int(archive[at + 6 + 8 * index :][:8], 16) for index in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        start = at + 110 + name_size + -(110 + name_size) % 4
        name = archive[at + 110 :][: name_size - 1].decode()
        if name == "TRAILER!!!":
            return
        if stat.S_ISREG(mode):
            yield name, mode, archive[start : start + size]
        at = start + size + -size % 4


def _here_document(name: str, text: str) -> str:
    mark = "END_OF_FILE"
    while f"\n{mark}\n" in f"\n{text}\n":
        mark += "_"
    return f"    cat >\"$work/{name}\" <<'{mark}'\n{text.rstrip(chr(10))}\n{mark}\n"


_START = """\
    if setpriv --pdeathsig KILL true 2>/dev/null; then
        set -- setpriv --pdeathsig KILL "$qemu" "$@" # so that QEMU ends even when this shell is killed
    else
        set -- "$qemu" "$@"
    fi
    "$@" </dev/null >"$work/qemu.log" 2>&1 &
    qemu_pid=$!
"""

_BODY = r"""
usage() {
    cat <<END_OF_HELP
usage: $0 [options]
  --boot-only    end after the first command that the guest answers
  --shell        open a shell in the guest instead of running the commands
  --keep         leave the temporary directory with keys, initramfs and logs
  --console F    write the serial console to F instead of ./$name-console.log
  --unchecked    do not compare the SHA-256 of kernel, initramfs and layers
exit status: 0 all passed, 1 a command failed, 2 something needed is missing, 4 the guest did not come up
END_OF_HELP
}

die() { # STATUS TEXT
    printf '%s\n' "$0: $2" >&2
    exit "$1"
}

pause() {
    sleep 0.1 2>/dev/null || sleep 1
}

shown() { # a guest's output, without what would steer the terminal
    head -c 1000000 "$1" | LC_ALL=C tr -d '\000-\010\013-\037\177'
}

check_file() { # SHA256 PATH
    [ -r "$2" ] || die 2 "$2 is gone or not readable: the image cache was cleaned or is on another machine"
    [ -z "$checked" ] || printf '%s  %s\n' "$1" "$2" | sha256sum -c --status - ||
        die 2 "$2 is no longer what the cell booted (its SHA-256 differs)"
}

check_host() {
    for program in "$qemu" ssh ssh-keygen cpio timeout mktemp; do
        command -v "$program" >/dev/null || die 2 "$program is not installed on this host"
    done
    if [ "$accelerator" = kvm ] && [ ! -w /dev/kvm ]; then
        die 2 "/dev/kvm cannot be opened, and the cell ran under KVM"
    fi
}

make_seed() {
    mkdir "$work/seed"
    ssh-keygen -q -t ed25519 -N '' -C kdmatrix-guest -f "$work/seed/ssh_host_ed25519_key"
    ssh-keygen -q -t ed25519 -N '' -C kdmatrix-repro -f "$work/client_key"
    printf 'guest %s\n' "$(cat "$work/seed/ssh_host_ed25519_key.pub")" >"$work/known_hosts"
    rm "$work/seed/ssh_host_ed25519_key.pub"
    cp "$work/client_key.pub" "$work/seed/authorized_keys"
    guest_files
    (cd "$work" && find seed | cpio --quiet -o -H newc >seed.cpio) || die 2 "cpio could not write the seed archive"
    cat "$initramfs" "$work/seed.cpio" >"$work/initramfs" || die 2 "$work has no room for the initramfs"
}

exec_in_guest() { # SECONDS [ssh options] root@127.0.0.1 [LINE]; call it in a subshell, which it becomes
    limit=$1
    shift
    # One connection for all commands, where the path of its socket is not too long for the kernel.
    [ ${#work} -gt 80 ] || set -- -o ControlMaster=auto -o ControlPersist=yes -o "ControlPath=$work/ssh" "$@"
    set -- ssh -F none -p "$port" -i "$work/client_key" -o BatchMode=yes -o IdentitiesOnly=yes -o IdentityAgent=none \
        -o UserKnownHostsFile="$work/known_hosts" -o GlobalKnownHostsFile=none -o StrictHostKeyChecking=yes \
        -o HostKeyAlias=guest -o HostKeyAlgorithms=ssh-ed25519 -o ConnectTimeout=10 -o ServerAliveInterval=15 \
        -o ServerAliveCountMax=8 -o LogLevel=ERROR "$@"
    [ "$limit" -eq 0 ] || set -- timeout -k 5 "$limit" "$@"
    exec "$@"
}

boot() {
    : >"$console" || die 2 "$console cannot be written: give --console FILE"
    console_option=$(printf '%s' "$console" | sed 's/,/,,/g')
    began=$(date +%s)
    tries=0
    while :; do
        # Below the range that the kernel hands out by itself.
        port=$((20000 + ($$ * 7 + tries * 131) % 12000))
        start_qemu
        wait_for_guest && return
        tries=$((tries + 1))
        [ $tries -lt 10 ] || die 2 "no free port on 127.0.0.1: $(tail -n 1 "$work/qemu.log")"
    done
}

wait_for_guest() {
    while :; do
        if grep -q 'kdmatrix-guest: starting sshd' "$console"; then
            (exec_in_guest 0 root@127.0.0.1 'uname -r') </dev/null >"$work/release" 2>"$work/ssh.log" && return 0
        fi
        if ! kill -0 "$qemu_pid" 2>/dev/null; then
            grep -q 'host forwarding' "$work/qemu.log" && return 1
            tail -n 20 "$work/qemu.log"
            shown "$console" | tail -n 20
            die 4 "the VM ended while it booted; its console is in $console"
        fi
        [ $(($(date +%s) - began)) -lt "$boot_seconds" ] ||
            die 4 "no answer over SSH within $boot_seconds s; the console is in $console"
        pause
    done
}

expect_release() {
    printf '$ uname -r\n'
    shown "$work/release"
    if [ "$(cat "$work/release")" = "$release" ]; then
        printf '[exit status 0]\n'
    else
        die 4 "the guest does not run $release"
    fi
}

guest() { # SECONDS LINE: run, print and return the exit status; 124 is that of a command that took too long
    printf '$ %s\n' "$2"
    since=$(date +%s)
    (exec_in_guest "$1" root@127.0.0.1 "$2") </dev/null >"$work/output" 2>&1 &
    child=$!
    wait "$child"
    result=$?
    child=
    shown "$work/output"
    printf '[exit status %s, %s s]\n' "$result" $(($(date +%s) - since))
    if [ "$result" -eq 255 ] && ! kill -0 "$qemu_pid" 2>/dev/null; then
        shown "$console" | tail -n 40
        die 1 "the VM ended under this command; its console is in $console"
    fi
    return "$result"
}

failed() { # TEXT
    failures=$((failures + 1))
    printf 'FAILED: %s\n' "$1"
}

load_module() { # required|optional SECONDS NAME "NAME PARAMETERS"
    if ! guest "$2" "modinfo -F filename $3"; then
        [ "$1" = optional ] || failed "this kernel has no module $3"
        return
    fi
    grep -q '(builtin)' "$work/output" && return
    if guest "$2" "modprobe -- $4" && guest "$2" "test -d /sys/module/$(printf '%s' "$3" | tr - _)"; then
        loaded="$3 $loaded"
    else
        failed "load $3"
    fi
}

unload_modules() { # SECONDS
    for module in $loaded; do
        guest "$1" "modprobe --remove -- $module" || failed "unload $module"
    done
}

step() { # SECONDS EXPRESSION LINE
    if ! guest "$1" "$3"; then
        failed "$3"
    elif [ -n "$2" ] && ! grep -E -q -e "$2" "$work/output"; then
        failed "the output of $3 does not match $2"
    fi
}

compute() { # SECONDS LINE
    guest "$1" "$2"
    case $? in
    0 | 77) ;; # 77 is the runner's SKIP
    *) failed "$2" ;;
    esac
}

clean_up() {
    status=$?
    trap '' HUP INT TERM
    trap - EXIT
    if [ -n "$child" ]; then
        kill "$child" 2>/dev/null
    fi
    if [ -n "$qemu_pid" ]; then
        [ ! -S "$work/ssh" ] || (exec_in_guest 5 -O exit root@127.0.0.1) 2>/dev/null
        kill "$qemu_pid" 2>/dev/null
        waited=0
        while kill -0 "$qemu_pid" 2>/dev/null; do
            [ $waited -lt 50 ] || kill -KILL "$qemu_pid" 2>/dev/null
            waited=$((waited + 1))
            pause
        done
    fi
    if [ -n "$work" ]; then
        if [ -n "$keep" ]; then
            printf 'kept: %s\n' "$work"
        else
            rm -rf "$work"
        fi
    fi
    exit "$status"
}

mode=commands keep='' checked=yes console="$PWD/$name-console.log"
work='' qemu_pid='' child='' loaded='' failures=0
while [ $# -gt 0 ]; do
    case $1 in
    --boot-only) mode=boot ;;
    --shell) mode=shell ;;
    --keep) keep=yes ;;
    --unchecked) checked='' ;;
    --console)
        [ $# -gt 1 ] || die 2 "--console needs a file"
        shift
        console=$1
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *) die 2 "unknown option $1: see --help" ;;
    esac
    shift
done
umask 077
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
check_host
check_files
work=$(mktemp -d "${TMPDIR:-/tmp}/kdmatrix-repro.XXXXXX") || die 2 "no temporary directory can be made"
make_seed
printf 'console: %s\n' "$console"
boot
expect_release
case $mode in
boot) exit 0 ;;
shell)
    (exec_in_guest 0 -t root@127.0.0.1)
    exit 0
    ;;
esac
commands
if [ "$failures" -gt 0 ]; then
    printf '%s failed\n' "$failures"
    exit 1
fi
printf 'all passed\n'
"""
