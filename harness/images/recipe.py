"""Reads ``guests/``: one folder per guest, one folder per driver stack in it.

A recipe is content: a new guest or stack is new files, with no edit in ``harness/``. The format carries what every
stack of the field needs: module builds (DKMS, akmods, make), signing, steps that act in the running guest, rivals to
blacklist, and how to prove that the right driver is bound.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from harness.errors import UserError
from harness.model.records import Kind
from harness.model.stage import Stage


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Module(_Strict):
    """A kernel module that the ``load`` rung loads and the ``unload`` rung removes."""

    name: str
    required: bool = True
    """False: a kernel without it gives SKIP instead of FAIL."""
    parameters: tuple[str, ...] = ()
    driver: str | None = None
    """Name that the bound device's ``driver`` link must show; the module's name when not given."""


class Step(_Strict):
    """One argument vector run in the guest."""

    run: tuple[str, ...] = Field(min_length=1)
    timeout: float = 60.0
    match: str | None = None
    """Regular expression that standard output must match."""
    stage: Literal[Stage.LOAD, Stage.ENUMERATE, Stage.COMPUTE, Stage.THROUGHPUT] = Stage.LOAD
    """The rung that it decides; ``activate`` steps always belong to ``load``."""

    @field_validator("match")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from None
        return pattern


class Build(_Strict):
    """How the stack's modules are built for the cell's kernel, inside the stack's image layer."""

    method: Literal["dkms", "akmods", "make"]
    containerfile: str = "Containerfile.modules"
    produces: tuple[str, ...] = Field(min_length=1)
    """Module names whose files and vermagic prove the build; the exit status alone does not."""
    sign: Literal["none", "mok"] = "none"


class StackRecipe(_Strict):
    """``guests/<guest>/stacks/<stack>/stack.yaml``."""

    description: str
    apis: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    """Compute test backends that it serves; none means that there is nothing to compute with."""
    kind: Kind = "gpu"
    device: Literal["none", "optional", "required"] = "required"
    init: Literal["minimal", "systemd"] | None = None
    """Overrides the guest's choice when the stack needs a service manager."""
    modules: tuple[Module, ...] = ()
    blacklist: tuple[str, ...] = ()
    """Rivals kept from binding the device, by ``modprobe.blacklist`` on the kernel command line (modprobe(8), udev)."""
    build: Build | None = None
    activate: tuple[Step, ...] = ()
    verify: tuple[Step, ...] = ()
    cmdline: str = ""


class Mmdebstrap(_Strict):
    """Arguments of mmdebstrap for a Debian-like base."""

    suite: str
    variant: Literal["apt", "minbase", "essential", "required", "custom"] = "apt"
    include: tuple[str, ...] = ()
    components: tuple[str, ...] = ("main",)


class Base(_Strict):
    """Where the first layer comes from."""

    mmdebstrap: Mmdebstrap | None = None
    image: str | None = None
    """An OCI image reference to start from instead."""


class GuestRecipe(_Strict):
    """``guests/<guest>/guest.yaml``."""

    description: str
    distribution: str
    release: str
    base: Base
    init: Literal["minimal", "systemd"] = "minimal"
    packages: tuple[str, ...] = ()
    """Argument vector that lists the installed packages."""


RecipeT = TypeVar("RecipeT", GuestRecipe, StackRecipe)


class Recipes:
    """All guests and stacks below one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def guests(self) -> tuple[str, ...]:
        """Names of the guests: folders that hold a ``guest.yaml``."""
        return tuple(sorted(path.parent.name for path in self.root.glob("*/guest.yaml")))

    def stacks(self, guest: str | None = None) -> tuple[str, ...]:
        """Names of the stacks of one guest, or of all."""
        found = self.root.glob(f"{guest or '*'}/stacks/*/stack.yaml")
        return tuple(sorted({path.parent.name for path in found}))

    def guest_dir(self, guest: str) -> Path:
        """The folder of a guest."""
        return self.root / guest

    def stack_dir(self, guest: str, stack: str) -> Path:
        """The folder of a stack for a guest."""
        return self.root / guest / "stacks" / stack

    @property
    def boot_dir(self) -> Path:
        """Files that bring every guest up: the initramfs' init, the minimal guest init, the SSH server's settings."""
        return self.root / "_boot"

    def guest(self, name: str) -> GuestRecipe:
        """Read a guest's recipe."""
        return _load(self.guest_dir(name) / "guest.yaml", GuestRecipe)

    def stack(self, guest: str, name: str) -> StackRecipe:
        """Read a stack's recipe for a guest."""
        return _load(self.stack_dir(guest, name) / "stack.yaml", StackRecipe)


def _load(path: Path, model: type[RecipeT]) -> RecipeT:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such recipe") from None
    try:
        data: Any = yaml.load(text, Loader=yaml.CBaseLoader)  # noqa: S506  BaseLoader makes nothing but text
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise UserError(f"{path}{where}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(data, Mapping):
        raise UserError(f"{path}:1:1: expected a mapping of settings, found {type(data).__name__}")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}:{_line_of(text, first['loc'])}: {_explain(first['loc'], first)}") from None


def _line_of(text: str, where: Sequence[int | str]) -> int:
    """The 1-based line of a key; of a missing one, that of the mapping that lacks it."""
    node = yaml.compose(text, Loader=yaml.CBaseLoader)
    line = 1
    for part in where:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == part), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            found = (node.value[part], node.value[part])
        else:
            found = None
        if found is None:
            break
        line = found[0].start_mark.line + 1
        node = found[1]
    return line


def _explain(where: Sequence[int | str], error: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in where)
    if error["type"] == "missing":
        return f"{key} is missing"
    if error["type"] != "extra_forbidden":
        return f"{key}: {error['msg']}"
    known = {name for model in _Strict.__subclasses__() for name in model.model_fields}
    nearest = difflib.get_close_matches(str(where[-1]), sorted(known), n=1)
    return f"{key}: there is no such setting" + (f"; did you mean {nearest[0]}?" if nearest else "")
