"""RPM packages and repositories that the tests make themselves, with rpmbuild, rpmsign and createrepo_c."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SPEC = """\
Name: {name}
Version: {version}
Release: {release}
Summary: made by a test
License: MIT
Provides: {name}-uname-r = {version}-{release}.x86_64
Requires: {name}-core-uname-r = {version}-{release}.x86_64
%global __requires_exclude .*
%description
made by a test
%package core
Summary: image
Provides: {name}-core-uname-r = {version}-{release}.x86_64
Requires: {name}-modules-core-uname-r = {version}-{release}.x86_64
%description core
image
%package modules-core
Summary: modules
%description modules-core
modules
%package modules
Summary: modules
%description modules
modules
%package devel
Summary: headers
%description devel
headers
%install
m=%{{buildroot}}{lib}/modules/{uname}
mkdir -p $m/kernel/fs %{{buildroot}}/usr/src/kernels/{uname}
echo {uname} > $m/vmlinuz
echo CONFIG_EROFS_FS=m > $m/config
touch $m/modules.order $m/System.map
echo kernel/fs/ext4/ext4.ko > $m/modules.builtin
echo data > $m/kernel/fs/note
ln -s /usr/src/kernels/{uname} $m/build
ln -s build $m/source
echo CONFIG_EROFS_FS=m > %{{buildroot}}/usr/src/kernels/{uname}/.config
%files
%files core
%dir {lib}/modules/{uname}
{lib}/modules/{uname}/vmlinuz
{lib}/modules/{uname}/config
{lib}/modules/{uname}/System.map
{lib}/modules/{uname}/build
{lib}/modules/{uname}/source
%files modules-core
{lib}/modules/{uname}/modules.builtin
{lib}/modules/{uname}/modules.order
%files modules
{lib}/modules/{uname}/kernel
%files devel
/usr/src/kernels/{uname}
"""


def sh(*argv: str | Path) -> bytes:
    done = subprocess.run([str(word) for word in argv], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()
    return done.stdout


@dataclass(frozen=True)
class RpmRepo:
    """A folder of packages with ``repodata``."""

    root: Path

    def add_kernel(
        self, version: str, release: str, *, name: str = "kernel", lib: str = "/lib", without: tuple[str, ...] = ()
    ) -> list[Path]:
        """Build the packages of one kernel; ``without`` names parts that the repository lost."""
        for program in ("rpmbuild", "createrepo_c"):
            if shutil.which(program) is None:
                pytest.skip(f"{program} is not installed")
        uname = f"{version}-{release}.x86_64"
        top = self.root.parent / f"build-{name}-{version}-{release}"
        top.mkdir()
        (top / "kernel.spec").write_text(SPEC.format(name=name, version=version, release=release, uname=uname, lib=lib))
        defines = {
            "_topdir": str(top),
            "_rpmdir": str(top / "out"),
            "_build_id_links": "none",
            "_binary_payload": "w1.gzdio",
            "__os_install_post": "%{nil}",
        }
        words = [word for key, value in defines.items() for word in ("--define", f"{key} {value}")]
        sh("rpmbuild", "-bb", "--nodeps", "--target", "x86_64", *words, top / "kernel.spec")
        self.root.mkdir(exist_ok=True)
        made = []
        for package in sorted((top / "out/x86_64").glob("*.rpm")):
            if not any(package.name.startswith(f"{name}-{part}-{version}") for part in without):
                made.append(Path(shutil.move(package, self.root / package.name)))
        shutil.rmtree(top)
        return made

    def sign(self, gnupg: Path, *, packages: bool = False, repomd: bool = False) -> None:
        if packages:
            gpg = shutil.which("gpg")
            defines = ["--define", f"__gpg {gpg}", "--define", f"_gpg_path {gnupg}"]
            defines += ["--define", "_gpg_name t@example.org"]
            sh("rpmsign", *defines, "--addsign", *sorted(self.root.glob("*.rpm")))
        if repomd:
            file = self.root / "repodata/repomd.xml"
            sh("gpg", "--homedir", gnupg, "--batch", "--yes", "--armor", "--detach-sign", "-o", f"{file}.asc", file)

    def publish(self, compression: str = "gz") -> None:
        sh("createrepo_c", "--quiet", f"--general-compress-type={compression}", self.root)
