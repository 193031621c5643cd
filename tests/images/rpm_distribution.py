"""A small distribution made of RPMs: Debian's own files, cut into packages under Fedora's names, with its kernel.

It is what RPM guests are tested with where no RPM distribution can be had. rpmbuild finds the shared libraries that
each package offers and needs, so dnf has real dependencies to resolve; createrepo_c makes the repository. The programs
are Debian's, the layout (merged /usr, kernel below /usr/lib/modules, rpm's database) is Fedora's.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.kernels.archive import Archive
from harness.kernels.debian import DebianSource
from harness.model.cell import DebianKernel
from harness.placing import digest_of_parts, placed_once, sha256_file

SUITE = "trixie"
PROGRAMS = ("rpmbuild", "createrepo_c", "dnf", "dpkg-deb")

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "glibc": ("libc6", "libc-bin"),
    "libgcc": ("libgcc-s1", "libgomp1", "libstdc++6"),
    "libxcrypt": ("libcrypt1",),
    "ncurses-libs": ("libtinfo6",),
    "bash": ("bash",),
    "coreutils": ("coreutils",),
    "libacl": ("libacl1", "libattr1"),
    "libselinux": ("libselinux1",),
    "pcre2": ("libpcre2-8-0",),
    "gmp": ("libgmp10",),
    "libcap": ("libcap2", "libcap-ng0"),
    "openssl-libs": ("libssl3t64",),
    "zlib-ng-compat": ("zlib1g",),
    "libzstd": ("libzstd1",),
    "xz-libs": ("liblzma5",),
    "bzip2-libs": ("libbz2-1.0",),
    "systemd-libs": ("libsystemd0", "libudev1"),
    "util-linux": ("util-linux", "mount", "libblkid1", "libmount1", "libsmartcols1", "libuuid1", "liblastlog2-2"),
    "kmod": ("kmod", "libkmod2"),
    "grep": ("grep",),
    "sed": ("sed",),
    "openssh-server": ("openssh-server", "libwrap0", "libwtmpdb0"),
    "pam-libs": ("libpam0g", "libaudit1"),
    "krb5-libs": ("libgssapi-krb5-2", "libkrb5-3", "libk5crypto3", "libkrb5support0", "libcom-err2", "libkeyutils1"),
    "sqlite-libs": ("libsqlite3-0",),
    "popt": ("libpopt0",),
    "readline": ("libreadline8t64",),
    "libarchive": ("libarchive13t64", "libxml2", "liblz4-1", "libxxhash0"),
    "dbus-libs": ("libdbus-1-3",),
    "fsverity-utils": ("libfsverity0",),
    "lua-libs": ("liblua5.3-0",),
    "elfutils-libelf": ("libelf1t64", "libdw1t64"),
    "rpm-sequoia": ("librpm-sequoia-1", "libnettle8t64", "libhogweed6t64"),
    "rpm": ("rpm", "rpm2cpio", "librpm10", "librpmio10", "librpmbuild10", "librpmsign10", "rpm-common", "libmagic1t64"),
    # From here on, what a build root of modules needs beside a guest.
    "gcc": ("gcc-14-x86-64-linux-gnu", "cpp-14-x86-64-linux-gnu", "libcc1-0", "libmpc3", "libmpfr6", "libisl23"),
    "binutils": (
        "binutils",
        "binutils-x86-64-linux-gnu",
        "libbinutils",
        "libctf0",
        "libctf-nobfd0",
        "libsframe1",
        "libjansson4",
    ),
    "make": ("make", "findutils", "cpio", "mawk", "diffutils", "xz-utils", "pahole", "libbpf1"),
}
"""Fedora's name of a package: the Debian packages whose files are in it."""

BASE = ("glibc", "bash", "coreutils", "util-linux", "kmod", "grep", "sed", "openssh-server", "rpm", "tiny-release")
"""What a guest asks for; dnf adds what these need."""

TOOLS = ("gcc", "binutils", "make", "akmods")
"""What a build root of modules has beside the guest."""

_LEFT_OUT = re.compile(
    r"^/?(usr/share/(doc|man|locale|info|lintian|bug|bash-completion|gcc|gdb)|etc/(init\.d|default))/|/lto1$|gprofng|(/|-)gp-[a-z-]+$"
    r"|bin/x86_64-linux-gnu-(dwp|ld\.gold|lto-dump.*)$"
)

