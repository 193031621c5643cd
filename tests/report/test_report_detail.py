from synthetic_run import KERNELS, TESTS, Shelf, attempt, repro

from harness.model.cell import Cell
from harness.model.outcome import Outcome
from harness.model.records import StageResult
from harness.model.stage import Stage
from harness.report.data import ReportInput, RunInfo
from harness.report.detail import beside, cell_detail, chunk_count, chunk_of, ladder
from harness.report.view import views

CELL = Cell("debian-13", KERNELS[0][0], "cpu-opencl", tests=TESTS)


def test_the_chunk_hash_is_fnv_1a() -> None:
    # Published vectors of 32-bit FNV-1a.
    assert chunk_of("", 1 << 32) == 0x811C9DC5
    assert chunk_of("foobar", 1 << 32) == 0xBF9CF968
    assert chunk_of("anything", 1) == 0


def test_chunks_are_few_and_never_none() -> None:
    assert (chunk_count(0), chunk_count(24), chunk_count(10_000)) == (1, 1, 417)


def test_rungs_after_a_stop_are_blocked_and_name_what_stopped_them() -> None:
    rungs = ladder(
        [
            StageResult(Stage.IMAGE, Outcome.PASS, 1.0),
            StageResult(Stage.LOAD, Outcome.FAIL, 1.0, "no device"),
            StageResult(Stage.UNLOAD, Outcome.PASS, 0.1),
        ]
    )
    states = {rung["stage"]: rung["state"] for rung in rungs}
    assert (states["boot"], states["load"], states["compute"], states["unload"]) == (
        "not-run",
        "fail",
        "blocked",
        "pass",
    )
    assert next(rung for rung in rungs if rung["stage"] == "compute")["reason"] == "blocked: load did not pass"


def detail(with_evidence: bool = True):  # type: ignore[no-untyped-def]
    made = attempt(CELL, "6.1.0-50-amd64", Shelf(), with_evidence=with_evidence)
    data = ReportInput(RunInfo("r", "", "", "finished"), (CELL,), (), (made,))
    return cell_detail(views(data, lambda _: False)[0], CELL, (made,), {}, repro)


def test_a_metric_carries_spread_and_roofline() -> None:
    (test,) = [test for test in detail()["attempts"][0]["tests"] if test["metrics"]]
    (metric,) = test["metrics"]
    assert (metric["p50"], metric["spread"], metric["share"]) == ("21.3 GB/s", "20.9–21.5 GB/s", "42 %")
    assert metric["roofline"] == "51.2 GB/s"


def test_logs_that_every_boot_owes_are_named_when_they_are_missing() -> None:
    files = detail(with_evidence=False)["attempts"][0]["evidence"]
    assert [(file["name"], file["status"]) for file in files] == [
        ("serial console", "not collected"),
        ("kernel log", "not collected"),
    ]
    assert {file["status"] for file in detail()["attempts"][0]["evidence"]} == {"not collected"}


def test_the_repro_command_is_shown_as_given() -> None:
    assert detail()["attempts"][0]["repro"] == "kdmatrix repro debian-13/lts-6.1/cpu-opencl/none --run 20261112-0911"


def test_the_state_of_the_device_stands_beside_the_number() -> None:
    state = {
        "triad.frac_at_clock": 0.973,
        "triad.sm_hz": 1.98e9,
        "triad.mem_hz": 2.6e9,
        "triad.power_w": 310.5,
        "triad.temp_c": 54.0,
        "triad.link_width": 16.0,
        "triad.link_gts": 32.0,
        "triad.bar_bytes": 1 << 36,
        "triad.throttle": "sw_power_cap",
        "copy.sm_hz": 1.0,
    }
    assert beside("triad", state) == (
        "97 % of the roof at this clock, 1.98 GHz, 2.60 GHz memory, 310 W, 54 °C, PCIe x16 at 32 GT/s, BAR 64.0 GiB, "
        "held back by: sw_power_cap"
    )
    assert beside("triad", {}) == ""
    assert beside("triad", {"triad.sm_hz": "fast", "triad.temp_c": True}) == ""
