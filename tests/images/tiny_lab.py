"""A lab whose images take a fraction of a second: guests FROM scratch, and a kernel that boots nothing.

Everything else is real: buildah, mkfs.erofs, locks and files. Run as a program it prepares one image and prints each
part that it begins, for tests that kill it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import InfraError
from harness.images.builder import Images
from harness.images.recipe import Recipes
from harness.kernels.archive import Archive
from harness.kernels.source import KernelFiles, KernelSource, KernelUnavailable
from harness.model.cell import KernelIdentity, KernelSpec, Series, TreeKernel


def spec(name: str = "k", path: str = "one") -> KernelSpec:
    return KernelSpec(name, Series.LONGTERM, TreeKernel(path))


@dataclass
class FakeKernelSource:
    """Three small files instead of a kernel; ``missing`` and ``broken`` are what a real source may answer."""

    spec: KernelSpec
    asked: list[str] = field(default_factory=list)

    def resolve(self) -> KernelIdentity:
        path = getattr(self.spec.source, "path", "")
        self.asked.append(path)
        if path == "missing":
            raise KernelUnavailable("the tree has no kernel")
        if path == "broken":
            raise InfraError("the mirror is dead")
        return KernelIdentity(f"6.0-{path}", "6.0", "fake", path.ljust(64, "0"))

    def fetch(self, into: Path) -> KernelFiles:
        identity = self.resolve()
        root = into / identity.digest
        modules = root / "usr/lib/modules" / identity.release
        modules.mkdir(parents=True, exist_ok=True)
        (modules / "modules.dep").write_text("erofs.ko:\n")
        (modules / "erofs.ko").write_bytes(b"module of " + identity.release.encode())
        for name in ("vmlinuz", "config"):
            (root / name).write_text(identity.release)
        return KernelFiles(identity.release, root / "vmlinuz", root / "config", modules, root)


def no_archive() -> Archive:
    raise AssertionError("a guest FROM scratch needs no package archive")


@dataclass
class TinyLab:
    """The content below ``folder``, and the caches that are opened on it."""

    folder: Path
    parts: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    on_part: Callable[[str], None] = lambda _part: None

    def write(self) -> TinyLab:
        files = {
            "guests/_boot/init": "#!/bin/sh\n",
            "guests/_boot/Containerfile.kernel": "FROM scratch\nCOPY modules /usr/lib/modules\n",
            "guests/_boot/Containerfile.tests": "FROM scratch\nCOPY . /opt/gpu_tests\n",
            "guests/g/Containerfile": "FROM scratch\nCOPY guest.yaml /etc/guest\n",
            "guests/g/guest.yaml": "description: d\ndistribution: x\nrelease: '1'\nbase: {}\n",
            "gpu_tests/bin/gtrun": "runner",
        }
        for stack in ("s", "t"):
            files[f"guests/g/stacks/{stack}/stack.yaml"] = f"description: {stack}\ndevice: none\n"
            files[f"guests/g/stacks/{stack}/Containerfile"] = "ARG BASE\nFROM ${BASE}\nCOPY note /etc/stack\n"
            files[f"guests/g/stacks/{stack}/note"] = f"stack {stack}\n"
        files["guests/g/stacks/bad/stack.yaml"] = "description: bad\n"
        files["guests/g/stacks/bad/Containerfile"] = "ARG BASE\nFROM ${BASE}\nCOPY nowhere /\n"
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return self

    def open(self) -> Images:
        """A new process' view of the same cache."""

        def source(spec: KernelSpec, _headers: bool) -> KernelSource:
            return FakeKernelSource(spec, self.asked)

        def begun(part: str) -> None:
            self.parts.append(part)
            self.on_part(part)

        return Images(
            self.folder / "cache",
            Recipes(self.folder / "guests"),
            no_archive,
            source,
            tests=lambda: self.folder / "gpu_tests",
            on_part=begun,
        )


if __name__ == "__main__":
    lab = TinyLab(Path(sys.argv[1]), on_part=lambda part: print(part, flush=True))
    lab.open().prepare("g", "s", spec(), timeout=60)
    print("ready", flush=True)
