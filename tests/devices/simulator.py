"""A simulated kernel: what writing to the files of an unfolded machine does.

Its state is the tree itself (links, ``driver_override``, directories), so several processes can act on one machine.
Semantics from drivers/base/bus.c, drivers/base/dd.c, drivers/pci/pci-driver.c, pci-sysfs.c and pci.c of the kernel:

* ``unbind`` takes a function only from the driver that has it; nothing is asked to take it then.
* A driver takes a function when ``driver_override`` names it, or is unset and the driver knows the device.
* ``drivers_probe`` asks the loaded drivers; of a function that has a driver it does nothing. ``bind`` asks one.
* ``remove`` and ``rescan`` make a function anew: without override, and its drivers are asked at once.

As a program, ``simulator.py ROOT PATH TEXT`` is one act, for :class:`harness.devices.writes.ChildWrites`.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

VFIO = "vfio-pci"
MACHINE = """\
summary: three GPUs, one with sound, one given to vfio-pci by the administrator, one without a driver
cpu: AuthenticAMD
names: no
functions:
  0000:00:01.1: {id: "1022:1453", class: "0604", name: Bridge, group: 1, driver: pcieport}
  0000:00:01.2: {id: "1022:1453", class: "0604", name: Bridge, group: 2, driver: pcieport}
  0000:01:00.0: {id: "10de:2684", class: "0300", name: AD102, under: "0000:00:01.1", group: 14, driver: nouveau,
    reset: flr bus, bars: [0 16M, 1 256M wide prefetch], link: 16.0 x16}
  0000:01:00.1: {id: "10de:22ba", class: "0403", name: Sound, under: "0000:00:01.1", group: 14, driver: snd_hda_intel,
    bars: [0 16K], link: 16.0 x16}
  0000:02:00.0: {id: "1002:73bf", class: "0300", name: Navi 21, under: "0000:00:01.2", group: 15, driver: vfio-pci,
    override: vfio-pci, reset: pm bus, bars: [0 256M wide prefetch], link: 8.0 x8}
  0000:02:00.1: {id: "1002:ab28", class: "0403", name: Sound, under: "0000:00:01.2", group: 15, driver: vfio-pci,
    override: vfio-pci, bars: [0 16K]}
  0000:03:00.0: {id: "1234:1111", class: "0380", name: Display, group: 16, bars: [0 16M]}
