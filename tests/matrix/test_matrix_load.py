from __future__ import annotations

import hashlib
import os
import pickle
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import UserError
from harness.matrix import Known, MatrixError, Problem, load_matrix
from harness.model.cell import DebianKernel, Series, Timeouts, TreeKernel
from harness.model.device import DeviceRequest
from harness.model.expand import expand
from harness.model.matrix import Matrix

KNOWN = Known(
    guests={"debian-13", "fedora-44"},
    stacks={"cpu-opencl", "intree", "nvidia-open"},
    tests={"enumerate", "vecadd", "triad"},
)
HEAD = """\
version: 1
kernels:
  - {name: lts, series: longterm, debian: bookworm}
  - {name: rc, series: mainline, debian: experimental}
guests: [debian-13]
stacks: [cpu-opencl, intree]
"""


def load(directory: Path, text: str | bytes, preset: str | None = None) -> Matrix:
    file = directory / "matrix.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_matrix(file, KNOWN, preset=preset)


def ids(matrix: Matrix) -> list[str]:
    return [cell.id for cell in expand(matrix).cells]


def test_what_the_file_leaves_out_has_defaults(tmp_path: Path) -> None:
    matrix = load(tmp_path, HEAD)
    assert matrix.devices == ("none",)
    assert matrix.tests == ("enumerate", "triad", "vecadd")
    assert matrix.boots == 1
    assert matrix.timeouts == Timeouts()
    assert (matrix.limits.vms, matrix.limits.vm_memory, matrix.limits.vm_cpus) == (None, 1 << 30, 1)


def test_every_value_of_a_full_file_arrives(tmp_path: Path) -> None:
    text = """\
version: 1
kernels:
  - name: exact
    series: stable
    debian: {suite: trixie, version: 6.10, release: 6.10.11+bpo-amd64, flavour: cloud-amd64}
    cmdline: "quiet foo=1"
  - {name: mine, series: linux-next, tree: build/linux}
guests: [fedora-44, debian-13]
stacks: [intree]
devices: [none, 0000:01:00.0]
tests: [triad]
boots: 3
timeouts: {boot: 90s, build: 1h30m, test: 45}
limits: {vms: 4, vm_memory: 1.5GiB, vm_cpus: 2}
exclude:
  - {device: "0000:*", kernel: mine, reason: no firmware yet}
include:
  - {kernel: exact, stack: nvidia-open, boots: 5, tests: all, timeouts: {build: 2h}}
presets:
  small: {description: one of each, guests: [debian-13], timeouts: {cell: 5m}}
"""
    matrix = load(tmp_path, text)
    exact, mine = matrix.kernels
    assert exact.source == DebianKernel("trixie", "6.10", "6.10.11+bpo-amd64", "cloud-amd64")
    assert (exact.series, exact.cmdline) == (Series.STABLE, "quiet foo=1")
    assert mine.source == TreeKernel(str(tmp_path / "build/linux"))
    assert matrix.guests == ("fedora-44", "debian-13")
    assert matrix.devices == ("none", "0000:01:00.0")
    assert matrix.timeouts == Timeouts(boot=90.0, build=5400.0, test=45.0)
    assert (matrix.limits.vms, matrix.limits.vm_memory, matrix.limits.vm_cpus) == (4, 3 << 29, 2)
    assert (matrix.excludes[0].reason, matrix.excludes[0].line) == ("no firmware yet", 16)
    include = matrix.includes[0]
    assert (include.adds_stacks, include.boots, include.line) == (("nvidia-open",), 5, 18)
    assert include.tests == ("enumerate", "triad", "vecadd")
    assert include.timeouts == (("build", 7200.0),)
    assert matrix.presets[0].timeouts == (("cell", 300.0),)
    assert matrix.source_text == text
    assert matrix.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_scalars_that_yaml_turns_into_something_else_stay_text(tmp_path: Path) -> None:
    text = """\
version: 1
kernels:
  - {name: 6.10, series: stable, debian: {suite: trixie, version: 6.10}}
  - {name: 1e3, series: stable, debian: trixie}
  - {name: no, series: stable, debian: trixie}
  - {name: 0x10, series: stable, debian: trixie}
  - {name: 2026-01-02, series: stable, debian: trixie}
guests: [debian-13]
stacks: [intree]
devices: [0000:01:00.0, 0000:21:00.1]
presets:
  2.0: {kernels: [6.10]}
"""
    matrix = load(tmp_path, text)
    assert [kernel.name for kernel in matrix.kernels] == ["6.10", "1e3", "no", "0x10", "2026-01-02"]
    assert matrix.devices == ("0000:01:00.0", "0000:21:00.1")
    assert load(tmp_path, text, "2.0").kernels[0].source == DebianKernel("trixie", "6.10")


