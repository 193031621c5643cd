"""Lab boxes in a matrix file: what arrives of them, which cells they make, and what every mistake is answered with."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from harness.matrix import Known, MatrixError, load_matrix
from harness.matrix.schema import json_schema
from harness.model.cell import InstalledKernel
from harness.model.expand import expand
from harness.model.machine import LabBox
from harness.store.rows import CELL, dump_cell

KNOWN = Known(guests={"debian-13"}, stacks={"intree", "nvidia-open"}, tests={"vecadd"})
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIMz3Xe0+6e/bSruqUvHMxYDGVP4NsrsOzO/qfYIUUz6"

GOOD = f"""\
version: 1
machines:
  h100:
    guest: debian-13
    ssh: {{host: h100.lab.example, port: 2222, user: lab, key: keys/lab, known_hosts: ~/.ssh/known_hosts}}
    boot: systemd-boot
    power: [ipmitool, -H, h100-bmc, chassis, power, cycle]
    console: [conserver, h100]
    answers_within: 15m
  old:
    guest: debian-13
    ssh: {{host: 192.0.2.7, key: /keys/lab, host_key: {KEY} a comment}}
    boot: kexec
kernels:
  - {{name: lts, series: longterm, debian: bookworm}}
  - {{name: mine, series: longterm, installed: 6.12.*}}
  - {{name: odd, series: stable, installed: {{release: 7.3.4-lab, entry: "odd.conf"}}}}
guests: [debian-13, h100]
stacks: [intree]
include:
  - {{guest: old, kernel: mine, stack: intree}}
exclude:
  - {{guest: h100, kernel: lts, reason: not on the box}}
"""


def load(tmp_path: Path, text: str) -> LabBox | None:
    file = tmp_path / "matrix.yaml"
    file.write_text(text)
    return load_matrix(file, KNOWN).machine("h100")


def test_every_value_of_a_machine_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert load(tmp_path, GOOD) == LabBox(
        name="h100",
        guest="debian-13",
        host="h100.lab.example",
        boot="systemd-boot",
        key=str(tmp_path / "keys/lab"),
        known_hosts="/home/me/.ssh/known_hosts",
        port=2222,
        user="lab",
        power=("ipmitool", "-H", "h100-bmc", "chassis", "power", "cycle"),
        console=("conserver", "h100"),
        patience=900.0,
    )
    old = load_matrix(tmp_path / "matrix.yaml", KNOWN).machine("old")
    assert old == LabBox("old", "debian-13", "192.0.2.7", "kexec", "/keys/lab", host_key=KEY)
    jsonschema.validate(yaml.safe_load(GOOD), json_schema())


def test_a_machine_stands_on_the_guests_axis_and_rules_speak_of_it_by_name(tmp_path: Path) -> None:
    load(tmp_path, GOOD)
    cells = expand(load_matrix(tmp_path / "matrix.yaml", KNOWN)).cells
    assert [cell.id for cell in cells] == [
        "debian-13/lts/intree/none",
        "debian-13/mine/intree/none",
        "h100/mine/intree/none",
        "old/mine/intree/none",
        "debian-13/odd/intree/none",
        "h100/odd/intree/none",
    ]
    on_box = cells[2]
    assert on_box.guest == "debian-13"
    assert on_box.machine is not None
    assert on_box.machine.name == "h100"
    assert on_box.kernel.source == InstalledKernel("6.12.*")
    assert cells[4].kernel.source == InstalledKernel("7.3.4-lab", "odd.conf")
    # A resumed run knows the cell from the store alone.
    for cell in cells:
        assert CELL.validate_json(dump_cell(cell)) == cell


BROKEN = [
    ("unknown key", "    boot: kexec\n", "    boots: kexec\n", "13:5", "unknown key; did you mean 'boot'?"),
    ("no way to boot", "    boot: kexec\n", "", "11:5", "machines.old.boot: is missing"),
    ("another loader", "boot: kexec", "boot: lilo", "13:11", "'lilo' is not one of systemd-boot, grub, kexec"),
    ("no host key", ", known_hosts: ~/.ssh/known_hosts", "", "5:10", "names no host key, so any machine could pass"),
    ("two host keys", "host_key:", "known_hosts: a, host_key:", "12:10", "has known_hosts and host_key; keep one"),
    ("half a host key", KEY, KEY[:40], "12:54", "is cut or damaged; copy the line"),
    ("no public key", KEY, "secret", "12:54", "is not a public host key; write the line of"),
    ("no key", "key: keys/lab, ", "", "5:10", "machines.h100.ssh.key: is missing"),
    (
        "power is a line",
        "[ipmitool, -H, h100-bmc, chassis, power, cycle]",
        "ipmitool power",
        "7:12",
        "no shell reads it",
    ),
    ("power is empty", "[ipmitool, -H, h100-bmc, chassis, power, cycle]", "[]", "7:12", "is an empty list"),
    ("port", "2222", "70000", "5:41", "70000 is out of range; write 1 to 65535"),
    ("host", "h100.lab.example", "'-oProxyCommand=x'", "5:17", "is not a host name or an address"),
    ("user", "user: lab", "user: 'a b'", "5:53", "'a b' is not a login name"),
    ("patience", "15m", "soon", "9:21", "'soon' is not a duration"),
    (
        "guest of a machine",
        "    guest: debian-13\n    ssh: {host: 192",
        "    guest: debian-31\n    ssh: {host: 192",
        "11:12",
        "there is no guest 'debian-31'; did you mean 'debian-13'?",
    ),
    ("a guest's name", "  old:\n", "  debian-13:\n", "10:3", "'debian-13' is the name of a guest, too"),
    (
        "misspelt on the axis",
        "[debian-13, h100]",
        "[debian-13, h10]",
        "18:21",
        "there is no guest 'h10'; did you mean 'h100'?",
    ),
    ("include", "guest: old", "guest: odl", "21:13", "there is no guest 'odl'; did you mean 'old'?"),
    (
        "release",
        "installed: 6.12.*",
        "installed: latest",
        "16:47",
        "'latest' is not a kernel release; write what uname",
    ),
    ("no release", "{release: 7.3.4-lab, entry", "{entry", "17:44", "kernels.2.installed.release: is missing"),
    (
        "secure boot",
        "installed: 6.12.*",
        "installed: 6.12.*, secure_boot: true",
        "16:5",
        "a lab box has firmware of its own",
    ),
    (
        "two sources",
        "installed: 6.12.*",
        "installed: 6.12.*, debian: sid",
        "16:55",
        "has two sources, installed and debian",
    ),
]


@pytest.mark.parametrize(
    ("old", "new", "place", "phrase"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN]
)
def test_a_mistake_is_explained_at_its_place(tmp_path: Path, old: str, new: str, place: str, phrase: str) -> None:
    assert GOOD.count(old) == 1, old
    with pytest.raises(MatrixError) as caught:
        load(tmp_path, GOOD.replace(old, new))
    said = str(caught.value).splitlines()
    assert any(line.startswith(f"{tmp_path}/matrix.yaml:{place}: ") and phrase in line for line in said), "\n".join(
        said
    )
