"""One KDMATRIX_HOME and the real ``kdmatrix`` command in it: started, watched, killed, and looked at afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness.home import Home
from harness.machines.daemon import choose_uri, import_libvirt
from harness.model.outcome import Outcome
from harness.model.records import ATTEMPT, Attempt
from harness.model.stage import Stage
from harness.placing import placed_once
from harness.store.evidence import EvidenceStore
from harness.store.run import PlanState, StoredRun
from harness.store.store import Store

SHARED = ("kernels", "boot", "erofs", "gpu_tests", "wheels")
"""Rooms of the image cache that are taken over entry by entry; what a test makes or breaks there is its own."""


def command() -> str:
    """The installed command that belongs to this interpreter."""
    beside = Path(sys.executable).parent / "kdmatrix"
    found = str(beside) if beside.is_file() else shutil.which("kdmatrix")
    assert found, "kdmatrix is not installed"
    return found


@dataclass
class Running:
    """A started command; its output is read as it comes."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    _readers: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        for stream, into in ((self.process.stdout, self.lines), (self.process.stderr, self.errors)):
            assert stream is not None
            reader = threading.Thread(target=into.extend, args=(stream,), daemon=True)
            reader.start()
            self._readers.append(reader)

    @property
    def out(self) -> str:
        return "".join(self.lines)

    @property
    def err(self) -> str:
        return "".join(self.errors)

    @property
    def code(self) -> int:
        assert self.process.returncode is not None
        return self.process.returncode

    def said(self, *words: str) -> bool:
        """Whether one line of the output so far holds all ``words``."""
        return any(all(word in line for word in words) for line in list(self.lines))

    def until(self, happened: Callable[[], object], what: str) -> None:
        """Watch until something has happened; the command must not end before. pytest's timeout bounds it."""
        while not happened():
            assert self.process.poll() is None, f"ended before {what}:\n{self.out}{self.err}"
            time.sleep(0.002)

    def end(self) -> Running:
        """Wait for its end."""
        self.process.wait()
        for reader in self._readers:
            reader.join()
        return self

    def kill(self) -> None:
        """kill -9, as the kernel's OOM killer would."""
        self.process.kill()
        self.end()


