"""A guest that answers from a script and behaves like a kernel with loadable modules, for the tests of the rungs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from harness.machines.console import Console
from harness.machines.guest import Guest
from harness.model.outcome import Outcome
from harness.model.shell import Completed

RELEASE = "6.12.0-test"
LOST = Completed(None, b"", b"", 0.0, lost=True)
LATE = Completed(None, b"", b"", 0.0, timed_out=True)


def said(stdout: str = "", status: int = 0, stderr: str = "") -> Completed:
    return Completed(status, stdout.encode(), stderr.encode(), 0.1)


@dataclass
class FakeShell:
    """Answers by the beginning of the command line, and behaves like a kernel with loadable modules."""

    modules: set[str] = field(default_factory=lambda: {"drm", "amdgpu"})
    loaded: set[str] = field(default_factory=set)
    answers: dict[str, Completed | Callable[[], Completed]] = field(default_factory=dict)
    taint: int = 0
    log: list[str] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    alive: bool = True
    on_change: Callable[[str], None] = lambda _line: None
    known: dict[str, str] = field(default_factory=dict)
    """What modinfo says of a module beside its name and vermagic."""
    names: dict[str, str] = field(default_factory=dict)
    """The names by which modules are loaded that are called otherwise."""
    users: dict[str, tuple[int, str]] = field(default_factory=dict)
    """References and users of loaded modules."""
    left: dict[str, str] = field(default_factory=dict)
    """Lines by place that are there after the first removal of a module."""
    pci: str = ""
    disk: str = "122070 244140 4096"
    """Free blocks, all blocks, the size of one."""
    blocked: str = ""
    """Lines of ``/proc/PID/stat`` of processes in state D."""
    removed: bool = False

    def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"", limit: int = 4 << 20) -> Completed:
        line = " ".join(argv)
        self.ran.append(line)
        if not self.alive:
            return LOST
        for start, answer in self.answers.items():
            if line.startswith(start):
                return answer() if callable(answer) else answer
        if line.startswith("sh -c for name"):
            return said("".join(self._modinfo(name) for name in argv[4:]) + f"{RELEASE}\n")
        if line.startswith("sh -c for device"):
            return said(self.pci)
        if argv[0] in ("modprobe", "rmmod"):
            return self._change(line, argv)
        if line.startswith("sh -c \necho @modules"):
            return said(f"@modules\n{self._modules()}" + self._places() + "@end\n")
        if line.startswith("sh -c cat /proc/sys/kernel/tainted"):
            log = "".join(f"4,{index},1000,-;{message}\n" for index, message in enumerate(self.log))
            rest = f"@disk\n{self.disk}\n@blocked\n{self.blocked}@log\n{log}"
            return said(f"{self.taint}\n@modules\n{self._modules()}{rest}", 1)
        return said()

    def _modinfo(self, name: str) -> str:
        if name not in self.modules:
            return f"@module {name}\nmodinfo: ERROR: Module {name} not found.\n@status 1\n"
        if self.known.get(name) == "builtin":
            return f"@module {name}\nname:           {name}\nfilename:       (builtin)\n@status 0\n"
        said = self.known.get(name, f"vermagic:       {RELEASE} SMP mod_unload\nlicense:        GPL\n")
        return f"@module {name}\nfilename:       /lib/modules/{name}.ko\n{said}@status 0\n"

    def _change(self, line: str, argv: Sequence[str]) -> Completed:
        self.on_change(line)
        name = argv[argv.index("--") + 1] if "--" in argv else argv[-1]
        name = self.names.get(name, name)
        if "--remove" in argv or argv[0] == "rmmod":
            self.removed = True
            self.loaded.discard(name)
        else:
            self.loaded.add(name)
        return said()

    def _modules(self) -> str:
        lines = ""
        for name in sorted(self.loaded):
            references, users = self.users.get(name, (0, "-"))
            lines += f"{name.replace('-', '_')} 16384 {references} {users} Live 0x0\n"
        return lines

    def _places(self) -> str:
        return "".join(f"@{place}\n{line}\n" for place, line in self.left.items()) if self.removed else ""


@dataclass
class FakeMachine:
    """A machine whose end is scripted; ``comes_back`` is the shell that a reconnection gets."""

    shell: FakeShell | None
    dead: tuple[Outcome, str] | None = None
    comes_back: FakeShell | None = None
    blame: Outcome = Outcome.MISS
    console: Console = field(default_factory=Console)
    stopped: threading.Event = field(default_factory=threading.Event)
    gone: str = "the SSH server in the guest stopped answering; the VM still runs"

    def death(self) -> tuple[Outcome, str] | None:
        return self.dead

    def unanswered(self, seen: str) -> tuple[Outcome, str]:
        return self.blame, seen

    def reconnect(self, timeout: float) -> FakeShell | None:
        if self.comes_back:
            self.shell = self.comes_back
        return self.comes_back


def a_guest(shell: FakeShell, **machine: object) -> Guest:
    """A guest on a scripted machine."""
    return Guest(FakeMachine(shell, **machine))  # type: ignore[arg-type]


def grow(shell: FakeShell, *, taint: int = 0, log: Sequence[str] = ()) -> FakeShell:
    """Let the next change of modules taint the kernel and write to its log."""

    def change(_line: str) -> None:
        shell.taint |= taint
        shell.log += log

    shell.on_change = change
    return shell
