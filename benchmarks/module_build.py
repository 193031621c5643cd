"""What building a driver costs here: our build of a pair against bare `make`, and what the compiler cache saves.

Bare `make` is the command of the driver's own dkms.conf, with its patches applied, typed into the same build root: same
compiler, same headers, same number of jobs. Both run without compiler cache first; then a second kernel of the same
series is built with the cache that the first one filled. Processor time is measured beside wall time, as a busy host
spoils only the latter.
"""

from __future__ import annotations

import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sampling import Samples, arguments, interleave, ratio, report

from harness.drivers.build import Drivers, mounts
from harness.lab import Lab
from harness.model.cell import DebianKernel, KernelSpec, Series
from harness.model.outcome import Outcome

GUEST = "debian-13"
FIRST = KernelSpec("first", Series.LONGTERM, DebianKernel("trixie", release="6.12.107+deb13-amd64"))
SECOND = KernelSpec("second", Series.LONGTERM, DebianKernel("trixie", release="6.12.117+deb13-amd64"))
STACKS = ("v4l2loopback", "nvidia@550")

BARE = r"""
set -e
export LC_ALL=C kernelver=$KDM_RELEASE parallel_jobs=$KDM_JOBS arch=x86_64
cp -a "$(dirname /usr/src/*/dkms.conf)" /tmp/source
cd /tmp/source
kernel_source_dir=/usr/lib/modules/$KDM_RELEASE/build dkms_tree=/var/lib/dkms
mkdir -p "$dkms_tree"
. ./dkms.conf
mkdir -p "$dkms_tree/$PACKAGE_NAME/$PACKAGE_VERSION"
ln -s /tmp/source "$dkms_tree/$PACKAGE_NAME/$PACKAGE_VERSION/build"
for index in "${!PATCH[@]}"; do
    match=${PATCH_MATCH[$index]:-}
    if [ -z "$match" ] || [[ $kernelver =~ $match ]]; then patch -s -p1 <"patches/${PATCH[$index]}"; fi
done
eval "${MAKE[0]:-make -C $kernel_source_dir M=/tmp/source}" >/dev/null 2>&1
find . -name '*.ko' | grep -q .
"""


def children_cpu(act: Callable[[], object]) -> float:
    """Processor seconds, user and system, of the programs that ``act`` waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    act()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def bare(drivers: Drivers, stack: str) -> None:
    """Build by hand in the build root."""
    root = drivers.prepare(GUEST, stack, FIRST, timeout=3600)
    headers = drivers.headers(FIRST)
    done = drivers.images.buildah.run(
        root.reference,
        ["bash", "-c", BARE],
        volumes=list(mounts(headers)),
        env={"KDM_RELEASE": headers.release, "KDM_JOBS": str(drivers.jobs)},
        timeout=7200,
    )
    if done.returncode != 0:
        raise RuntimeError(f"make returned {done.returncode}: {done.stderr.decode(errors='replace')[-300:]}")


def ours(drivers: Drivers, stack: str, kernel: KernelSpec, *, keep_ccache: bool) -> None:
    """Build as a run does, with nothing remembered of the pair."""
    drivers.images._memory.clear()
    shutil.rmtree(drivers.cache / "modules", ignore_errors=True)
    if not keep_ccache:
        shutil.rmtree(drivers.cache / "ccache", ignore_errors=True)
    built = drivers.build(GUEST, stack, kernel, timeout=7200)
    if built.result.outcome is not Outcome.PASS:
        raise RuntimeError(f"{stack} on {built.result.release}: {built.result.outcome}: {built.result.reason}")
    counts.append((stack, built.result.release, built.result.ccache_hits, built.result.ccache_misses))


counts: list[tuple[str, str, int, int]] = []


def second_kernel(drivers: Drivers, stack: str, lines: list[str]) -> list[Samples]:
    """The first kernel with an empty cache, then the second one with what it left; processor seconds."""
    cold = Samples(f"{stack}: second kernel, empty cache", "CPU s")
    warm = Samples(f"{stack}: second kernel, after the first", "CPU s")
    cold.samples.append(children_cpu(lambda: ours(drivers, stack, SECOND, keep_ccache=False)))
    ours(drivers, stack, FIRST, keep_ccache=False)
    warm.samples.append(children_cpu(lambda: ours(drivers, stack, SECOND, keep_ccache=True)))
    _, _, hits, misses = counts[-1]
    rate = 100 * hits / max(1, hits + misses)
    saved = 100 * (1 - warm.median / cold.median)
    lines.append(f"{stack}: {rate:.0f} % of the second kernel's compilations were cached; {saved:.0f} % CPU saved")
    return [cold, warm]


def main() -> None:
    """Measure and report."""
    n = arguments(__doc__ or "", n=3).n
    lab = Lab.open()
    series: list[Samples] = []
    lines: list[str] = []
    with tempfile.TemporaryDirectory(prefix="module-build-", dir=lab.home.cache) as folder:
        drivers = replace(lab.drivers, cache=Path(folder))
        for stack in STACKS:
            started = time.monotonic()
            drivers.prepare(GUEST, stack, FIRST, timeout=3600)
            contenders = {
                f"kdmatrix: {stack}": lambda stack=stack: children_cpu(
                    lambda: ours(replace(drivers, ccache=False), stack, FIRST, keep_ccache=False)
                ),
                f"bare make: {stack}": lambda stack=stack: children_cpu(lambda: bare(drivers, stack)),
            }
            found = interleave(n, contenders, "CPU s", warm_up=False)
            mine, theirs = found.values()
            lines.append(ratio(mine, theirs))
            series += [mine, theirs, *second_kernel(drivers, stack, lines)]
            lines.append(f"{stack}: measured in {time.monotonic() - started:.0f} s")
    report("module_build", series, lines, jobs=lab.drivers.jobs)


if __name__ == "__main__":
    main()
