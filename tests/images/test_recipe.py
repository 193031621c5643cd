"""Every shipped recipe loads, and a wrong one is told in one line that says where."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.content import content_dir
from harness.errors import UserError
from harness.images.recipe import Recipes
from harness.suites.manifest import load_tests

SHIPPED = Recipes(content_dir("guests"))
STACKS = [(guest, stack) for guest in SHIPPED.guests() for stack in SHIPPED.stacks(guest)]


@pytest.mark.parametrize("guest", SHIPPED.guests())
def test_a_shipped_guest_says_how_it_begins_and_how_its_packages_are_listed(guest: str) -> None:
    recipe = SHIPPED.guest(guest)
    assert recipe.base.mmdebstrap or recipe.base.dnf or recipe.base.image
    assert recipe.packages
    assert SHIPPED.stacks(guest)
    assert (SHIPPED.guest_dir(guest) / "Containerfile").is_file()


@pytest.mark.parametrize(("guest", "stack"), STACKS)
def test_a_shipped_stack_loads_and_names_backends_that_some_test_is_written_for(guest: str, stack: str) -> None:
    recipe = SHIPPED.stack(guest, stack)
    assert recipe.description
    tests = load_tests(content_dir("gpu_tests"))
    assert set(recipe.backends) <= {backend for test in tests.values() for backend in test.backends}
    containerfile = (SHIPPED.stack_dir(guest, stack) / "Containerfile").read_text()
    assert "ARG BASE\nFROM ${BASE}" in containerfile
    if recipe.build:
        assert (SHIPPED.stack_dir(guest, stack) / recipe.build.containerfile).is_file()


def test_the_files_that_bring_a_guest_up_are_there() -> None:
    wanted = {"init", "guest-init", "sshd_config", "Containerfile.kernel", "Containerfile.tests"}
    assert wanted <= {path.name for path in SHIPPED.boot_dir.iterdir()}


def recipes(folder: Path, guest: str = "", stack: str = "") -> Recipes:
    (folder / "g/stacks/s").mkdir(parents=True)
    (folder / "g/guest.yaml").write_text(guest)
    (folder / "g/stacks/s/stack.yaml").write_text(stack)
    return Recipes(folder)


def test_guests_and_stacks_are_folders_with_a_recipe(tmp_path: Path) -> None:
    found = recipes(tmp_path)
    (tmp_path / "g/stacks/notes").mkdir()
    (tmp_path / "_boot").mkdir()
    assert found.guests() == ("g",)
    assert found.stacks() == found.stacks("g") == ("s",)
    assert found.stacks("other") == ()


def test_plain_words_stay_text_and_numbers_are_read_as_the_model_wants_them(tmp_path: Path) -> None:
    text = """\
description: no
modules: [{name: 9p, parameters: [debug=0x10]}]
verify: [{run: ["true"], timeout: 1.5}]
"""
    stack = recipes(tmp_path, stack=text).stack("g", "s")
    assert stack.description == "no"
    assert stack.modules[0].name == "9p"
    assert stack.modules[0].required
    assert stack.verify[0].timeout == 1.5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "stack.yaml:1:1: expected a mapping of settings, found NoneType"),
        ("- a\n", "stack.yaml:1:1: expected a mapping of settings, found list"),
        ("a: [\n", "stack.yaml:2:1: not valid YAML"),
        ("apis: []\n", "stack.yaml:1: description is missing"),
        ("description: x\nmoduls: []\n", "stack.yaml:2: moduls: there is no such setting; did you mean modules?"),
        ("description: x\nzzzz: 1\n", "stack.yaml:2: zzzz: there is no such setting$"),
        (
            "description: x\nmodules:\n  - {name: a}\n  - name: b\n    requird: true\n",
            r"stack.yaml:5: modules.1.requird: there is no such setting; did you mean required\?",
        ),
        ("description: x\nmodules:\n  - {required: true}\n", r"stack.yaml:3: modules.0.name is missing"),
        ("description: x\nkind: tpu\n", "stack.yaml:2: kind: Input should be 'gpu'"),
        ("description: x\nverify:\n- run: []\n", "stack.yaml:3: verify.0.run: Tuple should have at least 1 item"),
        ("description: x\nverify: [{run: [a], stage: fly}]\n", "stack.yaml:2: verify.0.stage: Input should be"),
    ],
)
def test_a_wrong_recipe_is_told_with_file_line_and_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        recipes(tmp_path, stack=text).stack("g", "s")
    assert "\n" not in str(caught.value)


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nope/guest\.yaml: there is no such recipe"):
        recipes(tmp_path).guest("nope")


def test_yaml_cannot_make_objects(tmp_path: Path) -> None:
    text = "description: !!python/object/apply:os.system ['touch /tmp/kdmatrix-was-here']\n"
    with pytest.raises(UserError):
        recipes(tmp_path, stack=text).stack("g", "s")
    assert not Path("/tmp/kdmatrix-was-here").exists()
