"""Where results, evidence and caches live on this host."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Home:
    """The directories of one installation; everything the tool writes on the host is below :attr:`root`."""

    root: Path

    @property
    def database(self) -> Path:
        """SQLite file of the store."""
        return self.root / "results.sqlite"

    @property
    def evidence(self) -> Path:
        """Content-addressed evidence files."""
        return self.root / "evidence"

    @property
    def cache(self) -> Path:
        """Everything that can be made again: packages, image layers, EROFS files, initramfs."""
        return self.root / "cache"

    @property
    def journal(self) -> Path:
        """One record per resource that must be undone, written before the resource is made."""
        return self.root / "journal"

    @property
    def own_tests(self) -> Path:
        """The user's own compute tests, where they have put some: ``<name>/test.yaml``."""
        return self.root / "tests"

    @property
    def runs(self) -> Path:
        """Per-run working files and reports."""
        return self.root / "runs"


def default_home() -> Home:
    """``$KDMATRIX_HOME``, else ``/var/lib/kdmatrix`` for root, else the XDG state directory."""
    named = os.environ.get("KDMATRIX_HOME")
    if named:
        return Home(Path(named).expanduser().absolute())
    if os.geteuid() == 0:
        return Home(Path("/var/lib/kdmatrix"))
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Home(Path(state).expanduser() / "kdmatrix")


def own_test_folders(home: Home) -> tuple[Path, ...]:
    """Folders of the user's own tests: those of ``$KDMATRIX_TESTS``, colon-separated, else ``tests`` of the home."""
    named = os.environ.get("KDMATRIX_TESTS")
    if named:
        return tuple(Path(folder).expanduser().absolute() for folder in named.split(os.pathsep) if folder)
    return (home.own_tests,) if home.own_tests.is_dir() else ()
