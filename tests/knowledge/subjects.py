"""Cells made up for the tests of what is known, as far as they are known before they run."""

from __future__ import annotations

from typing import Any

from harness.images.recipe import Build, StackRecipe
from harness.knowledge.conditions import Subject
from harness.model.cell import KernelIdentity


def recipe(**more: Any) -> StackRecipe:
    """A stack that builds one module."""
    wanted: dict[str, Any] = {"build": Build(method="dkms", produces=("nvidia-current",))} | more
    return StackRecipe(description="a stack", **wanted)


def kernel(version: str, release: str = "", has_headers: bool = True) -> KernelIdentity:
    return KernelIdentity(release or version, version, "a test", "d" * 64, has_headers=has_headers)


def subject(stack: str = "nvidia@550", driver: str = "550.163.01-2", version: str = "7.3.4-1", **more: Any) -> Subject:
    wanted: dict[str, Any] = {"recipe": recipe(), "identity": kernel(version), "config": {}} | more
    if wanted["config"] is not None:
        wanted["config"] = {"CONFIG_MODULES": "y", **wanted["config"]}
    return Subject(stack=stack, driver=driver, **wanted)
