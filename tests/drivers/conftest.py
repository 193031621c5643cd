"""Real build roots, made once for all workers in the cache that tests share."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.drivers.build import Drivers
from harness.drivers.roots import Roots
from harness.images.builder import Images
from harness.images.recipe import Recipes
from harness.keys import SigningKeys
from harness.placing import locked

from .hello import write_content


@pytest.fixture(scope="session")
def drivers(real_images: Images, tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Drivers:
    """Builds modules of the stacks in :mod:`tests.drivers.hello`; nothing is remembered from an earlier session."""
    for program in ("buildah", "modinfo"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    images = replace(real_images, recipes=Recipes(write_content(tmp_path_factory.mktemp("content"))))
    folder = tmp_path_factory.mktemp("keys")
    roots = Roots(images, lambda: pytest.fail("no package is needed"))
    made = Drivers(images, roots, lambda: SigningKeys.open(folder), jobs=2, cache=shared_cache)
    with locked(shared_cache / "toolchain.lock", timeout=3600):
        made.roots.toolchain("debian-13", "gcc-14", timeout=1800)
    shutil.rmtree(shared_cache / "modules", ignore_errors=True)
    return made
