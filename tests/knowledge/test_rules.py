from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import UserError
from harness.images.recipe import Build
from harness.knowledge.rules import DebugOption, Rule, Rules
from knowledge.subjects import recipe, subject


def rule(**more: Any) -> Rule:
    return Rule.model_validate({"id": "one", "rung": "build", "outcome": "SKIP", "reason": "because it is so"} | more)


def signed(sign: str) -> Any:
    return recipe(build=Build(method="dkms", produces=("x",), sign=sign))


@pytest.mark.parametrize(
    ("named", "given"),
    [
        ({"stack": ["rocm*"]}, {}),
        ({"stack": ["*", "!nvidia*"]}, {}),
        ({"modules": ["open"]}, {}),
        ({"driver": ["<550"]}, {}),
        ({"driver": ["550.*"]}, {"driver": ""}),
        ({"kernel": ["<7"]}, {}),
        ({"kernel": [">=7"]}, {"identity": None}),
        ({"config": ["CONFIG_PREEMPT_RT=y"]}, {"config": {"CONFIG_PREEMPT_RT": "n"}}),
        ({"config": ["CONFIG_PREEMPT_RT=y"]}, {"config": None}),
        ({"sign": ["none"]}, {"recipe": signed("lab")}),
        ({"sign": ["none"]}, {"recipe": recipe(build=None)}),
        ({"secure_boot": "true"}, {}),
        ({"secure_boot": "false"}, {"secure_boot": True}),
        ({"device": "true"}, {}),
    ],
)
def test_a_rule_is_silent_when_one_thing_that_it_names_does_not_hold(
    named: dict[str, Any], given: dict[str, Any]
) -> None:
    assert not rule(**named).speaks_of(subject(**given))
    assert rule().speaks_of(subject(**given))


def test_a_rule_speaks_when_all_that_it_names_holds() -> None:
    everything = rule(
        stack=["nvidia*"], modules=["closed"], driver=["550.*"], kernel=[">=7"], config=["CONFIG_X=y|m"],
        sign=["none"], secure_boot="true", device="false",
    )  # fmt: skip
    assert everything.speaks_of(subject(config={"CONFIG_X": "m"}, secure_boot=True))


def test_where_modules_come_from_is_told_by_the_build() -> None:
    assert subject().modules == "closed"
    assert subject("nvidia-open@550").modules == "open"
    assert (
        subject("gpu", recipe=recipe(build=Build(method="dkms", produces=("nvidia-current-open",)))).modules == "open"
    )
    assert subject("v4l2loopback").modules == "external"
    assert subject("intree", recipe=recipe(build=None)).modules == "in-tree"


def test_a_debug_kernel_says_which_options_make_it_one() -> None:
    rules = Rules(
        debug=(DebugOption(config="CONFIG_KASAN=y", why="slow"), DebugOption(config="CONFIG_KCSAN=y", why="races"))
    )
    assert rules.debugging({"CONFIG_KASAN": "y"}) == "debug kernel: CONFIG_KASAN=y (slow)"
    assert rules.debugging({"CONFIG_KASAN": "n"}) == ""
    assert rules.debugging(None) == ""


def test_a_wrong_condition_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "debug.yaml").write_text("debug:\n  - {config: kasan is on, why: slow}\n")
    with pytest.raises(UserError, match=r"debug\.yaml:2:6: .*kernel config requirement 'kasan is on': want CONFIG_X"):
        Rules.load(tmp_path)


def test_a_folder_without_rules_says_nothing(tmp_path: Path) -> None:
    assert Rules.load(tmp_path) == Rules()