_FILESYSTEM = """
mkdir -p %{buildroot}/{etc,root,tmp,run,proc,sys,dev,boot,opt}
mkdir -p %{buildroot}/var/{lib,log,cache,tmp} %{buildroot}/usr/{bin,sbin,lib,lib64,src,share}
for name in bin sbin lib lib64; do ln -s usr/$name %{buildroot}/$name; done
ln -s ../run %{buildroot}/var/run
ln -s bash %{buildroot}/usr/bin/sh
cat >%{buildroot}/etc/passwd <<'END'
root:x:0:0:root:/root:/bin/bash
sshd:x:74:74:sshd:/run/sshd:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/:/usr/sbin/nologin
END
printf 'root:x:0:\\ntty:x:5:\\nvideo:x:39:\\nrender:x:105:\\nsshd:x:74:\\nnobody:x:65534:\\n' >%{buildroot}/etc/group
printf '/usr/lib/x86_64-linux-gnu\\n' >%{buildroot}/etc/ld.so.conf
printf 'NAME="Tiny RPM"\\nID=tiny\\nID_LIKE=fedora\\nVERSION_ID=1\\n' >%{buildroot}/etc/os-release
chmod 1777 %{buildroot}/tmp %{buildroot}/var/tmp
"""

_HEAD = """
%global _buildshell /bin/bash
%global debug_package %{{nil}}
%global __os_install_post %{{nil}}
%global _build_id_links none
%global _binary_payload w1.zstdio
%global __requires_exclude ^/|^perl|^python|^rtld
%global __brp_ldconfig %{{nil}}
%global _use_internal_dependency_generator 1
Name: {name}
Version: {version}
Release: {release}
Summary: {summary}
License: various
BuildArch: x86_64
%description
{summary}
"""


_MODULE = """#include <linux/module.h>
void no_kernel_has_this(void);
static int __init begin(void) {{ {call} return 0; }}
static void __exit end(void) {{ }}
module_init(begin);
module_exit(end);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("a module of the tests");
"""

_KMOD = """
%global debug_package %{nil}
%global __os_install_post %{nil}
%{!?kernels: %global kernels none}
Name: NAME-kmod
Version: 1
Release: 1
Summary: A module of the tests
License: GPL
Source0: NAME.c
%description
A module of the tests.
%package -n kmod-NAME-%{kernels}
Summary: The module, built
AutoReq: no
%description -n kmod-NAME-%{kernels}
The module, built.
%prep
%setup -q -c -T
cp %{SOURCE0} .
echo 'obj-m := NAME.o' >Makefile
%build
make -C /usr/lib/modules/%{kernels}/build M=$PWD modules
%install
install -D -m 644 NAME.ko %{buildroot}/usr/lib/modules/%{kernels}/extra/NAME/NAME.ko
xz %{buildroot}/usr/lib/modules/%{kernels}/extra/NAME/NAME.ko
%files -n kmod-NAME-%{kernels}
/usr/lib/modules/%{kernels}/extra/NAME
"""

