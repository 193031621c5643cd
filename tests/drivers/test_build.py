"""Builds real modules for a real kernel, in the container that the stack's recipe describes."""

from __future__ import annotations

import subprocess

import pytest

from harness.drivers.build import Drivers, NotBuilt
from harness.kernels.source import KernelUnavailable
from harness.model.cell import DebianKernel, KernelSpec, Series
from harness.model.outcome import Outcome

KERNEL = KernelSpec("lts-6.12", Series.LONGTERM, DebianKernel("trixie"))
GUEST = "debian-13"


@pytest.mark.parametrize("stack", ["hello", "by-make"])
def test_a_module_is_built_for_the_kernel_and_proven_by_its_file(drivers: Drivers, stack: str) -> None:
    built = drivers.build(GUEST, stack, KERNEL, timeout=900)
    release = drivers.images.identity(KERNEL).release
    assert built.result.outcome is Outcome.PASS, built.log.decode()
    assert built.fresh
    (module,) = built.result.modules
    assert (module.name, module.version, module.license, module.signer) == ("hello", "1.0", "GPL", "")
    assert module.vermagic.split()[0] == release
    assert "gcc-14" in built.result.compiler
    assert built.result.cpu_seconds > 0
    assert built.result.ccache_hits + built.result.ccache_misses > 0
    assert b"hello.o" in built.log


def test_what_was_built_once_is_not_built_again(drivers: Drivers) -> None:
    first = drivers.build(GUEST, "hello", KERNEL, timeout=900)
    drivers.images._memory.clear()  # as another process would see it
    again = drivers.build(GUEST, "hello", KERNEL, timeout=900)
    assert not again.fresh
    assert (again.result, again.key) == (first.result, first.key)


def test_a_call_of_a_function_that_the_kernel_lacks_is_a_fail_that_names_file_line_and_symbol(drivers: Drivers) -> None:
    built = drivers.build(GUEST, "wrong-call", KERNEL, timeout=900)
    assert built.result.outcome is Outcome.FAIL
    error = built.result.error
    assert error is not None
    assert (error.kind, error.line, error.symbol) == ("compile", 7, "gone_in_the_next_release")
    assert error.file.endswith("hello.c")
    assert "hello.c:7: implicit declaration of function" in built.result.reason


def test_a_header_that_the_kernel_lacks_is_a_fail_that_names_it(drivers: Drivers) -> None:
    built = drivers.build(GUEST, "no-header", KERNEL, timeout=900)
    assert built.result.outcome is Outcome.FAIL
    assert built.result.error is not None
    assert built.result.error.symbol == "linux/of_gpio_of_old.h"


def test_a_symbol_that_the_kernel_does_not_export_is_a_fail_of_the_link(drivers: Drivers) -> None:
    built = drivers.build(GUEST, "no-symbol", KERNEL, timeout=900)
    assert built.result.outcome is Outcome.FAIL
    assert built.result.error is not None
    assert (built.result.error.kind, built.result.error.symbol) == ("link", "not_exported")


def test_a_driver_that_excludes_the_kernel_is_a_skip_with_its_rule(drivers: Drivers) -> None:
    built = drivers.build(GUEST, "excluded", KERNEL, timeout=900)
    assert built.result.outcome is Outcome.SKIP
    assert "BUILD_EXCLUSIVE" in built.result.reason


def test_an_exit_status_of_success_without_the_promised_module_is_a_fail(drivers: Drivers) -> None:
    built = drivers.build(GUEST, "other-module", KERNEL, timeout=900)
    assert built.result.outcome is Outcome.FAIL
    assert built.result.reason == "the build ended well without goodbye; modules that it made: hello"


@pytest.mark.parametrize(
    ("stack", "reason"), [("no-source", "no DKMS source in /usr/src"), ("full-disk", "no space left in the build root")]
)
def test_trouble_of_the_build_root_is_no_finding_and_is_not_remembered(
    drivers: Drivers, stack: str, reason: str
) -> None:
    with pytest.raises(NotBuilt, match=reason) as caught:
        drivers.build(GUEST, stack, KERNEL, timeout=900)
    assert caught.value.log
    root = drivers.prepare(GUEST, stack, KERNEL, timeout=900)
    recipe = drivers.images.recipes.stack(GUEST, stack).build
    assert recipe is not None
    assert not (drivers.cache / "modules" / drivers._key(root, recipe, KERNEL)[:32]).exists()


@pytest.mark.parametrize("stack", ["signed", "foreign"])
def test_a_module_is_signed_by_the_key_that_the_recipe_asks_for(drivers: Drivers, stack: str) -> None:
    built = drivers.build(GUEST, stack, KERNEL, timeout=900)
    keys = drivers.keys()
    expected = keys.lab if stack == "signed" else keys.stranger
    assert [module.signer for module in built.result.modules] == [expected.common_name]


def test_the_module_layer_holds_the_module_and_indices_over_it_and_the_kernels_own(drivers: Drivers) -> None:
    built = drivers.build(GUEST, "hello", KERNEL, timeout=900)
    layer = drivers.layer(built, KERNEL)
    release = built.result.release
    index = subprocess.run(
        ["fsck.erofs", f"--extract={drivers.images.scratch() / 'extracted'}", "--overwrite", layer.path],
        capture_output=True,
        check=False,
    )
    assert index.returncode == 0, index.stderr.decode()
    modules = drivers.images.scratch() / "extracted" / "usr/lib/modules" / release
    assert (modules / "updates" / "hello.ko").is_file()
    listed = (modules / "modules.dep").read_text()
    assert "updates/hello.ko:" in listed
    assert "kernel/drivers/net/dummy.ko" in listed
    assert not (modules / "kernel").exists()


def test_a_kernel_without_headers_cannot_be_built_for_and_says_what_is_missing(drivers: Drivers) -> None:
    gone = KernelSpec("gone", Series.STABLE, DebianKernel("trixie-backports", release="6.16.12+deb13-amd64"))
    with pytest.raises(KernelUnavailable, match=r"6\.16\.12\+deb13-amd64"):
        drivers.build(GUEST, "hello", gone, timeout=900)
