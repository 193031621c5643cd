"""Local build trees.

No kernel is compiled here: a tree is assembled from a real Debian kernel's bzImage, configuration and a few of its
modules, laid out as kbuild leaves them, with a small Makefile that offers ``modules_install``. The make, depmod and
git that run are the host's.
"""

from __future__ import annotations

import lzma
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import InfraError, UserError
from harness.kernels import KernelFiles, KernelUnavailable
from harness.kernels.modules import closure, module_name
from harness.kernels.tree import TreeSource
from harness.model.cell import TreeKernel

MAKEFILE = """RELEASE := $(shell cat include/config/kernel.release)
DEST = $(INSTALL_MOD_PATH)/lib/modules/$(RELEASE)
modules_install:
\tmkdir -p $(DEST)
\tcp modules.order modules.builtin $(DEST)/
\tln -s $(CURDIR) $(DEST)/build
\tset -e; for o in $$(cat modules.order); do ko=$${o%.o}.ko; \\
\t  mkdir -p $(DEST)/kernel/$$(dirname $$ko); cp $$ko $(DEST)/kernel/$$ko; \\
\t  test "$(INSTALL_MOD_STRIP)" != 1 || strip --strip-debug $(DEST)/kernel/$$ko; done
"""


@pytest.fixture
def tree(real_kernel: Callable[[str], KernelFiles], tmp_path: Path) -> Path:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    files = real_kernel("trixie")
    root = tmp_path / "linux"
    for folder in ("arch/x86/boot", "include/config", "include/generated", "scripts/mod"):
        (root / folder).mkdir(parents=True)
    shutil.copy(files.vmlinuz, root / "arch/x86/boot/bzImage")
    shutil.copy(files.config, root / ".config")
    (root / "include/config/kernel.release").write_text(f"{files.release}\n")
    order = []
    for module in closure(files.modules, ["overlay", "ext4"]).paths:
        inside = Path(str(module.relative_to(files.modules / "kernel")).removesuffix(".xz"))
        (root / inside).parent.mkdir(parents=True, exist_ok=True)
        data = module.read_bytes()
        (root / inside).write_bytes(lzma.decompress(data) if module.suffix == ".xz" else data)
        order.append(str(inside.with_suffix(".o")))
    (root / "modules.order").write_text("\n".join(order) + "\n")
    shutil.copy(files.modules / "modules.builtin", root)
    (root / "Module.symvers").write_text("0x0\tsymbol\tvmlinux\tEXPORT_SYMBOL\t\n")
    (root / "Makefile").write_text(MAKEFILE)
    return root


def test_a_tree_is_copied_with_its_modules_indexed(tree: Path, tmp_path: Path) -> None:
    source = TreeSource(TreeKernel(str(tree)))
    identity = source.resolve()
    files = source.fetch(tmp_path / "kernels")
    assert files.release == identity.release == (tree / "include/config/kernel.release").read_text().strip()
    assert files.root == tmp_path / "kernels" / identity.digest
    assert files.vmlinuz.read_bytes() == (tree / "arch/x86/boot/bzImage").read_bytes()
    assert [module_name(path.name) for path in closure(files.modules, ["overlay"]).paths] == ["overlay"]
    assert not (files.modules / "build").is_symlink()
    assert source.fetch(tmp_path / "kernels") == files


def test_a_rebuilt_module_alone_makes_another_kernel(tree: Path) -> None:
    before = TreeSource(TreeKernel(str(tree))).resolve()
    module = next(tree.rglob("overlay.ko"))
    module.write_bytes(module.read_bytes() + b"\0")
    after = TreeSource(TreeKernel(str(tree))).resolve()
    assert before.release == after.release
    assert before.digest != after.digest


def test_a_tree_that_changes_between_resolve_and_fetch_is_not_cached(tree: Path, tmp_path: Path) -> None:
    source = TreeSource(TreeKernel(str(tree)))
    source.resolve()
    (tree / "arch/x86/boot/bzImage").write_bytes(b"newer")
    with pytest.raises(InfraError, match="changed while it was copied"):
        source.fetch(tmp_path / "kernels")
    assert not [path for path in (tmp_path / "kernels").iterdir() if path.is_dir()]


