"""The shape of a matrix file: pydantic models, and the JSON Schema that editors complete and check with.

The models read text only (see :mod:`harness.matrix.yamlpos`), so each scalar has a reader of its own that turns text
into a value. Names that must be *known* are checked in :mod:`harness.matrix.references`, which sees the whole file.

``python -m harness.matrix`` prints the schema that is committed as ``docs/matrix.schema.json``.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    WithJsonSchema,
    model_validator,
)

from harness.matrix import units
from harness.matrix.frame import quoted
from harness.matrix.machines import MachineEntry
from harness.matrix.origins import (
    SOURCES,
    DebianEntry,
    Entry,
    InstalledEntry,
    Koji,
    Packages,
    Path,
    RpmEntry,
    SourceEntry,
    UbuntuEntry,
    as_list,
    flag,
    matching,
    not_empty,
    size,
    text,
    whole,
)
from harness.matrix.requests import DeviceEntry, DeviceNames, Devices
from harness.model.cell import Series

VERSION = 1
ALL = "all"


def _version(text: str) -> str:
    if text != str(VERSION):
        raise ValueError(f"{quoted(text)} is not a version of the matrix file that can be read here; write {VERSION}")
    return text


def _duration(value: object) -> float:
    if not isinstance(value, str):
        raise ValueError("must be a duration such as 90s, 5m or 1h30m")
    return units.duration(value)


def _vms(value: object) -> int | None:
    if value == "auto":
        return None
    if not isinstance(value, str) or not value.isdigit():
        raise ValueError("must be auto or a whole number from 1 to 256")
    return units.whole(value, 1, 256)


# A number without quotes is text to kdmatrix and a number to an editor: the schema allows both where names may look
# like numbers.
Name = Annotated[
    str, AfterValidator(units.name), WithJsonSchema({"type": ["string", "number"], "pattern": f"^{units.NAME}$"})
]
Names = Annotated[list[Name], AfterValidator(not_empty), Field(json_schema_extra={"minItems": 1, "uniqueItems": True})]


class TierEntry(Entry):
    """Compute tests by their tier instead of by name."""

    tier: Annotated[int, whole(1, 3), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 3})] = Field(
        description="1: what every cell runs; 2: the longer tests as well; 3: those that may take the driver down, too"
    )


_TEST_NAMES = TypeAdapter[list[str]](Annotated[list[Name], BeforeValidator(as_list), AfterValidator(not_empty)])


def _tests(value: object) -> list[str] | TierEntry:
    """Read ``all``, a list of names or ``{tier: N}``; which is meant shows, so only its own mistakes are reported."""
    return TierEntry.model_validate(value) if isinstance(value, dict) else _TEST_NAMES.validate_python(value)


Tests = Annotated[
    list[str] | TierEntry,
    PlainValidator(_tests),
    WithJsonSchema(
        {
            "anyOf": [
                {"const": ALL},
                {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True},
                TierEntry.model_json_schema(),
            ]
        }
    ),
]
Boots = Annotated[int, whole(1, 1000), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 1000})]
Duration = Annotated[
    float,
    BeforeValidator(_duration),
    WithJsonSchema({"type": ["string", "number"], "pattern": f"^({units.DURATION})$", "minLength": 1}),
]
Pattern = Annotated[
    str,
    matching(
        r"[A-Za-z0-9._+:@~*?\[\]!-]+",
        "a name or glob; letters, digits and . _ + - : @ ~ with the wildcards * ? [ ] are allowed",
    ),
]
Patterns = Annotated[
    list[Pattern],
    BeforeValidator(as_list),
    AfterValidator(not_empty),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": ["string", "number"]},
                {"type": "array", "items": {"type": ["string", "number"]}, "minItems": 1},
            ]
        }
    ),
]


class KernelEntry(Entry):
    """One kernel under test: a name, the series it stands for, and exactly one source."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": [key]} for key in SOURCES]},
    )

    name: Name = Field(description="Name of the entry; part of every cell id, so keep it over time: lts-6.12")
    series: Series = Field(description="The kernel.org category the kernel stands for")
    debian: DebianEntry | None = Field(default=None, description="Take the kernel from a Debian archive")
    tree: Path | None = Field(
        default=None,
        description="Take the kernel from a local build tree; ~ is the home directory, a relative path starts at the "
        "matrix file's directory",
    )
    rpm: RpmEntry | None = Field(default=None, description="Take the kernel from an RPM repository")
    koji: Koji | None = Field(default=None, description="Take the kernel of a Koji build: kernel-7.3.4-200.fc44")
    ubuntu: UbuntuEntry | None = Field(default=None, description="Take the kernel from Ubuntu")
    packages: Packages | None = Field(
        default=None,
        description="Take the kernel from these .deb or .rpm files: image, modules and, for builds, headers",
    )
    source: SourceEntry | None = Field(default=None, description="Build the kernel here from source")
    installed: InstalledEntry | None = Field(
        default=None, description="Boot what a lab box of `machines` has installed: a release, or a glob over it"
    )
    cmdline: Annotated[str, text(1024)] | None = Field(
        default=None, description="Arguments appended to the guest kernel's command line"
    )
    secure_boot: Annotated[bool, BeforeValidator(flag), WithJsonSchema({"type": "boolean"})] = Field(
        default=False, description="Boot through UEFI with Secure Boot on, the kernel signed by this lab's key"
    )

    @model_validator(mode="after")
    def _on_a_box(self) -> KernelEntry:
        if self.installed is not None and self.secure_boot:
            raise ValueError("has installed and secure_boot; a lab box has firmware of its own, leave secure_boot out")
        return self


