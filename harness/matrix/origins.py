"""Where a kernel of the matrix comes from: one model for each source, and the readers that all models share."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from harness.matrix import units
from harness.matrix.frame import quoted

SOURCES = ("debian", "tree", "rpm", "koji", "ubuntu", "packages", "source", "installed")
"""Keys of a kernel entry of which each has exactly one."""
_VERSION = r"[0-9]+\.[0-9]+(\.[0-9]+)?"
_NVR = r"[A-Za-z0-9][A-Za-z0-9._+-]*-[0-9][A-Za-z0-9._+~^]*-[A-Za-z0-9][A-Za-z0-9._+~^]*(?<!\.rpm)(?<!\.x86_64)"
_REPOSITORY = r"[a-z0-9][A-Za-z0-9._-]{0,99}|(?:/|~/|\./|\.\./|file:///|https?://)[^\s]{1,400}"


def text(longest: int) -> Any:
    """One line of printable text."""
    return AfterValidator(lambda value: units.free_text(value, longest))


def matching(pattern: str, what: str) -> Any:
    """Text that a pattern describes; ``what`` says it for people."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"{quoted(value)} is not {what}")
        return value

    return AfterValidator(check)


def whole(low: int, high: int) -> Any:
    """A whole number within bounds, written as text."""

    def read(value: object) -> int:
        if not isinstance(value, str):
            raise ValueError(f"must be a whole number from {low} to {high}")
        return units.whole(value, low, high)

    return BeforeValidator(read)


def flag(value: object) -> bool:
    """Read ``true`` or ``false``."""
    if value not in ("true", "false"):
        written = quoted(value) if isinstance(value, str) else "this"
        raise ValueError(f"{written} is neither true nor false; write true or false")
    return value == "true"


def size(value: object) -> int:
    """Read a size in bytes."""
    if not isinstance(value, str):
        raise ValueError("must be a size such as 512MiB or 1GiB")
    return units.size(value)


def as_list(value: object) -> object:
    """Take one text in place of a list of one."""
    return [value] if isinstance(value, str) else value


def not_empty(values: list[str]) -> list[str]:
    """Refuse an empty list."""
    if not values:
        raise ValueError("is an empty list; name at least one entry, or leave the key out where it may be")
    return values


class Entry(BaseModel):
    """A mapping of the file: unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Version = Annotated[
    str,
    matching(_VERSION, "an upstream kernel version; write 6.12 or 6.12.43"),
    WithJsonSchema({"type": ["string", "number"], "pattern": f"^{_VERSION}$"}),
]
Flavour = Annotated[
    str, matching(r"[a-z0-9][a-z0-9-]{0,31}", "a kernel flavour; for example amd64, cloud-amd64 or generic")
]
Suite = Annotated[
    str, matching(r"[a-z][a-z0-9-]{0,63}", "a Debian suite; for example trixie, trixie-backports or experimental")
]
Path = Annotated[str, text(4096)]


class ShortEntry(Entry):
    """A mapping for which its most telling value alone may stand."""

    short: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        return {cls.short: value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Allow the short form too."""
        schema = handler.resolve_ref_schema(handler(core))
        options = schema["properties"][cls.short].get("anyOf", [schema["properties"][cls.short]])
        alone = {key: value for key, value in options[0].items() if key in ("type", "pattern")}
        return {"anyOf": [alone, schema], "description": schema.get("description", "")}


class DebianEntry(ShortEntry):
    """A kernel from a Debian archive; `debian: trixie` is short for `debian: {suite: trixie}`."""

    short: ClassVar[str] = "suite"

    suite: Suite = Field(description="Suite of the archive: bookworm, trixie, trixie-backports, experimental …")
    version: Version | None = Field(
        default=None, description="Upstream version or series that narrows the choice within the suite: 6.12"
    )
    release: Annotated[
        str, matching(r"latest|[0-9][A-Za-z0-9.+~-]{0,63}", "a kernel release; write latest, or what uname -r prints")
    ] = Field(default="latest", description="Exactly what `uname -r` prints, or `latest` for the newest one there is")
    flavour: Flavour = Field(default="amd64", description="Debian's kernel flavour: amd64, cloud-amd64, rt-amd64")


class RpmEntry(ShortEntry):
    """A kernel from an RPM repository; `rpm: fedora-44` is short for `rpm: {repository: fedora-44}`."""

    short: ClassVar[str] = "repository"

    repository: Annotated[
        str, matching(_REPOSITORY, "an RPM repository; write a name such as fedora-44-updates, or a directory")
    ] = Field(description="Name of a known repository (`kdmatrix kernels` lists them), or a directory with repodata/")
    package: Annotated[
        str, matching(r"kernel[a-z0-9-]{0,60}", "the name of a kernel package; for example kernel or kernel-longterm")
    ] = Field(default="kernel", description="Name of the package: kernel, kernel-longterm")
    version: Version | None = Field(default=None, description="Upstream version or series that narrows the choice")
    release: Annotated[
        str,
        matching(r"latest|[0-9][A-Za-z0-9._+~^-]{0,99}", "a kernel release; write latest, or what uname -r prints"),
    ] = Field(default="latest", description="Exactly what `uname -r` prints, or `latest` for the newest one there is")


