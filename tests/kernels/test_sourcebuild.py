"""Building kernels from source: fetched once, built once, checked against what was asked for.

Most tests build a miniature source tree that has the targets of a real one and takes milliseconds; the build program is
the real one, run on this host. A real kernel's configuration is in the slow lane.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.content import content_dir
from harness.errors import InfraError, UserError
from harness.images.builder import Images
from harness.images.toolchain import KernelToolchain
from harness.kernels.archive import Archive
from harness.kernels.config import parse_config
from harness.kernels.source import KernelUnavailable
from harness.kernels.sourcebuild import KernelBuildFailed, SourceBuild, first_error
from harness.model.cell import SourceKernel

RELEASE = "7.3.4-kdmatrix"

# The targets that the build program uses, doing what those of a kernel do in the least possible way: the configuration
# knows some symbols, drops the others, and drops Rust's where there is no rustc.
MAKEFILE = r"""VERSION = 7
PATCHLEVEL = 3
SUBLEVEL = 4
EXTRAVERSION =
export srctree := $(CURDIR)
KNOWN := CONFIG_MODULES|CONFIG_SMP|CONFIG_DRM|CONFIG_LOCALVERSION
tinyconfig:
	echo '# CONFIG_SMP is not set' >$(O)/.config
olddefconfig:
	{ echo 'CONFIG_CC_VERSION_TEXT="gcc (Debian 14.2.0-19) 14.2.0"'; grep -E '^($(KNOWN))=' $(O)/.config; } >$(O)/new
	mv $(O)/new $(O)/.config
rustavailable:
	@echo '*** Rust compiler rustc could not be found.' >&2; exit 1
bzImage:
	mkdir -p $(O)/arch/x86/boot
	cat kernel.c >$(O)/arch/x86/boot/bzImage
	@! grep -q 'broken' kernel.c || { echo 'kernel.c:7:3: error: expected a kernel' >&2; exit 1; }
modules:
	: >$(O)/modules.order
kernelrelease:
	@echo 7.3.4$(SUFFIX)$(LOCALVERSION)
modules_install:
	: >$(INSTALL_MOD_PATH)/lib/modules/7.3.4$(LOCALVERSION)/modules.order
	ln -s $(O) $(INSTALL_MOD_PATH)/lib/modules/7.3.4$(LOCALVERSION)/build
run-command:
	cd $(O) && $(KBUILD_RUN_COMMAND)
