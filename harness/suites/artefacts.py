"""Compiles the compute tests' device code ahead of time, cached by content, and compares it with the committed digests.

Below the cache: ``compilers/`` (unpacked wheels), ``objects/`` (one file per source, compiler and flags) and
``sets/<digest>``, a folder of artefacts ready to be carried into a guest, named by the sources that it was made of.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path

from harness.errors import InfraError
from harness.placing import locked, write_atomically
from harness.suites.artefact_list import Listed, listed_kernels, read_list, write_list
from harness.suites.artefact_spec import (
    FILE,
    LANGUAGE,
    Artefact,
    ArtefactSpec,
    artefacts_of,
    device_source,
    kernel_names,
    load_spec,
)
from harness.suites.compilers import Compiler, DoesNotCompile, find_compiler

ABSENT = "absent.tsv"
"""In a set: target, kernel (or ``*``) and the reason, a line for each artefact that the set lacks."""
INDEX = "index.json"


class State(StrEnum):
    """How an artefact stands to the committed list."""

    SAME = "same"
    NEW = "not listed"
    DIFFERS = "differs"
    FAILED = "does not compile"
    ABSENT = "not built"
    STALE = "listed, but not made any more"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one artefact."""

    path: str
    state: State
    compiler: str
    """Name in ``artefacts.yaml``; empty when nothing makes it any more."""
    detail: str = ""
    made: Listed | None = None

    def __str__(self) -> str:
        return f"{self.path}: {self.state}" + (f": {self.detail}" if self.detail else "")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a build of all artefacts came to."""

    directory: Path
    results: tuple[Result, ...]
    versions: Mapping[str, str]
    """Each compiler that is at hand, with the versions of its parts."""

    def of(self, *states: State) -> list[Result]:
        """The results in any of these states."""
        return [result for result in self.results if result.state in states]


def build_artefacts(sources: Path, cache: Path, *, jobs: int) -> Outcome:
    """Compile what the cache lacks, lay everything out in a set, and compare it with the list in ``sources``.

    A compiler that cannot be had leaves its artefacts ``not built``, each with the reason; so does a kernel that a
    compiler refuses. What differs from the list is carried all the same: it says nothing about whether code works.

    Raises:
        UserError: ``artefacts.yaml`` or a list is wrong.
    """
    spec = load_spec(sources)
    digest = sources_digest(sources)
    compilers = {name: _compiler(spec, name, cache) for name in spec.compilers}
    planned = [artefact for kernel in kernel_names(sources) for artefact in artefacts_of(spec, kernel)]
    texts = {kernel: device_source(sources, kernel) for kernel in kernel_names(sources)}
    lists = {kernel: read_list(sources, kernel) for kernel in (*kernel_names(sources), *listed_kernels(sources))}

    def make(artefact: Artefact) -> tuple[Result, bytes]:
        compiler = compilers[artefact.target.compiler]
        listed = lists[artefact.kernel].get(artefact.path)
        if isinstance(compiler, str):
            return Result(artefact.path, State.ABSENT, artefact.target.compiler, compiler), b""
        try:
            content = _object(compiler, artefact, texts[artefact.kernel], cache)
        except DoesNotCompile as error:
            return Result(artefact.path, State.FAILED, artefact.target.compiler, str(error)), b""
        except InfraError as error:
            return Result(artefact.path, State.ABSENT, artefact.target.compiler, str(error)), b""
        return _judged(artefact, compiler, content, listed), content

    with ThreadPoolExecutor(jobs) as pool:
        made = list(pool.map(make, planned))
    results = [result for result, _ in made]
    results += _stale(lists, {artefact.path for artefact in planned})
    directory = _lay_out(cache / "sets" / digest, made, spec)
    versions = {name: found.version for name, found in compilers.items() if isinstance(found, Compiler)}
    return Outcome(directory, tuple(results), versions)


def find_set(sources: Path, cache: Path) -> Path | None:
    """The artefacts that were built of exactly these sources, if any were."""
    if not (sources / FILE).is_file():
        return None
    found = cache / "sets" / sources_digest(sources)
    return found if (found / INDEX).is_file() else None


def update_lists(sources: Path, outcome: Outcome) -> list[str]:
    """Write what was built into the lists, and return the kernels whose list changed.

    What could not be built here keeps its line; what nothing makes any more loses it.
    """
    made = {result.path: result for result in outcome.results}
    changed = []
    for kernel in sorted({_kernel_of(path) for path in made} | set(listed_kernels(sources))):
        before = read_list(sources, kernel)
        after: dict[str, Listed] = {}
        for path, result in made.items():
            if _kernel_of(path) != kernel or result.state is State.STALE:
                continue
            listed = result.made or before.get(path)
            if listed is not None:
                after[path] = listed
        if after != before:
            write_list(sources, kernel, after)
            changed.append(kernel)
    return changed


def sources_digest(sources: Path) -> str:
    """Names everything that artefacts are made of, apart from the compilers."""
    files = [sources / FILE, sources / "kernels" / LANGUAGE, *sorted((sources / "kernels").glob("*.inc"))]
    sha = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        sha.update(f"{file.name}\0{len(content)}\0".encode() + content)
    return sha.hexdigest()[:20]


def _compiler(spec: ArtefactSpec, name: str, cache: Path) -> Compiler | str:
    """The compiler, or the reason why it cannot be had."""
    try:
        return find_compiler(spec.compilers[name], cache / "compilers")
    except InfraError as error:
        return str(error)


def _object(compiler: Compiler, artefact: Artefact, source: bytes, cache: Path) -> bytes:
    target = artefact.target
    what = [compiler.version, compiler.spec.source, compiler.spec.steps, target.arch, target.flags]
    key = hashlib.sha256(json.dumps(what).encode() + b"\0" + source).hexdigest()
    kept = cache / "objects" / key[:2] / f"{key}.{target.extension}"
    if kept.is_file():
        return kept.read_bytes()
    with tempfile.TemporaryDirectory(prefix="kdmatrix-artefact-") as work:
        content = compiler.compile(source, target, Path(work))
    write_atomically(kept, content)
    return content


def _judged(artefact: Artefact, compiler: Compiler, content: bytes, listed: Listed | None) -> Result:
    target = artefact.target
    made = Listed(
        path=artefact.path,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        compiler=target.compiler,
        arch=target.arch,
        flags=" ".join(target.flags),
        format=target.format,
        version=compiler.version,
        commands=tuple(" ".join(step) for step in compiler.spec.steps),
    )
    if listed is None:
        return Result(made.path, State.NEW, target.compiler, made=made)
    if listed == replace(made, version=listed.version):  # the bytes count: another version may make the same
        return Result(made.path, State.SAME, target.compiler, made=made)
    if listed.sha256 != made.sha256:
        detail = f"made {made.sha256[:16]} with {made.version}; listed {listed.sha256[:16]} with {listed.version}"
    else:
        wrong = [one.name for one in fields(Listed) if getattr(listed, one.name) != getattr(made, one.name)]
        told = (f"{key} is now {getattr(made, key)!r}, listed {getattr(listed, key)!r}" for key in wrong)
        detail = "the same bytes; " + "; ".join(told)
    return Result(made.path, State.DIFFERS, target.compiler, detail, made)


def _stale(lists: Mapping[str, Mapping[str, Listed]], planned: set[str]) -> Iterator[Result]:
    for entries in lists.values():
        for path in entries:
            if path not in planned:
                yield Result(path, State.STALE, "")


def _lay_out(final: Path, made: list[tuple[Result, bytes]], spec: ArtefactSpec) -> Path:
    """Put a set in the place of the one that was there: it may have been made with fewer compilers."""
    absent = [(*result.path.split("/"), f"{result.state}: {result.detail}") for result, _ in made if not result.made]
    lines = [f"{target}\t{Path(file).stem}\t{reason}" for target, file, reason in absent]
    for kernel, rule in spec.kernels.items():
        lines += [f"{name}\t{kernel}\t{one.why}" for one in rule.not_for for name in one.targets]
    lines += [f"{name}\t*\t{gap.why}" for gap in spec.gaps for name in gap.targets]
    index = {result.made.path: result.made.sha256 for result, _ in made if result.made}
    told = "".join(" ".join(line.split("\n")) + "\n" for line in lines)
    index_text = json.dumps(index, indent=0, sort_keys=True) + "\n"
    with locked(final.parent / f".{final.name}.lock", timeout=600.0):
        if final.is_dir() and [(final / name).read_text() for name in (ABSENT, INDEX)] == [told, index_text]:
            return final
        temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
        try:
            for result, content in made:
                if result.made:
                    file = temporary / result.path
                    file.parent.mkdir(exist_ok=True)
                    file.write_bytes(content)
            (temporary / ABSENT).write_text(told)
            (temporary / INDEX).write_text(index_text)
            temporary.chmod(0o755)
            if final.exists():
                shutil.rmtree(final)
            temporary.rename(final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return final


def _kernel_of(path: str) -> str:
    return Path(path).stem
