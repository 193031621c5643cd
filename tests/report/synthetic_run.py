"""Runs made up for the report's tests: realistic names, every kind of outcome, as many cells as asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from harness.model.cell import Cell, DebianKernel, KernelSpec, LeftOut, Series
from harness.model.outcome import Outcome
from harness.model.prediction import Grade, IssueMatch, Prediction
from harness.model.records import Attempt, Evidence, Kind, Metric, StageResult, TestResult, decide
from harness.model.stage import LADDER, Stage
from harness.report.data import ReportInput, RunInfo

KERNELS = (
    (KernelSpec("lts-6.1", Series.LONGTERM, DebianKernel("bookworm", "6.1")), "6.1.0-50-amd64"),
    (KernelSpec("lts-6.12", Series.LONGTERM, DebianKernel("trixie", "6.12")), "6.12.107+deb13-amd64"),
    (KernelSpec("stable", Series.STABLE, DebianKernel("trixie-backports")), "7.3.4+deb13-amd64"),
    (KernelSpec("rc", Series.MAINLINE, DebianKernel("experimental")), "7.3-amd64"),
)
TESTS = ("cl-info", "cl-vector-add", "cl-sgemm", "cl-triad")
SECONDS = (0.4, 2.1, 9.6, 0.8, 0.5, 14.2, 21.7, 0.6)
OOPS = "nova-core 0000:65:00.0: probe with driver nova-core failed with error -22"


@dataclass
class Shelf:
    """Evidence in memory."""

    files: dict[str, bytes] = field(default_factory=dict)

    def put(self, name: str, content: bytes, media_type: str = "text/plain") -> Evidence:
        sha256 = hashlib.sha256(content).hexdigest()
        self.files[sha256] = content
        return Evidence(name, sha256, len(content), media_type)

    def read(self, sha256: str) -> bytes:
        return self.files[sha256]


def console(release: str, *extra: str) -> bytes:
    lines = [
        f"[    0.000000] Linux version {release} (debian-kernel@lists.debian.org)",
        "[    0.000000] Command line: root=/dev/vda ro console=ttyS0",
        *(f"[    {second / 10:.6f}] pci 0000:00:{second % 32:02x}.0: [8086:2918] type 00" for second in range(3, 60)),
        "[    6.210000] erofs (device vda): mounted with root inode @ nid 36.",
        "\x1b[0;32m[  OK  ]\x1b[0m Reached target multi-user.target.\r",
        *extra,
    ]
    return ("\n".join(lines) + "\n").encode()


def repro(attempt: Attempt) -> str | None:
    return f"kdmatrix repro {attempt.cell_id} --run {attempt.run_id}"


def triad(value: float, roofline: float | None = None) -> Metric:
    samples = tuple(value * factor for factor in (0.982, 0.994, 1.0, 1.003, 1.011))
    return Metric(
        "triad bandwidth", value, "B/s", "higher", 5, samples[0], samples[-1], samples[-1], samples, roofline,
        "2 channels DDR4-3200, data sheet" if roofline else "",
    )  # fmt: skip


def attempt(
    cell: Cell,
    release: str,
    shelf: Shelf,
    *,
    number: int = 1,
    stop: tuple[Stage, Outcome, str] | None = None,
    kind: Kind = "cpu-runtime",
    bandwidth: float = 21.3e9,
    with_evidence: bool = True,
    log: bytes | None = None,
) -> Attempt:
    """One attempt that climbs the ladder until ``stop``."""
    stages: list[StageResult] = []
    for stage, seconds in zip(LADDER, SECONDS, strict=True):
        if stop and stage is stop[0]:
            evidence: tuple[Evidence, ...] = ()
            if with_evidence:
                text = log if log is not None else console(release, f"[    7.031255] {stop[2]}")
                evidence = (shelf.put("console.log", text), shelf.put("dmesg.txt", text + b"end\n"))
            stages.append(StageResult(stage, stop[1], seconds * 1.4, stop[2], evidence))
            break
        if stage is Stage.BUILD and cell.stack != "nova":
            stages.append(StageResult(stage, Outcome.SKIP, reason="the stack builds no modules"))
            continue
        evidence = ()
        if with_evidence and stage is Stage.BOOT and stop is None:
            text = log if log is not None else console(release)
            evidence = (shelf.put("console.log", text), shelf.put("dmesg.txt", text + b"end\n"))
            evidence += (shelf.put("domain.xml", b"<domain type='qemu'/>\n", "application/xml"),)
        stages.append(StageResult(stage, Outcome.PASS, seconds + len(cell.id) / 40, evidence=evidence))
    reached = {result.stage for result in stages if result.outcome is Outcome.PASS}
    tests: list[TestResult] = []
    if kind != "none":
        if Stage.COMPUTE in reached:
            tests += [
                TestResult(name, Stage.COMPUTE, Outcome.PASS, "", 1.3, kind, (), {"device": "pthread-haswell"})
                for name in cell.tests
                if name != "cl-triad"
            ]
        if Stage.THROUGHPUT in reached and "cl-triad" in cell.tests:
            metric = triad(bandwidth, 51.2e9 if kind == "cpu-runtime" else None)
            tests.append(TestResult("cl-triad", Stage.THROUGHPUT, Outcome.PASS, "", 9.1, kind, (metric,)))
    elif Stage.LOAD in reached:
        tests.append(TestResult("virtio_gpu", Stage.LOAD, Outcome.PASS, "", 0.2, "none"))
    outcome, rung, reason = decide(stages)
    facts = {"kernel.version": release, "kernel.release": release, "qemu": "7.2.22", "taint": "0"}
    if Stage.BOOT in reached:
        facts["uname_release"] = release
    return Attempt(
        "20261112-0911", cell.id, number, f"2026-11-12T09:{11 + number:02d}:04Z",
        f"2026-11-12T09:{12 + number:02d}:31Z",
        outcome, rung, reason, tuple(stages), tuple(tests), facts,
    )  # fmt: skip


RUN = RunInfo(
    "20261112-0911",
    "2026-11-12T09:11:02Z",
    "2026-11-12T09:58:40Z",
    "finished",
    hashlib.sha256(b"matrix").hexdigest(),
    "kernels:\n  - name: lts-6.1\n    series: longterm\nguests: [debian-13]\nstacks: [cpu-opencl, intree]\n",
    "0.1.0",
    {
        "accelerator": "tcg (emulation)",
        "kernel": "6.12.90-amd64",
        "cpu": "Intel Xeon @ 2.20GHz, 2 cores",
        "qemu": "7.2.22",
    },
    {"boots": "1"},
)


def run_of_kinds() -> tuple[ReportInput, Shelf]:
    """The same passing cell three times, computed on a GPU, on the CPU and on a fake device."""
    shelf = Shelf()
    kinds: tuple[Kind, ...] = ("gpu", "cpu-runtime", "fake")
    (kernel, release), *_ = KERNELS
    cells = [Cell("debian-13", kernel, f"on-{kind}", "0000:01:00.0", tests=TESTS) for kind in kinds]
    made = [attempt(cell, release, shelf, kind=kind) for cell, kind in zip(cells, kinds, strict=True)]
    return ReportInput(RUN, tuple(cells), (), tuple(made)), shelf


def small_run(shelf: Shelf | None = None) -> tuple[ReportInput, Shelf]:
    """Four kernels × four stacks with every state that a report knows."""
    shelf = shelf or Shelf()
    cells: list[Cell] = []
    attempts: list[Attempt] = []
    left: list[LeftOut] = []
    for index, (kernel, release) in enumerate(KERNELS):
        cpu = Cell("debian-13", kernel, "cpu-opencl", tests=TESTS)
        intree = Cell("debian-13", kernel, "intree")
        rocm = Cell("fedora-44", kernel, "rocm", "amd-w7900", ("hip-vector-add", "cl-triad"), boots=3)
        nova = Cell("fedora-44", kernel, "nova", "nvidia-l4", ("nova-info",))
        cells += [cpu, intree, rocm]
        if index == 2:
            stop = (Stage.COMPUTE, Outcome.FAIL, 'cl-sgemm: result differs: "max error 3.1e-02 at [17, 203]"')
            attempts.append(attempt(cpu, release, shelf, stop=stop))
        else:
            attempts.append(attempt(cpu, release, shelf, bandwidth=(21.3 - index) * 1e9))
        if index != 3:
            attempts.append(attempt(intree, release, shelf, kind="none", with_evidence=index != 1))
        if index == 0:
            left.append(LeftOut(nova.id, "nova needs a kernel of at least 6.15"))
            stop = (Stage.LOAD, Outcome.SKIP, "blocked: no module of this stack was built")
            attempts.append(replace(attempt(rocm, release, shelf, stop=stop), outcome=Outcome.SKIP, reason=stop[2]))
        elif index == 1:
            left.append(LeftOut(nova.id, "nova needs a kernel of at least 6.15"))
            attempts += [
                attempt(rocm, release, shelf, number=number, kind="gpu", bandwidth=7.9e11) for number in (1, 2, 3)
            ]
        elif index == 2:
            cells.append(nova)
            attempts.append(attempt(nova, release, shelf, stop=(Stage.LOAD, Outcome.FAIL, OOPS)))
            attempts += [
                attempt(rocm, release, shelf, number=1, kind="gpu", bandwidth=7.7e11),
                attempt(
                    rocm, release, shelf, number=2, stop=(Stage.ENUMERATE, Outcome.FAIL, "amdgpu: ring gfx timeout")
                ),
                attempt(rocm, release, shelf, number=3, kind="gpu", bandwidth=7.8e11),
            ]
        else:
            cells.append(nova)
            attempts.append(
                attempt(nova, release, shelf, stop=(Stage.BOOT, Outcome.MISS, "the guest did not answer within 120 s"))
            )
            attempts.append(
                attempt(rocm, release, shelf, stop=(Stage.COMPUTE, Outcome.ERROR, "the test program has no manifest"))
            )
    return ReportInput(RUN, tuple(cells), tuple(left), tuple(attempts)), shelf


def big_run(kernels: int = 200, stacks: int = 50) -> tuple[ReportInput, Shelf]:
    """A matrix of ``kernels`` × ``stacks`` cells; attempts share one log each per outcome."""
    shelf = Shelf()
    cells: list[Cell] = []
    attempts: list[Attempt] = []
    log = console("7.3-amd64", f"[    7.031255] {OOPS}")
    for row in range(kernels):
        series = list(Series)[row * 4 // kernels]
        release = f"{6 + row // 100}.{row % 100}.{row * 7 % 90}-amd64"
        kernel = KernelSpec(f"k{row:03d}", series, DebianKernel("sid"))
        for column in range(stacks):
            cell = Cell(f"debian-{13 + column % 2}", kernel, f"stack-{column:02d}", tests=TESTS)
            cells.append(cell)
            lot = (row * 31 + column * 17) % 23
            stop = None
            if lot == 0:
                stop = (Stage.LOAD, Outcome.FAIL, OOPS)
            elif lot == 1:
                stop = (Stage.BOOT, Outcome.MISS, f"the guest did not answer within {row} s")
            elif lot == 2:
                continue
            attempts.append(attempt(cell, release, shelf, stop=stop, bandwidth=2e10 + row * 1e7 + column, log=log))
    return ReportInput(RUN, tuple(cells), (), tuple(attempts)), shelf


def foreseen_run() -> tuple[ReportInput, Shelf]:
    """The small run with predictions that came true and one that did not, and a failure that is known."""
    data, shelf = small_run()
    true = Prediction(Stage.COMPUTE, Outcome.FAIL, "sgemm is wrong there", "known issue ki-001-sgemm")
    false = Prediction(Stage.BUILD, Outcome.FAIL, "strncpy is gone (the headers show it)", "headers ki-002-strncpy")
    open_ = Prediction(Stage.THROUGHPUT, Outcome.SKIP, "debug kernel: CONFIG_KASAN=y", "debug kernel")
    known = IssueMatch(
        "ki-001-sgemm", "the runtime multiplies wrongly", Stage.COMPUTE, Grade.IDENTIFIED, "a loop is unrolled once too"
        " often", "7.4", "use another runtime", "driver", "high",
        ("example/runtime#12", "Debian bug 1130057", "a letter"), "max error 3.1e-02 at [17, 203]",
    )  # fmt: skip
    hinted = replace(known, issue="ki-009-other", grade=Grade.CANDIDATE, excerpt="")
    attempts = []
    for one in data.attempts:
        if one.cell_id == "debian-13/stable/cpu-opencl/none":
            one = replace(one, predictions=(true, open_), issues=(known, hinted))
        elif one.cell_id == "debian-13/stable/nova/nvidia-l4" or "nova" in one.cell_id:
            stages = tuple(replace(s, outcome=Outcome.PASS) if s.stage is Stage.BUILD else s for s in one.stages)
            one = replace(one, stages=stages, predictions=(false,))
        attempts.append(one)
    return replace(data, attempts=tuple(attempts)), shelf


HOSTILE = (
    "<script>window.pwned=1</script>",
    "</script><script>window.pwned=2</script>",
    "<!--<script>window.pwned=3//",
    "]]><img src=x onerror=window.pwned=4>",
    "<img src=http://attacker.invalid/leak.png>",
    "\u202egnp.exe\u2066 bidi \u200f\u061c",
    "NUL \x00 bell \x07 ESC \x1b]0;title\x07 C1 \x9b31m",
    "\u2028window.pwned=5\u2029",
    "{{ 7*7 }}{% raw %}${window.pwned=6}`",
    "=cmd|'/c calc'!A1",
    "\ud800 lone surrogate",
)


def hostile_run() -> tuple[ReportInput, Shelf]:
    """Every text that a guest controls is an attack; one log is a single line of 1 MB."""
    shelf = Shelf()
    long_line = b"A" * 500_000 + b"</script><script>window.pwned=7</script>" + b"B" * 500_000
    cells: list[Cell] = []
    attempts: list[Attempt] = []
    dull: Callable[..., Attempt] = attempt
    for index, text in enumerate(HOSTILE):
        kernel = KernelSpec(f"lts-{index}", Series.LONGTERM, DebianKernel("bookworm"))
        cell = Cell("debian-13", kernel, "intree", tests=("t",))
        cells.append(cell)
        log = "\n".join(HOSTILE).encode("utf-8", "surrogatepass") + b"\n" + (long_line if index == 0 else b"")
        made = dull(cell, text, shelf, stop=(Stage.LOAD, Outcome.FAIL, text * (1 + 90_000 * (index == 3))), log=log)
        files = (shelf.put(text, log), shelf.put(text + "é", b"\x00\xff\xfe" * 9), Evidence(text, "../../etc/x", 1))
        stages = (*made.stages[:-1], replace(made.stages[-1], evidence=files))
        metric = Metric(text, float("nan") if index == 1 else 1.0, text, samples=(1.0, float("inf")))
        tests = (TestResult(text, Stage.COMPUTE, Outcome.FAIL, text, 1.0, "cpu-runtime", (metric,), {text: text}),)
        predictions = (Prediction(Stage.BUILD, Outcome.FAIL, text, text),)
        issues = (
            IssueMatch(
                text, text, Stage.LOAD, Grade.IDENTIFIED, *[text] * 5, (text, "javascript:window.pwned=9"), text
            ),
        )
        facts = {text: text, "uname_release": text}
        attempts.append(replace(made, stages=stages, tests=tests, facts=facts, predictions=predictions, issues=issues))
    run = replace(RUN, host={"accelerator": HOSTILE[0], HOSTILE[1]: HOSTILE[2]}, matrix_text="\n".join(HOSTILE))
    return ReportInput(run, tuple(cells), (LeftOut("no-axes", HOSTILE[1]),), tuple(attempts)), shelf