class TimeoutsEntry(Entry):
    """Time allowed for each part of a cell under hardware acceleration; emulation multiplies it."""

    image: Duration | None = Field(default=None, description="Making the guest's root image")
    build: Duration | None = Field(default=None, description="Building the stack's modules for the kernel")
    boot: Duration | None = Field(default=None, description="From power-on until SSH answers")
    activate: Duration | None = Field(default=None, description="Loading and starting the stack in the guest")
    test: Duration | None = Field(default=None, description="One compute test")
    cell: Duration | None = Field(default=None, description="One attempt of a cell, everything together")


class LimitsEntry(Entry):
    """What the virtual machines of a run may take from their host."""

    vms: Annotated[
        int | None,
        BeforeValidator(_vms),
        WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": 256}]}),
    ] = Field(default=None, description="Virtual machines at a time; auto chooses by the host's processors and memory")
    vm_memory: Annotated[
        int, BeforeValidator(size), WithJsonSchema({"type": "string", "pattern": f"^{units.SIZE}$"})
    ] = Field(
        default=1 << 30,
        description="Memory of each virtual machine: 512MiB, 1GiB (default 1GiB)",
        json_schema_extra={"default": "1GiB"},
    )
    vm_cpus: Annotated[int, whole(1, 256), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 256})] = Field(
        default=1, description="Virtual processors of each virtual machine (default 1)"
    )


class _RuleEntry(Entry):
    guest: Patterns | None = Field(default=None, description="Guests the rule speaks of: a name, glob, or list of them")
    kernel: Patterns | None = Field(default=None, description="Kernels the rule speaks of, by the name of their entry")
    stack: Patterns | None = Field(default=None, description="Driver stacks the rule speaks of")
    device: Patterns | None = Field(default=None, description="Devices the rule speaks of")


class ExcludeEntry(_RuleEntry):
    """Takes the combinations it matches out of the matrix; reports show them with the reason. Wins over includes."""

    reason: Annotated[str, text(500)] = Field(description="Why; shown wherever the combination would have stood")


