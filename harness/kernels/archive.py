"""A private apt root: indices and packages of a Debian archive, without touching the host's own apt state.

apt itself checks the signature of every index against the given keyring; the SHA-256 of every package is checked here
once more against that index. Sources: apt.conf(5), sources.list(5), apt-secure(8).
"""

from __future__ import annotations

import dataclasses
import difflib
import email.utils
import json
import os
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import InfraError, UserError
from harness.hostcmd import must, run
from harness.kernels.packages import Package, PackageSet, names_in, parse_linux_packages, parse_named_packages
from harness.placing import digest_of_parts, locked, sha256_file, write_atomically

TTL = 6 * 3600.0
"""Seconds for which an index counts as fresh."""
_UPDATE_TIMEOUT = 600.0
_DOWNLOAD_TIMEOUT = 1800.0
_LOCK_TIMEOUT = 1800.0
_APT_HELPER = "/usr/lib/apt/apt-helper"
_SUITE = re.compile(r"^[a-z][a-z0-9.-]*$")
_FAILURE = re.compile(r"^(?:E|W|Err):? ?(.*)$", re.MULTILINE)
_UNTRUSTED = re.compile(
    r"NO_PUBKEY|BADSIG|EXPKEYSIG|EXPSIG|REVKEYSIG|not signed|NOSPLIT|no longer signed|NODATA|GPG err"
)
_HOST_SETTING = re.compile(r'^Acquire::(?:https?(?:::[^ ]*)?|Check-Valid-Until|Check-Date) "[^"]*";$')
_VALID_UNTIL = re.compile(r"^Valid-Until: (.+)$", re.MULTILINE)
_CACHE_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Index:
    """What a suite offers at one time."""

    suite: str
    packages: PackageSet
    note: str = ""
    """Why an index older than asked for is used; empty when it is fresh."""


class PackageUnavailable(InfraError):
    """The archive can be read, but the suite has no package of that name."""


