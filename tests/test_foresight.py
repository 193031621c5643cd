"""What is known of a cell comes from what lies there already: nothing is fetched, and a dead mirror is no error."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.content import content_dir
from harness.errors import InfraError, UserError
from harness.foresight import subject_of
from harness.images.recipe import Recipes
from harness.kernels.source import Headers, KernelFiles
from harness.model.cell import Cell, KernelIdentity, KernelSpec, Series, TreeKernel

SPEC = KernelSpec("lts", Series.LONGTERM, TreeKernel("/nowhere"), secure_boot=True)
CELL = Cell("debian-13", SPEC, "nvidia@550")
IDENTITY = KernelIdentity("6.12.107+deb13-amd64", "6.12.107-1", "debian trixie", "d" * 64, has_headers=True)


class Host:
    """Images and drivers of a host with a cache folder, as far as foresight asks them."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.recipes = Recipes(content_dir("guests"))
        self.roots = self
        self.asked: list[str] = []
        self.mirror = True

    def identity(self, _: KernelSpec) -> KernelIdentity:
        if not self.mirror:
            raise InfraError("the mirror is down")
        return IDENTITY

    def packages(self, _: Any) -> tuple[Any, ...]:
        if not self.mirror:
            raise InfraError("the mirror is down")
        return (SimpleNamespace(version="550.163.01-2"),)

    def kernel_source(self, _: KernelSpec, __: bool) -> Host:
        return self

    def fetch(self, into: Path) -> KernelFiles:
        self.asked.append("kernel")
        root = into / IDENTITY.digest
        return KernelFiles(IDENTITY.release, root / "vmlinuz", root / "config", root, root)

    def headers(self, _: KernelSpec) -> Headers:
        self.asked.append("headers")
        root = self.cache / "headers" / IDENTITY.digest
        return Headers(IDENTITY.release, root, root / "config")

    def has(self, kind: str) -> None:
        folder = self.cache / kind / IDENTITY.digest
        folder.mkdir(parents=True)
        (folder / "config").write_text(f"CONFIG_{kind.upper()}=y\n")

    def subject(self, cell: Cell = CELL, **facts: str):  # type: ignore[no-untyped-def]
        return subject_of(cell, self, self, facts)  # type: ignore[arg-type]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_without_a_cache_only_the_index_speaks(host: Host) -> None:
    subject = host.subject()
    assert (subject.kernel, subject.driver, subject.secure_boot) == ("6.12.107-1", "550.163.01-2", True)
    assert (subject.config, subject.headers, host.asked) == (None, None, [])


def test_a_fetched_kernel_tells_its_configuration(host: Host) -> None:
    host.has("kernels")
    assert host.subject().config == {"CONFIG_KERNELS": "y"}
    assert host.asked == ["kernel"]


def test_fetched_headers_tell_their_configuration_and_interfaces(host: Host) -> None:
    host.has("headers")
    subject = host.subject()
    assert subject.config == {"CONFIG_HEADERS": "y"}
    assert subject.headers == host.cache / "headers" / IDENTITY.digest


def test_a_dead_mirror_leaves_the_recipes_word(host: Host) -> None:
    host.mirror = False
    subject = host.subject()
    assert (subject.identity, subject.kernel, subject.driver) == (None, "", "550.163.01")


def test_what_was_built_is_known_better_than_what_was_planned(host: Host) -> None:
    built = {"driver.version": "550.163.01", "driver.package": "550.163.01-5.1"}
    assert host.subject(**built).driver == "550.163.01-5.1"
    assert host.subject(**{"driver.version": "1.2"}).driver == "1.2"


def test_a_stack_that_does_not_exist_is_the_users_mistake(host: Host) -> None:
    with pytest.raises(UserError):
        host.subject(Cell("debian-13", SPEC, "no-such-stack"))