"""
MERGE = """#!/bin/sh
[ "$1 $2" = "-m -O" ] || exit 1
out=$3; shift 3
cat "$@" >$out/merged && mv $out/merged $out/.config
"""
HEADERS = """#!/bin/sh
mkdir -p "$1/include" && cp "$srctree/Makefile" "$1/Makefile" && : >"$1/Module.symvers"
"""


@dataclass
class HostToolchain:
    """Runs the real build program on this host, with links where a container has mounts."""

    root: Path
    name: str = "one"
    steps: list[str] = field(default_factory=list)

    def key(self, guest: str) -> str:
        return f"{guest} {self.name}"

    def run(
        self,
        guest: str,
        argv: Sequence[str],
        *,
        volumes: Sequence[tuple[Path, str, str]],
        env: Mapping[str, str],
        timeout: float,
    ) -> subprocess.CompletedProcess[bytes]:
        self.steps.append(argv[1])
        place = self.root / str(len(self.steps))
        place.mkdir(parents=True)
        for host, inside, _mode in volumes:
            (place / Path(inside).name).symlink_to(host)
        words = ["sh", str(place / "build.sh"), *argv[1:]]
        environment = {**os.environ, **env, "KDM_ROOT": str(place)}
        return subprocess.run(words, env=environment, timeout=timeout, capture_output=True, check=False)


@dataclass
class Bench:
    """A source tarball, configurations and a cache that a test changes as it likes."""

    root: Path
    toolchain: HostToolchain

    @property
    def tree(self) -> Path:
        return self.root / "linux-7.3.4"

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def kernel(self, *fragments: str) -> SourceBuild:
        tarball = self.root / "linux-7.3.4.tar"
        words = ["tar", "-cf", tarball, "--sort=name", "--mtime=@0", "-C", self.root, self.tree.name]
        subprocess.run(words, check=True)
        spec = SourceKernel(tarball=str(tarball), fragments=fragments)
        return SourceBuild(spec, self.root / "content", self.root / "cache", self.toolchain, no_archive)

    @property
    def cache(self) -> Path:
        return self.root / "cache"


def no_archive() -> Archive:
    raise AssertionError("no archive is needed for this")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path, HostToolchain(tmp_path / "containers"))
    bench.write("linux-7.3.4/Makefile", MAKEFILE)
    bench.write("linux-7.3.4/kernel.c", "the kernel\n")
    bench.write("linux-7.3.4/scripts/kconfig/merge_config.sh", MERGE)
    bench.write("linux-7.3.4/scripts/package/install-extmod-build", HEADERS)
    bench.write("content/vm.config", "# starts from: tinyconfig\nCONFIG_SMP=y\nCONFIG_MODULES=y\n")
    bench.write("content/drm.config", "CONFIG_DRM=y\n")
    bench.write("content/nova.config", "CONFIG_RUST=y\nCONFIG_DRM_NOVA=m\n")
    bench.write("content/build.sh", (content_dir("guests") / "_kernels" / "build.sh").read_text())
    return bench


def test_the_release_is_known_before_anything_is_built(bench: Bench) -> None:
    identity = bench.kernel("drm").resolve()
    assert identity.release == RELEASE
    assert identity.source == "built from tarball linux-7.3.4.tar (vm+drm)"
    assert bench.toolchain.steps == []


def test_a_kernel_is_laid_out_with_image_configuration_and_modules(bench: Bench) -> None:
    files = bench.kernel("drm").fetch(bench.root / "kernels")
    assert files.release == RELEASE
    assert files.vmlinuz.read_text() == "the kernel\n"
    assert parse_config(files.config.read_text())["CONFIG_DRM"] == "y"
    assert files.modules == files.root / "usr" / "lib" / "modules" / RELEASE
    assert (files.modules / "modules.dep").is_file()
    assert not (files.modules / "build").is_symlink()


def test_what_modules_are_built_against_comes_from_the_same_build(bench: Bench) -> None:
    kernel = bench.kernel("drm")
    kernel.fetch(bench.root / "kernels")
    headers = kernel.headers(bench.root / "headers")
    assert bench.toolchain.steps == ["configure", "compile"]
    build = headers.root / "usr" / "lib" / "modules" / RELEASE / "build"
    assert str(build.readlink()) == f"/usr/src/linux-headers-{RELEASE}"
    assert (headers.root / "usr" / "src" / f"linux-headers-{RELEASE}" / "Module.symvers").is_file()
    assert "CONFIG_CC_VERSION_TEXT" in headers.config.read_text()


def test_a_source_that_does_not_say_what_modules_need_gives_a_kernel_and_no_headers(bench: Bench) -> None:
    (bench.tree / "scripts" / "package" / "install-extmod-build").unlink()
    kernel = bench.kernel()
    assert kernel.fetch(bench.root / "kernels").vmlinuz.is_file()
    with pytest.raises(KernelUnavailable, match="delivers no headers"):
        kernel.headers(bench.root / "headers")


def test_the_same_inputs_are_built_once(bench: Bench) -> None:
    first = bench.kernel("drm").fetch(bench.root / "kernels")
    again = bench.kernel("drm").fetch(bench.root / "kernels")
    assert first == again
    assert bench.toolchain.steps == ["configure", "compile"]


@pytest.mark.parametrize("what", ["source", "fragment", "toolchain", "program"])
def test_another_input_makes_another_kernel(bench: Bench, what: str) -> None:
    before = bench.kernel("drm").resolve().digest
    if what == "source":
        bench.write("linux-7.3.4/kernel.c", "another kernel\n")
    elif what == "fragment":
        bench.write("content/drm.config", "CONFIG_DRM=m\n")
    elif what == "toolchain":
        bench.toolchain.name = "two"
    else:
        bench.write("content/build.sh", (bench.root / "content/build.sh").read_text() + "\n# changed\n")
    assert bench.kernel("drm").resolve().digest != before


def test_a_symbol_that_vanished_is_told_and_nothing_is_compiled(bench: Bench) -> None:
    bench.write("content/gone.config", "CONFIG_GONE=m\n")
    with pytest.raises(KernelBuildFailed, match=r"7\.3\.4-kdmatrix: 1 of .* CONFIG_GONE: wanted m, got n$"):
        bench.kernel("gone").fetch(bench.root / "kernels")
    assert bench.toolchain.steps == ["configure"]


def test_a_vanished_rust_symbol_is_told_with_what_the_kernel_says_of_rust(bench: Bench) -> None:
    said = r"CONFIG_DRM_NOVA: wanted m, got n; .*rustavailable says: Rust compiler rustc could not be found"
    with pytest.raises(KernelBuildFailed, match=said):
        bench.kernel("nova").fetch(bench.root / "kernels")


def test_a_source_that_does_not_compile_is_told_by_its_first_error(bench: Bench) -> None:
    bench.write("linux-7.3.4/kernel.c", "broken\n")
    kernel = bench.kernel()
    with pytest.raises(KernelBuildFailed, match=r"did not compile .*kernel\.c:7:3: error: expected a kernel; its log"):
        kernel.fetch(bench.root / "kernels")
    log = bench.cache / "sourcebuilds" / f"{kernel.resolve().digest}.failed.log"
    assert "expected a kernel" in log.read_text()
    assert not (bench.root / "kernels" / kernel.resolve().digest).exists()
    assert not list((bench.cache / "sourcebuilds").glob("*/work"))


def test_a_kernel_that_calls_itself_otherwise_is_refused(bench: Bench) -> None:
    bench.write("linux-7.3.4/Makefile", MAKEFILE.replace("7.3.4$(SUFFIX)", "7.3.5"))
    with pytest.raises(InfraError, match=r"of 7\.3\.4-kdmatrix was built, and calls itself 7\.3\.5-kdmatrix"):
        bench.kernel().fetch(bench.root / "kernels")


def test_a_local_version_of_the_configuration_is_part_of_the_release(bench: Bench) -> None:
    bench.write("content/mine.config", 'CONFIG_LOCALVERSION="-mine"\n')
    assert bench.kernel("mine").resolve().release == "7.3.4-mine-kdmatrix"


def test_an_unknown_fragment_is_the_users_error(bench: Bench) -> None:
    with pytest.raises(UserError, match="shipped ones are"):
        bench.kernel("novva").resolve()


def test_what_a_build_used_and_took_is_kept_beside_it(bench: Bench) -> None:
    kernel = bench.kernel("drm")
    kernel.fetch(bench.root / "kernels")
    folder = bench.cache / "sourcebuilds" / kernel.resolve().digest
    facts = json.loads((folder / "build.json").read_text())
    assert facts["compiler"] == "gcc (Debian 14.2.0-19) 14.2.0"
    assert len(facts["config_sha256"]) == 64
    assert facts["wall_seconds"] >= 0
    assert facts["cpu_seconds"] >= 0
    assert (folder / "build.log").is_file()
    assert not (folder / "work").exists()


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("  CC a.o\na.c:3:1: error: no\nb.c:1:1: error: nor\nmake[2]: *** [a.o] Error 1\n", "a.c:3:1: error: no"),
        ("make[2]: *** [x] Error 1\nerror[E0433]: failed to resolve\n", "error[E0433]: failed to resolve"),
        (
            "ld: vmlinux.o: undefined reference to `x'\nmake: *** [vmlinux] Error 1\n",
            "ld: vmlinux.o: undefined reference",
        ),
        ("make[1]: *** No rule to make target 'x'.  Stop.\n", "make[1]: *** No rule to make target 'x'. Stop."),
        ("strange\n", "strange"),
        ("", "it said nothing"),
    ],
)
def test_the_most_telling_line_of_a_log_is_found(log: str, line: str) -> None:
    assert first_error(log).startswith(line)


def real(images: Images, debian: Archive, *fragments: str) -> SourceBuild:
    spec = SourceKernel(debian="trixie-backports", fragments=fragments)
    content = content_dir("guests") / "_kernels"
    return SourceBuild(
        spec, content, images.cache, KernelToolchain(images), lambda: debian, len(os.sched_getaffinity(0))
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_real_kernel_drops_nova_where_drm_is_a_module_and_that_is_seen_before_anything_compiles(
    real_images: Images, debian: Archive, tmp_path: Path
) -> None:
    (tmp_path / "modular.config").write_text("CONFIG_DRM=m\n")
    kernel = real(real_images, debian, "nova", str(tmp_path / "modular.config"))
    with pytest.raises(KernelBuildFailed, match="CONFIG_DRM_NOVA: wanted m, got n; make rustavailable says: Rust is"):
        kernel.fetch(tmp_path / "kernels")


@pytest.mark.slow
@pytest.mark.timeout(14400)
def test_a_real_kernel_with_nova_is_built_from_debians_source(real_images: Images, debian: Archive) -> None:
    kernel = real(real_images, debian, "nova")
    files = kernel.fetch(real_images.cache / "kernels")
    assert {path.name for path in files.modules.rglob("nova*.ko")} == {"nova-core.ko", "nova-drm.ko"}
    assert kernel.headers(real_images.cache / "headers").config.read_bytes() == files.config.read_bytes()
