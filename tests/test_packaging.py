"""What users install: the wheel is built, looked into, and used outside of any checkout."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import harness
from harness.errors import InfraError
from harness.suites.build import build_runner

ROOT = Path(__file__).resolve().parents[1]
DATA = "harness/_data"
# One worker builds the wheel for all of these tests.
pytestmark = [pytest.mark.xdist_group("packaging"), pytest.mark.timeout(300)]


def sh(*argv: str | Path, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in argv]
    return subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, timeout=240, check=False)


@dataclass(frozen=True)
class Installed:
    """A virtual environment that holds the wheel, and an empty directory to work in."""

    bin: Path
    elsewhere: Path

    def run(self, program: str, *words: str, home: str = "home") -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("KDMATRIX_", "PYTHON"))}
        env = {**kept, "KDMATRIX_HOME": str(self.elsewhere / home), "COLUMNS": "100"}
        return sh(self.bin / program, *words, cwd=self.elsewhere, env=env)

    def python(self, code: str) -> str:
        done = self.run("python", "-c", code)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("hatchling", "pip"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed, so no wheel can be built without the network")
    into = tmp_path_factory.mktemp("wheel")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
    done = sh(sys.executable, "-m", "pip", "wheel", *options, ".", "-w", into, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return next(into.glob("kdmatrix-*.whl"))


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    root = tmp_path_factory.mktemp("installed")
    venv.create(root / "venv", with_pip=False)
    python = root / "venv" / "bin" / "python"
    options = ("--no-deps", "--no-index", "--disable-pip-version-check", "--quiet")
    done = sh(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel, cwd=root)
    assert done.returncode == 0, done.stderr
    # The dependencies of this environment, behind the new one's own packages. A path in a .pth file is not searched
    # for further .pth files, so an editable install of the checkout does not come along.
    site = Path(sysconfig.get_path("purelib", vars={"base": str(root / "venv")}))
    own = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (site / "dependencies.pth").write_text("".join(f"{path}\n" for path in own))
    (root / "elsewhere").mkdir()
    return Installed(root / "venv" / "bin", root / "elsewhere")


def shipped(room: str) -> set[str]:
    """The files of a content room that a wheel must hold, relative to the checkout."""
    listed = sh("git", "ls-files", "--cached", "--others", "--exclude-standard", room, cwd=ROOT)
    if listed.returncode == 0 and listed.stdout:
        return {line for line in listed.stdout.splitlines() if (ROOT / line).is_file()}
    return {path.relative_to(ROOT).as_posix() for path in (ROOT / room).rglob("*") if path.is_file()}


@pytest.mark.parametrize("room", ["guests", "gpu_tests", "reports", "matrix.yaml"])
def test_the_wheel_holds_every_file_of_the_content_and_no_other(names: set[str], room: str) -> None:
    expected = {f"{DATA}/{name}" for name in shipped(room)}
    assert expected
    found = {name for name in names if name == f"{DATA}/{room}" or name.startswith(f"{DATA}/{room}/")}
    assert found == expected


def test_the_wheel_holds_all_code_with_its_templates_and_migrations(names: set[str]) -> None:
    assert shipped("harness") <= names
    assert {"harness/machines/templates/domain.xml.j2", "harness/repro/body.sh"} <= names
    assert any(name.startswith("harness/store/migrations/versions/v") for name in names)


def test_the_wheel_holds_nothing_but_the_package(names: set[str]) -> None:
    own = ("harness/", f"kdmatrix-{harness.__version__}.dist-info/")
    assert not {name for name in names if not name.startswith(own)}
    assert not {name for name in names if "__pycache__" in name or name.endswith((".pyc", ".o", ".so"))}


def test_the_wheel_brings_its_licence_and_the_command(wheel: Path, names: set[str]) -> None:
    info = f"kdmatrix-{harness.__version__}.dist-info"
    assert f"{info}/licenses/LICENSE" in names
    with zipfile.ZipFile(wheel) as archive:
        assert b"kdmatrix = harness.cli:main" in archive.read(f"{info}/entry_points.txt")


def test_the_installed_package_is_not_the_checkout(installed: Installed) -> None:
    where = installed.python("import harness; print(harness.__file__)")
    assert Path(where).is_relative_to(installed.bin.parent)


@pytest.mark.parametrize("room", ["guests", "gpu_tests", "reports"])
def test_the_installed_package_finds_its_content_in_itself(installed: Installed, room: str) -> None:
    where = installed.python(f"from harness.content import content_dir; print(content_dir({room!r}))")
    assert Path(where).is_relative_to(installed.bin.parent)
    assert where.endswith(f"{DATA}/{room}")


def test_validate_reads_the_shipped_matrix_without_touching_caches_or_mirrors(installed: Installed) -> None:
    done = installed.run("kdmatrix", "validate")
    assert done.returncode == 0, done.stderr
    assert re.search(r"/harness/_data/matrix\.yaml: valid: [1-9]\d* cells", done.stdout)
    assert not (installed.elsewhere / "home" / "cache").exists()


def test_validate_prefers_the_matrix_of_the_current_directory(installed: Installed) -> None:
    matrix = installed.elsewhere / "matrix.yaml"
    lines = ("version: 1", "kernels: [{name: a, series: stable, debian: sid}]", "guests: [debian-13]", "stacks: [nix]")
    matrix.write_text("\n".join(lines))
    try:
        done = installed.run("kdmatrix", "validate")
    finally:
        matrix.unlink()
    assert done.returncode == 2
    assert "matrix.yaml:4:10" in done.stderr


@pytest.mark.parametrize("command", [(), ("plan",), ("run",), ("report",), ("repro",), ("doctor",), ("clean",)])
def test_help_is_there_for_every_command(installed: Installed, command: tuple[str, ...]) -> None:
    done = installed.run("kdmatrix", *command, "--help")
    assert done.returncode == 0, done.stderr
    assert f"Usage: kdmatrix {' '.join(command)}".rstrip() in done.stdout


def test_the_version_is_that_of_the_checkout(installed: Installed) -> None:
    assert installed.run("kdmatrix", "--version").stdout.strip() == f"kdmatrix {harness.__version__}"


def test_this_machine_is_tested_from_the_installed_package(installed: Installed, shared_cache: Path) -> None:
    try:
        build_runner(ROOT / "gpu_tests", shared_cache / "gpu_tests")
    except InfraError as error:
        pytest.skip(str(error))
    # The same sources: what was built of the checkout is what the package would build.
    cache = installed.elsewhere / "here" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "gpu_tests").symlink_to(shared_cache / "gpu_tests")
    done = installed.run("kdmatrix", "run", "--here", "--test", "enumerate", home="here")
    if done.returncode == 3:
        assert "no driver of this machine offers anything to compute on" in done.stderr
    else:
        assert done.returncode == 0, done.stdout + done.stderr
        assert "1 PASS" in done.stdout


def test_the_store_finds_its_migrations(installed: Installed) -> None:
    done = installed.run("kdmatrix", "runs", home="new")
    assert done.returncode == 0, done.stderr
    assert "no run yet" in done.stdout


def test_the_domain_template_is_found(installed: Installed) -> None:
    code = (
        "from pathlib import Path; from harness.machines.domain import Domain\n"
        "print(Domain('n', 'c', 'r', 'qemu', '/q', Path('/k'), Path('/i'), 'quiet', (), 2222).xml())"
    )
    assert "<cmdline>quiet</cmdline>" in installed.python(code)
