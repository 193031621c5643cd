"""Package archives for the tests: a small one of our own, signed here and served on loopback, and the real one."""

from __future__ import annotations

import hashlib
import http.server
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.errors import InfraError, UserError
from harness.kernels import KernelFiles, open_archive
from harness.kernels.archive import Archive
from harness.kernels.debian import DebianSource
from harness.model.cell import DebianKernel


def sh(*argv: str | Path, **kwargs: object) -> bytes:
    return subprocess.run([str(word) for word in argv], check=True, capture_output=True, **kwargs).stdout  # type: ignore[call-overload,no-any-return]


@dataclass
class Repository:
    """A signed package archive in a folder; ``dists/SUITE`` is rewritten by :meth:`publish`."""

    root: Path
    gnupg: Path
    keyring: Path
    url: str = ""
    stanzas: list[str] = field(default_factory=list)
    clock: int = 1_700_000_000

    def add(
        self,
        name: str,
        version: str,
        *,
        depends: str = "",
        arch: str = "amd64",
        files: dict[str, bytes] | None = None,
        links: dict[str, str] | None = None,
    ) -> Path:
        control = f"Package: {name}\nVersion: {version}\nArchitecture: {arch}\nMaintainer: test <t@example.org>\n"
        control += f"Depends: {depends}\n" if depends else ""
        control += "Description: made by a test\n"
        with tempfile.TemporaryDirectory() as folder:
            tree = Path(folder)
            tree.chmod(0o755)
            for path, data in {"DEBIAN/control": control.encode(), **(files or {})}.items():
                (tree / path).parent.mkdir(parents=True, exist_ok=True)
                (tree / path).write_bytes(data)
            for path, target in (links or {}).items():
                (tree / path).parent.mkdir(parents=True, exist_ok=True)
                (tree / path).symlink_to(target)
            deb = self.root / "pool" / f"{name}_{version}_{arch}.deb"
            deb.parent.mkdir(parents=True, exist_ok=True)
            sh("dpkg-deb", "--root-owner-group", "-Znone", "-b", tree, deb)
        data = deb.read_bytes()
        self.stanzas.append(
            f"{control}Filename: pool/{deb.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
        )
        return deb

    def add_split_kernel(self, release: str, version: str, *, without: tuple[str, ...] = ()) -> None:
        """A kernel in the layout that Debian uses since 7.0; ``without`` names the parts that the archive lost."""
        modules = f"usr/lib/modules/{release}"
        parts: dict[str, tuple[str, dict[str, bytes]]] = {
            "linux-base": ("", {f"{modules}/config": b"CONFIG_EROFS_FS=m\n"}),
            "linux-binary": (f"linux-base-{release} (= {version})", {f"{modules}/vmlinuz": release.encode()}),
            "linux-modules": (
                f"kmod, linux-base-{release} (= {version})",
                {f"{modules}/modules.order": b"", f"{modules}/modules.builtin": b"kernel/fs/ext4/ext4.ko\n"},
            ),
            "linux-headers": (
                f"gcc-99-for-host, linux-image-{release} (= {version}), linux-kbuild-{release}",
                {f"usr/src/linux-headers-{release}/.config": b"CONFIG_EROFS_FS=m\n"},
            ),
            "linux-kbuild": ("libc6 (>= 2.38)", {f"usr/lib/linux-kbuild-{release}/scripts/kallsyms": b"tool"}),
            "linux-image": (
                f"dracut | linux-initramfs-tool, linux-base-{release} (= {version}), "
                f"linux-binary-{release} (= {version}), linux-modules-{release} (= {version})",
                {},
            ),
        }
        for part, (depends, files) in parts.items():
            if part not in without:
                build = {f"{modules}/build": f"../../../src/linux-headers-{release}"} if part == "linux-headers" else {}
                self.add(f"{part}-{release}", version, depends=depends, files=files, links=build)

    def add_whole_kernel(self, release: str, version: str, *, headers: bool = False) -> None:
        """A kernel in one package with files in /boot and /lib, as Debian 12 has it."""
        files = {
            f"boot/vmlinuz-{release}": release.encode(),
            f"boot/config-{release}": b"CONFIG_EXT4_FS=y\n",
            f"lib/modules/{release}/modules.order": b"",
            f"lib/modules/{release}/modules.builtin": b"",
        }
        self.add(f"linux-image-{release}", version, depends="kmod, linux-base (>= 4.3~)", files=files)
        if headers:
            source = f"usr/src/linux-headers-{release}"
            self.add("linux-compiler-gcc-99-x86", version, depends="gcc-99", files={"usr/bin/compiler": b""})
            self.add(
                f"linux-headers-{release}",
                version,
                depends=f"linux-image-{release} (= {version}), linux-compiler-gcc-99-x86",
                files={f"{source}/.config": b"CONFIG_EXT4_FS=y\n", "usr/lib/linux-kbuild-6.1/tool": b""},
                links={f"lib/modules/{release}/build": f"/{source}"},
            )

    def publish(self, suite: str, *, signed: bool = True) -> None:
        packages = ("\n".join(self.stanzas) + "\n").encode()
        folder = self.root / "dists" / suite
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "main/binary-amd64").mkdir(parents=True)
        (folder / "main/binary-amd64/Packages").write_bytes(packages)
        release = (
            f"Origin: Debian\nLabel: Debian\nSuite: {suite}\nCodename: {suite}\nArchitectures: amd64\n"
            "Components: main\nDate: Sun, 01 Nov 2026 00:00:00 UTC\nSHA256:\n"
            f" {hashlib.sha256(packages).hexdigest()} {len(packages)} main/binary-amd64/Packages\n"
        )
        (folder / "Release").write_text(release)
        if signed:
            argv = ["gpg", "--homedir", self.gnupg, "--batch", "--yes", "--clearsign", "-o", folder / "InRelease"]
            sh(*argv, folder / "Release")
        self.touch(suite)

    def touch(self, suite: str) -> None:
        """Date the files so that HTTP, which counts whole seconds, sees each publication as newer than the last."""
        self.clock += 60
        for path in (self.root / "dists" / suite).rglob("*"):
            os.utime(path, (self.clock, self.clock))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="session")
