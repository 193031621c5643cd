"""Holds the code to docs/architecture.md: its two tables are read here, so they say what the code is checked for."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HARNESS = ROOT / "harness"
DOCUMENT = ROOT / "docs" / "architecture.md"
MODULES = sorted(HARNESS.rglob("*.py"))

LONGEST = 400
"""Lines: a longer module is two."""
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "misc", "common", "manager", "managers"}
IMPURE = {
    *(
        "asyncio",
        "http",
        "io",
        "logging",
        "os",
        "pathlib",
        "select",
        "shutil",
        "socket",
        "sqlite3",
        "tempfile",
        "urllib",
    ),
    *("multiprocessing", "signal", "subprocess", "threading"),
    *("datetime", "time", "random", "secrets", "uuid"),
}
"""What a room without I/O and clock has no use for."""
EVERYTHING = "everything above"


@dataclass(frozen=True)
class Room:
    """One row of the table of rooms; paths are relative to harness/."""

    paths: tuple[str, ...]
    may_import: tuple[str, ...]
    line: int


def table(heading: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, cells) of each row of the first table below a heading of the document, without its head."""
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    start = lines.index(heading)
    first = next(number for number in range(start, len(lines)) if lines[number].startswith("|"))
    for number in range(first + 2, len(lines)):
        if not lines[number].startswith("|"):
            return
        yield number + 1, [cell.strip() for cell in lines[number].strip("|").split("|")]


def paths_in(cell: str) -> tuple[str, ...]:
    """The paths that a cell names, relative to harness/."""
    return tuple(path.removeprefix("harness/") for path in re.findall(r"`([^`]+)`", cell))


@cache
def rooms() -> tuple[Room, ...]:
    found: list[Room] = []
    for line, (names, _, may_import) in table("## The rooms"):
        above = tuple(path for room in found for path in room.paths)
        allowed = above if may_import == EVERYTHING else paths_in(may_import)
        found.append(Room(paths_in(names), allowed, line))
    return tuple(found)


@cache
def libraries() -> dict[str, tuple[str, ...]]:
    return {name: paths_in(where) for _, (names, where, _) in table("## The libraries") for name in paths_in(names)}


def holds(path: str, module: str) -> bool:
    """Whether a path of a table (``model/``, ``cell.py``) is, or is above, a module's path."""
    return module == path or (path.endswith("/") and module.startswith(path))


def room_of(module: str) -> Room | None:
    """The room of a module: the row with the longest path that holds it."""
    fitting = [(len(path), room) for room in rooms() for path in room.paths if holds(path, module)]
    return max(fitting, key=lambda one: one[0])[1] if fitting else None


def relative(path: Path) -> str:
    return path.relative_to(HARNESS).as_posix()


def path_of(dotted: str) -> str | None:
    """The file of a module of ours, relative to harness/; None when there is none of that name."""
    base = ROOT.joinpath(*dotted.split("."))
    for file in (base.with_suffix(".py"), base / "__init__.py"):
        if file.is_file():
            return relative(file)
    return None


@cache
def imports(module: str) -> tuple[tuple[int, str], ...]:
    """(line, dotted name) of everything that a module imports when it runs, wherever in it."""
    found: list[tuple[int, str]] = []
    tree = ast.parse((HARNESS / module).read_text(encoding="utf-8"))
    for_types = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    unused = {id(inner) for node in for_types for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in unused:
            continue
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"harness/{module}:{node.lineno}: imports are absolute"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                is_module = node.module.split(".")[0] == "harness" and path_of(inner) is not None
                found.append((node.lineno, inner if is_module else node.module))
    return tuple(dict.fromkeys(found))


def own_imports(module: str) -> Iterator[tuple[int, str]]:
    """(line, path relative to harness/) of the modules of ours that a module imports."""
    for line, name in imports(module):
        if name.split(".")[0] == "harness":
            path = path_of(name)
            assert path is not None, f"harness/{module}:{line}: there is no module {name}"
            yield line, path


def test_the_document_names_only_rooms_and_modules_that_exist() -> None:
    for room in rooms():
        for path in (*room.paths, *room.may_import):
            there = (HARNESS / path).is_dir() if path.endswith("/") else (HARNESS / path).is_file()
            assert there, f"docs/architecture.md:{room.line}: there is no harness/{path}"


def test_a_room_may_import_only_from_rows_above_its_own() -> None:
    above: list[str] = []
    for room in rooms():
        for path in room.may_import:
            known = any(holds(earlier, path) for earlier in above)
            assert known, f"docs/architecture.md:{room.line}: {path} stands in no row above"
        above += room.paths


@pytest.mark.parametrize("module", [relative(path) for path in MODULES])
def test_a_module_imports_only_what_the_table_allows_its_room(module: str) -> None:
    room = room_of(module)
    assert room is not None, f"harness/{module} is in no room of docs/architecture.md"
    for line, imported in own_imports(module):
        if room_of(imported) == room:
            continue
        # A whole room does not include a part of it that has a row of its own.
        allowed = any(
            holds(path, imported) and room_of(imported) == (room_of(path) or room_of(f"{path}__init__.py"))
            for path in room.may_import
        )
        assert allowed, (
            f"harness/{module}:{line} imports harness/{imported}, which {', '.join(room.paths)} may not "
            f"(docs/architecture.md:{room.line})"
        )


def test_no_import_closes_a_circle_not_even_inside_a_function() -> None:
    graph = {relative(path): {imported for _, imported in own_imports(relative(path))} for path in MODULES}
    for package in [name for name in graph if name.endswith("/__init__.py")]:
        graph[package].discard(package)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' → '.join(error.args[1])}")


@pytest.mark.parametrize("module", [relative(path) for path in MODULES])
def test_a_library_is_imported_only_where_the_table_of_libraries_says(module: str) -> None:
    for line, name in imports(module):
        library = name.split(".")[0]
        if library == "harness" or library in sys.stdlib_module_names:
            continue
        allowed = libraries().get(library, ())
        assert any(holds(path, module) for path in allowed), (
            f"harness/{module}:{line} imports {library}, which belongs to {', '.join(allowed) or 'no room'}"
        )


def test_every_library_of_the_table_is_used_where_it_is_said_to_be() -> None:
    used = {(name.split(".")[0], relative(path)) for path in MODULES for _, name in imports(relative(path))}
    for library, places in libraries().items():
        for place in places:
            found = any(name == library and holds(place, module) for name, module in used)
            assert found, f"docs/architecture.md says that {place} uses {library}; it does not"


@pytest.mark.parametrize("module", [relative(path) for path in sorted((HARNESS / "model").rglob("*.py"))])
def test_the_model_touches_neither_files_nor_processes_nor_the_clock(module: str) -> None:
    for line, name in imports(module):
        assert name.split(".")[0] not in IMPURE, f"harness/{module}:{line} imports {name}"


@pytest.mark.parametrize("module", [relative(path) for path in MODULES])
def test_a_module_is_short_enough_to_be_read_at_once(module: str) -> None:
    lines = len((HARNESS / module).read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"harness/{module} has {lines} lines; at most {LONGEST}"


@pytest.mark.parametrize("module", [relative(path) for path in MODULES])
def test_a_module_is_named_after_its_subject(module: str) -> None:
    words = {word for part in Path(module).with_suffix("").parts for word in part.split("_")}
    assert not words & EMPTY_NAMES, f"harness/{module}: a name that says what is in it, please"
