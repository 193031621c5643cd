from __future__ import annotations

from harness.drivers.prove import complaint
from harness.drivers.result import ModuleFile

RELEASE = "6.12.107+deb13-amd64"


def module(name: str = "nvidia-current", release: str = RELEASE) -> ModuleFile:
    return ModuleFile(name, "0" * 64, f"{release} SMP preempt mod_unload modversions ")


def test_modules_that_are_there_and_made_for_the_kernel_prove_the_build() -> None:
    assert complaint([module(), module("nvidia_current_drm")], ["nvidia-current", "nvidia-current-drm"], RELEASE) == ""


def test_a_promised_module_that_is_not_there_disproves_it() -> None:
    said = complaint([module()], ["nvidia-current", "nvidia-current-uvm"], RELEASE)
    assert said == "the build ended well without nvidia-current-uvm; modules that it made: nvidia-current"


def test_a_module_made_for_another_kernel_disproves_it() -> None:
    said = complaint([module(release="6.12.107+deb13-rt-amd64")], ["nvidia-current"], RELEASE)
    assert said == f"nvidia-current is made for 6.12.107+deb13-rt-amd64, not for {RELEASE}"


def test_a_file_without_vermagic_is_no_module_of_any_kernel() -> None:
    assert "no kernel at all" in complaint([ModuleFile("a", "0", "")], ["a"], "6.1")
