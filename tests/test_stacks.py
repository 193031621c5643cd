"""What must hold of every stack that ships, whoever wrote it: its folder is complete and does not contradict itself."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.content import content_dir
from harness.images.recipe import Recipes, StackRecipe

RECIPES = Recipes(content_dir("guests"))
STACKS = [(guest, name) for guest in RECIPES.guests() for name in RECIPES.stacks(guest)]
FOLDERS = sorted({RECIPES.stack_dir(guest, name) for guest, name in STACKS})
RIVALS = {
    "nvidia": {"nouveau", "nova_core", "nova", "nova_drm"},
    "nouveau": {"nvidia", "nova_core", "nova", "nova_drm"},
    "i915": {"xe"},
    "xe": {"i915"},
}
"""By driver: the others that match the same devices."""

every_stack = pytest.mark.parametrize(("guest", "name"), STACKS, ids=lambda value: value)
every_folder = pytest.mark.parametrize(
    "folder", FOLDERS, ids=lambda folder: f"{folder.parent.parent.name}-{folder.name}"
)


def key(module: str) -> str:
    return module.replace("-", "_")


def containerfiles(guest: str, name: str, stack: StackRecipe) -> list[Path]:
    folder = RECIPES.stack_dir(guest, name)
    return [folder / "Containerfile", *([folder / stack.build.containerfile] if stack.build else [])]


def shell_of(containerfile: Path) -> list[str]:
    """The scripts of its RUN instructions."""
    lines = [line for line in containerfile.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [line.removeprefix("RUN ") for line in joined.splitlines() if line.startswith("RUN ")]


@every_stack
def test_a_stack_reads_and_has_what_it_is_built_from(guest: str, name: str) -> None:
    stack = RECIPES.stack(guest, name)
    for containerfile in containerfiles(guest, name, stack):
        text = containerfile.read_text()
        assert "ARG BASE\nFROM ${BASE}" in text, f"{containerfile} does not start from the guest"


@every_stack
def test_the_modules_that_are_loaded_are_among_those_that_are_built(guest: str, name: str) -> None:
    stack = RECIPES.stack(guest, name)
    if stack.build is None:
        pytest.skip("the stack builds no module")
    built = {key(module) for module in stack.build.produces}
    assert {key(module.name) for module in stack.modules} <= built


@every_stack
def test_a_containerfile_declares_every_argument_of_its_recipe(guest: str, name: str) -> None:
    stack = RECIPES.stack(guest, name)
    declared = set()
    for containerfile in containerfiles(guest, name, stack):
        declared |= set(re.findall(r"^ARG (\w+)", containerfile.read_text(), re.MULTILINE))
    assert set(stack.arguments) <= declared


@every_stack
def test_rivals_for_the_same_device_are_kept_away(guest: str, name: str) -> None:
    stack = RECIPES.stack(guest, name)
    own = {key(module.driver or module.loads_as or module.name) for module in stack.modules}
    assert not own & set(stack.blacklist), "a stack keeps its own modules from loading"
    if len(own & RIVALS.keys()) == 1:  # a stack that loads several rivals in turn binds none of them
        assert RIVALS[(own & RIVALS.keys()).pop()] <= set(stack.blacklist)


@every_stack
def test_a_driver_of_a_device_says_which_one_must_be_bound(guest: str, name: str) -> None:
    stack = RECIPES.stack(guest, name)
    if stack.kind == "gpu" and stack.modules:
        assert any(module.driver for module in stack.modules)
        assert stack.device != "none"
        assert stack.verify, "nothing proves that the stack works"


@every_stack
def test_requirements_name_options_of_the_kernel(guest: str, name: str) -> None:
    for requirement in RECIPES.stack(guest, name).requires:
        assert re.fullmatch(r"CONFIG_\w+(!?=[ymn]([|][ymn])?)?", requirement), requirement


@every_folder
def test_a_folder_names_no_host(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix not in (".run", ".whl", ".gpg", ".deb"):
            assert not re.search(r"\b(https?|ftp)://[\w.]", path.read_text(errors="replace")), path


@every_folder
def test_the_scripts_of_a_containerfile_are_whole(folder: Path) -> None:
    shell = shutil.which("dash") or shutil.which("sh")
    assert shell is not None
    for containerfile in folder.glob("Containerfile*"):
        for script in shell_of(containerfile):
            done = subprocess.run([shell, "-n"], input=script, text=True, capture_output=True, check=False)
            assert done.returncode == 0, f"{containerfile}: {done.stderr}"


def test_the_check_of_scripts_can_fail(tmp_path: Path) -> None:
    broken = tmp_path / "Containerfile"
    broken.write_text("FROM x\nRUN if true; then \\\n # said in between\n   echo\n")
    (script,) = shell_of(broken)
    assert subprocess.run(["sh", "-n"], input=script, text=True, capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize("name", ["nvidia", "nvidia-open"])
def test_every_version_of_nvidias_driver_expects_to_find_no_device(name: str) -> None:
    versions = [one for one in RECIPES.stacks("debian-13") if one.startswith(f"{name}@")]
    assert len(versions) >= 3
    for version in versions:
        stack = RECIPES.stack("debian-13", version)
        first = stack.modules[0]
        assert first.loads_as == "nvidia"
        assert first.refusal
        assert re.search(first.refusal, "modprobe: ERROR: could not insert 'nvidia_current': No such device")
        assert stack.driver.startswith(version.partition("@")[2][:3])
