"""Reports of programs that users have: the shapes are those of the programs' own writers, the numbers are made up."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.outcome import Outcome
from harness.suites.formats import (
    FORMATS,
    Case,
    Unreadable,
    babelstream,
    clpeak,
    igt,
    level_zero,
    nvbandwidth,
    opencl_cts,
    rvs,
)


def only_metric(case: Case) -> tuple[str, float, str, str]:
    (metric,) = case.metrics
    return metric.name, metric.value, metric.unit, metric.better


def test_nvbandwidth_gives_the_slowest_pair_of_each_test_in_bytes_a_second() -> None:
    report = {
        "nvbandwidth": {
            "CUDA Runtime Version": 12040,
            "Driver Version": "550.54.15",
            "testcases": [
                {
                    "name": "device_to_device_memcpy_read_ce",
                    "status": "Passed",
                    "bandwidth_matrix": [["N/A", "276.07"], ["275.5", "N/A"]],
                    "sum": 551.57,
                },
                {"name": "multinode", "status": "Waived"},
                {"name": "host_device_latency_sm", "status": "Passed", "bandwidth_matrix": [["772.58"]]},
                {"name": "broken", "status": "Error", "error": "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"},
                {"name": "empty", "status": "Passed", "bandwidth_matrix": [["N/A"]]},
            ],
        }
    }
    cases = nvbandwidth.read(b"nvbandwidth Version: v0.8\n" + json.dumps(report).encode())
    assert only_metric(cases[0]) == ("bandwidth", 275.5e9, "B/s", "higher")
    assert only_metric(cases[2]) == ("latency", pytest.approx(772.58e-9), "s", "lower")
    assert [case.outcome for case in cases] == [
        Outcome.PASS,
        Outcome.SKIP,
        Outcome.PASS,
        Outcome.FAIL,
        Outcome.ERROR,
    ]
    assert cases[3].reason == "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"


def test_an_error_of_nvbandwidth_as_a_whole_is_a_failure() -> None:
    (case,) = nvbandwidth.read(b'{"nvbandwidth": {"error": "cuInit failed"}}')
    assert (case.outcome, case.reason) == (Outcome.FAIL, "cuInit failed")


def test_clpeak_gives_units_in_si_and_says_why_a_row_has_no_value() -> None:
    row = {"backend": "CUDA", "device": "card", "test": "wmma", "metric": "fp16"}
    report = {
        "format_version": 2,
        "entries": [
            {**row, "unit": "tflops", "value": 1.5},
            {**row, "metric": "fp8", "unit": "tflops", "status": "unsupported", "reason": "needs sm_89"},
            {**row, "test": "kernel_launch", "unit": "us", "value": 6.2},
            {**row, "test": "x", "unit": "tflops", "status": "error", "reason": "compile failed"},
            {**row, "test": "y", "unit": "furlongs", "value": 1},
        ],
    }
    cases = clpeak.read(json.dumps(report).encode())
    assert cases[0].name == "CUDA/card/wmma/fp16"
    assert only_metric(cases[0]) == ("peak", 1.5e12, "flop/s", "higher")
    assert (cases[1].outcome, cases[1].reason) == (Outcome.SKIP, "needs sm_89")
    assert only_metric(cases[2]) == ("peak", pytest.approx(6.2e-6), "s", "lower")
    assert [case.outcome for case in cases[3:]] == [Outcome.FAIL, Outcome.ERROR]
    with pytest.raises(Unreadable, match="format_version"):
        clpeak.read(b'{"format_version": 1, "entries": []}')


def test_babelstreams_unit_is_read_from_its_header() -> None:
    header = "function,num_times,n_elements,sizeof,max_{}_per_sec,min_runtime,max_runtime,avg_runtime\n"
    rows = "Copy,100,33554432,8,200000,0.0026,0.003,0.0027\nTriad,100,33554432,8,nan,0.1,0.1,0.1\n"
    cases = babelstream.read(("BabelStream\n" + header.format("MB") + rows).encode())
    assert only_metric(cases[0]) == ("bandwidth", 2e11, "B/s", "higher")
    assert cases[1].outcome is Outcome.ERROR
    (other, _) = babelstream.read((header.format("GiB") + rows).encode())
    assert only_metric(other)[1] == 200000 * 2.0**30
    with pytest.raises(Unreadable, match="--csv"):
        babelstream.read(b"Function    MB/s\nCopy 1\n")


def test_rvs_results_are_found_at_every_depth_and_its_texts_become_numbers() -> None:
    report = {
        "version": "1.0",
        "gst": {"gst-1": [{"gpu_id": "42", "gflops": "70123", "target": "50000", "pass": "true"}]},
        "babel": {
            "stream": [
                {"gpu_id": "42", "results": [{"subtest": "Triad", "mbytes_per_sec": "3500000.1", "pass": "false"}]}
            ]
        },
        "pebb": {"h2d": [{"srccpu": "0", "dstgpu": "42", "throughput": "25.123 GBps", "pass": "true"}]},
    }
    gst, triad, pebb = rvs.read(json.dumps(report).encode())
    assert (gst.name, gst.outcome) == ("gst/gst-1/42", Outcome.PASS)
    assert only_metric(gst) == ("throughput", 70123e9, "flop/s", "higher")
    assert (triad.name, triad.outcome) == ("babel/stream/42/Triad", Outcome.FAIL)
    assert only_metric(triad)[1] == pytest.approx(3500000.1e6)
    assert only_metric(pebb) == ("bandwidth", pytest.approx(25.123e9), "B/s", "higher")


def test_the_files_of_many_conformance_tests_are_read_one_behind_the_other() -> None:
    first = '{\n\t"cmd": "basic/test_basic",\n\t"results": {\n\t\t"hostptr": "pass",\n\t\t"fpmath": "skip"\n\t}\n}\n'
    second = '{"cmd": "test_api", "results": {"kernel_arg": "fail", "odd": "maybe"}}'
    assert [(case.name, case.outcome) for case in opencl_cts.read((first + second).encode())] == [
        ("test_basic/hostptr", Outcome.PASS),
        ("test_basic/fpmath", Outcome.SKIP),
        ("test_api/kernel_arg", Outcome.FAIL),
        ("test_api/odd", Outcome.ERROR),
    ]


def test_igts_dynamic_subtests_belong_to_the_subtest_that_follows() -> None:
    report = """IGT-Version: 1.28 (x86_64)
