"""Real kernels that break while a compute test runs: the watch sees it, and the test that ran at the time is to blame.

A module of a few lines does on request what only a kernel can: warn, complain in a driver's name, keep a process where
nobody can interrupt it, forget a reference. A wrapper around the runner asks it to, at the beginning of one test.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from harness.content import content_dir
from harness.images.builder import Images
from harness.model.outcome import Outcome
from harness.model.records import Attempt, TestResult
from harness.model.stage import Stage

from .installation import Installation, Running, installed

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.xdist_group("e2e"), pytest.mark.timeout(3600)]

MODULE = """
#include <linux/module.h>
#include <linux/sched.h>
static int plant(const char *fault, const struct kernel_param *unused)
{
	if (sysfs_streq(fault, "warn"))
		WARN(1, "planted: a warning under a test\\n");
	else if (sysfs_streq(fault, "xid"))
		pr_err("NVRM: Xid (PCI:0000:01:00): 31, pid=1, name=planted, MMU Fault\\n");
	else if (sysfs_streq(fault, "hold"))
		__module_get(THIS_MODULE);
	else if (sysfs_streq(fault, "hang"))
		for (;;) {
			set_current_state(TASK_UNINTERRUPTIBLE);
			schedule();
		}
	else if (sysfs_streq(fault, "stuck")) {
		local_irq_disable();
		for (;;)
			cpu_relax();
	}
	return 0;
}
static const struct kernel_param_ops ops = { .set = plant };
module_param_cb(fault, &ops, NULL, 0200);
static int __init start(void) { return 0; }
static void __exit stop(void) { }
module_init(start);
module_exit(stop);
MODULE_DESCRIPTION("goes wrong on request");
MODULE_LICENSE("GPL");
"""
PLANT = r"""
fault=$(sed -n 's/.*kdmatrix\.test=\([a-z-]*\).*/\1/p' /proc/cmdline)
cd /opt/gpu_tests/bin && mv gtrun gtrun.real
cat >gtrun <<END
#!/bin/sh
if [ "\$2" = vecadd ]; then case $fault in
full) dd if=/dev/zero of=/fill bs=1M 2>/dev/null ;;
hang) setsid sh -c 'echo hang >/sys/module/planted/parameters/fault' >/dev/null 2>&1 </dev/null &
    until grep -q ') D ' /proc/\$!/stat; do sleep 0.2; done
    kill -KILL \$! ;;
said) echo 'WARNING: CPU: 0 PID: 1 at a/program.c:1' >/dev/kmsg ;;
none) : ;;
*) echo $fault >/sys/module/planted/parameters/fault ;;
esac; fi
exec /opt/gpu_tests/bin/gtrun.real "\$@"
END
chmod 755 gtrun
"""
STACK = f"""
description: computes on the CPU while its module goes wrong on request
apis: [opencl]
backends: [opencl]
kind: cpu-runtime
device: none
build: {{method: make, produces: [planted]}}
modules:
  - {{name: planted}}
activate:
  - {{run: [sh, -c, {json.dumps(PLANT)}]}}