DEVICES = """\
devices:
  - none
  - 0000:01:00.0
  - {name: h100, vendor: nvidia, model: H100, memory: 64GiB}
  - {name: pair, id: "1002:744c", count: 2}
  - {name: linked, model: H100, nvlink: true, count: 2}
  - {name: vf, vendor: intel, virtual: true}
  - {name: vgpu, mdev: nvidia-63, architecture: AD102}
  - {name: front, address: 0000:21:00.0}
  - {name: beside, address: 0000:21:00.0, display: true}
include:
  - {device: 0000:81:00.0, kernel: lts}
presets:
  big: {devices: [pair, 0000:05:00.0]}
"""


def test_devices_are_asked_for_by_address_or_by_what_they_are(tmp_path: Path) -> None:
    matrix = load(tmp_path, HEAD + DEVICES)
    assert matrix.devices == ("none", "0000:01:00.0", "h100", "pair", "linked", "vf", "vgpu", "front", "beside")
    assert matrix.requests == (
        DeviceRequest("0000:01:00.0", address="0000:01:00.0"),
        DeviceRequest("h100", vendor=0x10DE, model="H100", memory=64 << 30),
        DeviceRequest("pair", vendor=0x1002, device=0x744C, count=2),
        DeviceRequest("linked", model="H100", nvlink=True, count=2),
        DeviceRequest("vf", vendor=0x8086, virtual=True),
        DeviceRequest("vgpu", architecture="AD102", mdev="nvidia-63"),
        DeviceRequest("front", address="0000:21:00.0"),
        DeviceRequest("beside", address="0000:21:00.0", display=True),
    )
    asked = {cell.device: cell.request for cell in expand(matrix).cells}
    assert asked["none"] is None
    assert asked["pair"] == matrix.requests[2]
    # An include may bring an address that is not on the axis.
    assert asked["0000:81:00.0"] == DeviceRequest("0000:81:00.0", address="0000:81:00.0")
    assert load(tmp_path, HEAD + DEVICES, "big").devices == ("pair", "0000:05:00.0")


def test_a_quoted_null_is_a_text(tmp_path: Path) -> None:
    text = HEAD.replace("debian: bookworm", "debian: bookworm, cmdline: 'null'")
    assert load(tmp_path, text).kernels[0].cmdline == "null"


def test_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    assert ids(load(tmp_path, b"\xef\xbb\xbf" + HEAD.replace("\n", "\r\n").encode())) == ids(load(tmp_path, HEAD))


def test_an_alias_stands_for_its_anchor(tmp_path: Path) -> None:
    text = HEAD.replace("stacks: [", "stacks: &all [") + "presets:\n  q: {stacks: *all, boots: 2}\n"
    assert load(tmp_path, text, "q").stacks == ("cpu-opencl", "intree")


@pytest.mark.timeout(60)
def test_a_billion_laughs_are_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [lol]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    began = time.monotonic()
    with pytest.raises(MatrixError, match="more than 50000 values, counting what aliases stand for"):
        load(tmp_path, "\n".join(lines))
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("text", ["[" * 200_000, "- " * 100_000, "{a: " * 100_000, "? " * 100_000, "a: &x [*x]"])
def test_a_hostile_shape_is_refused_soon(tmp_path: Path, text: str) -> None:
    began = time.monotonic()
    with pytest.raises(MatrixError):
        load(tmp_path, text)
    assert time.monotonic() - began < 10


