"""Installs RPM packages into an empty root on this host: dnf and rpm with a configuration of their own.

Nothing of the host's own dnf is read or written. dnf resolves against the repositories named and nothing else, and rpm
checks each package's signature against the repository's key. Sources: dnf(8), dnf.conf(5), rpm(8), unshare(1).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import InfraError
from harness.hostcmd import run
from harness.kernels.repositories import Repository
from harness.placing import digest_of_parts, locked, sha256_file

_METADATA_TTL = 6 * 3600
_UPDATE_TIMEOUT = 600.0
_LOCK_TIMEOUT = 1800.0
_DATABASE = "/usr/lib/sysimage/rpm"
"""Where Fedora keeps the database of installed packages; Debian's rpm has another default."""

_IN_ROOT = """
set -e
root=$1 cache=$2 tar=$3
shift 3
mkdir -p "$root/proc" "$root/dev" "$root/var/cache/dnf"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 dev "$root/dev"
for node in null zero full random urandom tty; do
    : >"$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mount --bind "$cache" "$root/var/cache/dnf"
dnf "$@"
umount -R "$root/proc" "$root/dev" "$root/var/cache/dnf"
[ -z "$tar" ] || exec tar --create --numeric-owner --xattrs --sort=name --file "$tar" \
    --exclude "./var/log/dnf*" --exclude "./var/log/hawkey*" --exclude "./var/cache/dnf/*" --directory "$root" .
"""
_ALONE = ("unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child", "--")
"""Scriptlets of packages see /proc and /dev, in mounts that end with the program, however it ends."""
_ERROR = re.compile(r"^(?:Error|error): *(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class DnfRoot:
    """dnf with its caches below ``cache``."""

    cache: Path

    def state(self, release: str, repositories: Sequence[Repository]) -> str:
        """SHA-256 over each repository's ``repomd.xml``: it changes whenever anything in one of them does.

        Raises:
            InfraError: a repository does not answer, or dnf is not installed.
        """
        with tempfile.TemporaryDirectory(prefix="dnf-", dir=self._folder("scratch")) as work:
            self._dnf(Path(work), release, repositories, ["makecache"], None, _UPDATE_TIMEOUT)
        found = []
        for one in repositories:
            indices = sorted(self._packages().glob(f"{_label(one)}-*/repodata/repomd.xml"))
            if not indices:
                raise InfraError(f"dnf kept no index of {one.url}")
            found += [(one.url, sha256_file(path)) for path in indices]
        return digest_of_parts(tuple(found))

    def install(
        self,
        release: str,
        repositories: Sequence[Repository],
        include: Sequence[str],
        exclude: Sequence[str],
        into: Path,
        timeout: float,
    ) -> None:
        """Write a tar archive of a root that holds ``include`` and all that it requires.

        Raises:
            InfraError: packages are missing or unsigned, or a repository does not answer.
        """
        words = ["install", *(f"--exclude={name}" for name in exclude), *include]
        with tempfile.TemporaryDirectory(prefix="dnf-", dir=self._folder("scratch")) as work:
            self._dnf(Path(work), release, repositories, words, into, timeout)

    def _dnf(
        self,
        work: Path,
        release: str,
        repositories: Sequence[Repository],
        words: Sequence[str],
        tar: Path | None,
        timeout: float,
    ) -> None:
        if os.geteuid() != 0:
            raise InfraError("a base made of RPMs needs root: rpm sets owners and runs scriptlets in the new root")
        root, home = work / "root", work / "home"
        root.mkdir(mode=0o755)
        home.mkdir()
        (home / ".rpmmacros").write_text(f"%_dbpath {_DATABASE}\n%_db_backend sqlite\n")
        (home / "dnf.conf").write_text(_configuration(repositories, home))
        argv: list[str | Path] = [*_ALONE, "sh", "-c", _IN_ROOT, "dnf", root, self._packages(), tar or ""]
        argv += ["--config", home / "dnf.conf", f"--installroot={root}", f"--releasever={release}"]
        argv += ["--assumeyes", "--quiet", "--forcearch=x86_64", *words]
        with locked(self._packages() / ".lock", timeout=_LOCK_TIMEOUT):
            # Left by a killed one, in a process namespace that is gone: the number may be somebody else's by now.
            for left in self._packages().glob("*.pid"):
                left.unlink()
            # A directory of this host answers at once, and dnf cannot tell two states of it within one second apart.
            for one in repositories:
                if one.url.startswith("file:"):
                    for index in self._packages().glob(f"{_label(one)}*"):
                        shutil.rmtree(index) if index.is_dir() else index.unlink()
            done = run(argv, timeout=timeout, env={"HOME": str(home), "TMPDIR": str(work)})
        if done.returncode != 0:
            raise InfraError(f"dnf cannot {words[0]}: {_why(done.stderr.decode(errors='replace'), repositories)}")

    def _packages(self) -> Path:
        return self._folder("dnf")

    def _folder(self, name: str) -> Path:
        folder = self.cache / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def _configuration(repositories: Sequence[Repository], home: Path) -> str:
    main = {
        "reposdir": home / "none",
        "varsdir": home / "none",
        "pluginconfpath": home / "none",
        "plugins": 0,
        "cachedir": "/var/cache/dnf",
        "keepcache": 1,
        "best": 1,
        "install_weak_deps": 0,
        "tsflags": "nodocs",
        "multilib_policy": "best",
        "timeout": 20,
        "retries": 2,
        "skip_if_unavailable": 0,
        "gpgcheck": 1,
        "localpkg_gpgcheck": 1,
        "logfilelevel": 0,
    }
    text = _section("main", main)
    for one in repositories:
        settings: dict[str, object] = {"name": one.name, "baseurl": f"{one.url}/", "metadata_expire": _METADATA_TTL}
        signed = {"packages": "gpgcheck", "repomd": "repo_gpgcheck"}
        settings |= {switch: int(one.signed == what) for what, switch in signed.items()}
        settings |= {"gpgkey": one.key.as_uri()} if one.key else {}
        text += _section(_label(one), settings)
    return text


def guest_repositories(repositories: Sequence[Repository]) -> str:
    """The same repositories for the dnf of a guest, whose own keys lie in ``/etc/pki/rpm-gpg``."""
    text = ""
    for one in repositories:
        settings: dict[str, object] = {"name": one.name, "baseurl": f"{one.url}/", "enabled": 1}
        settings |= {"gpgcheck": int(one.signed == "packages"), "repo_gpgcheck": int(one.signed == "repomd")}
        settings |= {"gpgkey": f"file:///etc/pki/rpm-gpg/{one.key.name}"} if one.key else {}
        text += _section(_label(one), settings)
    return text


def _section(name: str, settings: dict[str, object]) -> str:
    return f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in settings.items())


def _label(repository: Repository) -> str:
    """A name for dnf that also names its cache: the same for the same address."""
    return f"kdmatrix-{hashlib.sha256(repository.url.encode()).hexdigest()[:16]}"


def _why(output: str, repositories: Sequence[Repository]) -> str:
    """dnf's own complaint in one line, with addresses where it speaks of names that we made up."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    unsigned = [line for line in lines if "is not signed" in line or "not installed" in line]
    found = unsigned or _ERROR.findall(output)
    text = " ".join((found[0] if found and found[0] else "; ".join(lines[-3:]) or "it gave no reason").split())
    for one in repositories:
        text = text.replace(_label(one), one.name)
    return text[:400]
