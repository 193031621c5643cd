"""A cell carries what was expected and what is known, and neither decides, but for two things said in advance."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.content import content_dir
from harness.drivers.build import Built
from harness.drivers.result import ModuleBuild
from harness.images.recipe import Recipes
from harness.journal import Journal
from harness.kernels.source import Headers
from harness.knowledge.diagnosis import Knowledge
from harness.ladder.cell import Ladder, execute
from harness.ladder.workshop import Workshop
from harness.model.cell import Cell, KernelIdentity, KernelSpec, Series, TreeKernel
from harness.model.outcome import Outcome
from harness.model.records import Attempt
from harness.model.stage import Stage
from harness.store.evidence import EvidenceStore

GONE = "nvidia/nv.c:1710:9: error: implicit declaration of function ‘in_irq’; did you mean ‘in_nmi’?\n"
OBJTOOL = "objtool [signal.c:75]: read_stack_limit: fopen failed\n"
CELL = Cell("debian-13", KernelSpec("stable", Series.STABLE, TreeKernel("/nowhere")), "nvidia@550")


@dataclass
class Host:
    """Images and drivers whose builds come out as told."""

    cache: Path
    outcome: Outcome = Outcome.PASS
    log: str = ""
    config: str = "CONFIG_MODULES=y\nCONFIG_PCI=y\n"
    version: str = "6.19.6-1"
    recipes: Recipes = field(default_factory=lambda: Recipes(content_dir("guests")))

    @property
    def roots(self) -> Host:
        return self

    def identity(self, _: KernelSpec) -> KernelIdentity:
        return KernelIdentity("6.19.6-amd64", self.version, "a test", "d" * 64, has_headers=True)

    def packages(self, _: Any) -> tuple[Any, ...]:
        return (SimpleNamespace(version="550.163.01-2"),)

    def prepare(self, *_: Any, **__: Any) -> None:
        folder = self.cache / "headers" / ("d" * 64)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config").write_text(self.config)

    def headers(self, _: KernelSpec) -> Headers:
        root = self.cache / "headers" / ("d" * 64)
        return Headers("6.19.6-amd64", root, root / "config")

    def build(self, *_: Any, **__: Any) -> Built:
        (self.cache / "build.log").write_text(self.log)
        sources = (("nvidia-current", "550.163.01"),)
        packages = (("nvidia-kernel-dkms_550.163.01-2_amd64.deb", "e" * 64),)
        result = ModuleBuild(
            self.outcome, "dkms returned 10", "6.19.6-amd64", "gcc-14", sources, (), 1.0, 1.0, 0, 0, packages=packages
        )
        return Built(result, self.cache, "key", fresh=True)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def shop(host: Host) -> Workshop:
    return Workshop(
        run_id="r",
        images=host,  # type: ignore[arg-type]
        recipes=host.recipes,
        hypervisor=None,
        journal=Journal(host.cache / "journal", "r"),
        evidence=EvidenceStore(host.cache / "evidence"),
        tests={},
        drivers=host,  # type: ignore[arg-type]
        work=host.cache / "work",
        until=Stage.BUILD,
        knowledge=Knowledge.load(content_dir("guests")),
    )


def run(host: Host) -> Attempt:
    return execute(CELL, 1, shop(host))


def test_a_failure_that_was_expected_is_recorded_as_seen_and_identified(host: Host) -> None:
    host.outcome, host.log = Outcome.FAIL, GONE
    attempt = run(host)
    assert (attempt.outcome, attempt.rung, attempt.reason) == (Outcome.FAIL, Stage.BUILD, "dkms returned 10")
    assert "known issue ki-011-in-irq" in {one.source for one in attempt.predictions}
    assert (attempt.issues[0].issue, attempt.issues[0].grade.value) == ("ki-011-in-irq", "identified")


def test_a_prediction_never_decides(host: Host) -> None:
    attempt = run(host)
    assert any(one.outcome is Outcome.FAIL for one in attempt.predictions)
    assert (attempt.outcome, attempt.stages[1].outcome) == (Outcome.PASS, Outcome.PASS)
    assert attempt.issues == ()


def test_a_build_that_only_the_lab_spoiled_is_a_miss(host: Host) -> None:
    host.outcome, host.log = Outcome.FAIL, OBJTOOL
    attempt = run(host)
    assert (attempt.outcome, attempt.rung) == (Outcome.MISS, Stage.BUILD)
    assert "ki-900-no-proc" in attempt.reason
    assert [stage.outcome for stage in attempt.stages][:2] == [Outcome.PASS, Outcome.MISS]


def test_a_debug_kernel_is_not_measured_whatever_could_be(host: Host) -> None:
    host.config += "CONFIG_KASAN=y\n"
    host.prepare()
    ladder = Ladder(CELL, 1, shop(host))
    ladder._look_ahead()
    guest: Any = None  # never asked: the rung ends before it
    stack = host.recipes.stack("debian-13", "nvidia@550")
    rung = ladder._compute(guest, stack, [], Stage.THROUGHPUT, 1.0)
    assert (rung.outcome, rung.reason) == (
        Outcome.SKIP,
        "debug kernel: CONFIG_KASAN=y (every access to memory is checked)",
    )
    with pytest.raises(AttributeError):  # any other rung does ask the guest
        ladder._compute(guest, stack, [], Stage.ENUMERATE, 1.0)
