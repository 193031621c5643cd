"""Read a matrix file: bytes, positioned YAML, shape, references, and at last the immutable matrix."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from harness.errors import UserError
from harness.matrix import schema
from harness.matrix.explain import explain
from harness.matrix.frame import MatrixError, Problem, Span, did_you_mean, quoted, visible
from harness.matrix.references import Known, check
from harness.matrix.yamlpos import Node, YamlProblem, locate, parse, plain
from harness.model.cell import (
    DebianKernel,
    InstalledKernel,
    KernelOrigin,
    KernelSpec,
    KojiKernel,
    PackagesKernel,
    RpmKernel,
    SourceKernel,
    Timeouts,
    TreeKernel,
    UbuntuKernel,
)
from harness.model.expand import expand
from harness.model.matrix import Exclude, Include, Limits, Matrix, Preset, Rule, is_glob, override, with_preset

MAX_BYTES = 1 << 20
MAX_COMBINATIONS = 50_000
MAX_COMPARISONS = 10_000_000
"""Combinations times rules, over the file and all its presets: seconds of work, far beyond what any lab can run."""


def load_matrix(path: Path, known: Known, *, preset: str | None = None) -> Matrix:
    """Return the matrix of a file, narrowed to ``preset`` where one is named.

    Raises MatrixError, which holds every problem with its place, or UserError where the file cannot be read at all
    or has no such preset.
    """
    data = _read(path)
    text = _decode(data, str(path))
    try:
        root, problems = parse(text)
    except YamlProblem as error:
        raise MatrixError(str(path), [error.problem], text) from None
    problems += check(root, known)
    try:
        file = schema.MatrixFile.model_validate(plain(root))
    except ValidationError as error:
        raise MatrixError(str(path), _distinct(problems + explain(error, root)), text) from None
    if problems:
        raise MatrixError(str(path), _distinct(problems), text)
    matrix = _Build(file, root, path, known).matrix(text, hashlib.sha256(data).hexdigest())
    if problems := _reach(matrix, root):
        raise MatrixError(str(path), problems, text)
    if preset is None:
        return matrix
    chosen = next((item for item in matrix.presets if item.name == preset), None)
    if chosen is None:
        hint = did_you_mean(preset, (item.name for item in matrix.presets)) or "the file defines no presets"
        raise UserError(f"{visible(str(path))}: there is no preset {quoted(preset)}; {hint}")
    return with_preset(matrix, chosen)


def _read(path: Path) -> bytes:
    shown = visible(str(path))
    try:
        # Opening a FIFO or a tape blocks or acts; O_NONBLOCK lets fstat speak first, on the very file that is read.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOENT:
            raise UserError(f"{shown}: there is no such file") from None
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"{shown}: cannot be opened: {reason}") from None
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise UserError(f"{shown}: is a directory; name the matrix file in it")
        if not stat.S_ISREG(mode):
            raise UserError(f"{shown}: is not a regular file; write the matrix to a file first")
        with open(descriptor, "rb", closefd=False) as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{shown}: cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)
    if len(data) > MAX_BYTES:
        raise UserError(f"{shown}: is larger than {MAX_BYTES >> 10} KiB, so it is hardly a matrix file")
    return data


def _decode(data: bytes, file: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        span = Span(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)
        message = f"byte 0x{data[error.start]:02x} is not UTF-8"
        hint = "save the file as UTF-8"
        raise MatrixError(file, [Problem(span, "", message, hint)], data.decode("utf-8", "replace")) from None


def _distinct(problems: list[Problem]) -> list[Problem]:
    """Keep the first problem of each place: an unknown name need not also be called malformed."""
    first: dict[tuple[int, int, str], Problem] = {}
    for problem in problems:
        first.setdefault((problem.span.line, problem.span.column, problem.where), problem)
    return list(first.values())


def _reach(matrix: Matrix, root: Node) -> list[Problem]:
    """Return the problems that only the expanded matrix shows: too many cells, none, or a rule without effect."""
    views: list[tuple[tuple[str, ...], Matrix]] = [(("kernels",), matrix)]
    views += [(("presets", preset.name), with_preset(matrix, preset)) for preset in matrix.presets]
    problems: list[Problem] = []
    rules = 1 + len(matrix.excludes) + len(matrix.includes)
    if (count := sum(_bound(view) for _, view in views) * rules) > MAX_COMPARISONS:
        message = f"axes, rules and presets together need {count} comparisons; at most {MAX_COMPARISONS} are allowed"
        return [Problem(locate(root, ())[0].span, "", message, "split the matrix into several files")]
    idle = list(matrix.excludes)
    for path, view in views:
        node, key = locate(root, path)
        span, where = (key or node).span, ".".join(path)
        if (count := _bound(view)) > MAX_COMBINATIONS:
            message = f"the axes make up to {count} combinations; at most {MAX_COMBINATIONS} are allowed"
            problems.append(Problem(span, where, message, "split the matrix into several files"))
            continue
        expansion = expand(view)
        if not expansion.cells:
            problems.append(Problem(span, where, "no cell is left: the exclude rules match every combination"))
        combinations = [tuple(left.cell_id.split("/")) for left in expansion.left_out]
        idle = [rule for rule in idle if not any(_hits(rule, names) for names in combinations)]
    if problems:
        return problems
    for rule in idle:
        index = matrix.excludes.index(rule)
        node, _ = locate(root, ("exclude", index))
        message = "matches no combination: each part matches an entry, but not all of them together"
        problems.append(Problem(node.span, f"exclude.{index}", message, "correct or remove the rule"))
    return problems


def _hits(rule: Exclude, names: tuple[str, ...]) -> bool:
    guest, kernel, stack, device = names
    return rule.when.matches(guest, kernel, stack, device)


def _bound(matrix: Matrix) -> int:
    """At least as many combinations as the expansion looks at; cheap, so that a hostile file is refused early."""
    guests, stacks, devices = len(matrix.guests), len(matrix.stacks), len(matrix.devices)
    return len(matrix.kernels) * (
        guests * stacks * devices
        + sum(
            (guests + len(rule.adds_guests)) * (stacks + len(rule.adds_stacks)) * (devices + len(rule.adds_devices))
            for rule in matrix.includes
            if rule.adds
        )
    )


@dataclass(frozen=True, slots=True)
class _Build:
    """Turns the validated file into the model."""

    file: schema.MatrixFile
    root: Node
    path: Path
    known: Known

    def matrix(self, text: str, sha256: str) -> Matrix:
        file = self.file
        return Matrix(
            kernels=tuple(self._kernel(entry) for entry in file.kernels),
            guests=tuple(file.guests),
            stacks=tuple(file.stacks),
            devices=tuple(entry.key for entry in file.devices),
            requests=tuple(wanted for entry in file.devices if (wanted := entry.request()) is not None),
            machines=tuple(entry.machine(name, self._absolute) for name, entry in file.machines.items()),
            tests=self._tests(file.tests) or (),
            boots=file.boots,
            timeouts=override(Timeouts(), _timeouts(file.timeouts)),
            limits=Limits(file.limits.vms, file.limits.vm_memory, file.limits.vm_cpus),
            excludes=tuple(
                Exclude(_rule(entry), entry.reason, self._line("exclude", index))
                for index, entry in enumerate(file.exclude)
            ),
            includes=tuple(self._include(entry, index) for index, entry in enumerate(file.include)),
            presets=tuple(self._preset(name, entry) for name, entry in file.presets.items()),
            source=str(self.path),
            source_text=text,
            sha256=sha256,
        )

    def _kernel(self, entry: schema.KernelEntry) -> KernelSpec:
        source = self._origin(entry)
        return KernelSpec(entry.name, entry.series, source, entry.cmdline or "", entry.secure_boot)

    def _origin(self, entry: schema.KernelEntry) -> KernelOrigin:
        if (debian := entry.debian) is not None:
            return DebianKernel(debian.suite, debian.version, debian.release, debian.flavour)
        if (rpm := entry.rpm) is not None:
            local = rpm.repository.startswith(("./", "../", "~"))
            repository = self._absolute(rpm.repository) if local else rpm.repository
            return RpmKernel(repository, rpm.package, rpm.version, rpm.release)
        if entry.koji is not None:
            return KojiKernel(entry.koji)
        if (ubuntu := entry.ubuntu) is not None:
            return UbuntuKernel(ubuntu.suite, ubuntu.mainline, ubuntu.version, ubuntu.release, ubuntu.flavour)
        if entry.packages is not None:
            return PackagesKernel(tuple(map(self._absolute, entry.packages)))
        if (built := entry.source) is not None:
            return SourceKernel(
                tarball=self._absolute(built.tarball) if built.tarball is not None else None,
                git=(self._absolute(built.git.path), built.git.ref) if built.git is not None else None,
                debian=built.debian,
                version=built.version,
                base=built.base,
                # A name has no slash; whoever means a file of this directory writes ./NAME.
                fragments=tuple(self._absolute(one) if "/" in one else one for one in built.fragments),
                guest=built.guest,
            )
        if (installed := entry.installed) is not None:
            return InstalledKernel(installed.release, installed.entry or "")
        return TreeKernel(self._absolute(entry.tree or ""))

    def _absolute(self, text: str) -> str:
        """A path as the user wrote it, from the matrix file's directory."""
        try:
            path = Path(text).expanduser()
        except RuntimeError:  # ~nobody-of-that-name
            path = Path(text)
        return str((self.path.parent / path).absolute())

    def _include(self, entry: schema.IncludeEntry, index: int) -> Include:
        return Include(
            when=_rule(entry),
            line=self._line("include", index),
            adds_guests=_beyond(entry.guest, self.file.guests),
            adds_stacks=_beyond(entry.stack, self.file.stacks),
            adds_devices=_beyond(entry.device, [one.key for one in self.file.devices]),
            tests=self._tests(entry.tests),
            boots=entry.boots,
            timeouts=_timeouts(entry.timeouts),
        )

    def _preset(self, name: str, entry: schema.PresetEntry) -> Preset:
        return Preset(
            name=name,
            description=entry.description or "",
            kernels=_tuple(entry.kernels),
            guests=_tuple(entry.guests),
            stacks=_tuple(entry.stacks),
            devices=_tuple(entry.devices),
            tests=self._tests(entry.tests),
            boots=entry.boots,
            timeouts=_timeouts(entry.timeouts),
        )

    def _tests(self, chosen: list[str] | schema.TierEntry | None) -> tuple[str, ...] | None:
        if isinstance(chosen, schema.TierEntry):
            return self.known.up_to_tier(chosen.tier)
        return self.known.up_to_tier(1) if chosen == [schema.ALL] else _tuple(chosen)

    def _line(self, section: str, index: int) -> int:
        return locate(self.root, (section, index))[0].span.line


def _rule(entry: schema.ExcludeEntry | schema.IncludeEntry) -> Rule:
    every = ["*"]
    return Rule(
        guest=tuple(entry.guest or every),
        kernel=tuple(entry.kernel or every),
        stack=tuple(entry.stack or every),
        device=tuple(entry.device or every),
    )


def _timeouts(entry: schema.TimeoutsEntry | None) -> tuple[tuple[str, float], ...]:
    return tuple(entry.model_dump(exclude_none=True).items()) if entry is not None else ()


def _tuple(names: list[str] | None) -> tuple[str, ...] | None:
    return tuple(names) if names is not None else None


def _beyond(patterns: list[str] | None, axis: list[str]) -> tuple[str, ...]:
    """The entries that a rule names and the axis lacks, once each."""
    return tuple(dict.fromkeys(name for name in patterns or () if not is_glob(name) and name not in axis))
