"""Lines as compilers, modpost and make print them for drivers that kernels broke."""

from __future__ import annotations

import pytest

from harness.drivers.diagnose import first_error, infrastructure_fault

BUILD = "/var/lib/dkms/nvidia-current/550.163.01/build"


@pytest.mark.parametrize(
    ("line", "symbol"),
    [
        ("nvidia/nv-gpio.c:31:10: fatal error: linux/of_gpio.h: No such file or directory", "linux/of_gpio.h"),
        (
            "nvidia/os-interface.c:220:5: error: implicit declaration of function 'strncpy'; did you mean 'strscpy'?"
            " [-Wimplicit-function-declaration]",
            "strncpy",
        ),
        (
            "nvidia/nv.c:1: error: implicit declaration of function ‘in_irq’ [-Werror=implicit-function-declaration]",
            "in_irq",
        ),
        (
            "common/inc/nv-mm.h:282:8: error: 'struct vm_area_struct' has no member named '__vm_flags'; did you mean"
            " 'vm_flags'?",
            "__vm_flags",
        ),
        ("nv-pci.c:280:14: error: too few arguments to function 'pci_resize_resource'", "pci_resize_resource"),
        ("nv-drm.c:99:5: error: too few arguments to function ‘drm_x’; expected 3, have 2", "drm_x"),
        ("a.c:3:5: error: unknown type name 'vm_fault_t'", "vm_fault_t"),
        ("a.c:3:5: error: 'DRM_UNLOCKED' undeclared here (not in a function)", "DRM_UNLOCKED"),
        (
            "nv-acpi.c:41:31: error: variable 'nv_acpi_driver_template' has initializer but incomplete type",
            "nv_acpi_driver_template",
        ),
    ],
)
def test_the_kernels_symbol_is_found_in_a_compilers_words(line: str, symbol: str) -> None:
    error = first_error(
        f"  CC [M]  {BUILD}/x.o\n{BUILD}/{line}\nmake[2]: *** [scripts/Makefile.build:229: x.o] Error 1\n"
    )
    assert error is not None
    assert error.symbol == symbol
    assert error.kind == "compile"
    assert error.file.startswith(BUILD)
    assert error.line > 0


@pytest.mark.parametrize(
    ("line", "symbol"),
    [
        ('ERROR: modpost: "__vma_start_write" [/build/nvidia-uvm.ko] undefined!', "__vma_start_write"),
        (
            "ERROR: modpost: GPL-incompatible module nvidia.ko uses GPL-only symbol '__rcu_read_lock'",
            "__rcu_read_lock",
        ),
        (
            "ERROR: modpost: module nvidia uses symbol dma_buf_put from namespace DMA_BUF, but does not import it.",
            "dma_buf_put",
        ),
    ],
)
def test_a_symbol_that_the_link_lacks_is_found_in_modposts_words(line: str, symbol: str) -> None:
    error = first_error(f"  MODPOST /build/Module.symvers\n{line}\n")
    assert error is not None
    assert (error.kind, error.symbol) == ("link", symbol)


def test_the_first_error_counts_and_probes_that_are_meant_to_fail_do_not() -> None:
    log = (
        "/build/conftest1234.c:5:10: fatal error: linux/gone.h: No such file or directory\n"
        "/build/a.c:10:3: error: unknown type name 'first_t'\n"
        "/build/a.c:11:3: error: unknown type name 'second_t'\n"
    )
    error = first_error(log)
    assert error is not None
    assert (error.line, error.symbol) == (10, "first_t")


NOTIFY = """\
m.c:482:38: error: initialization of 'void (*)(long unsigned int,  long unsigned int,  void *)' from incompatible \
pointer type 'void (*)(long unsigned int,  void *)' [-Wincompatible-pointer-types]
  482 |                         .notify.fn = format_segmd_endio,
      |                                      ^~~~~~~~~~~~~~~~~~
"""
NOTE = "m.c:482:38: note: (near initialization for 'io_req_seg.notify.fn')\n"
OTHER = "n.c:1:1: error: unknown type name 'x'\n"


@pytest.mark.parametrize(
    ("rest", "symbol"),
    [(NOTE, "notify.fn"), ("", ""), (OTHER + NOTE, ""), (NOTE.replace("io_req_seg", "(anonymous)"), "notify.fn")],
)
def test_the_member_whose_type_changed_is_in_the_note_that_belongs_to_the_error(rest: str, symbol: str) -> None:
    error = first_error(NOTIFY + rest)
    assert error is not None
    assert (error.line, error.symbol) == (482, symbol)


def test_warnings_are_no_errors() -> None:
    assert first_error("a.c:1:1: warning: unused variable 'x' [-Wunused-variable]\n  LD [M]  a.ko\n") is None


def test_make_alone_is_quoted_when_nothing_says_more() -> None:
    error = first_error("make: *** No rule to make target 'modules'.  Stop.\n")
    assert error is not None
    assert (error.kind, error.message) == ("make", "No rule to make target 'modules'.  Stop.")


@pytest.mark.parametrize(
    "line",
    [
        "/tmp/ccX.s: fatal error: error writing to -: No space left on device",
        "x86_64-linux-gnu-gcc-14: fatal error: Killed signal terminated program cc1",
        "cc1: out of memory allocating 65536 bytes: Cannot allocate memory",
        "gcc: fatal error: cannot execute 'cc1': execvp: No such file or directory",
        "/bin/sh: 1: gcc-14: not found",
        "gcc: fatal error: cannot execute ‘as’: execvp: No such file or directory",
        "/bin/sh: line 1: pahole: command not found",
        "pahole: unrecognized option '--btf_features=encode_force'",
        "nvidia.o: error: objtool [signal.c:75]: read_stack_limit: fopen failed",
        "scripts/mod/modpost: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.43' not found",
    ],
)
def test_a_build_root_that_is_to_blame_is_told_from_a_driver_that_is(line: str) -> None:
    assert infrastructure_fault(f"  CC [M] a.o\n{line}\nmake: *** Error 2\n")


@pytest.mark.parametrize("header", ["linux/of_gpio.h", "linux/of_gpio_old.h", "asm/gcc.h", "ld"])
def test_a_driver_that_is_to_blame_is_not_taken_for_a_broken_build_root(header: str) -> None:
    log = f"nv-gpio.c:31:10: fatal error: a/{header}.h: No such file or directory\ncompilation terminated.\n"
    assert infrastructure_fault(log) == ""
