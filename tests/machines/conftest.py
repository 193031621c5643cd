"""A libvirt daemon for the tests of machines: private, and gone with the session."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import InfraError
from harness.machines.daemon import PrivateDaemon
from harness.machines.hypervisor import Hypervisor


@pytest.fixture(scope="session")
def hypervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hypervisor]:
    """A daemon of our own for root, whatever else runs on this host; the session daemon for other users."""
    pytest.importorskip("libvirt")
    daemon = PrivateDaemon(tmp_path_factory.mktemp("libvirt")) if os.geteuid() == 0 else None
    patch = pytest.MonkeyPatch()
    try:
        if daemon is not None:
            daemon.ensure()
        patch.setenv("KDMATRIX_LIBVIRT_URI", daemon.uri if daemon else "qemu:///session")
        with Hypervisor.connect(Path("/nowhere")) as connected:
            yield connected
    except InfraError as error:
        pytest.skip(f"no libvirt here: {error}")
    finally:
        patch.undo()
        if daemon is not None:
            daemon.stop()
            shutil.rmtree(daemon.socket_dir, ignore_errors=True)
