"""``run --until build``: kernels and drivers are paired without a VM, and a driver is added by content alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from drivers.hello import write_content

from harness.drivers.build import Drivers
from harness.model.outcome import Outcome
from harness.model.stage import Stage

from .installation import Installation, installed

MATRIX = """version: 1
kernels:
  - {name: lts-6.12, series: longterm, debian: trixie}
guests: [debian-13]
stacks: [hello, wrong-call, excluded, no-source, cpu-opencl]
"""

NO_VM = """#!/bin/sh
echo "a VM was wanted: $0 $*" >>"${0%/*}/wanted"
exit 1
"""


@pytest.fixture(scope="module")
def built(
    drivers: Drivers,
    shared_cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Installation, int, str]]:
    """A run of five stacks, on a host where whatever starts a VM leaves a trace."""
    content = tmp_path_factory.mktemp("fast")
    write_content(content)
    programs = content / "bin"
    programs.mkdir()
    for name in ("libvirtd", "qemu-system-x86_64", "virtqemud"):
        (programs / name).write_text(NO_VM)
        (programs / name).chmod(0o755)
    with installed(content, shared_cache) as home:
        for room in ("oci", "headers"):
            (home.home.cache / room).parent.mkdir(parents=True, exist_ok=True)
            (shared_cache / room).mkdir(parents=True, exist_ok=True)  # whoever runs first finds neither
            (home.home.cache / room).symlink_to(shared_cache / room)
        path = f"{programs}:{os.environ['PATH']}"
        done = home.run("run", home.matrix(MATRIX), "--until", "build", env={"PATH": path})
        yield home, done.code, done.out + done.err


def test_every_pair_has_its_outcome_and_nothing_was_booted(built: tuple[Installation, int, str]) -> None:
    home, code, said = built
    assert code == 1, said
    outcomes = {attempt.cell_id.split("/")[2]: (attempt.outcome, attempt.rung) for attempt in home.stored().attempts}
    assert outcomes == {
        "hello": (Outcome.PASS, Stage.BUILD),
        "wrong-call": (Outcome.FAIL, Stage.BUILD),
        "excluded": (Outcome.SKIP, Stage.IMAGE),
        "no-source": (Outcome.MISS, Stage.BUILD),
        "cpu-opencl": (Outcome.SKIP, Stage.IMAGE),
    }
    assert not (home.content / "bin" / "wanted").exists()


def test_what_follows_the_last_rung_says_that_nobody_asked_for_it(built: tuple[Installation, int, str]) -> None:
    home, _, _ = built
    (attempt,) = (one for one in home.stored().attempts if "/hello/" in one.cell_id)
    later = {stage.reason for stage in attempt.stages if stage.stage not in (Stage.IMAGE, Stage.BUILD)}
    assert later == {"not asked for: the run ends with build"}


def test_the_failed_pair_names_the_symbol_and_keeps_its_log(built: tuple[Installation, int, str]) -> None:
    home, _, said = built
    (attempt,) = (one for one in home.stored().attempts if "/wrong-call/" in one.cell_id)
    assert attempt.facts["build.symbol"] == "gone_in_the_next_release"
    assert "hello.c:7" in attempt.reason
    assert "gone_in_the_next_release" in said
    assert "build.log" in {file.name for stage in attempt.stages for file in stage.evidence}


def test_the_reader_of_the_page_sees_the_pair_and_its_reason(built: tuple[Installation, int, str]) -> None:
    home, _, _ = built
    text = home.report()
    assert "gone_in_the_next_release" in text
    assert "the run ends with build, so nothing is known of the rungs after it" in text


def test_no_build_container_is_left_behind(built: tuple[Installation, int, str]) -> None:
    home, _, _ = built
    if shutil.which("buildah") is None:
        pytest.skip("buildah is not installed")
    storage = home.home.cache / "oci"
    words = ["buildah", "--root", storage / "root", "--runroot", storage / "run", "containers", "--quiet"]
    assert subprocess.run(words, capture_output=True, check=True).stdout == b""
