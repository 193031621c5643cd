"""What one VM boot decides: a cell, and the identity of the kernel it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from harness.model.device import DeviceRequest
from harness.model.machine import LabBox, ThisMachine


class Series(StrEnum):
    """The kernel.org release category that a kernel of the matrix stands for."""

    LONGTERM = "longterm"
    STABLE = "stable"
    MAINLINE = "mainline"
    NEXT = "linux-next"


@dataclass(frozen=True, slots=True)
class DebianKernel:
    """A kernel from a Debian archive.

    ``version`` narrows to an upstream series (``6.12``), ``release`` names one ``uname -r`` exactly, or ``latest``.
    """

    suite: str
    version: str | None = None
    release: str = "latest"
    flavour: str = "amd64"


@dataclass(frozen=True, slots=True)
class TreeKernel:
    """A kernel from a local build tree (an object directory with ``vmlinux`` or ``arch/x86/boot/bzImage``)."""

    path: str


@dataclass(frozen=True, slots=True)
class RpmKernel:
    """A kernel from an RPM repository: Fedora, a COPR project, or any other that createrepo_c made.

    ``version`` and ``release`` narrow the choice as they do for :class:`DebianKernel`.
    """

    repository: str
    """Name of an entry of ``guests/_kernels/repositories.yaml``, or a URL, or a directory (``file:///…``)."""
    package: str = "kernel"
    """``kernel``, or the parallel name of a longterm package: ``kernel-longterm``."""
    version: str | None = None
    release: str = "latest"


@dataclass(frozen=True, slots=True)
class KojiKernel:
    """One build of a Koji instance, named by its NVR: ``kernel-7.3.4-200.fc44``."""

    nvr: str


@dataclass(frozen=True, slots=True)
class UbuntuKernel:
    """A kernel from an Ubuntu archive (``noble``, ``noble-updates``), or a build of its mainline archive.

    Exactly one of ``suite`` and ``mainline`` is set. ``mainline`` is a version such as ``v7.2.5`` or ``latest``.
    """

    suite: str | None = None
    mainline: str | None = None
    version: str | None = None
    release: str = "latest"
    flavour: str = "generic"


@dataclass(frozen=True, slots=True)
class PackagesKernel:
    """A kernel from ``.deb`` or ``.rpm`` files that lie on this host: image, modules and, where wanted, headers."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SourceKernel:
    """A kernel that is built here from source, in a container; exactly one of the first three is set."""

    tarball: str | None = None
    """Path of a ``linux-*.tar.*`` on this host."""
    git: tuple[str, str] | None = None
    """(path of a local repository, reference)."""
    debian: str | None = None
    """Suite whose ``linux-source-*`` package is built."""
    version: str | None = None
    """Upstream series that narrows the choice within ``debian``."""
    base: str = "vm"
    """Name of a base configuration, ``guests/_kernels/NAME.config``."""
    fragments: tuple[str, ...] = ()
    """Names of ``guests/_kernels/NAME.config``, or paths, merged over the base in this order."""
    guest: str = "debian-13"
    """Guest whose distribution supplies the compilers."""


@dataclass(frozen=True, slots=True)
class InstalledKernel:
    """A kernel that a lab box has installed; each box may have another one that fits."""

    pattern: str
    """Glob over what ``uname -r`` prints: ``6.12.*``. Of several that fit, the newest."""
    entry: str = ""
    """Identifier of the boot entry, where several boot that kernel."""


@dataclass(frozen=True, slots=True)
class RunningKernel:
    """The kernel that this very machine runs."""

    running: str
    """What ``uname -r`` prints."""


KernelOrigin = (
    DebianKernel
    | TreeKernel
    | RpmKernel
    | KojiKernel
    | UbuntuKernel
    | PackagesKernel
    | SourceKernel
    | InstalledKernel
    | RunningKernel
)


@dataclass(frozen=True, slots=True)
class KernelSpec:
    """One entry of the ``kernels`` axis: what is asked for, before it is resolved to an exact release."""

    name: str
    series: Series
    source: KernelOrigin
    cmdline: str = ""
    """Arguments appended to the guest kernel's command line."""
    secure_boot: bool = False
    """Boot through UEFI with Secure Boot on, the kernel signed by this lab's key."""


@dataclass(frozen=True, slots=True)
class KernelIdentity:
    """What a :class:`KernelSpec` was resolved to; every field is recorded with the result."""

    release: str
    """Exactly what ``uname -r`` must print."""
    version: str
    """Package version, or ``git describe`` of a tree."""
    source: str
    """Human-readable origin: ``debian trixie`` or ``tree /home/me/linux``."""
    digest: str
    """SHA-256 over the digests of all parts (packages, or files of a tree): the cache key of what is made of it."""
    parts: tuple[tuple[str, str], ...] = ()
    """(name, sha256) of each package or file."""
    has_headers: bool = False
    """Whether a stack can build modules for it."""
    commit: str = ""
    """Commit of the source, where it is known."""


_TEST_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds allowed for each part of a cell under hardware acceleration; emulation multiplies them."""

    image: float = 1800.0
    build: float = 1800.0
    boot: float = 120.0
    activate: float = 120.0
    test: float = _TEST_SECONDS
    cell: float = 3600.0

    def for_test(self, own: float) -> float:
        """Seconds for a compute test whose manifest allows it ``own``, which holds where ``test`` was left alone."""
        return own if self.test == _TEST_SECONDS else min(own, self.test)


@dataclass(frozen=True, slots=True)
class Cell:
    """One (guest, kernel, stack, device) of the matrix with everything needed to execute it."""

    guest: str
    kernel: KernelSpec
    stack: str
    device: str = "none"
    tests: tuple[str, ...] = ()
    boots: int = 1
    timeouts: Timeouts = field(default_factory=Timeouts)
    request: DeviceRequest | None = None
    """What is passed through; None where nothing is."""
    machine: LabBox | ThisMachine | None = None
    """The machine that it is executed on: a lab box, or this host itself; None for a VM of this host."""

    @property
    def place(self) -> str:
        """What the guests axis calls it: the lab box, ``here``, or the guest of a VM."""
        return self.machine.name if self.machine is not None else self.guest

    @property
    def id(self) -> str:
        """Stable between runs: it names the axes' entries, never an exact release."""
        return f"{self.place}/{self.kernel.name}/{self.stack}/{self.device}"

    @property
    def slug(self) -> str:
        """The id as a file name."""
        return self.id.replace("/", "__").replace(":", "-")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A combination of the axes that is not a cell, and why; it is shown, never dropped silently."""

    cell_id: str
    reason: str
