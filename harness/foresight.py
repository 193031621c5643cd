"""What is known of a cell before it runs: from its recipe, the index, and what lies in the caches already."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Mapping
from pathlib import Path

from harness.drivers.build import Drivers
from harness.errors import KdmatrixError
from harness.images.builder import Images
from harness.images.recipe import StackRecipe
from harness.kernels.config import parse_config, read_config
from harness.knowledge.conditions import Subject
from harness.model.cell import Cell, KernelIdentity


def subject_of(cell: Cell, images: Images, drivers: Drivers, facts: Mapping[str, str] | None = None) -> Subject:
    """Return what can be known of a cell without fetching or making anything.

    ``facts`` of an attempt, where there are any, say which driver was really built. What cannot be told, because an
    index is out of reach or the kernel was never fetched, stays unknown.

    Raises:
        UserError: the stack's recipe is wrong.
    """
    recipe = images.recipes.stack(cell.guest, cell.stack)
    try:
        identity = images.identity(cell.kernel)
    except KdmatrixError:
        identity = None
    built = (facts or {}).get("driver.package") or (facts or {}).get("driver.version")
    headers = _headers(cell, identity, images, drivers)
    return Subject(
        stack=cell.stack,
        recipe=recipe,
        driver=built or _driver_version(recipe, drivers),
        device=cell.device,
        secure_boot=cell.kernel.secure_boot,
        identity=identity,
        config=_config(cell, identity, images, drivers),
        headers=headers,
    )


def running_config(release: str) -> dict[str, str] | None:
    """The configuration of this machine's own kernel, where it or its package tells; None where neither does."""
    for path in (f"/boot/config-{release}", f"/lib/modules/{release}/config"):
        with contextlib.suppress(OSError):
            return read_config(Path(path))
    with contextlib.suppress(OSError, EOFError):
        return parse_config(gzip.decompress(Path("/proc/config.gz").read_bytes()).decode("utf-8", "replace"))
    return None


def _driver_version(recipe: StackRecipe, drivers: Drivers) -> str:
    """The version of the package that the driver's source comes from, which the index knows; else the recipe's."""
    if recipe.build is not None and recipe.build.packages is not None:
        try:
            packages = drivers.roots.packages(recipe.build)
        except KdmatrixError:
            return recipe.driver
        if packages:
            return packages[0].version
    return recipe.driver


def _headers(cell: Cell, identity: KernelIdentity | None, images: Images, drivers: Drivers) -> Path | None:
    if identity is None or not (images.cache / "headers" / identity.digest).is_dir():
        return None
    try:
        return drivers.headers(cell.kernel).root
    except KdmatrixError:
        return None


def _config(cell: Cell, identity: KernelIdentity | None, images: Images, drivers: Drivers) -> dict[str, str] | None:
    """The kernel's configuration, from the kernel or from its headers, whichever was fetched before."""
    if identity is None:
        return None
    try:
        if (images.cache / "kernels" / identity.digest).is_dir():
            # Laying out what is there already does nothing.
            return read_config(images.kernel_source(cell.kernel, False).fetch(images.cache / "kernels").config)
        if (images.cache / "headers" / identity.digest).is_dir():
            return read_config(drivers.headers(cell.kernel).config)
    except (KdmatrixError, OSError):
        return None
    return None