"""
FAULTS = ("none", "said", "warn", "xid", "hang", "hold", "full", "stuck")


def matrix() -> str:
    kernels = "".join(
        f'  - {{name: {name}, series: longterm, debian: trixie, cmdline: "kdmatrix.test={name}"}}\n' for name in FAULTS
    )
    return (
        f"version: 1\nkernels:\n{kernels}guests: [debian-13]\nstacks: [planted]\n"
        "tests: [enumerate, vecadd, triad]\nlimits: {vms: 1, vm_memory: 768MiB}\n"
        "include: [{kernel: stuck, timeouts: {test: 20s}}]\n"
    )


def add_stack(guests: Path) -> None:
    """Add the stack to a folder of guests: content, and no line of code."""
    stack = guests / "debian-13" / "stacks" / "planted"
    source = stack / "source" / "planted"
    source.mkdir(parents=True)
    (stack / "stack.yaml").write_text(STACK)
    shutil.copy(guests / "debian-13" / "stacks" / "cpu-opencl" / "Containerfile", stack)
    (stack / "Containerfile.modules").write_text("ARG BASE\nFROM ${BASE}\nCOPY source/ /usr/src/kdmatrix/\n")
    (source / "Makefile").write_text("obj-m := planted.o\n")
    (source / "planted.c").write_text(MODULE)


@pytest.fixture(scope="module")
def planted(
    images: Images, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Installation, Running, Mapping[str, Attempt]]]:
    """One run with every fault in it."""
    content = tmp_path_factory.mktemp("content")
    shutil.copytree(content_dir("guests"), content / "guests")
    add_stack(content / "guests")
    with installed(content, shared_cache) as made:
        ran = made.run("run", made.matrix(matrix()))
        yield made, ran, made.results()
        assert made.run("clean").code == 0
        assert made.left() == []


Planted = tuple[Installation, Running, Mapping[str, Attempt]]


def seen_under(planted: Planted, fault: str) -> dict[str, TestResult]:
    return {test.name: test for test in planted[2][fault].tests if test.stage is not Stage.LOAD}


def test_a_kernel_that_is_left_alone_is_clean_after_each_test(planted: Planted) -> None:
    attempt = planted[2]["none"]
    assert attempt.outcome is Outcome.PASS, attempt.reason
    seen = seen_under(planted, "none")
    assert {seen[name].details["kernel"] for name in ("enumerate", "vecadd", "triad")} == {"clean"}


def test_a_line_that_a_program_writes_into_the_log_is_not_the_kernels_word(planted: Planted) -> None:
    assert planted[2]["said"].outcome is Outcome.PASS, planted[2]["said"].reason
    assert seen_under(planted, "said")["vecadd"].details["kernel.messages"] == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("warn", "the kernel complained: WARNING: "),
        ("xid", "nvidia complained: NVRM: Xid (PCI:0000:01:00): 31, pid=1, name=planted, MMU Fault"),
        ("hang", "a process hangs in the kernel: 'sh' (pid "),
        ("hold", "planted is left with 1 references, 0 before the test"),
    ],
)
def test_a_kernel_that_breaks_under_a_test_fails_that_test_although_it_computed_right(
    planted: Planted, fault: str, words: str
) -> None:
    attempt = planted[2][fault]
    assert (attempt.outcome, attempt.rung) == (Outcome.FAIL, Stage.COMPUTE), attempt.reason
    assert attempt.reason.startswith(f"vecadd: {words}")
    seen = seen_under(planted, fault)
    assert (seen["enumerate"].outcome, seen["enumerate"].details["kernel"]) == (Outcome.PASS, "clean")
    assert "the test said" not in seen["vecadd"].reason
    assert str(seen["vecadd"].details["kernel"]).startswith(words)


def test_a_kernel_that_does_not_come_back_from_a_test_is_told_from_a_guest_that_is_slow(planted: Planted) -> None:
    attempt = planted[2]["stuck"]
    assert (attempt.outcome, attempt.rung) == (Outcome.FAIL, Stage.COMPUTE), attempt.reason
    assert ", and its kernel does not answer SysRq: it hangs" in attempt.reason


def test_what_the_kernel_said_and_where_a_process_hangs_lies_with_the_tests_output(planted: Planted) -> None:
    made, _, attempts = planted
    assert "planted: a warning under a test" in made.evidence(attempts["warn"], "opencl-vecadd.txt")
    hanging = made.evidence(attempts["hang"], "opencl-vecadd.txt")
    assert "State:\tD (disk sleep)" in hanging
    assert "plant+0x" in hanging
    # It was killed, and SIGKILL waits for it to come out.
    assert re.search(r"(?:SigPnd|ShdPnd):\t0*100\n", hanging)


def test_a_disk_that_fills_under_a_test_says_nothing_of_the_product_and_is_told_with_that_test(
    planted: Planted,
) -> None:
    attempt = planted[2]["full"]
    full = seen_under(planted, "full")["vecadd"].details["kernel.disk"]
    assert str(full).startswith("the guest's disk is full (")
    assert str(full).endswith(", since vecadd ran")
    assert attempt.outcome is Outcome.MISS, attempt.reason
    assert "since vecadd ran" in attempt.reason


def test_the_run_tells_each_fault_in_one_line_and_the_report_has_them(planted: Planted) -> None:
    made, ran, _ = planted
    assert ran.code == 1, ran.out + ran.err
    pages = made.report()
    for words in (
        "the kernel complained: WARNING: ",
        "nvidia complained",
        "hangs in the kernel",
        "1 references",
        "since vecadd ran",
    ):
        assert words in pages or words in ran.err, words