"""
"""Addresses of its units: 0000:01:00.0, 0000:02:00.0, 0000:03:00.0."""


class SimulatedKernel:
    """Implements :class:`harness.devices.writes.Writes` on the tree below ``root``.

    Args:
        root: an unfolded machine; what has a driver now has one that knows it, unless it has an override.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.before: Callable[[str, str], None] = lambda _act, _subject: None
        """Called with each act and its function (or module) before it takes effect; may raise in its place."""
        self.after: Callable[[str, str], None] = lambda _act, _subject: None
        self.refused_methods: set[str] = set()
        """Reset methods that are listed and not possible any more."""
        self.acts: list[tuple[str, str, str]] = []
        """(act, function, text) of every write."""
        self._boot = root / "boot.json"
        if not self._boot.exists():
            self._boot.write_text(json.dumps(self._remember()), encoding="utf-8")
            for address in self.boot:
                if self.driver(address) == VFIO:
                    self._open_vfio(address)

    @property
    def boot(self) -> dict[str, Any]:
        """What each function is like after a boot."""
        found: dict[str, Any] = json.loads(self._boot.read_text(encoding="utf-8"))
        return found

    # Writes

    def write(self, path: Path, text: str, *, timeout: float, hold: int) -> None:
        assert timeout > 0
        os.fstat(hold)  # the lock of the lease is held
        act, subject = self._parse(path, text.strip())
        self.before(act, subject)
        self.acts.append((act, subject, text.strip()))
        if not path.exists():
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        getattr(self, f"_{act}")(subject, path, text.strip())
        self.after(act, subject)

    def read(self, path: Path, *, timeout: float, hold: int) -> str:
        os.fstat(hold)
        self.before("read", path.parent.name)
        return path.read_text(encoding="ascii").strip()

    def load(self, module: str, *, timeout: float, hold: int) -> None:
        os.fstat(hold)
        self.before("load", module)
        self.make_driver(module)

    def _parse(self, path: Path, text: str) -> tuple[str, str]:
        if path.name in ("bind", "unbind"):
            return path.name, text
        if path.name in ("drivers_probe", "rescan"):
            return path.name.removeprefix("drivers_"), text
        return path.name, path.parent.name

    # What the tests ask and change

    def device(self, address: str) -> Path:
        return self.root / "sys/bus/pci/devices" / address

    def driver(self, address: str) -> str:
        link = self.device(address) / "driver"
        return link.readlink().name if link.is_symlink() else ""

    def override(self, address: str) -> str:
        text = (self.device(address) / "driver_override").read_text(encoding="ascii").strip()
        return "" if text == "(null)" else text

    def state(self) -> dict[str, tuple[str, str, str]]:
        """Driver, override and reset methods of every function that is on the bus."""
        found = {}
        for device in sorted((self.root / "sys/bus/pci/devices").iterdir()):
            methods = device / "reset_method"
            order = methods.read_text(encoding="ascii").strip() if methods.exists() else ""
            found[device.name] = (self.driver(device.name), self.override(device.name), order)
        return found

    def make_driver(self, name: str) -> None:
        """Load a driver; it takes nothing by itself."""
        folder = self.root / "sys/bus/pci/drivers" / name
        folder.mkdir(parents=True, exist_ok=True)
        for file in ("bind", "unbind"):
            (folder / file).touch()

    def fall_off(self, address: str) -> None:
        """The device does not answer any more."""
        (self.device(address) / "config").write_bytes(b"\xff" * 64)

    def recover(self, address: str) -> None:
        (self.device(address) / "config").write_bytes(bytes.fromhex(self.boot[address]["config"]))

    def hold_node(self, pid: int, command: str, node: str) -> None:
        """Have a process with a node open."""
        folder = self.root / "proc" / str(pid)
        (folder / "fd").mkdir(parents=True)
        (folder / "comm").write_text(f"{command}\n", encoding="ascii")
        (folder / "fd/3").symlink_to(node)

    def set_up(self, address: str, driver: str, override: str) -> None:
        """From the next boot on, a function is given to another driver."""
        boot = self.boot
        boot[address] |= {"driver": driver, "override": override, "known_to": [driver] if driver != VFIO else []}
        self._replace(self._boot, json.dumps(boot))

    def reboot(self) -> None:
        """Everything is as after a boot: nothing that was written to sysfs is left."""
        self._rescan("", Path(), "1")
        for address, was in self.boot.items():
            device = self.device(address)
            self._detach(address)
            (device / "driver_override").write_text(f"{was['override'] or '(null)'}\n", encoding="ascii")
            if was["reset_method"]:
                (device / "reset_method").write_text(f"{was['reset_method']}\n", encoding="ascii")
            self.recover(address)
            if was["driver"]:
                self._attach(address, was["driver"])

    # Acts

    def _driver_override(self, address: str, path: Path, text: str) -> None:
        self._replace(path, f"{text or '(null)'}\n")

    def _unbind(self, address: str, path: Path, text: str) -> None:
        if self.driver(address) != path.parent.name:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), str(path))
        self._detach(address)

    def _bind(self, address: str, path: Path, text: str) -> None:
        name = path.parent.name
        if not self.device(address).exists() or name not in self._willing(address):
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), str(path))
        if self.driver(address):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
        self._attach(address, name)

    def _probe(self, address: str, path: Path, text: str) -> None:
        if not self.device(address).exists():
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
        self._ask(address)

    def _reset_method(self, address: str, path: Path, text: str) -> None:
        if not set(text.split()) <= set(self.boot[address]["reset_method"].split()) - self.refused_methods:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
        self._replace(path, f"{text}\n")

    def _reset(self, address: str, path: Path, text: str) -> None:
        assert text == "1"

    def _reset_subordinate(self, address: str, path: Path, text: str) -> None:
        assert text == "1"

    def _remove(self, address: str, path: Path, text: str) -> None:
        assert text == "1"
        self._detach(address)
        (self.device(address)).unlink()

    def _rescan(self, address: str, path: Path, text: str) -> None:
        assert text == "1"
        for address, was in self.boot.items():
            if not self.device(address).exists():
                home = self.root / was["home"]
                self._replace(home / "driver_override", "(null)\n")
                self.device(address).symlink_to(os.path.relpath(home, self.device(address).parent))
                self._ask(address)

    # The driver core

    def _willing(self, address: str) -> list[str]:
        override = self.override(address)
        known = [override] if override else self.boot[address]["known_to"]
        return [name for name in known if (self.root / "sys/bus/pci/drivers" / name).exists()]

    def _ask(self, address: str) -> None:
        if not self.driver(address):
            for name in self._willing(address)[:1]:
                self._attach(address, name)

    def _attach(self, address: str, name: str) -> None:
        folder = self.root / "sys/bus/pci/drivers" / name
        if name == VFIO:
            self._open_vfio(address)
        link = self.device(address) / "driver"
        link.symlink_to(os.path.relpath(folder, link.resolve().parent if link.is_symlink() else link.parent.resolve()))

    def _detach(self, address: str) -> None:
        if self.driver(address) == VFIO:
            self._close_vfio(address)
        (self.device(address) / "driver").unlink(missing_ok=True)
        (self.device(address) / "power_state").write_text("unknown\n", encoding="ascii")

    def _open_vfio(self, address: str) -> None:
        number = sorted(self.boot).index(address)
        (self.device(address) / "vfio-dev" / f"vfio{number}").mkdir(parents=True, exist_ok=True)
        (self.root / "dev/vfio/devices").mkdir(parents=True, exist_ok=True)
        (self.root / f"dev/vfio/devices/vfio{number}").touch()
        (self.root / "dev/vfio" / self._group(address)).touch()

    def _close_vfio(self, address: str) -> None:
        shutil.rmtree(self.device(address) / "vfio-dev", ignore_errors=True)
        number = sorted(self.boot).index(address)
        (self.root / f"dev/vfio/devices/vfio{number}").unlink(missing_ok=True)
        group = self._group(address)
        others = [other for other in self.boot if other != address and self.device(other).exists()]
        if not any(self._group(other) == group and self.driver(other) == VFIO for other in others):
            (self.root / "dev/vfio" / group).unlink(missing_ok=True)

    def _group(self, address: str) -> str:
        return (self.device(address) / "iommu_group").readlink().name

    def _replace(self, path: Path, text: str) -> None:
        """At once, for another process may be reading."""
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        temporary.write_text(text, encoding="ascii")
        temporary.replace(path)

    def _remember(self) -> dict[str, Any]:
        found = {}
        for link in sorted((self.root / "sys/bus/pci/devices").iterdir()):
            driver, override, home = self.driver(link.name), self.override(link.name), link.resolve()
            methods = home / "reset_method"
            found[link.name] = {
                "driver": driver,
                "override": override,
                "known_to": [driver] if driver and not override else [],
                "reset_method": methods.read_text(encoding="ascii").strip() if methods.exists() else "",
                "config": (home / "config").read_bytes().hex(),
                "home": str(home.relative_to(self.root.resolve())),
            }
        return found


def main() -> None:
    root, path, text = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    kernel = SimulatedKernel(root)
    try:
        answer = "="
        if text:
            kernel.write(path, text, timeout=1.0, hold=1)
        else:
            answer += kernel.read(path, timeout=1.0, hold=1)
    except OSError as error:
        answer = str(error.errno)
    sys.stdout.write(answer)


if __name__ == "__main__":
    main()