def test_headers_lead_to_the_tree_itself_once_it_can_build_modules(tree: Path, tmp_path: Path) -> None:
    early = TreeSource(TreeKernel(str(tree)))
    assert not early.resolve().has_headers
    with pytest.raises(KernelUnavailable, match=r"no scripts/mod/modpost, include/generated/autoconf\.h"):
        early.headers(tmp_path / "headers")
    (tree / "scripts/mod/modpost").write_text("")
    (tree / "include/generated/autoconf.h").write_text("")
    source = TreeSource(TreeKernel(str(tree)))
    assert source.resolve().has_headers
    headers = source.headers(tmp_path / "headers")
    modules = headers.root / "usr/lib/modules" / headers.release
    assert (modules / "build").readlink() == (modules / "source").readlink() == tree
    assert headers.config.read_bytes() == (tree / ".config").read_bytes()
    assert source.headers(tmp_path / "headers") == headers


def test_equal_trees_have_headers_of_their_own(tree: Path, tmp_path: Path) -> None:
    (tree / "scripts/mod/modpost").write_text("")
    (tree / "include/generated/autoconf.h").write_text("")
    other = tmp_path / "other"
    shutil.copytree(tree, other)
    one, two = TreeSource(TreeKernel(str(tree))), TreeSource(TreeKernel(str(other)))
    assert one.resolve().digest == two.resolve().digest
    assert one.headers(tmp_path / "headers").root != two.headers(tmp_path / "headers").root


def test_git_describe_is_the_version_also_from_an_object_directory(tree: Path, tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    sources = tmp_path / "sources"
    sources.mkdir()
    for argv in (
        ["init", "-q"],
        ["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "--allow-empty", "-m", "one"],
        ["-c", "user.name=t", "-c", "user.email=t@example.org", "tag", "-a", "-m", "tag", "v7.3-rc7"],
    ):
        subprocess.run(["git", "-C", str(sources), *argv], check=True)
    (tree / "source").symlink_to(sources)
    assert TreeSource(TreeKernel(str(tree))).resolve().version == "v7.3-rc7"


def test_without_git_the_release_is_the_version(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tree.parent))
    identity = TreeSource(TreeKernel(str(tree))).resolve()
    assert identity.version == identity.release


def test_a_kernel_without_modules_needs_no_make(tree: Path, tmp_path: Path) -> None:
    (tree / ".config").write_text("# CONFIG_MODULES is not set\n")
    (tree / "Makefile").unlink()
    (tree / "modules.order").unlink()
    files = TreeSource(TreeKernel(str(tree))).fetch(tmp_path / "kernels")
    assert (files.modules / "modules.dep").read_text() == ""


def test_a_failing_modules_install_leaves_nothing_behind(tree: Path, tmp_path: Path) -> None:
    (tree / "Makefile").write_text("modules_install:\n\t@echo no space for modules >&2; false\n")
    with pytest.raises(InfraError, match="make returned 2"):
        TreeSource(TreeKernel(str(tree))).fetch(tmp_path / "kernels")
    assert not [path for path in (tmp_path / "kernels").iterdir() if path.is_dir()]


def test_what_is_no_built_tree_is_told_in_one_line(tree: Path, tmp_path: Path) -> None:
    def problem(path: Path) -> str:
        with pytest.raises(UserError) as caught:
            TreeSource(TreeKernel(str(path))).resolve()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no such directory" in problem(tmp_path / "none")
    assert "no .config" in problem(tmp_path)
    next(tree.rglob("overlay.ko")).unlink()
    assert "1 of" in problem(tree)
    (tree / "modules.order").unlink()
    assert "make modules" in problem(tree)
    (tree / "arch/x86/boot/bzImage").unlink()
    assert "not built yet" in problem(tree)