_AKMODS = r"""#!/bin/bash
# Akmods in miniature: the same arguments, files and logs as the real one, around the same rpmbuild.
while [ $# -gt 0 ]; do
    case $1 in
    --kernels) kernel=$2; shift ;;
    --kmod) kmod=$2; shift ;;
    esac
    shift
done
kept=/var/cache/akmods/$kmod
mkdir -p "$kept"
if [ ! -e "/usr/lib/modules/$kernel/build/Makefile" ]; then
    echo "Could not find files needed to compile modules for $kernel" >&2
    exit 1
fi
log=$kept/1-1-for-$kernel
if rpmbuild --define "_topdir /tmp/akmods" --define "_rpmdir $kept" --define "kernels $kernel" \
    --define "_rpmfilename %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm" \
    --rebuild "/usr/src/akmods/$kmod-kmod.latest" >"$log.log" 2>&1; then
    rpm --install --nodeps "$kept"/kmod-*.rpm 2>&1
else
    mv "$log.log" "$log.failed.log"
fi
exit 0
"""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A repository of the small distribution."""

    folder: Path
    release: str
    """``uname -r`` of its kernel."""

    @property
    def repository(self) -> str:
        """The address that dnf and the kernel source take."""
        return (self.folder / "repository").as_uri()

    def package(self, name: str) -> Path:
        """The file of one package."""
        (found,) = (self.folder / "repository").glob(f"{name}-[0-9]*.rpm")
        return found


def make_distribution(cache: Path, archive: Archive) -> Distribution:
    """Make the repository, once for the versions that the archive has now."""
    names = sorted({name for names in PACKAGES.values() for name in names})
    packages = dict(zip(names, archive.packages(SUITE, names), strict=True))
    kernel = DebianSource(DebianKernel(SUITE), archive, need_headers=True)
    identity = kernel.resolve()
    own = sha256_file(Path(__file__))
    key = digest_of_parts((("own", own), ("kernel", identity.digest), *((n, p.sha256) for n, p in packages.items())))

    def build(into: Path) -> None:
        into = into.absolute()
        repository = into / "repository"
        repository.mkdir()
        debs = dict(zip(names, archive.download(SUITE, list(packages.values())), strict=True))
        _make_programs(into / "work", repository, debs, {name: one.version for name, one in packages.items()})
        files = kernel.fetch(cache / "kernels")
        _make_kernel(into / "work", repository, files.root, kernel.headers(cache / "headers").root, identity.release)
        _must("createrepo_c", "--quiet", repository)
        shutil.rmtree(into / "work")

    return Distribution(placed_once(cache / "rpm-distribution" / key[:32], build), identity.release)


def _make_programs(work: Path, repository: Path, debs: Mapping[str, Path], versions: Mapping[str, str]) -> None:
    """Every program package and the two that an RPM distribution has beside them, from one spec."""
    trees = work / "trees"
    spec = _HEAD.format(name="filesystem", version="1", release="1.tiny", summary="The directories of the root")
    install, sections = [_FILESYSTEM], ["%files\n/*\n"]
    listed: list[str] = []
    for name, parts in PACKAGES.items():
        tree = trees / name
        tree.mkdir(parents=True)
        for part in parts:
            _must("dpkg-deb", "--extract", debs[part], tree)
        merge_usr(tree)
        files = [f"/{path}" for path in files_below(tree) if not _LEFT_OUT.search(path)]
        (work / f"{name}.files").write_text("".join(f'"{path}"\n' for path in files))
        listed += files
        spec += f"%package -n {name}\nVersion: {_version(versions[parts[0]])}\nSummary: {name} of this system\n"
        spec += f"Requires: filesystem\n%description -n {name}\n{name}\n"
        if name == "glibc":
            spec += "%post -n glibc -p /usr/sbin/ldconfig\n"
        install.append(f"cp -a {tree}/. %{{buildroot}}/\n")
        sections.append(f"%files -n {name} -f {work}/{name}.files\n")
    _add_akmods(work, repository)
    for name, path in {
        "akmods": "/usr/sbin/akmods",
        "akmod-tiny": "/usr/src/akmods/tiny*",
        "akmod-torn": "/usr/src/akmods/torn*",
    }.items():
        spec += f"%package -n {name}\nSummary: {name}\nAutoReq: no\n%description -n {name}\n{name}\n"
        sections.append(f"%files -n {name}\n{path}\n")
    install.append(f"cp -a {work}/akmods/. %{{buildroot}}/\n")
    spec += "%package -n tiny-release\nSummary: Says what this is\n%description -n tiny-release\nNames.\n"
    spec += "%package -n tiny-tool\nSummary: A program of a stack\n%description -n tiny-tool\nPrints a line.\n"
    install.append("printf '#!/bin/sh\\necho tiny tool 1\\n' >%{buildroot}/usr/bin/tiny-tool\n")
    sections.append("%files -n tiny-release\n/etc/os-release\n")
    sections.append("%files -n tiny-tool\n%attr(755,root,root) /usr/bin/tiny-tool\n")
    sections[0] = (
        "%files\n/bin\n/sbin\n/lib\n/lib64\n/var/run\n/usr/bin/sh\n/etc/passwd\n/etc/group\n/etc/ld.so.conf\n"
        + "".join(f"%dir /{name}\n" for name in ("etc", "run", "proc", "sys", "dev", "boot", "opt", "usr", "var"))
        + "".join(f"%dir /usr/{name}\n" for name in ("bin", "sbin", "lib", "lib64", "src", "share"))
        + "".join(f"%dir /var/{name}\n" for name in ("lib", "log", "cache"))
        + "%attr(700,root,root) %dir /root\n%attr(1777,root,root) %dir /tmp\n%attr(1777,root,root) %dir /var/tmp\n"
    )
    _rpmbuild(work, repository, spec + "%install\n" + "".join(install) + "".join(sections))


def _add_akmods(work: Path, repository: Path) -> None:
    """Akmods in miniature, and the source packages of a module that builds and of one that does not."""
    root = work / "akmods"
    sources = root / "usr/src/akmods"
    sources.mkdir(parents=True)
    program = root / "usr/sbin/akmods"
    program.parent.mkdir()
    program.write_text(_AKMODS)
    program.chmod(0o755)
    for name, call in {"tiny": "", "torn": "no_kernel_has_this();"}.items():
        folder = work / "top" / "SOURCES"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.c").write_text(_MODULE.format(call=call))
        spec = work / f"{name}-kmod.spec"
        spec.write_text(_KMOD.replace("NAME", name))
        _must("rpmbuild", "-bs", "--quiet", f"--define=_topdir {work / 'top'}", f"--define=_srcrpmdir {sources}", spec)
        (sources / f"{name}-kmod.latest").symlink_to(f"{name}-kmod-1-1.src.rpm")


def _make_kernel(work: Path, repository: Path, kernel: Path, headers: Path, release: str) -> None:
    """A kernel in Fedora's packages: image and configuration, the modules that bring a root up, the others, headers."""
    modules = f"usr/lib/modules/{release}"
    tree = work / "kernel"
    (tree / modules).mkdir(parents=True)
    for name in ("vmlinuz", "config"):
        shutil.copy(next(iter(sorted(kernel.rglob(f"{name}*")))), tree / modules / name)
    chosen = wanted_modules(kernel / modules)
    for name in [*chosen, "modules.order", "modules.builtin", "modules.builtin.modinfo"]:
        if (kernel / modules / name).is_file():
            target = tree / modules / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(kernel / modules / name, target)
    shutil.copytree(headers / "usr", tree / "usr", symlinks=True, dirs_exist_ok=True)
    version, _, tail = release.partition("-")
    spec = _HEAD.format(name="kernel", version=version, release=tail or "1", summary="The kernel") + "%files\n"
    base = [name for name in chosen if "/drivers/net/dummy" not in name]
    parts = {
        "core": [f"%dir /{modules}", *(f"/{modules}/{name}" for name in ("vmlinuz", "config"))],
        "modules-core": [f"/{modules}/{name}" for name in base]
        + [f"/{modules}/modules.{name}" for name in ("order", "builtin", "builtin.modinfo")],
        "modules": [f"/{modules}/{name}" for name in chosen if name not in base],
        "devel": ["/usr/src/*", "/usr/lib/linux-kbuild*", f"/{modules}/build", f"/{modules}/source"],
    }
    for part, files in parts.items():
        there = [
            name
            for name in files
            if "*" in name or name.startswith("%") or (tree / name[1:]).is_symlink() or (tree / name[1:]).exists()
        ]
        (work / f"kernel-{part}.files").write_text("".join(f"{name}\n" for name in there))
        spec += f"%package {part}\nSummary: {part} of the kernel\nProvides: kernel-{part}-uname-r = {release}\n"
        spec += "AutoReq: no\nAutoProv: no\n"
        spec += "Requires: kernel-modules-core = %{version}-%{release}\n" if part == "modules" else ""
        spec += f"%description {part}\n{part}\n%files {part} -f {work}/kernel-{part}.files\n"
    _rpmbuild(work, repository, spec + f"%install\ncp -a {tree}/. %{{buildroot}}/\n")