@dataclass(slots=True)
class Archive:
    """One Debian archive, or another one in its format, as mirrored at ``mirror`` and signed by a key of ``keyring``.

    Its files live below ``root``.
    Safe to use from several processes at once. Answers are kept for the life of the object.
    """

    root: Path
    mirror: str
    keyring: Path
    components: tuple[str, ...] = ("main",)
    ttl: float = TTL
    refresh: bool = False
    """Update every index once, however fresh."""
    security_apart: bool = True
    """Whether ``SUITE-security`` lies in a tree of its own beside the mirror, as Debian's does."""
    keyring_package: str = "debian-archive-keyring"
    """What to install where the keyring is missing."""
    _indices: dict[str, Index] = field(default_factory=dict, init=False, repr=False)
    _named: dict[tuple[str, str], Package] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.root = self.root.absolute()
        self.mirror = self.mirror.rstrip("/")

    def index(self, suite: str) -> Index:
        """Return the ``linux-*`` packages of a suite, from a fresh index where the mirror answers.

        Raises:
            UserError: no such suite, or the keyring is missing.
            InfraError: the index cannot be had (and none is cached), or its signature is not good.
        """
        if suite not in self._indices:
            if not _SUITE.match(suite):
                raise UserError(f"{suite!r} is not the name of a suite of {self.mirror}")
            if not self.keyring.is_file():
                raise UserError(f"keyring {self.keyring} is missing: install {self.keyring_package}")
            with locked(self._state(suite) / "lock", timeout=_LOCK_TIMEOUT):
                note = self._update(suite) or self._expired(suite)
                self._indices[suite] = Index(suite, PackageSet(self._read(suite)), note)
        return self._indices[suite]

    def packages(self, suite: str, names: Sequence[str]) -> tuple[Package, ...]:
        """Return the newest version of each named package, ``linux-*`` or not, in the order of the names.

        Raises:
            PackageUnavailable: the suite has none of that name; the message names the nearest.
            UserError, InfraError: as :meth:`index`.
        """
        index = self.index(suite).packages
        unread = [name for name in names if (suite, name) not in self._named]
        for name in [name for name in unread if index.versions(name)]:
            self._named[suite, name] = index.versions(name)[0]
        unread = [name for name in unread if (suite, name) not in self._named]
        if unread:
            with locked(self._state(suite) / "lock", timeout=_LOCK_TIMEOUT):
                data = self._index_text(suite)
            found = PackageSet(parse_named_packages(data, unread))
            for name in unread:
                if not found.versions(name):
                    near = difflib.get_close_matches(name, set(names_in(data)), 3, 0.7)
                    offer = f"did you mean {' or '.join(near)}?" if near else f"components: {' '.join(self.components)}"
                    raise PackageUnavailable(f"{suite} has no package {name}; {offer}")
                self._named[suite, name] = found.versions(name)[0]
        return tuple(self._named[suite, name] for name in names)

    def state(self, suite: str) -> str:
        """SHA-256 of the suite's signed release file: it changes whenever anything in the suite does."""
        self.index(suite)
        folder = self._state(suite) / "state" / "lists"
        files = sorted(path for path in folder.glob("*Release") if path.is_file())
        return digest_of_parts(tuple((path.name.rpartition("_")[2], sha256_file(path)) for path in files))

    def pooled(self, package: Package) -> Path:
        """Where the pool keeps a package: by content, so a version that the mirror drops stays usable."""
        return self.root / "pool" / package.sha256 / package.filename

    def download(self, suite: str, packages: Sequence[Package]) -> list[Path]:
        """Return the .deb files of ``packages`` in their order; only what the pool lacks is downloaded.

        Raises:
            InfraError: the mirror does not answer or no longer has one, or a file is not what the index promises.
        """
        missing = [package for package in packages if not self.pooled(package).is_file()]
        if missing:
            with locked(self._state(suite) / "lock", timeout=_LOCK_TIMEOUT):
                missing = [package for package in missing if not self.pooled(package).is_file()]
                if missing:
                    self._download(suite, missing)
        return [self.pooled(package) for package in packages]

    def _state(self, suite: str) -> Path:
        return self.root / "suites" / suite

    def _source_line(self, suite: str) -> str:
        # Security updates live in an archive of their own, beside the main one.
        apart = self.security_apart and suite.endswith("-security")
        mirror = f"{self.mirror}-security" if apart else self.mirror
        return f"deb [arch=amd64 signed-by={self.keyring}] {mirror} {suite} {' '.join(self.components)}\n"

    def _configure(self, suite: str) -> dict[str, str]:
        """Write the private configuration and return the environment that makes apt use it."""
        state = self._state(suite)
        for folder in ("state/lists/partial", "cache/archives/partial"):
            (state / folder).mkdir(parents=True, exist_ok=True)
        # Rewritten only when they change: apt compares their times and builds its package cache anew, for a second.
        if not (state / "status").exists():
            (state / "status").touch()
        settings = {
            "Dir::State": f"{state}/state",
            "Dir::State::status": f"{state}/status",
            "Dir::Cache": f"{state}/cache",
            "Dir::Etc::sourcelist": f"{state}/sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            # The host's own files could weaken checks and run hooks; what concerns its network is copied below.
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::parts": "/dev/null",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Get::AllowUnauthenticated": "false",
            "APT::Update::Error-Mode": "any",
            "Acquire::AllowInsecureRepositories": "false",
            "Acquire::AllowWeakRepositories": "false",
            "Acquire::AllowDowngradeToInsecureRepositories": "false",
            "Acquire::Languages": "none",
            "Acquire::PDiffs": "false",
            "Acquire::GzipIndexes": "true",
        }
        if os.geteuid() == 0:
            # _apt cannot write into a private cache, and apt warns about it each time.
            settings["APT::Sandbox::User"] = "root"
        bounds = {"Retries": "1", "http::Timeout": "20", "https::Timeout": "20"}
        lines = [f'{key} "{value}";' for key, value in settings.items()]
        lines += host_network_settings()
        lines += [f'Acquire::{key} "{value}";' for key, value in bounds.items()]
        write_atomically(state / "apt.conf", ("\n".join(lines) + "\n").encode())
        sources = state / "sources.list"
        if not sources.is_file() or sources.read_text() != self._source_line(suite):
            write_atomically(sources, self._source_line(suite).encode())
        return {"APT_CONFIG": str(state / "apt.conf")}

    def _update(self, suite: str) -> str:
        """Bring the index up to date; return a note when an older one has to do."""
        environment = self._configure(suite)
        lists = self._lists(suite, environment)
        stamp = self._state(suite) / "updated"
        age = _age(stamp, self._source_line(suite))
        if lists and age is not None and age < self.ttl and not self.refresh:
            return ""
        try:
            done = run(["apt-get", "update", "-q"], timeout=_UPDATE_TIMEOUT, env=environment)
        except InfraError as error:  # a mirror so slow is as good as down
            output, problem = "", str(error)
        else:
            output = (done.stdout + done.stderr).decode(errors="replace")
            problem = _first_failure(output)
            if done.returncode == 0 and "Failed to fetch" not in output:
                write_atomically(stamp, self._source_line(suite).encode())
                return ""
        if _UNTRUSTED.search(output):
            raise InfraError(f"refusing {suite} from {self.mirror}: {problem}")
        if lists and age is not None:
            return f"{suite}: index is {age / 3600:.1f} h old, the mirror cannot be asked: {problem}"
        if "does not have a Release file" in output:
            raise UserError(f"{self.mirror} has no suite {suite!r}")
        raise InfraError(f"cannot get the index of {suite} from {self.mirror}: {problem}")

    def _expired(self, suite: str) -> str:
        """Say when the index is past the date until which the archive vouches for it (apt was told to accept that)."""
        for release in (self._state(suite) / "state" / "lists").glob("*Release"):
            match = _VALID_UNTIL.search(release.read_text(errors="replace"))
            if match:
                until = email.utils.parsedate_to_datetime(match[1].replace("UTC", "+0000"))
                if until.timestamp() < time.time():
                    return f"{suite}: the mirror's index is out of date, it was valid until {until:%Y-%m-%d}"
        return ""

    def _lists(self, suite: str, environment: dict[str, str]) -> list[Path]:
        argv = ["apt-get", "indextargets", "--format", "$(FILENAME)", "Created-By: Packages"]
        done = must(argv, timeout=60, env=environment)
        return [path for path in map(Path, done.decode().splitlines()) if path.is_file()]

    def _index_text(self, suite: str) -> bytes:
        """The text of every ``Packages`` file of a suite, one behind the other."""
        lists = self._lists(suite, {"APT_CONFIG": str(self._state(suite) / "apt.conf")})
        return b"\n".join(must([_APT_HELPER, "cat-file", path], timeout=120) for path in lists)

    def _read(self, suite: str) -> list[Package]:
        lists = self._lists(suite, {"APT_CONFIG": str(self._state(suite) / "apt.conf")})
        stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in lists]
        key = json.dumps([_CACHE_FORMAT, stats])
        cache = self._state(suite) / "linux.json"
        try:
            stored = json.loads(cache.read_bytes())
            if stored["key"] == key:
                return [Package(**row) for row in stored["packages"]]
        except (OSError, ValueError, KeyError, TypeError):
            pass  # absent, of an older format or damaged: it is made again
        packages: list[Package] = []
        for path in lists:
            packages += parse_linux_packages(must([_APT_HELPER, "cat-file", path], timeout=120))
        rows = [dataclasses.asdict(package) for package in packages]
        write_atomically(cache, json.dumps({"key": key, "packages": rows}).encode())
        return packages

    def _download(self, suite: str, packages: Sequence[Package]) -> None:
        environment = self._configure(suite)
        pool = self.root / "pool"
        pool.mkdir(parents=True, exist_ok=True)
        names = [f"{package.name}={package.version}" for package in packages]
        with tempfile.TemporaryDirectory(prefix=".incoming-", dir=pool) as incoming:
            folder = Path(incoming)
            argv = ["apt-get", "download", "-q", *names]
            done = run(argv, timeout=_DOWNLOAD_TIMEOUT, env=environment, cwd=folder)
            if done.returncode != 0:
                output = (done.stderr + done.stdout).decode(errors="replace")
                raise InfraError(
                    f"cannot download {', '.join(names)} from {self.mirror}: {_first_failure(output)}"
                    + (" (gone from the mirror? refresh the index)" if "404" in output else "")
                )
            for package in packages:
                self._admit(folder, package)

    def _admit(self, folder: Path, package: Package) -> None:
        """Move a downloaded file into the pool if it is exactly what the signed index promises."""
        arrived = folder / package.filename
        if not arrived.is_file():
            # apt quotes characters of a version in ways of its own; the digest decides, not the name.
            arrived = next(iter(folder.glob(f"{package.name}_*.deb")), arrived)
        if not arrived.is_file():
            raise InfraError(f"{self.mirror} delivered no file for {package.name} {package.version}")
        if (found := sha256_file(arrived)) != package.sha256:
            raise InfraError(f"refusing {package.filename}: SHA-256 {found} is not the index's {package.sha256}")
        target = self.pooled(package)
        target.parent.mkdir(parents=True, exist_ok=True)
        arrived.replace(target)  # same file system: the folder is inside the pool


def host_network_settings() -> list[str]:
    """What the host's administrator told apt about the network: proxies, certificates, and whether dates count.

    A frozen mirror (a snapshot) serves indices past their date; whether to take those is the administrator's decision.
    """
    dump = must(["apt-config", "dump"], timeout=30).decode(errors="replace")
    return [line for line in dump.splitlines() if _HOST_SETTING.match(line)]


def _age(stamp: Path, source_line: str) -> float | None:
    """Seconds since the last update from this very source; None when there was none."""
    try:
        return max(0.0, time.time() - stamp.stat().st_mtime) if stamp.read_text() == source_line else None
    except OSError:
        return None


def _first_failure(output: str) -> str:
    """The most telling line of apt's output, without its prefix and its URLs' tails."""
    found = [line.strip() for line in _FAILURE.findall(output)]
    telling = [line for line in found if _UNTRUSTED.search(line)] or [
        line for line in found if "Failed to fetch" in line
    ]
    chosen = (telling or found or [output.strip().rpartition("\n")[2] or "apt-get gave no reason"])[0]
    return " ".join(chosen.split())[:300]
