"""The rungs of a cell's ladder."""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """One rung; the order of definition is the order of execution."""

    IMAGE = "image"
    BUILD = "build"
    BOOT = "boot"
    LOAD = "load"
    ENUMERATE = "enumerate"
    COMPUTE = "compute"
    THROUGHPUT = "throughput"
    UNLOAD = "unload"


LADDER: tuple[Stage, ...] = tuple(Stage)