@dataclass(frozen=True)
class Installation:
    """A home of its own below a directory that QEMU's user can reach, with the shared image cache linked in."""

    root: Path
    content: Path
    shared: Path

    @property
    def home(self) -> Home:
        return Home(self.root / "home")

    def start(self, *words: str | Path, env: Mapping[str, str] | None = None, program: Path | None = None) -> Running:
        """Start ``kdmatrix`` with arguments; ``program`` is run by this interpreter in its place."""
        own = {"KDMATRIX_HOME": str(self.home.root), "KDMATRIX_CONTENT": str(self.content), "COLUMNS": "200"}
        argv = [sys.executable, str(program)] if program else [command()]
        process = subprocess.Popen(
            [*argv, *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            bufsize=1,
            env={**os.environ, **own, **(env or {})},
            cwd=self.root,
        )
        return Running(process)

    def run(self, *words: str | Path, env: Mapping[str, str] | None = None, program: Path | None = None) -> Running:
        """Run ``kdmatrix`` to its end."""
        return self.start(*words, env=env, program=program).end()

    def matrix(self, text: str, name: str = "matrix.yaml") -> Path:
        """Write a matrix file."""
        path = self.root / name
        path.write_text(text)
        return path

    def stored(self) -> StoredRun:
        """The latest run as the store has it."""
        with Store.open(self.home.database) as store:
            info = store.latest_run()
            assert info is not None, "no run in the store"
            return store.load_run(info.id)

    def results(self) -> dict[str, Attempt]:
        """The latest run's attempts by the kernel entry of their cell."""
        return {attempt.cell_id.split("/")[1]: attempt for attempt in self.stored().attempts}

    def evidence(self, attempt: Attempt, name: str) -> str:
        """The text of a file of an attempt's evidence."""
        found = [file for stage in attempt.stages for file in stage.evidence if file.name == name]
        assert found, f"{attempt.cell_id} has no evidence {name}"
        return EvidenceStore(self.home.evidence).read(found[-1].sha256).decode("utf-8", "replace")

    def report(self) -> str:
        """The report's pages of the latest run, as text."""
        folder = self.home.runs / self.stored().info.id / "report"
        return "\n".join(page.read_text() for page in sorted(folder.rglob("*.html")))

    def records(self) -> dict[tuple[str, int], bytes]:
        """Every recorded attempt of the latest run as bytes, with the bytes of its evidence."""
        shelf = EvidenceStore(self.home.evidence)
        kept = {}
        for one in self.stored().attempts:
            files = b"".join(shelf.read(file.sha256) for stage in one.stages for file in stage.evidence)
            assert (one.cell_id, one.number) not in kept, f"{one.cell_id} #{one.number} is there twice"
            kept[one.cell_id, one.number] = ATTEMPT.dump_json(one) + files
        return kept

    def domains(self) -> list[str]:
        """libvirt's domains that belong to this home."""
        libvirt = import_libvirt()
        uri, daemon = choose_uri(self.home.root / "libvirt")
        if daemon is not None and daemon.pid() is None:
            return []  # no daemon, no domain that it knows
        connection = libvirt.open(uri)
        try:
            return [one.name() for one in connection.listAllDomains() if str(self.home.root) in one.XMLDesc()]
        finally:
            connection.close()

    def processes(self) -> dict[int, str]:
        """Living processes that have anything to do with this home, by number."""
        mine = str(self.root).encode()
        _, daemon = choose_uri(self.home.root / "libvirt")
        other = str(daemon.socket_dir).encode() if daemon else mine
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                argv = (folder / "cmdline").read_bytes()
                seen = argv + (folder / "environ").read_bytes()
                seen += b"\0".join(os.fsencode((folder / link).readlink()) for link in ("cwd", "root", "exe"))
            except OSError:
                continue  # it ended, or it is a kernel thread
            if argv and (mine in seen or other in seen):
                found[int(folder.name)] = argv.replace(b"\0", b" ").decode(errors="replace")[:200]
        return found

    def left(self) -> list[str]:
        """Whatever of a run is still there although nothing runs: nothing, after ``clean``."""
        home = self.home
        left = [f"domain {name}" for name in self.domains()]
        left += [f"process {pid}: {argv}" for pid, argv in self.processes().items()]
        left += [f"journal {path.name}" for path in home.journal.glob("*")]
        left += [f"file {path}" for path in home.runs.glob("*/work")]
        for room in (home.cache, home.evidence, home.runs):
            for folder, _, names in os.walk(room):
                # Whole trees of others, with hidden files of their own.
                if any(tree in folder for tree in ("/oci", "/headers/", "/ccache/")):
                    continue
                inside = [Path(folder) / name for name in names] + [Path(folder)]
                left += [f"half-made {p}" for p in inside if p.name.startswith(".") and p.suffix != ".lock"]
        left += [f"scrap {path}" for path in home.cache.glob("scratch/*")]
        # buildah binds its storage over itself once and keeps it so.
        left += [f"mount {mount}" for mount in self.mounts() if not mount.endswith("/oci/root/overlay")]
        return left

    def mounts(self) -> list[str]:
        """Mount points below this installation, the innermost first."""
        points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        return sorted((point for point in points if point.startswith(f"{self.root}/")), reverse=True)

    def close(self) -> None:
        """End and remove everything, whatever state a failed test left it in."""
        for pid in self.processes():
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue
        while self.processes():
            time.sleep(0.01)
        for mount in self.mounts():
            subprocess.run(["umount", mount], check=False)
        state = self.home.root / "libvirt"
        _, daemon = choose_uri(state)
        if daemon is not None:
            shutil.rmtree(daemon.socket_dir, ignore_errors=True)
        if list((state / "cache").rglob("*.xml")) and not (self.shared / "libvirt").is_dir():
            # What a private libvirtd finds out about QEMU takes it many seconds and is the same for every test.
            placed_once(self.shared / "libvirt", lambda into: _copy_into(state / "cache", into))
        shutil.rmtree(self.root)


def _copy_into(source: Path, into: Path) -> None:
    shutil.copytree(source, into, dirs_exist_ok=True)


@contextmanager
def installed(content: Path, shared: Path) -> Iterator[Installation]:
    """An installation for one test; gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="kdmatrix-test-"))
    root.chmod(0o755)  # a system libvirt's QEMU runs as a user of its own and must reach the initramfs
    installation = Installation(root, content, shared)
    cache = installation.home.cache
    for room in SHARED:
        (cache / room).mkdir(parents=True)
        for entry in (shared / room).glob("[!.]*"):
            (cache / room / entry.name).symlink_to(entry)
    (cache / "apt").symlink_to(shared / "apt")
    if (shared / "acceleration.json").is_file():
        shutil.copy(shared / "acceleration.json", cache)
    if (shared / "libvirt").is_dir():
        shutil.copytree(shared / "libvirt", installation.home.root / "libvirt" / "cache")
    try:
        yield installation
    finally:
        installation.close()


def stage_of(attempt: Attempt, stage: Stage) -> tuple[Outcome, str]:
    """Outcome and reason of one rung."""
    (found,) = [one for one in attempt.stages if one.stage is stage]
    return found.outcome, found.reason


def complete(run: StoredRun) -> bool:
    """Whether every planned boot has exactly one result."""
    planned = sorted((entry.cell_id, entry.number) for entry in run.plan)
    recorded = sorted((attempt.cell_id, attempt.number) for attempt in run.attempts)
    return planned == recorded and all(entry.state is PlanState.DONE for entry in run.plan)