def test_too_many_combinations_are_refused_before_they_are_made(tmp_path: Path) -> None:
    kernels = "".join(f"  - {{name: k{n}, series: stable, debian: trixie}}\n" for n in range(500))
    devices = ", ".join(f"0000:{bus:02x}:{slot:02x}.0" for bus in range(16) for slot in range(16))
    with pytest.raises(MatrixError, match=r":2:1: kernels: the axes make up to 256000 combinations"):
        load(
            tmp_path,
            f"version: 1\nkernels:\n{kernels}guests: [debian-13]\nstacks: [intree, cpu-opencl]\ndevices: [{devices}]\n",
        )


def test_bytes_that_are_not_utf8_are_placed(tmp_path: Path) -> None:
    with pytest.raises(MatrixError) as caught:
        load(tmp_path, HEAD.encode().replace(b"bookworm", b"book\xe9worm"))
    assert str(caught.value).splitlines()[0].endswith(":3:47: byte 0xe9 is not UTF-8; save the file as UTF-8")


def test_utf16_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MatrixError, match=":1:1: byte 0xff is not UTF-8"):
        load(tmp_path, HEAD.encode("utf-16"))


def test_a_missing_file_a_directory_a_pipe_and_a_huge_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        load_matrix(tmp_path / "none.yaml", KNOWN)
    with pytest.raises(UserError, match="is a directory; name the matrix file in it"):
        load_matrix(tmp_path, KNOWN)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="is not a regular file"):
        load_matrix(tmp_path / "pipe", KNOWN)
    with pytest.raises(UserError, match="is not a regular file"):
        load_matrix(Path("/dev/zero"), KNOWN)
    with pytest.raises(UserError, match="Not a directory"):
        load_matrix(Path("/dev/null/matrix.yaml"), KNOWN)
    with pytest.raises(UserError, match="cannot be opened"):
        load_matrix(Path("a\0b"), KNOWN)
    with pytest.raises(UserError, match="larger than 1024 KiB"):
        load(tmp_path, b"#" * ((1 << 20) + 1))


def test_all_problems_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = HEAD.replace("longterm", "longtrem").replace("intree]", "intre]") + "boots: 0\nboot: 1\nguests: [x]\n"
    with pytest.raises(MatrixError) as caught:
        load(tmp_path, text)
    assert [(problem.span.line, problem.where) for problem in caught.value.problems] == [
        (3, "kernels.0.series"),
        (6, "stacks.1"),
        (7, "boots"),
        (8, "boot"),
        (9, "guests"),
    ]


def test_an_error_pickles_and_is_plain_data_for_json(tmp_path: Path) -> None:
    with pytest.raises(MatrixError) as caught:
        load(tmp_path, HEAD.replace("intree]", "intre]"))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert caught.value.as_json() == [
        {
            "file": str(tmp_path / "matrix.yaml"),
            "line": 6,
            "column": 22,
            "where": "stacks.1",
            "message": "there is no stack 'intre'",
            "hint": "did you mean 'intree'?",
        }
    ]


def test_a_preset_has_the_last_word_on_what_it_names(tmp_path: Path) -> None:
    text = HEAD + (
        "include:\n"
        "  - {kernel: rc, stack: nvidia-open}\n"
        "  - {kernel: '*', boots: 7, tests: [triad]}\n"
        "presets:\n"
        "  quick: {kernels: [rc], stacks: [intree], boots: 1}\n"
        "  rc: {kernels: [rc]}\n"
        "  lts: {kernels: [lts]}\n"
    )
    quick = expand(load(tmp_path, text, "quick")).cells
    assert [(cell.id, cell.boots, cell.tests) for cell in quick] == [("debian-13/rc/intree/none", 1, ("triad",))]
    assert ids(load(tmp_path, text, "rc"))[-1] == "debian-13/rc/nvidia-open/none"
    assert ids(load(tmp_path, text, "lts")) == ["debian-13/lts/cpu-opencl/none", "debian-13/lts/intree/none"]


def test_a_preset_may_name_what_the_axes_lack(tmp_path: Path) -> None:
    text = HEAD + "presets:\n  gpu: {stacks: [nvidia-open], devices: [0000:01:00.0], kernels: [lts]}\n"
    assert ids(load(tmp_path, text, "gpu")) == ["debian-13/lts/nvidia-open/0000:01:00.0"]


