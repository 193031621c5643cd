"""The seed of a boot as lines of the script, which write its files again wherever the script runs."""

from __future__ import annotations

import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness.errors import InfraError
from harness.images.initramfs import Seed, write_seed
from harness.machines.domain import Disk


def seed_lines(disks: tuple[Disk, ...], boot_dir: Path, init: str) -> str:
    """Return what writes the files that :func:`write_seed` archives, less the keys, which the script makes.

    ``init`` is the path of the guest's init.
    """
    seed = Seed(b"", b"", tuple(disk.serial for disk in disks), "guest", init)
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
