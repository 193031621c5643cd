"""A thin adapter over buildah: build an image from a Containerfile, mount it, list and remove images.

Storage is our own (``--root`` below the cache), so that what a killed build leaves can be removed without touching a
user's containers. ``--isolation chroot`` needs neither a container runtime nor cgroups, so it works in containers too.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness.errors import InfraError
from harness.hostcmd import must, run

_NAME = "localhost/kdmatrix"

_PATIENCE = 600.0
"""Seconds for what takes a fraction of one on a host at rest: a busy one is no reason to lose a cell."""

Volume = tuple[Path, str, str]
"""(path on the host, absolute path inside, ``ro`` or ``rw``)."""

_IN_NAMESPACE = """
b() { buildah --root "$KDM_ROOT" --runroot "$KDM_RUN" --storage-driver overlay "$@"; }
container=$(b from --pull-never "$1") || exit 1
shift
trap 'b rm "$container" >/dev/null' EXIT
tree=$(b mount "$container") && "$@" "$tree"
"""


class Buildah:
    """Images named ``localhost/kdmatrix/<kind>:<key>`` in a storage of our own."""

    def __init__(self, storage: Path) -> None:
        self._storage = storage
        self._prefix: list[str | Path] = [
            "buildah",
            "--root",
            storage / "root",
            "--runroot",
            storage / "run",
            "--storage-driver",
            "overlay",
        ]

    @property
    def rootless(self) -> bool:
        """Without root, mounting an image needs buildah's own user namespace."""
        return os.geteuid() != 0

    def reference(self, kind: str, key: str) -> str:
        """The name under which the image of a kind and a content key is stored."""
        return f"{_NAME}/{kind}:{key[:32]}"

    def exists(self, reference: str) -> bool:
        """Whether the image is in the storage."""
        return run([*self._prefix, "inspect", "--type", "image", reference], timeout=_PATIENCE).returncode == 0

    def build(
        self,
        reference: str,
        containerfile: Path,
        context: Path,
        *,
        arguments: Mapping[str, str] | None = None,
        volumes: Sequence[Volume] = (),
        timeout: float,
    ) -> str:
        """Build ``containerfile`` with ``context`` and tag it; return the build's log.

        Raises:
            InfraError: the build failed; the message quotes the last line of its error output.
        """
        words: list[str | Path] = [*self._prefix, "bud", "--isolation", "chroot", "--layers=false", "--format", "oci"]
        for name, value in sorted((arguments or {}).items()):
            words += ["--build-arg", f"{name}={value}"]
        for host, inside, mode in volumes:
            words += ["--volume", f"{host}:{inside}:{mode}"]
        # The label is an instruction: of a Containerfile that has none but FROM, buildah 1.28 forgets its container.
        words += ["--label", f"kdmatrix={reference.rpartition(':')[2]}"]
        words += ["--tag", reference, "--file", containerfile, context]
        done = run(words, timeout=timeout, env={"DEBIAN_FRONTEND": "noninteractive", "TMPDIR": str(self._scratch())})
        log = done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")
        if done.returncode != 0:
            raise BuildFailed(reference, done.returncode, log)
        return log

    def run(
        self,
        reference: str,
        argv: Sequence[str | Path],
        *,
        volumes: Sequence[Volume] = (),
        env: Mapping[str, str] | None = None,
        timeout: float,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run ``argv`` as root in a fresh container of an image that is thrown away after it.

        ``/proc``, ``/sys`` and ``/dev`` are
        there: objtool, for one, reads its stack limit from ``/proc``.

        Raises:
            InfraError: the container cannot be made, or ``argv`` ran longer than ``timeout`` seconds.
        """
        container = must([*self._prefix, "from", "--pull-never", reference], timeout=_PATIENCE).decode().strip()
        words: list[str | Path] = [*self._prefix, "run", "--isolation", "chroot"]
        for host, inside, mode in volumes:
            words += ["--volume", f"{host}:{inside}:{mode}"]
        for name, value in sorted((env or {}).items()):
            words += ["--env", f"{name}={value}"]
        try:
            return run([*words, container, "--", *argv], timeout=timeout, env={"TMPDIR": str(self._scratch())})
        finally:
            run([*self._prefix, "rm", container], timeout=_PATIENCE)

    @contextlib.contextmanager
    def mounted(self, reference: str) -> Iterator[Path]:
        """Mount an image read-only for the time of the block (root only; see :meth:`export` otherwise)."""
        container = must([*self._prefix, "from", "--pull-never", reference], timeout=_PATIENCE).decode().strip()
        try:
            yield Path(must([*self._prefix, "mount", container], timeout=_PATIENCE).decode().strip())
        finally:
            run([*self._prefix, "rm", container], timeout=_PATIENCE)

    def mkfs(self, reference: str, argv: list[str | Path], *, timeout: float) -> None:
        """Run ``argv`` with the mount point of the image appended.

        Rootless, the mount exists only inside buildah's user namespace, so the whole command runs in there.
        """
        if not self.rootless:
            with self.mounted(reference) as tree:
                must([*argv, tree], timeout=timeout)
            return
        must(
            ["buildah", "unshare", "sh", "-c", _IN_NAMESPACE, "kdmatrix", reference, *argv],
            timeout=timeout,
            env={"KDM_ROOT": str(self._storage / "root"), "KDM_RUN": str(self._storage / "run")},
        )

    def size_of(self, reference: str) -> int:
        """Uncompressed bytes of an image, 0 when it is not there."""
        done = run([*self._prefix, "images", "--json"], timeout=_PATIENCE)
        if done.returncode != 0:
            return 0
        for image in json.loads(done.stdout or b"[]") or []:
            if reference in (image.get("names") or []):
                return _bytes(str(image.get("size", "0")))
        return 0

    def remove_leftovers(self) -> int:
        """Remove the working containers that killed builds left; return how many there were."""
        done = run([*self._prefix, "containers", "--json"], timeout=_PATIENCE)
        if done.returncode != 0:
            return 0
        left = json.loads(done.stdout or b"[]") or []
        if left:
            run([*self._prefix, "rm", "--all"], timeout=300)
        shutil.rmtree(self._storage / "tmp", ignore_errors=True)
        return len(left)

    def _scratch(self) -> Path:
        """Where buildah keeps what a build needs for its time: what a killed one leaves is then ours to remove."""
        folder = self._storage / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def remove_all(self) -> None:
        """Remove every container and image of this storage."""
        run([*self._prefix, "rm", "--all"], timeout=300)
        done = run([*self._prefix, "rmi", "--all", "--force"], timeout=600)
        if done.returncode != 0:
            raise InfraError(
                f"buildah could not free its images: {done.stderr.decode(errors='replace').strip()[-300:]}"
            )


class BuildFailed(InfraError):
    """A Containerfile did not build. Whether that is the lab's fault or a finding is for the caller to judge."""

    def __init__(self, reference: str, status: int, log: str) -> None:
        self.log = log.encode()
        lines = [line.strip() for line in log.splitlines() if line.strip()]
        # buildah ends with its own summary; the program's own complaint comes before it and says more.
        telling = [line for line in lines if line.startswith(("E:", "Err:", "error:", "ERROR"))]
        last = telling[-1] if telling else (lines[-1] if lines else "no output")
        super().__init__(f"image {reference.rsplit('/', 1)[-1]} did not build (status {status}): {last[:300]}")


def _bytes(text: str) -> int:
    units = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
    number, _, unit = text.partition(" ")
    return int(float(number) * units.get(unit.upper(), 1))