def wanted_modules(modules: Path) -> list[str]:
    """Files of the modules that bring a root up and of a harmless one, with all that they depend on."""
    wanted = ("virtio_pci", "virtio_blk", "virtio_net", "erofs", "overlay", "dummy", "crc32c_generic", "libcrc32c")
    graph = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        name, _, needs = line.partition(":")
        graph[name] = needs.split()
    stem = {name.rpartition("/")[2].partition(".")[0].replace("-", "_"): name for name in graph}
    found = {need for one in wanted if one in stem for need in (stem[one], *graph[stem[one]])}
    return sorted(found)


def merge_usr(tree: Path) -> None:
    """Move what still lies beside /usr below it."""
    for name in ("bin", "sbin", "lib", "lib64"):
        old = tree / name
        if old.is_dir() and not old.is_symlink():
            shutil.copytree(old, tree / "usr" / name, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(old)


def files_below(tree: Path) -> Iterable[str]:
    """Paths of files and links, sorted."""
    return sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_symlink() or path.is_file())


def _version(debian: str) -> str:
    """Debian's version as one that RPM takes: no epoch, no dash."""
    return debian.rpartition(":")[2].replace("-", ".")


def _rpmbuild(work: Path, repository: Path, spec: str) -> None:
    file = work / f"{len(list(work.glob('*.spec')))}.spec"
    file.write_text(spec)
    defines = {"_topdir": work / "top", "_rpmdir": repository, "_rpmfilename": "%%{NAME}-%%{VERSION}-%%{RELEASE}.rpm"}
    words = [f"--define={name} {value}" for name, value in defines.items()]
    _must("rpmbuild", "-bb", "--quiet", *words, "--define=_unpackaged_files_terminate_build 0", file)


def _must(*argv: str | Path) -> None:
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{argv[0]} returned {done.returncode}: {(done.stdout + done.stderr)[-1500:]}")
