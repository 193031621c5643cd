"""What a machine's drivers offer is told apart from drivers that are absent, and from drivers in trouble."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from scripted_runner import CPU, GPU, scripted_runner

from harness.errors import InfraError
from harness.machines.here import LocalShell
from harness.suites.offers import Offer, Offered, ask, backends_of

SHELL = LocalShell()


def test_the_runner_itself_says_which_backends_it_has(tmp_path: Path) -> None:
    assert backends_of(SHELL, str(scripted_runner(tmp_path, {"opencl": {}, "cuda": {}}))) == ("opencl", "cuda")


def test_a_runner_that_does_not_start_is_the_labs_trouble(tmp_path: Path) -> None:
    with pytest.raises(InfraError, match="runner does not start here"):
        backends_of(SHELL, str(tmp_path))


def test_devices_are_told_with_what_they_are(tmp_path: Path) -> None:
    runner = str(scripted_runner(tmp_path, {"opencl": {"devices": [CPU, GPU]}}))
    assert ask(SHELL, "opencl", runner) == Offer(
        "opencl",
        (Offered(0, "cpu-runtime", "a processor", ""), Offered(1, "gpu", "a card", "0000:01:00.0")),
    )


@pytest.mark.parametrize(
    ("behaviour", "absent", "trouble"),
    [
        ({"absent": "libcuda.so.1 is not there"}, "libcuda.so.1 is not there", ""),
        ({}, "", "the driver offers no device"),
        ({"reason": "cuInit returned 999"}, "", "cuInit returned 999"),
        ({"devices": [GPU], "act": {"enumerate": "crash"}}, "", "listing the devices ended with status -11"),
    ],
)
def test_a_library_that_is_absent_is_not_a_driver_in_trouble(
    tmp_path: Path, behaviour: dict[str, object], absent: str, trouble: str
) -> None:
    offer = ask(SHELL, "cuda", str(scripted_runner(tmp_path, {"cuda": behaviour})))
    assert (offer.absent, offer.trouble) == (absent, trouble)


def test_what_a_driver_prints_beside_the_records_is_no_device(tmp_path: Path) -> None:
    runner = tmp_path / "bin" / "gtrun"
    runner.parent.mkdir()
    runner.write_text(f'#!{sys.executable}\nprint(\'@GT1 {{"ev":"device","kind":"gpu","index":0}} 00000000\')\n')
    runner.chmod(0o755)
    assert ask(SHELL, "cuda", str(tmp_path)).devices == ()
