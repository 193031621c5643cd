"""Stanzas and relations of a package index are read as Debian policy defines them."""

from __future__ import annotations

import pytest

from harness.kernels.packages import Package, PackageSet, Relation, parse_depends, parse_linux_packages

DIGEST = "ab" * 32
INDEX = f"""Package: hello
Version: 1
Architecture: amd64
SHA256: {DIGEST}

Package: linux-image-6.1.0-50-amd64
Source: linux-signed-amd64 (6.1+1)
Version: 6.1.176-1
Architecture: amd64
Pre-Depends: linux-base (>= 4.12~)
Depends: kmod,
 initramfs-tools (>= 0.120) | linux-initramfs-tool
Size: 12
SHA256: {DIGEST.upper()}

Package: linux-nodigest
Version: 1
Architecture: amd64

Package: linux-outside
Version: 1/../../etc
Architecture: amd64
SHA256: {DIGEST}
"""


def test_only_linux_packages_with_a_digest_and_a_plain_version_are_taken() -> None:
    (package,) = parse_linux_packages(INDEX.encode())
    assert package.name == "linux-image-6.1.0-50-amd64"
    assert package.version == "6.1.176-1"
    assert (package.size, package.sha256) == (12, DIGEST)
    assert package.filename == "linux-image-6.1.0-50-amd64_6.1.176-1_amd64.deb"


def test_folded_fields_and_pre_depends_count_as_dependencies() -> None:
    (package,) = parse_linux_packages(INDEX.encode())
    assert [[str(one) for one in group] for group in parse_depends(package.depends)] == [
        ["linux-base (>= 4.12~)"],
        ["kmod"],
        ["initramfs-tools (>= 0.120)", "linux-initramfs-tool"],
    ]


def test_an_epoch_is_escaped_in_the_file_name() -> None:
    assert Package("linux-x", "1:2-3", "all", "", 0, DIGEST).filename == "linux-x_1%3a2-3_all.deb"


@pytest.mark.parametrize(
    ("constraint", "accepted"), [("<< 2", False), ("<= 2", True), ("= 2", True), (">= 2~", True), (">> 2", False)]
)
def test_each_operator_means_what_policy_says(constraint: str, accepted: bool) -> None:
    ((relation,),) = parse_depends(f"linux-base:any ({constraint})")
    assert relation.name == "linux-base"
    assert relation.accepts("2") is accepted


def test_the_newest_satisfying_version_is_chosen() -> None:
    packages = PackageSet(Package("linux-x", version, "all", "", 0, DIGEST) for version in ("9-1", "10-1", "11-1"))
    assert [package.version for package in packages.versions("linux-x")] == ["11-1", "10-1", "9-1"]
    chosen = packages.satisfying(Relation("linux-x", "<<", "11"))
    assert chosen is not None
    assert chosen.version == "10-1"
    assert packages.satisfying(Relation("linux-y")) is None
