"""Reads ``guests/``: one folder per guest, one folder per driver stack in it.

A recipe is content: a new guest or stack is new files, with no edit in ``harness/``. The format carries what every
stack of the field needs: module builds (DKMS, akmods, make), signing, steps that act in the running guest, rivals to
blacklist, and how to prove that the right driver is bound.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from harness.errors import UserError
from harness.model.records import Kind
from harness.model.stage import Stage


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _compiles(pattern: str | None) -> str | None:
    if pattern is not None:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
    return pattern


class Module(_Strict):
    """A kernel module that the ``load`` rung loads and the ``unload`` rung removes."""

    name: str
    required: bool = True
    """False: a kernel without it gives SKIP instead of FAIL."""
    parameters: tuple[str, ...] = ()
    driver: str | None = None
    """Name that the bound device's ``driver`` link must show; where no module of a stack has one, any will do."""
    loads_as: str | None = None
    """Name under which ``/proc/modules`` shows it, where the file is called otherwise (``nvidia-current.ko``)."""
    refusal: str | None = None
    """Regular expression of what modprobe or the kernel says when there is no device for it. Without a device, that
    refusal is the pass of ``load``, and the reason why nothing after it applies."""

    _refusal_compiles = field_validator("refusal")(_compiles)


class Step(_Strict):
    """One argument vector run in the guest."""

    run: tuple[str, ...] = Field(min_length=1)
    timeout: float = 60.0
    match: str | None = None
    """Regular expression that standard output must match."""
    stage: Literal[Stage.LOAD, Stage.ENUMERATE, Stage.COMPUTE, Stage.THROUGHPUT] = Stage.LOAD
    """The rung that it decides; ``activate`` steps always belong to ``load``."""

    _match_compiles = field_validator("match")(_compiles)


class Packages(_Strict):
    """Debian packages that this host fetches, checks and hands to the Containerfile in ``packages/``."""

    suite: str
    names: tuple[str, ...] = Field(min_length=1)


class Build(_Strict):
    """How the stack's modules are built for the cell's kernel, in the guest's own build root."""

    method: Literal["dkms", "akmods", "make"]
    """Name of the program ``guests/_build/METHOD`` that builds and delivers."""
    packages: Packages | None = None
    """Where the driver's source comes from; a Containerfile may fetch it otherwise."""
    containerfile: str = "Containerfile.modules"
    produces: tuple[str, ...] = Field(min_length=1)
    """Module files (without ``.ko``) whose presence and vermagic prove the build; the exit status alone does not."""
    sign: Literal["none", "lab", "stranger"] = "none"
    """Whose key signs the modules: nobody's, this lab's (enrolled where Secure Boot is on), or one that no firmware
    knows, to see it refused."""


class StackRecipe(_Strict):
    """``guests/<guest>/stacks/<stack>/stack.yaml``."""

    description: str
    apis: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    """Compute test backends that it serves; none means that there is nothing to compute with."""
    no_compute: str = ""
    """Why it serves no backend, where that is not for want of a device; the reason of SKIP on the compute rungs."""
    kind: Kind = "gpu"
    device: Literal["none", "optional", "required"] = "required"
    init: Literal["minimal", "systemd"] | None = None
    """Overrides the guest's choice when the stack needs a service manager."""
    modules: tuple[Module, ...] = ()
    blacklist: tuple[str, ...] = ()
    """Rivals kept from binding the device, by ``modprobe.blacklist`` on the kernel command line (modprobe(8), udev)."""
    build: Build | None = None
    arguments: dict[str, str] = {}
    """Build arguments of the stack's Containerfiles."""
    driver: str = ""
    """Driver version, where the recipe pins it; a build finds out by itself."""
    requires: tuple[str, ...] = ()
    """Conditions on the kernel's configuration: ``CONFIG_MODULES=y``, ``CONFIG_PREEMPT_RT!=y``."""
    floors: dict[str, str] = {}
    """Lowest version of what the user space needs: ``{driver: "525.60.13"}``."""
    activate: tuple[Step, ...] = ()
    verify: tuple[Step, ...] = ()
    cmdline: str = ""


class Mmdebstrap(_Strict):
    """Arguments of mmdebstrap for a Debian-like base."""

    suite: str
    updates: tuple[str, ...] = ()
    """Further suites of the same archive: ``[noble-updates]``."""
    variant: Literal["apt", "minbase", "essential", "required", "custom"] = "apt"
    include: tuple[str, ...] = ()
    components: tuple[str, ...] = ("main",)
    mirror: str = ""
    """URL of the archive, with ``${VARIABLE}`` for what each host sets; this host's Debian mirror when not given."""
    keyring: str = ""
    """Path of the keyring that signs it; Debian's own when not given."""