class UbuntuEntry(ShortEntry):
    """A kernel from Ubuntu; `ubuntu: noble-updates` is short for `ubuntu: {suite: noble-updates}`."""

    short: ClassVar[str] = "suite"

    suite: (
        Annotated[str, matching(r"[a-z][a-z0-9-]{0,63}", "an Ubuntu suite; for example noble or noble-updates")] | None
    ) = Field(default=None, description="Suite of the archive: noble, noble-updates …")
    mainline: (
        Annotated[
            str,
            matching(
                r"latest|v[0-9]+\.[0-9]+(\.[0-9]+)?(-rc[0-9]+)?",
                "a version of the mainline archive; write latest, or v7.2.5 or v7.3-rc7",
            ),
        ]
        | None
    ) = Field(default=None, description="Instead of a suite: a build of the mainline archive, v7.2.5, or `latest`")
    version: Version | None = Field(default=None, description="Upstream version or series that narrows the choice")
    release: Annotated[
        str, matching(r"latest|[0-9][A-Za-z0-9.+~-]{0,63}", "a kernel release; write latest, or what uname -r prints")
    ] = Field(default="latest", description="Exactly what `uname -r` prints, or `latest` for the newest one there is")
    flavour: Flavour = Field(default="generic", description="Ubuntu's kernel flavour: generic, lowlatency")

    @model_validator(mode="after")
    def _one_place(self) -> UbuntuEntry:
        if (self.suite is None) == (self.mainline is None):
            raise ValueError("needs one of suite and mainline; write ubuntu: noble, or ubuntu: {mainline: latest}")
        if self.mainline is not None and self.release != "latest":
            raise ValueError("release does not go with mainline; name the version, as in mainline: v7.2.5")
        if self.mainline not in (None, "latest") and self.version is not None:
            raise ValueError("version narrows mainline: latest; leave it out where mainline names a version")
        return self


class GitEntry(Entry):
    """A commit of a local git repository."""

    path: Path = Field(description="Directory of the repository; a relative path starts at the matrix file's directory")
    ref: Annotated[
        str, matching(r"[A-Za-z0-9][A-Za-z0-9._/+^~-]{0,199}", "a git reference; for example v7.3-rc7, or a commit")
    ] = Field(description="Tag, branch or commit")


class SourceEntry(Entry):
    """A kernel that is built here from source: exactly one of `tarball`, `git` and `debian` says from which."""

    tarball: Path | None = Field(default=None, description="A linux-*.tar.* file on this host")
    git: GitEntry | None = Field(default=None, description="A commit of a local git repository")
    debian: Suite | None = Field(default=None, description="Debian suite whose linux-source package is built")
    version: Version | None = Field(
        default=None, description="Upstream series that narrows the choice within the Debian suite"
    )
    base: Annotated[str, AfterValidator(units.name)] = Field(
        default="vm", description="Name of the base configuration, a file NAME.config in guests/_kernels/ (default vm)"
    )
    fragments: Annotated[
        list[Path], BeforeValidator(as_list), WithJsonSchema({"type": "array", "items": {"type": "string"}})
    ] = Field(default=[], description="Configuration fragments merged over the base in this order: names, or paths")
    guest: Annotated[str, AfterValidator(units.name)] = Field(
        default="debian-13", description="Guest whose distribution supplies the compilers (default debian-13)"
    )

    @model_validator(mode="after")
    def _one_origin(self) -> SourceEntry:
        given = [key for key in ("tarball", "git", "debian") if getattr(self, key) is not None]
        if len(given) != 1:
            what = (
                f"has {' and '.join(given)}; keep one of them"
                if given
                else "names no origin; add tarball, git or debian"
            )
            raise ValueError(what)
        if self.version is not None and self.debian is None:
            raise ValueError("version goes with debian only; leave it out")
        return self


class InstalledEntry(ShortEntry):
    """A kernel that lab boxes have installed; `installed: 6.12.*` is short for `installed: {release: 6.12.*}`."""

    short: ClassVar[str] = "release"

    release: Annotated[
        str,
        matching(
            r"[0-9][A-Za-z0-9._+~^*?-]{0,99}",
            "a kernel release; write what uname -r prints, or a glob such as 6.12.*",
        ),
        WithJsonSchema({"type": ["string", "number"], "pattern": r"^[0-9][A-Za-z0-9._+~^*?-]{0,99}$"}),
    ] = Field(description="What `uname -r` prints, or a glob over it; of several that a box has, the newest")
    entry: Annotated[str, text(500)] | None = Field(
        default=None, description="Identifier of the boot entry, where a box has several for that kernel"
    )


Koji = Annotated[
    str,
    matching(_NVR, "the NVR of a build; for example kernel-7.3.4-200.fc44, without architecture and .rpm"),
    WithJsonSchema({"type": "string"}),
]
Packages = Annotated[
    list[Annotated[Path, matching(r".*\.(deb|rpm)", "a package file; its name ends in .deb or .rpm")]],
    BeforeValidator(as_list),
    AfterValidator(not_empty),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]