def test_a_rule_may_speak_of_what_only_a_preset_brings(tmp_path: Path) -> None:
    text = HEAD + (
        "exclude:\n  - {stack: nvidia-open, kernel: rc, reason: too new}\npresets:\n  gpu: {stacks: [nvidia-open]}\n"
    )
    assert [left.cell_id for left in expand(load(tmp_path, text, "gpu")).left_out] == ["debian-13/rc/nvidia-open/none"]


def test_an_unknown_preset_is_a_user_error_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no preset 'quikc'; did you mean 'quick'"):
        load(tmp_path, HEAD + "presets:\n  quick: {boots: 1}\n", "quikc")
    with pytest.raises(UserError, match="the file defines no presets"):
        load(tmp_path, HEAD, "quick")


def test_the_home_directory_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    matrix = load(tmp_path, HEAD.replace("debian: bookworm", "tree: ~/linux"))
    assert matrix.kernels[0].source == TreeKernel("/home/me/linux")


FULL = HEAD + (
    "devices: [none, 0000:01:00.0]\ntests: all\ntimeouts: {boot: 90s}\nlimits: {vms: auto}\n"
    "exclude:\n  - {stack: 'in*', kernel: rc, reason: \"x\"}\n"
    "include:\n  - {kernel: lts, boots: 3}\n"
    "presets:\n  quick: {kernels: [lts]}\n"
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(st.integers(0, len(FULL)), st.integers(0, 12), st.text(alphabet="\t\n -:[]{}&*!|>'\"%@,#?~<0aé\x00", max_size=4))
def test_however_a_file_is_damaged_it_loads_or_is_a_user_error(tmp_path: Path, at: int, cut: int, put: str) -> None:
    problems: tuple[Problem, ...] = ()
    try:
        matrix = load(tmp_path, FULL[:at] + put + FULL[at + cut :])
    except MatrixError as error:
        problems = error.problems
    else:
        assert expand(matrix).cells
    assert all(problem.span.line >= 1 and problem.span.column >= 1 and problem.message for problem in problems)


def test_rules_and_presets_without_end_are_refused_before_they_are_tried(tmp_path: Path) -> None:
    kernels = "".join(f"  - {{name: k{n}, series: stable, debian: trixie}}\n" for n in range(2000))
    rules = "".join(f"  - {{kernel: k{n}, stack: intree, reason: x}}\n" for n in range(1000))
    presets = "".join(f"  p{n}: {{boots: 2}}\n" for n in range(1000))
    text = f"version: 1\nkernels:\n{kernels}guests: [debian-13]\nstacks: [intree, cpu-opencl]\n"
    began = time.monotonic()
    with pytest.raises(MatrixError, match="comparisons; at most"):
        load(tmp_path, f"{text}exclude:\n{rules}presets:\n{presets}")
    assert time.monotonic() - began < 20


def test_all_is_the_first_tier_and_a_tier_holds_those_below_it(tmp_path: Path) -> None:
    known = replace(KNOWN, tiers={"vecadd": 2, "triad": 3})
    file = tmp_path / "matrix.yaml"

    def tests(written: str) -> tuple[str, ...]:
        file.write_text(f"{HEAD}{written}\n")
        return load_matrix(file, known).tests

    assert tests("") == tests("tests: all") == tests("tests: {tier: 1}") == ("enumerate",)
    assert tests("tests: {tier: 2}") == ("enumerate", "vecadd")
    assert tests("tests: {tier: 3}") == ("enumerate", "triad", "vecadd")
    assert tests("tests: [triad]") == ("triad",)


def test_rules_and_presets_choose_tests_by_tier_too(tmp_path: Path) -> None:
    known = replace(KNOWN, tiers={"vecadd": 2, "triad": 3})
    file = tmp_path / "matrix.yaml"
    file.write_text(
        f"{HEAD}include:\n  - {{stack: intree, tests: {{tier: 2}}}}\npresets:\n  nightly: {{tests: {{tier: 3}}}}\n"
    )
    assert load_matrix(file, known).includes[0].tests == ("enumerate", "vecadd")
    assert load_matrix(file, known, preset="nightly").tests == ("enumerate", "triad", "vecadd")
