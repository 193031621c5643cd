"""kill -9 at any moment: what was recorded stays, nothing is lost or doubled, and the host can be tidied."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.images.buildah import Buildah
from harness.images.builder import Images

from .installation import Installation, Running, complete

pytestmark = [pytest.mark.vm, pytest.mark.xdist_group("e2e"), pytest.mark.timeout(900)]

MATRIX = """
version: 1
kernels:
  - {name: one, series: longterm, debian: trixie, cmdline: kdmatrix.test=pause}
  - {name: two, series: longterm, debian: trixie, cmdline: kdmatrix.test=pause}
guests: [debian-13]
stacks: [probe]
tests: [enumerate]
limits: {vm_memory: 768MiB}
"""

Moment = Callable[[Installation, Running], object]


def line(*words: str) -> Moment:
    return lambda _, run: run.said(*words)


def journal(kind: str) -> Moment:
    """An entry was written; what it stands for may or may not exist yet."""

    def seen(installation: Installation, _: Running) -> bool:
        for path in installation.home.journal.glob("*.json"):
            try:
                if f'"{kind}"' in path.read_text():
                    return True
            except FileNotFoundError:
                continue
        return False

    return seen


def evidence(installation: Installation, _: Running) -> bool:
    return any(path.is_file() for path in installation.home.evidence.rglob("*"))


def building(argv: str) -> Moment:
    """A program of an image build runs."""
    return lambda installation, _: any(one.startswith(argv) for one in installation.processes().values())


MOMENTS: dict[str, Moment] = {
    "planned": line("boots to make"),
    "a base is being bootstrapped": building("dpkg --status-fd"),
    "an image is being built": building("sleep 4.25"),
    "a layer is being written": building("mkfs.erofs"),
    "a VM is about to be defined": journal("path"),
    "a VM is about to start": journal("domain"),
    "evidence is being written": evidence,
    "a guest boots": line("debian-13/two/probe/none boot"),
    "modules are being loaded": line("none load"),
    "a compute test runs": line("none compute"),
    "a result was recorded": line("[1/2]"),
    "the last result was recorded": line("[2/2]"),
}
NEEDS_A_BUILD = ("a base is being bootstrapped", "an image is being built", "a layer is being written")


def have_to_build(installation: Installation, images: Images, content: Path, *, base_too: bool) -> Installation:
    """The same installation with a stack changed, so that its image has to be made, and a build storage of its own."""
    own = installation.root / "content"
    shutil.copytree(content, own)
    with (own / "guests" / "debian-13" / "stacks" / "probe" / "Containerfile").open("a") as file:
        file.write("RUN sleep 4.25\n")
    if base_too:
        return replace(installation, content=own)
    storage = Buildah(installation.home.cache / "oci")
    base = storage.reference("base", images.base_key("debian-13"))
    with images.buildah.mounted(base) as tree:
        context = installation.root / "context"
        context.mkdir()
        (context / "Containerfile").write_text("FROM scratch\nCOPY . /\n")
        storage.build(base, context / "Containerfile", tree, timeout=600)
        shutil.rmtree(context)
    return replace(installation, content=own)


def kill(run: Running) -> None:
    os.kill(run.process.pid, signal.SIGKILL)
    run.end()
    assert run.code == -signal.SIGKILL


def killed_at(installation: Installation, what: str, run: Running) -> dict[tuple[str, int], bytes]:
    """Kill a run at a moment; return what it had recorded."""
    run.until(lambda: MOMENTS[what](installation, run), what)
    kill(run)
    return installation.records()


def check_records(before: dict[tuple[str, int], bytes], installation: Installation) -> None:
    after = installation.records()
    assert before.items() <= after.items(), "a recorded result was lost or changed"


def check_the_end(installation: Installation, run: Running) -> None:
    assert run.code == 0, run.out + run.err
    stored = installation.stored()
    assert complete(stored)
    assert len(stored.attempts) == 2
    assert stored.info.state.value == "finished"
    assert (installation.home.runs / stored.info.id / "report" / "index.html").is_file()
    assert len(installation.records()) == 2


def test_a_run_killed_again_and_again_is_completed_by_resuming(installation: Installation) -> None:
    run = installation.start("run", installation.matrix(MATRIX), "--vms", "2")
    before: dict[tuple[str, int], bytes] = {}
    for what in ("a VM is about to start", "a compute test runs", "a result was recorded"):
        recorded = killed_at(installation, what, run)
        assert before.items() <= recorded.items()
        before = recorded
        if what == "a compute test runs":
            # The VMs of a dead process must go whether clean or the next run comes first.
            cleaned = installation.run("clean")
            assert cleaned.code == 0, cleaned.out + cleaned.err
            assert installation.left() == []
        run = installation.start("run", "--resume", "--vms", "1" if what == "a compute test runs" else "2")
    assert len(before) == 1
    run.end()
    check_records(before, installation)
    check_the_end(installation, run)
    assert installation.run("clean").code == 0
    assert installation.left() == []
    resumed = installation.run("run", "--resume")
    assert resumed.code == 2
    assert "no run was left unfinished" in resumed.err


@pytest.mark.slow
@pytest.mark.parametrize("what", MOMENTS)
def test_a_kill_at_this_moment_loses_nothing_and_leaves_nothing(
    installation: Installation, images: Images, content: Path, what: str
) -> None:
    if what in NEEDS_A_BUILD:
        installation = have_to_build(installation, images, content, base_too="base" in what)
    run = installation.start("run", installation.matrix(MATRIX), "--vms", "2")
    before = killed_at(installation, what, run)
    cleaned = installation.run("clean")
    assert cleaned.code == 0, cleaned.out + cleaned.err
    assert installation.left() == []
    check_records(before, installation)
    resumed = installation.run("run", "--resume")
    check_records(before, installation)
    check_the_end(installation, resumed)
    assert installation.run("clean").code == 0
    assert installation.left() == []