class Dnf(_Strict):
    """A base made of RPMs, by ``dnf --installroot`` on this host."""

    release: str
    """What ``$releasever`` and ``{release}`` in a repository's URL stand for."""
    repositories: tuple[str, ...] = Field(min_length=1)
    """Names of entries of ``_kernels/repositories.yaml``, or URLs (``file:///…`` too)."""
    include: tuple[str, ...] = Field(min_length=1)
    exclude: tuple[str, ...] = ()
    unsigned: bool = False
    """Whether packages of a repository without a key are taken."""


class Base(_Strict):
    """Where the first layer comes from: at most one of these, none where the Containerfile says it all."""

    mmdebstrap: Mmdebstrap | None = None
    dnf: Dnf | None = None
    image: str | None = None
    """An OCI image to start from, pinned by its digest; ``${VARIABLE}`` stands for what each host sets."""

    @model_validator(mode="after")
    def _one_origin(self) -> Base:
        if sum(one is not None for one in (self.mmdebstrap, self.dnf, self.image)) > 1:
            raise ValueError("a base comes from one of mmdebstrap, dnf and image")
        return self


class GuestRecipe(_Strict):
    """``guests/<guest>/guest.yaml``."""

    description: str
    distribution: str
    release: str
    base: Base
    init: Literal["minimal", "systemd"] = "minimal"
    packages: tuple[str, ...] = ()
    """Argument vector that lists the installed packages."""
    compilers: dict[str, str] = {}
    """Compilers that ``Containerfile.build`` can install (``gcc-14``), and the suite or repository of each."""


RecipeT = TypeVar("RecipeT", GuestRecipe, StackRecipe)


class Recipes:
    """All guests and stacks below one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def guests(self) -> tuple[str, ...]:
        """Names of the guests: folders that hold a ``guest.yaml``."""
        return tuple(sorted(path.parent.name for path in self.root.glob("*/guest.yaml")))

    def stacks(self, guest: str | None = None) -> tuple[str, ...]:
        """Names of the stacks of one guest, or of all: ``NAME``, and ``NAME@VERSION`` for each version it lists."""
        names: set[str] = set()
        for path in self.root.glob(f"{guest or '*'}/stacks/*/stack.yaml"):
            names.add(path.parent.name)
            with contextlib.suppress(UserError):  # told in full to whoever names the stack
                names |= {f"{path.parent.name}@{version}" for version in _versions(_read(path)[1])}
        return tuple(sorted(names))

    def guest_dir(self, guest: str) -> Path:
        """The folder of a guest."""
        return self.root / guest

    def stack_dir(self, guest: str, stack: str) -> Path:
        """The folder of a stack for a guest, whatever the version asked for."""
        return self.root / guest / "stacks" / stack.partition("@")[0]

    @property
    def build_dir(self) -> Path:
        """Programs that build modules in a build root, one per method."""
        return self.root / "_build"

    @property
    def boot_dir(self) -> Path:
        """Files that bring every guest up: the initramfs' init, the minimal guest init, the SSH server's settings."""
        return self.root / "_boot"

    def guest(self, name: str) -> GuestRecipe:
        """Read a guest's recipe."""
        return _load(self.guest_dir(name) / "guest.yaml", GuestRecipe)

    def stack(self, guest: str, name: str) -> StackRecipe:
        """Read a stack's recipe for a guest; ``NAME@VERSION`` is the recipe with what that version changes."""
        path = self.stack_dir(guest, name) / "stack.yaml"
        version = name.partition("@")[2]
        text, data = _read(path)
        versions = _versions(data)
        if version and version not in versions:
            have = ", ".join(versions) or "none"
            raise UserError(f"{path}: stack {name.partition('@')[0]} has no version {version}; it has: {have}")
        changes = versions.get(version) if version else next(iter(versions.values()), None)
        plain = {key: value for key, value in data.items() if key != "versions"}
        return _validated(path, text, _merged(plain, changes or {}), StackRecipe)


def _load(path: Path, model: type[RecipeT]) -> RecipeT:
    text, data = _read(path)
    return _validated(path, text, data, model)


def _read(path: Path) -> tuple[str, Mapping[str, Any]]:
    """A recipe's text, and what it says as text only."""
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
    if not all(isinstance(one, Mapping) for one in _versions(data).values()):
        raise UserError(f"{path}:{_line_of(text, ('versions',))}: versions: each one is a mapping of what it changes")
    return text, data


def _versions(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """What each version of a stack changes, in the order of the file; the first one is the default."""
    found = data.get("versions") or {}
    return found if isinstance(found, Mapping) else {}


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes``: mappings are merged key by key, everything else is replaced."""
    both = dict(base)
    for key, value in changes.items():
        old = both.get(key)
        both[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return both


def _validated(path: Path, text: str, data: Mapping[str, Any], model: type[RecipeT]) -> RecipeT:
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
