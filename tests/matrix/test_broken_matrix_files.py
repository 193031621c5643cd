"""Broken matrix files, one mistake each: the error names the place, says what is wrong and what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UserError
from harness.matrix import Known, MatrixError, load_matrix

KNOWN = Known(
    guests={"debian-13", "fedora-44"},
    stacks={"cpu-opencl", "intree", "nvidia-open"},
    tests={"enumerate", "vecadd", "triad"},
    repositories={"fedora-{release}", "fedora-{release}-updates", "kernel-longterm-{series}-fedora-{release}"},
)

GOOD = """\
version: 1
kernels:
  - {name: lts, series: longterm, debian: bookworm}
  - {name: rc, series: mainline, debian: experimental}
guests: [debian-13]
stacks: [cpu-opencl, intree]
"""


def swap(old: str, new: str) -> str:
    """Return the good file with one part replaced."""
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


# (name, text, line:column, phrase of the first line)
BROKEN = [
    # not YAML, or not the YAML that is read
    ("empty", "", "1:1", "the file is empty"),
    ("only comments", "# nothing\n\n# here\n", "1:1", "the file is empty"),
    ("only null", "~\n", "1:1", "the file is empty"),
    ("only a document start", "---\n", "1:1", "the file is empty"),
    ("a text", "kernels\n", "1:1", "must be a mapping of `key: value`, not 'kernels'"),
    ("a list", "- version: 1\n", "1:1", "must be a mapping of `key: value`, not a list"),
    ("tab indentation", swap("  - {name: rc", "\t- {name: rc"), "4:1", "a tab stands in the indentation"),
    ("two documents", GOOD + "---\nversion: 1\n", "7:1", "a second document starts here"),
    ("duplicate key", GOOD + "guests: [fedora-44]\n", "7:1", "duplicate key, first given at line 5"),
    ("duplicate key inside", swap("series: longterm,", "series: longterm, name: a,"), "3:35", "duplicate key"),
    ("unclosed list", swap("intree]", "intree"), "7:1", "close the list with ]"),
    ("unclosed quote", swap("bookworm}", '"bookworm}'), "3:43", "close the quote"),
    ("unclosed mapping", swap("experimental}", "experimental"), "5:7", "close the mapping with }"),
    ("colon in plain text", GOOD + "boots: a: b\n", "7:9", "quote a text that holds ': '"),
    ("reserved character", swap("[debian-13]", "[@debian]"), "5:10", "a value cannot start with '@'"),
    ("template leftovers", swap("[debian-13]", "{{ guests }}"), "5:9", "must be a list such as [a, b], not a mapping"),
    ("list as a key", GOOD + "? [a]\n: b\n", "7:3", "a list or mapping stands as a key"),
    ("bad escape", swap("bookworm", '"book\\worm"'), "3:48", "use single quotes"),
    ("bad indentation", swap("  - {name: rc", " - {name: rc"), "4:2", "not valid YAML"),
    ("python tag", swap("[debian-13]", "!!python/object:os.system [x]"), "5:9", "tags are not read"),
    ("number tag", GOOD + 'boots: !!int "1"\n', "7:8", "tags are not read"),
    ("merge key", GOOD + "limits:\n  <<: {vm_cpus: 1}\n", "8:3", "merge keys (<<) are not read"),
    ("unknown alias", swap("[debian-13]", "*guests"), "5:9", "the alias *guests has no anchor above it"),
    ("alias of itself", swap("[debian-13]", "&a [*a]"), "5:13", "stands within its own anchor"),
    ("too deep", GOOD + "boots: " + "[" * 40 + "]" * 40 + "\n", "7:40", "nested deeper than 32 levels"),
    ("control character", swap("bookworm", "book\x07worm"), "3:47", "control character U+0007"),
    ("nul", GOOD + "\x00", "7:1", "control character U+0000"),
    # shape
    ("no version", swap("version: 1\n", ""), "1:1", "version: is missing; add it"),
    ("future version", swap("version: 1", "version: 2"), "1:10", "write 1"),
    ("text version", swap("version: 1", "version: one"), "1:10", "'one' is not a version of the matrix file"),
    ("no kernels", "version: 1\nguests: [debian-13]\nstacks: [intree]\n", "1:1", "kernels: is missing"),
    ("no stacks", swap("stacks: [cpu-opencl, intree]\n", ""), "1:1", "stacks: is missing"),
    ("unknown key", GOOD + "stack: [intree]\n", "7:1", "stack: unknown key; did you mean 'stacks'?"),
    ("unknown kernel key", swap("series: longterm", "serie: longterm"), "3:17", "did you mean 'series'?"),
    ("unknown debian key", swap("bookworm", "{suit: bookworm}"), "3:44", "kernels.0.debian.suit: unknown key"),
    ("unknown timeout", GOOD + "timeouts: {bot: 3m}\n", "7:12", "timeouts.bot: unknown key; did you mean 'boot'?"),
    ("unknown limit", GOOD + "limits: {memory: 1GiB}\n", "7:10", "did you mean 'vm_memory'?"),
    (
        "kernels is a text",
        GOOD.replace(GOOD[11:-49], "kernels: lts\n"),
        "2:10",
        "must be a list such as [a, b], not 'lts'",
    ),
    ("kernel is a text", swap("{name: lts, series: longterm, debian: bookworm}", "lts"), "3:5", "must be a mapping"),
    ("guests is a text", swap("[debian-13]", "debian-13"), "5:9", "must be a list such as [a, b], not 'debian-13'"),
    ("guest is a mapping", swap("[debian-13]", "[name: debian-13]"), "5:10", "must be a single text, not a mapping"),
    ("empty stacks", swap("[cpu-opencl, intree]", "[]"), "6:9", "is an empty list"),
    ("empty kernels", GOOD.replace(GOOD[11:-49], "kernels: []\n"), "2:10", "is an empty list"),
    ("null guests", swap("guests: [debian-13]", "guests:"), "5:8", "has no value (YAML reads null)"),
    ("null cmdline", swap("debian: bookworm", "debian: bookworm, cmdline: ~"), "3:62", "has no value"),
    ("series typo", swap("longterm", "longtrem"), "3:25", "did you mean 'longterm'?"),
    ("series unknown", swap("longterm", "vendor"), "3:25", "not one of longterm, stable, mainline, linux-next"),
    ("no source", swap(", debian: bookworm", ""), "3:5", "has no source; add `debian: SUITE` or `tree: DIRECTORY`"),
    ("two sources", swap("bookworm", "bookworm, tree: ~/linux"), "3:53", "has two sources"),
    ("debian is a list", swap("bookworm", "[bookworm]"), "3:43", "must be a mapping of `key: value`, not a list"),
    ("suite name", swap("bookworm", "Debian 12"), "3:43", "is not a Debian suite"),
    ("kernel version", swap("bookworm", "{suite: sid, version: latest}"), "3:65", "not an upstream kernel version"),
    (
        "kernel release",
        swap("bookworm", "{suite: sid, release: newest}"),
        "3:65",
        "is not a kernel release; write latest",
    ),
    # sources other than Debian
    (
        "source key misspelt",
        swap("debian: bookworm", "rpn: fedora-44"),
        "3:5",
        "or one of rpm, koji, ubuntu",
    ),
    (
        "two new sources",
        swap("debian: bookworm", "rpm: fedora-44, koji: kernel-7.3.4-200.fc44"),
        "3:51",
        "rpm and koji",
    ),
    (
        "rpm repository",
        swap("debian: bookworm", "rpm: fedora-44-update"),
        "3:40",
        "no RPM repository 'fedora-44-update'; did you mean 'fedora-{release}-updates'?",
    ),
    ("rpm repository in a mapping", swap("debian: bookworm", "rpm: {repository: centos}"), "3:53", "no RPM repository"),
    ("rpm key", swap("debian: bookworm", "rpm: {repositry: fedora-44}"), "3:41", "did you mean 'repository'?"),
    ("rpm blank", swap("debian: bookworm", "rpm: '/a b'"), "3:40", "is not an RPM repository"),
    (
        "rpm package",
        swap("debian: bookworm", "rpm: {repository: fedora-44, package: linux}"),
        "3:73",
        "kernel-longterm",
    ),
    ("rpm version", swap("debian: bookworm", "rpm: {repository: fedora-44, version: x}"), "3:73", "write 6.12"),
    ("koji package", swap("debian: bookworm", "koji: kernel-7.3.4-200.fc44.x86_64"), "3:41", "without architecture"),
    ("koji name", swap("debian: bookworm", "koji: kernel"), "3:41", "is not the NVR of a build"),
    ("ubuntu suite", swap("debian: bookworm", "ubuntu: 24.04"), "3:43", "is not an Ubuntu suite"),
    (
        "ubuntu nowhere",
        swap("debian: bookworm", "ubuntu: {flavour: generic}"),
        "3:43",
        "needs one of suite and mainline",
    ),
    (
        "ubuntu twice",
        swap("debian: bookworm", "ubuntu: {suite: noble, mainline: latest}"),
        "3:43",
        "needs one of suite and mainline",
    ),
    ("ubuntu mainline", swap("debian: bookworm", "ubuntu: {mainline: 7.2}"), "3:54", "write latest, or v7.2.5"),
    (
        "ubuntu mainline with a release",
        swap("debian: bookworm", "ubuntu: {mainline: latest, release: 7.2.5}"),
        "3:43",
        "release does not go with mainline",
    ),
    ("packages of nothing", swap("debian: bookworm", "packages: []"), "3:45", "is an empty list"),
    ("packages of another kind", swap("debian: bookworm", "packages: [a.deb, b.tar]"), "3:53", "is not a package file"),
    ("source of nothing", swap("debian: bookworm", "source: {base: vm}"), "3:43", "names no origin; add tarball"),
    (
        "source of two origins",
        swap("debian: bookworm", "source: {tarball: a.tar, debian: sid}"),
        "3:43",
        "has tarball and debian; keep one of them",
    ),
    ("source as a text", swap("debian: bookworm", "source: sid"), "3:43", "must be a mapping of `key: value`"),
    (
        "source key",
        swap("debian: bookworm", "source: {debian: sid, fragment: nova}"),
        "3:57",
        "did you mean 'fragments'?",
    ),
    ("source git", swap("debian: bookworm", "source: {git: {path: ~/linux}}"), "3:49", "source.git.ref: is missing"),
    ("source git key", swap("debian: bookworm", "source: {git: {path: l, rev: a}}"), "3:59", "unknown key"),
    ("source guest", swap("debian: bookworm", "source: {debian: sid, guest: debian-14}"), "3:64", "there is no guest"),
    ("source version", swap("debian: bookworm", "source: {tarball: a, version: 7.3}"), "3:43", "goes with debian only"),
    ("secure boot", swap("bookworm", "bookworm, secure_boot: yes"), "3:66", "'yes' is neither true nor false"),
    ("kernel name", swap("lts", "LTS 6.1"), "3:12", "is not a name: lower-case letters"),
    ("kernel name with a slash", swap("lts", "lts/6.1"), "3:12", "did you mean 'lts-6.1'?"),
    ("kernel name with two underscores", swap("lts", "l__ts"), "3:12", "holds '__'"),
    ("kernel name that starts with a dash", swap("lts", "'-lts'"), "3:12", "did you mean 'lts'?"),
    ("multi-line cmdline", swap("bookworm", 'bookworm, cmdline: "a\\nb"'), "3:62", "holds a line break"),
    ("blank cmdline", swap("bookworm", "bookworm, cmdline: ' '"), "3:62", "is blank"),
    ("zero boots", GOOD + "boots: 0\n", "7:8", "boots: 0 is out of range; write 1 to 1000"),
    ("negative boots", GOOD + "boots: -1\n", "7:8", "'-1' is not a whole number"),
    ("boots is a text", GOOD + "boots: twice\n", "7:8", "'twice' is not a whole number"),
    ("boots with a fraction", GOOD + "boots: 1.0\n", "7:8", "'1.0' is not a whole number"),
    ("boots in another base", GOOD + "boots: 1_0\n", "7:8", "'1_0' is not a whole number"),
    ("boots is true", GOOD + "boots: true\n", "7:8", "'true' is not a whole number"),
    ("boots is a list", GOOD + "boots: [1]\n", "7:8", "must be a whole number"),
    ("duration", GOOD + "timeouts: {boot: 2 minutes}\n", "7:18", "write 90s, 5m, 1h, 1h30m"),
    ("duration of nothing", GOOD + "timeouts: {boot: 0s}\n", "7:18", "is out of range"),
    ("duration too long", GOOD + "timeouts: {boot: 30d}\n", "7:18", "at most 7d"),
    ("negative duration", GOOD + "timeouts: {boot: -5s}\n", "7:18", "is not a duration"),
    ("endless duration", GOOD + "timeouts: {boot: .inf}\n", "7:18", "is not a duration"),
    ("memory without a unit", GOOD + "limits: {vm_memory: 1024}\n", "7:21", "write 512MiB or 1GiB"),
    ("memory in gigabytes", GOOD + "limits: {vm_memory: 2GB}\n", "7:21", "did you mean 2GiB?"),
    ("memory too small", GOOD + "limits: {vm_memory: 4MiB}\n", "7:21", "at least 128MiB"),
    ("vms", GOOD + "limits: {vms: many}\n", "7:15", "must be auto or a whole number from 1 to 256"),
    ("vms is zero", GOOD + "limits: {vms: 0}\n", "7:15", "is out of range"),
    ("short PCI address", GOOD + "devices: [01:00.0]\n", "7:11", "did you mean 0000:01:00.0?"),
    ("upper-case PCI address", GOOD + "devices: [0000:AF:00.0]\n", "7:11", "did you mean 0000:af:00.0?"),
    ("no PCI address", GOOD + "devices: [gpu0]\n", "7:11", "write none, or an address such as 0000:01:00.0"),
    ("device that is neither", GOOD + "devices: [{name: g, vendor: nvidea}]\n", "7:29", "did you mean 'nvidia'?"),
    ("device without a name", GOOD + "devices: [{vendor: amd}]\n", "7:11", "add name: gpu"),
    ("device called none", GOOD + "devices: [{name: none, vendor: amd}]\n", "7:18", "give the request another name"),
    (
        "address and criterion",
        GOOD + "devices: [{address: '0000:01:00.0', vendor: amd}]\n",
        "7:11",
        "an address names one device",
    ),
    ("address and a link", GOOD + "devices: [{address: '0000:01:00.0', nvlink: true}]\n", "7:11", "leave nvlink out"),
    ("no PCI numbers", GOOD + "devices: [{name: g, id: '10DE:2330'}]\n", "7:25", "for example 10de:2330"),
    ("contradiction", GOOD + "devices: [{name: g, vendor: amd, id: '10de:2330'}]\n", "7:11", "not a device of amd"),
    ("too many devices", GOOD + "devices: [{name: g, vendor: amd, count: 17}]\n", "7:41", "write 1 to 16"),
    ("memory without unit", GOOD + "devices: [{name: g, memory: 80G}]\n", "7:29", "did you mean 80GiB?"),
    ("two kinds of a part", GOOD + "devices: [{name: g, mdev: x, virtual: true}]\n", "7:11", "keep one of the two"),
    ("a display beside nothing", GOOD + "devices: [{address: none, display: true}]\n", "7:11", "write none alone"),
    ("display by its model", GOOD + "devices: [{name: g, vendor: amd, display: vga}]\n", "7:43", "true or false"),
    (
        "two devices of one name",
        GOOD + "devices: [{name: g, vendor: amd}, {name: g, id: '10de:2330'}]\n",
        "7:42",
        "stands twice",
    ),
    (
        "preset of an unknown device",
        GOOD + "devices: [{name: card, vendor: amd}]\npresets:\n  p: {devices: [crad]}\n",
        "9:17",
        "did you mean 'card'?",
    ),
    ("PCI function out of range", GOOD + "devices: [0000:01:00.9]\n", "7:11", "is not a device"),
    # references
    ("unknown guest", swap("debian-13", "debian-31"), "5:10", "no guest 'debian-31'; did you mean 'debian-13'?"),
    ("a guest that YAML 1.1 calls false", swap("debian-13", "no"), "5:10", "there is no guest 'no'; known: debian-13"),
    ("unknown stack", swap("intree", "intre"), "6:22", "there is no stack 'intre'; did you mean 'intree'?"),
    ("unknown test", GOOD + "tests: [vecad]\n", "7:9", "there is no test 'vecad'; did you mean 'vecadd'?"),
    ("unknown tier", GOOD + "tests: {tier: 4}\n", "7:15", "tests.tier: 4 is out of range; write 1 to 3"),
    ("a tier that is no number", GOOD + "tests: {tier: two}\n", "7:15", "tests.tier:"),
    ("a misspelt tier", GOOD + "tests: {teir: 2}\n", "7:9", "unknown key; did you mean 'tier'?"),
    ("no tier", GOOD + "tests: {}\n", "7:8", "tests.tier: is missing"),
    ("a list of tests in tests", GOOD + "tests: [[vecadd]]\n", "7:9", "tests.0: must be a single text, not a list"),
    ("no tests", GOOD + "tests: []\n", "7:8", "tests: is an empty list"),
    ("a tier of a preset", GOOD + "presets: {n: {tests: {tier: 0}}}\n", "7:29", "presets.n.tests.tier:"),
    ("all among others", GOOD + "tests: [all, vecadd]\n", "7:9", "there is no test 'all'"),
    ("duplicate kernel", swap("name: rc", "name: lts"), "4:12", "'lts' stands twice, first at line 3"),
    ("duplicate guest", swap("[debian-13]", "[debian-13, debian-13]"), "5:21", "stands twice"),
    ("duplicate device", GOOD + "devices: [none, none]\n", "7:17", "stands twice"),
    ("duplicate test", GOOD + "tests: [triad, triad]\n", "7:16", "stands twice"),
    # rules
    ("exclude without reason", GOOD + "exclude:\n  - {kernel: rc}\n", "8:5", "exclude.0.reason: is missing"),
    ("exclude without axis", GOOD + "exclude:\n  - {reason: x}\n", "8:5", "names no axis"),
    ("exclude is a mapping", GOOD + "exclude: {kernel: rc, reason: x}\n", "7:10", "must be a list"),
    ("exclude key", GOOD + "exclude:\n  - {kernels: rc, reason: x}\n", "8:5", "names no axis"),
    ("exclude kernel", GOOD + "exclude:\n  - {kernel: rx, reason: x}\n", "8:14", "matches no kernel of this file"),
    ("exclude glob", GOOD + "exclude:\n  - {kernel: 'tls*', reason: x}\n", "8:14", "matches no kernel of this file"),
    ("exclude in a list", GOOD + "exclude:\n  - {stack: [intree, cuda], reason: x}\n", "8:22", "matches no stack"),
    ("exclude device", GOOD + "exclude:\n  - {device: '0000:*', reason: x}\n", "8:14", "matches no device"),
    ("exclude everything", GOOD + "exclude:\n  - {kernel: '*', reason: x}\n", "2:1", "no cell is left"),
    (
        "exclude what is nowhere together",
        GOOD
        + "include:\n  - {kernel: lts, stack: nvidia-open}\n"
        + "exclude:\n  - {kernel: rc, stack: nvidia-open, reason: x}\n",
        "10:5",
        "matches no combination",
    ),
    ("include that does nothing", GOOD + "include:\n  - {kernel: rc}\n", "8:5", "changes nothing"),
    ("include of an unknown stack", GOOD + "include:\n  - {stack: cuda}\n", "8:13", "there is no stack 'cuda'"),
    ("include of an unknown kernel", GOOD + "include:\n  - {kernel: lst, boots: 2}\n", "8:14", "did you mean 'lts'?"),
    ("include of a bad device", GOOD + "include:\n  - {device: 1:0.0}\n", "8:14", "'1:0.0' is not a device"),
    ("include of an unknown test", GOOD + "include:\n  - {kernel: rc, tests: [x]}\n", "8:26", "there is no test 'x'"),
    ("include glob", GOOD + "include:\n  - {stack: 'cuda*', boots: 2}\n", "8:13", "matches no stack of this file"),
    ("include timeouts", GOOD + "include:\n  - {kernel: rc, timeouts: {boots: 3}}\n", "8:29", "did you mean 'boot'?"),
    # presets
    ("preset kernel", GOOD + "presets:\n  q: {kernels: [rcc]}\n", "8:17", "no kernel 'rcc'; did you mean 'rc'?"),
    ("preset stack", GOOD + "presets:\n  q: {stacks: [rocm]}\n", "8:16", "there is no stack 'rocm'"),
    ("preset key", GOOD + "presets:\n  q: {kernel: [rc]}\n", "8:7", "did you mean 'kernels'?"),
    ("preset name", GOOD + "presets:\n  Quick: {boots: 1}\n", "8:3", "'Quick' is not a name"),
    ("preset list", GOOD + "presets:\n  - quick\n", "8:3", "must be a mapping"),
    ("preset duplicate", GOOD + "presets:\n  q: {boots: 1}\n  q: {boots: 2}\n", "9:3", "duplicate key"),
    (
        "preset without cells",
        GOOD + "exclude:\n  - {kernel: rc, reason: x}\npresets:\n  q: {kernels: [rc]}\n",
        "10:3",
        "no cell is left",
    ),
]


@pytest.mark.parametrize(("text", "place", "phrase"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_a_broken_file_is_explained_at_its_place(tmp_path: Path, text: str, place: str, phrase: str) -> None:
    file = tmp_path / "matrix.yaml"
    file.write_bytes(text.encode())
    with pytest.raises(UserError) as caught:
        load_matrix(file, KNOWN)
    assert isinstance(caught.value, MatrixError)
    first = str(caught.value).splitlines()[0]
    assert first.startswith(f"{file}:{place}: "), str(caught.value)
    assert phrase in first, str(caught.value)
    # Nothing chains behind it: a user sees these lines and no traceback of the parser or of pydantic.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_there_are_plenty_of_broken_files_and_the_good_one_is_good(tmp_path: Path) -> None:
    assert len({case[0] for case in BROKEN}) == len(BROKEN) >= 50
    file = tmp_path / "matrix.yaml"
    file.write_text(GOOD)
    load_matrix(file, KNOWN)