def signing_key() -> Iterator[tuple[Path, Path]]:
    """(GnuPG home, exported keyring) of a key made for this test session."""
    for program in ("apt-get", "dpkg-deb", "gpg"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    # A short path: the agent's socket lives there, and a socket's path has 108 bytes.
    home = Path(tempfile.mkdtemp(prefix="kdm"))
    try:
        sh("gpg", "--homedir", home, "--batch", "--passphrase", "", "--quick-gen-key", "t@example.org", "rsa2048")
        keyring = home / "archive.gpg"
        keyring.write_bytes(sh("gpg", "--homedir", home, "--batch", "--export"))
        yield home, keyring
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def stranger(signing_key: tuple[Path, Path]) -> Iterator[Path]:
    """GnuPG home of a key of the same name that nobody trusts."""
    home = Path(tempfile.mkdtemp(prefix="kdm"))
    try:
        sh("gpg", "--homedir", home, "--batch", "--passphrase", "", "--quick-gen-key", "t@example.org", "rsa2048")
        yield home
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def repository(tmp_path: Path, signing_key: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    root = tmp_path / "repository"
    root.mkdir()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: _Quiet(*args, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Repository(root, *signing_key, url=f"http://127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="session")
def cache() -> Path:
    """Kept between sessions, so that real kernels are downloaded once: ``$KDMATRIX_TEST_CACHE`` or the user's cache."""
    named = os.environ.get("KDMATRIX_TEST_CACHE") or os.environ.get("XDG_CACHE_HOME", "~/.cache") + "/kdmatrix-tests"
    return Path(named).expanduser()


@pytest.fixture(scope="session")
def debian(cache: Path) -> Archive:
    """The real archive; skips where this host has none configured."""
    try:
        return open_archive(cache)
    except UserError as error:
        pytest.skip(f"no Debian archive here: {error}")


@pytest.fixture(scope="session")
def real_kernel(debian: Archive, cache: Path) -> Callable[[str], KernelFiles]:
    """The newest kernel of a suite; skips where the archive cannot be reached."""

    def fetch(suite: str) -> KernelFiles:
        # Only an index out of reach is a reason to skip; whatever goes wrong with one in hand is a defect of ours.
        try:
            debian.index(suite)
        except InfraError as error:
            pytest.skip(f"{suite} is out of reach: {error}")
        return DebianSource(DebianKernel(suite), debian).fetch(cache / "kernels")

    return fetch
