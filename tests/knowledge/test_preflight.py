"""What is predicted for a cell, by the shipped rules and issues where these are what matters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.content import content_dir
from harness.images.recipe import Build
from harness.knowledge.diagnosis import Knowledge
from harness.model.outcome import Outcome
from harness.model.prediction import Prediction
from harness.model.stage import Stage
from knowledge.subjects import kernel, recipe, subject
from knowledge.test_headers import BEFORE, RESIZED, headers

KNOWN = Knowledge.load(content_dir("guests"))
FAIL, SKIP, MISS, PASS = Outcome.FAIL, Outcome.SKIP, Outcome.MISS, Outcome.PASS


def predicted(*words: str, **more: Any) -> list[tuple[Stage, Outcome, str]]:
    found = KNOWN.predict(subject(*words, **more))
    return [(one.stage, one.outcome, one.source) for one in found]


def test_nothing_is_predicted_where_nothing_speaks_against_a_pair() -> None:
    assert predicted(version="6.12.107-1") == []
    assert predicted("acpi-call", "1.2.2", "7.3.4-1") == []


def test_the_revision_of_a_package_decides() -> None:
    issue = (Stage.BUILD, FAIL, "known issue ki-015-fb-create")
    assert issue in predicted(driver="550.163.01", version="6.17.13-1")
    assert issue in predicted(driver="550.163.01-2", version="6.17.13-1")
    assert predicted(driver="550.163.01-4~bpo13+1", version="6.17.13-1") == [issue]
    assert predicted(driver="550.163.01-4", version="6.17.13-1") == []


def test_a_backport_into_a_longterm_kernel_hits_the_open_modules_only() -> None:
    issue = (Stage.BUILD, FAIL, "known issue ki-013-pci-resize-resource")
    assert predicted("nvidia-open@550", version="6.12.107-1") == [issue]
    assert predicted("nvidia-open@550", version="6.12.96-1") == []
    assert predicted("nvidia@550", version="6.12.107-1") == []


def test_headers_know_better_than_versions(tmp_path: Path) -> None:
    new, old = headers(tmp_path / "new", pci=RESIZED), headers(tmp_path / "old", pci=BEFORE)
    seen = (Stage.BUILD, FAIL, "headers ki-013-pci-resize-resource")
    assert seen in predicted("nvidia-open@550", version="6.12.96-1", headers=new)
    sources = [source for _, _, source in predicted("nvidia-open@550", version="6.12.107-1", headers=old)]
    assert not any("ki-013" in source for source in sources)


def test_an_excluded_kernel_is_a_skip_and_no_failure_is_predicted_behind_it() -> None:
    config = {"CONFIG_PREEMPT_RT": "y", "CONFIG_MODULES": "y"}
    wants = recipe(requires=("CONFIG_PREEMPT_RT!=y",))
    found = KNOWN.predict(subject(config=config, recipe=wants))
    assert {(one.stage, one.outcome) for one in found} == {(Stage.BUILD, SKIP)}
    assert {one.source for one in found} == {"requires", "rule preempt-rt-nvidia"}
    assert "the stack requires: CONFIG_PREEMPT_RT!=y wanted, is y" in {one.reason for one in found}


def test_missing_headers_are_the_labs_gap() -> None:
    found = predicted(identity=kernel("6.16.3-1", has_headers=False))
    assert (Stage.BUILD, MISS, "headers") in found
    assert not any(outcome is FAIL for _, outcome, _ in found)
    assert predicted(recipe=recipe(build=None), identity=kernel("6.16.3-1", has_headers=False)) == []


@pytest.mark.parametrize(
    ("sign", "secure_boot", "config", "rule"),
    [
        ("none", True, {"CONFIG_SECURITY_LOCKDOWN_LSM": "y"}, "unsigned-secure-boot-lockdown"),
        ("stranger", True, {"CONFIG_SECURITY_LOCKDOWN_LSM": "y"}, "stranger-secure-boot-lockdown"),
        ("lab", True, {"CONFIG_SECURITY_LOCKDOWN_LSM": "y"}, ""),
        ("none", False, {"CONFIG_SECURITY_LOCKDOWN_LSM": "y"}, ""),
        ("none", False, {"CONFIG_MODULE_SIG_FORCE": "y"}, "signature-forced"),
        ("lab", False, {"CONFIG_MODULE_SIG_FORCE": "y"}, "lab-key-without-secure-boot"),
        ("none", False, {"CONFIG_LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY": "y"}, "lockdown-forced-confidentiality"),
    ],
)
def test_signatures_that_the_kernel_will_refuse(
    sign: str, secure_boot: bool, config: dict[str, str], rule: str
) -> None:
    modules = recipe(build=Build(method="dkms", produces=("nvidia-current",), sign=sign))
    found = predicted(
        version="6.12.107-1", recipe=modules, secure_boot=secure_boot, config={"CONFIG_MODULE_SIG": "y"} | config
    )
    assert found == ([(Stage.LOAD, FAIL, f"rule {rule}")] if rule else [])


def test_nova_needs_a_kernel_that_is_built_for_it() -> None:
    nova = recipe(build=None)
    plain = {"CONFIG_DRM": "m", "CONFIG_NOVA_CORE": "n"}
    assert {source for _, _, source in predicted("nova", "", recipe=nova, config=plain)} == {
        "rule drm-module-nova",
        "rule no-nova",
    }
    enabled = {"CONFIG_DRM": "y", "CONFIG_NOVA_CORE": "m", "CONFIG_DRM_NOVA": "m"}
    assert predicted("nova", "", recipe=nova, config=enabled) == []


def test_a_rival_that_is_built_in_matters_where_there_is_a_device() -> None:
    rival = {"CONFIG_NOVA_CORE": "y"}
    assert predicted(version="6.12.107-1", config=rival) == []
    assert predicted(version="6.12.107-1", config=rival, device="10de:2684") == [
        (Stage.LOAD, FAIL, "rule nova-core-built-in-rival")
    ]


@pytest.mark.parametrize(
    ("toolkit", "driver", "device", "outcome"),
    [
        ("13.0", "550.163.01-2", "none", SKIP),
        ("12.4", "470.256.02-10", "none", SKIP),
        ("12.8", "550.163.01-2", "10de:2684", PASS),
        ("12.8", "550.163.01-2", "none", None),
        ("12.4", "550.163.01-2", "10de:2684", None),
        ("99.9", "470.256.02-10", "10de:2684", None),
    ],
)
def test_a_toolkit_meets_its_driver(toolkit: str, driver: str, device: str, outcome: Outcome | None) -> None:
    found = KNOWN.predict(
        subject(driver=driver, version="6.12.107-1", device=device, recipe=recipe(floors={"cuda": toolkit}))
    )
    assert [one.outcome for one in found if one.stage is Stage.COMPUTE] == ([outcome] if outcome else [])
    assert all(one.reason.startswith("cuda_floor: ") for one in found if one.outcome is SKIP)


def test_a_driver_floor_of_the_recipe_is_kept() -> None:
    wants = recipe(floors={"driver": "525.60.13"})
    assert predicted(driver="470.256.02-10", version="6.12.107-1", recipe=wants) == [(Stage.COMPUTE, SKIP, "floors")]
    assert predicted(driver="550.163.01-2", version="6.12.107-1", recipe=wants) == []


def test_a_debug_kernel_is_kept_out_of_throughput_and_nothing_else() -> None:
    found = KNOWN.predict(subject(version="6.12.107-1", config={"CONFIG_KASAN": "y"}))
    reason = "debug kernel: CONFIG_KASAN=y (every access to memory is checked)"
    assert found == (Prediction(Stage.THROUGHPUT, SKIP, reason, "debug kernel"),)


def test_what_shows_sometimes_or_needs_another_device_is_not_predicted() -> None:
    assert predicted("nvidia", "580.126.09", "6.18.10-1") == []
    hmm = {"driver": "570.86.16", "version": "6.13.4-1", "config": {"CONFIG_DEVICE_PRIVATE": "y"}}
    enumerate_fails = (Stage.ENUMERATE, FAIL, "known issue ki-029-uvm-hmm")
    assert enumerate_fails not in predicted("nvidia-open", **hmm)
    assert enumerate_fails not in predicted("nvidia-open", **hmm, device="8086:56a0")
    assert enumerate_fails in predicted("nvidia-open", **hmm, device="10de:2684")