class IncludeEntry(_RuleEntry):
    """Changes the cells it matches; guests, stacks and devices outside the axes are added to the matrix."""

    tests: Tests | None = Field(default=None, description="Compute tests for these cells")
    boots: Boots | None = Field(default=None, description="Attempts for these cells")
    timeouts: TimeoutsEntry | None = Field(default=None, description="Timeouts for these cells, only those that differ")


class PresetEntry(Entry):
    """A named choice from the same file. What a preset names replaces the file's own value."""

    description: Annotated[str, text(200)] | None = Field(default=None, description="One line for `--help` and lists")
    kernels: Names | None = Field(default=None, description="Names of kernel entries of this file")
    guests: Names | None = Field(default=None, description="Guests, instead of the file's")
    stacks: Names | None = Field(default=None, description="Driver stacks, instead of the file's")
    devices: DeviceNames | None = Field(default=None, description="Devices, instead of the file's")
    tests: Tests | None = Field(default=None, description="Compute tests, instead of the file's")
    boots: Boots | None = Field(default=None, description="Attempts per cell, instead of the file's")
    timeouts: TimeoutsEntry | None = Field(default=None, description="Timeouts, only those that differ")


class MatrixFile(Entry):
    """A kdmatrix matrix file: which kernels are tested with which guests, driver stacks and devices."""

    version: Annotated[str, AfterValidator(_version), WithJsonSchema({"enum": [VERSION, str(VERSION)]})] = Field(
        description="Version of the file's format; this one is 1"
    )
    kernels: Annotated[list[KernelEntry], Field(min_length=1)] = Field(description="The kernels axis, in report order")
    guests: Names = Field(description="The guests axis: names of folders in guests/, and of `machines`")
    stacks: Names = Field(description="The driver stacks axis: names of stacks that the guests define")
    machines: dict[Name, MachineEntry] = Field(
        default={}, description="Lab boxes by name, each of which the guests axis may name like a guest"
    )
    devices: Devices = Field(
        default=[DeviceEntry(address="none")],
        description="The devices axis: GPUs to pass through, by PCI address (0000:01:00.0) or by what is wanted of "
        "them, or none (the default)",
        json_schema_extra={"default": ["none"]},
    )
    tests: Tests = Field(
        default=[ALL],
        description="Names of compute tests (folders in gpu_tests/tests/), all (the default: all of tier 1), or "
        "{tier: 2} for those of tier 1 and 2",
    )
    boots: Boots = Field(default=1, description="Attempts per cell: boots of a fresh machine (default 1)")
    timeouts: TimeoutsEntry = Field(
        default=TimeoutsEntry(), description="Time allowed for the parts of a cell: 90s, 5m, 1h30m or bare seconds"
    )
    limits: LimitsEntry = Field(default=LimitsEntry(), description="What the virtual machines may take from the host")
    exclude: list[ExcludeEntry] = Field(default=[], description="Combinations that are not tested, each with a reason")
    include: list[IncludeEntry] = Field(default=[], description="Extra combinations, and changes to single cells")
    presets: dict[Name, PresetEntry] = Field(default={}, description="Named choices for `--preset NAME`")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the matrix file."""
    schema: dict[str, Any] = _tidy(MatrixFile.model_json_schema())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "kdmatrix matrix file"}


def schema_text() -> str:
    """Return the schema as it is committed."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _tidy(node: Any) -> Any:
    """Drop what describes the models rather than the file: the Nones of absent keys, and generated titles."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    options = node.get("anyOf")
    if isinstance(options, list) and {"type": "null"} in options:
        rest = [option for option in options if option != {"type": "null"}]
        node = {key: value for key, value in node.items() if key != "anyOf"}
        node = {**rest[0], **node} if len(rest) == 1 else {"anyOf": rest, **node}
    return {
        key: _tidy(value)
        for key, value in node.items()
        if not (key == "title" and isinstance(value, str)) and not (key == "default" and value in (None, [], {}))
    }