Starting subtest: basic
Starting dynamic subtest: pipe-a
\x1b[1mDynamic subtest pipe-a: SUCCESS (0.104s)\x1b[0m
Dynamic subtest pipe-b: FAIL (0.2s)
\x1b[1mSubtest basic: FAIL (0.310s)\x1b[0m
Subtest other: SKIP (0.000s)
"""
    assert [(case.name, case.outcome) for case in igt.read(report.encode())] == [
        ("basic/pipe-a", Outcome.PASS),
        ("basic/pipe-b", Outcome.FAIL),
        ("basic", Outcome.FAIL),
        ("other", Outcome.SKIP),
    ]
    (simple,) = igt.read(b"SUCCESS (0.021s)\n")
    assert (simple.name, simple.outcome) == ("test", Outcome.PASS)


def test_a_subtest_of_igt_that_never_ended_is_an_error() -> None:
    cases = igt.read(b"Dynamic subtest pipe-a: SUCCESS (0.1s)\n")
    assert Outcome.ERROR in {case.outcome for case in cases}


def test_the_tables_of_level_zeros_benchmarks_are_read() -> None:
    peak = 'Device :\n * name : "Arc"\nGlobal memory bandwidth (GB/s)\nfloat : 412.5 GB/s\nKernel duration : 3.5 (us)\n'
    first, second = level_zero.read_peak(peak.encode())
    assert first.name == "Global memory bandwidth/float"
    assert only_metric(first) == ("bandwidth", 412.5e9, "B/s", "higher")
    assert only_metric(second) == ("latency", pytest.approx(3.5e-6), "s", "lower")
    table = "\nHOST-TO-DEVICE BANDWIDTH AND LATENCY\nTransfer_size,Bandwidth_(GBPS),Latency_(usec)\n1024,0.5,2\n"
    (row,) = level_zero.read_bandwidth(table.encode())
    assert row.name == "host-to-device/1024"
    assert only_metric(row) == ("bandwidth", 0.5e9, "B/s", "higher")


@pytest.mark.parametrize("reader", [form.read for form in FORMATS.values()], ids=list(FORMATS))
def test_what_is_something_else_is_unreadable(reader: Callable[[bytes], list[Case]]) -> None:
    for report in (b"", b"Segmentation fault\n", b"[1, 2]", b'{"a": ' * 2000):
        with pytest.raises(Unreadable):
            reader(report)


@given(st.binary(max_size=200), st.sampled_from(list(FORMATS)))
def test_no_bytes_from_a_guest_break_a_reader(report: bytes, name: str) -> None:
    for prefix in (b"", b"{", b'{"nvbandwidth": {"testcases": [', b"1..2\nok 1 ", b"<testsuite>"):
        try:
            cases = FORMATS[name].read(prefix + report)
        except Unreadable:
            continue
        assert all(len(case.name) <= 300 and len(case.reason) <= 300 for case in cases)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["nvbandwidth", "testcases", "entries", "format_version", "gst", "results", "pass", "cmd", "name"]
                ),
                inner,
                max_size=4,
            )
        ),
    )
)
def test_no_json_of_another_shape_breaks_a_reader(data: object) -> None:
    report = json.dumps(data).encode()
    for name in ("nvbandwidth", "clpeak", "rvs", "opencl-cts"):
        try:
            FORMATS[name].read(report)
        except Unreadable:
            continue
