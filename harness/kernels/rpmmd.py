"""Metadata of RPM repositories: ``repodata/repomd.xml`` and the primary index that it vouches for.

Sources: createrepo_c(8) and its output; rpm-dependencies(7) for what ``Provides`` says.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO
from xml.etree import ElementTree

import zstandard

from harness.errors import InfraError
from harness.kernels.fetching import Downloads, read_url
from harness.kernels.repositories import Repository
from harness.kernels.signatures import check_detached

_REPO = "{http://linux.duke.edu/metadata/repo}"
_MAIN = "{http://linux.duke.edu/metadata/common}"
_RPM = "{http://linux.duke.edu/metadata/rpm}"
_SHA256 = re.compile(r"^[0-9a-f]{64}$")
_SAFE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._+~^-]*$")
_HREF = re.compile(r"^(?!/)(?!.*(?:^|/)\.\.(?:/|$))[A-Za-z0-9._+~^/%:-]+$")
_UNCOMPRESSED_LIMIT = 2 << 30


@dataclass(frozen=True, slots=True)
class RpmPackage:
    """One binary package as the index describes it."""

    name: str
    epoch: str
    version: str
    release: str
    arch: str
    sha256: str
    href: str
    """Path within the repository."""
    provides: tuple[tuple[str, str], ...] = ()
    """(name, version-release) of what it provides as one exact version."""
    requires: tuple[str, ...] = ()

    @property
    def evr(self) -> tuple[str, str, str]:
        """What :func:`harness.kernels.version.evr_key` sorts by."""
        return self.epoch, self.version, self.release

    @property
    def filename(self) -> str:
        """The last part of its path."""
        return self.href.rpartition("/")[2]


def read_index(repository: Repository, downloads: Downloads, prefix: str) -> list[RpmPackage]:
    """Return the packages of a repository whose names start with ``prefix``.

    Raises:
        InfraError: the metadata cannot be had, is damaged, or is not signed as the repository's entry says.
    """
    where = repository.url

    def check(data: bytes) -> None:
        if repository.signed == "repomd" and repository.key is not None:
            signature = read_url(f"{where}/repodata/repomd.xml.asc", limit=1 << 20)
            check_detached(data, signature, repository.key, f"{where}/repodata/repomd.xml")
        _primary_of(data, where)

    repomd = downloads.metadata(f"{where}/repodata/repomd.xml", check, limit=16 << 20)
    href, sha256 = _primary_of(repomd, where)
    path = downloads.file(f"{where}/{href}", href.rpartition("/")[2], sha256)
    try:
        with path.open("rb") as file, _decompressed(path.name, file) as stream:
            return list(_packages(_Bounded(stream), prefix))
    except (OSError, EOFError, lzma.LZMAError, zlib.error, zstandard.ZstdError, ElementTree.ParseError) as error:
        raise InfraError(f"{where}/{href}: damaged: {error}") from None


def _primary_of(repomd: bytes, where: str) -> tuple[str, str]:
    """(path, SHA-256) of the primary index."""
    if b"<!DOCTYPE" in repomd:
        raise InfraError(f"{where}/repodata/repomd.xml: refusing XML with a document type")
    try:
        root = ElementTree.fromstring(repomd)  # noqa: S314  a document type is refused above
    except ElementTree.ParseError as error:
        raise InfraError(f"{where}/repodata/repomd.xml: damaged: {error}") from None
    for data in root.iter(f"{_REPO}data"):
        if data.get("type") == "primary":
            location, checksum = data.find(f"{_REPO}location"), data.find(f"{_REPO}checksum")
            href = location.get("href", "") if location is not None else ""
            digest = (checksum.text or "").strip() if checksum is not None else ""
            if checksum is None or checksum.get("type") != "sha256" or not _SHA256.match(digest):
                raise InfraError(f"{where}/repodata/repomd.xml: the primary index has no SHA-256")
            if not _HREF.match(href):
                raise InfraError(f"{where}/repodata/repomd.xml: {href!r} is no path within the repository")
            return href, digest
    raise InfraError(f"{where}/repodata/repomd.xml: names no primary index")


def _decompressed(name: str, file: IO[bytes]) -> IO[bytes]:
    if name.endswith(".gz"):
        return gzip.open(file)  # type: ignore[return-value]  # GzipFile reads like IO[bytes], only typeshed does not say so
    if name.endswith(".zst"):
        return zstandard.ZstdDecompressor().stream_reader(file)
    if name.endswith(".xz"):
        return lzma.open(file)
    if name.endswith(".bz2"):
        return bz2.open(file)
    return file


class _Bounded(io.RawIOBase):
    """Reads from a stream until it has given more than any honest index holds, or a document type begins."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._left = _UNCOMPRESSED_LIMIT
        self._first = True

    def read(self, size: int = -1) -> bytes:
        """See :meth:`io.RawIOBase.read`."""
        data = self._stream.read(min(size, 1 << 20) if size > 0 else 1 << 20)
        self._left -= len(data)
        if self._left < 0:
            raise OSError(f"more than {_UNCOMPRESSED_LIMIT} bytes")
        if self._first and b"<!DOCTYPE" in data:
            raise OSError("XML with a document type")
        self._first = False
        return data


def _packages(stream: _Bounded, prefix: str) -> Iterator[RpmPackage]:
    parser = ElementTree.iterparse(stream, events=("start", "end"))  # noqa: S314  refused by _Bounded
    _, root = next(parser)
    for event, element in parser:
        if event == "end" and element.tag == f"{_MAIN}package":
            if (element.findtext(f"{_MAIN}name") or "").startswith(prefix):
                found = _package(element)
                if found is not None:
                    yield found
            root.clear()  # tens of thousands of others would stay in memory


def _package(element: ElementTree.Element) -> RpmPackage | None:
    version, location = element.find(f"{_MAIN}version"), element.find(f"{_MAIN}location")
    checksum = element.find(f"{_MAIN}checksum")
    if version is None or location is None or checksum is None or checksum.get("type") != "sha256":
        return None
    texts = (element.findtext(f"{_MAIN}name") or "", version.get("ver", ""), version.get("rel", ""))
    arch, href, sha256 = element.findtext(f"{_MAIN}arch") or "", location.get("href", ""), (checksum.text or "").strip()
    # What cannot be verified cannot be used; the others become parts of file names.
    if not (_SHA256.match(sha256) and _HREF.match(href) and all(map(_SAFE.match, (*texts, arch)))):
        return None
    return RpmPackage(
        name=texts[0],
        epoch=version.get("epoch", "0") if version.get("epoch", "0").isdecimal() else "0",
        version=texts[1],
        release=texts[2],
        arch=arch,
        sha256=sha256,
        href=href,
        provides=tuple(
            (
                entry.get("name", ""),
                f"{entry.get('ver', '')}-{entry.get('rel')}" if entry.get("rel") else entry.get("ver", ""),
            )
            for entry in element.iterfind(f".//{_RPM}provides/{_RPM}entry")
            if entry.get("flags") == "EQ"
        ),
        requires=tuple(entry.get("name", "") for entry in element.iterfind(f".//{_RPM}requires/{_RPM}entry")),
    )
