from __future__ import annotations

import pytest

from harness.drivers.compiler import compiler_of
from harness.errors import InfraError


@pytest.mark.parametrize(
    ("text", "package"),
    [
        ("gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0", "gcc-12"),
        ("x86_64-linux-gnu-gcc-16 (Debian 16.2.0-4) 16.2.0", "gcc-16"),
        ("x86_64-linux-gnu-gcc-13 (Ubuntu 13.3.0-6ubuntu2~24.04) 13.3.0", "gcc-13"),
        ("gcc (GCC) 15.2.1 20251022 (Red Hat 15.2.1-3)", "gcc-15"),
        ("Debian clang version 19.1.7 (3+b1)", "clang-19"),
        ("clang version 20.1.8 (Fedora 20.1.8-4.fc43)", "clang-20"),
    ],
)
def test_the_compiler_is_read_from_the_configuration_of_every_distribution(text: str, package: str) -> None:
    compiler = compiler_of(f'CONFIG_X=y\nCONFIG_CC_VERSION_TEXT="{text}"\nCONFIG_CC_IS_GCC=y\n')
    assert (compiler.package, compiler.text) == (package, text)


def test_a_configuration_that_names_no_compiler_is_trouble_and_not_a_guess() -> None:
    with pytest.raises(InfraError, match="does not name its compiler"):
        compiler_of("CONFIG_GCC_VERSION=80300\n")
