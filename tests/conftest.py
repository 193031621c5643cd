"""What all test folders may share; a folder's own conftest comes before it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from harness.content import content_dir
from harness.errors import InfraError, UserError
from harness.images.builder import Images
from harness.images.recipe import Recipes
from harness.kernels import source_for
from harness.kernels.archive import Archive
from harness.kernels.mirror import checked_keyring, find_mirror
from harness.model.cell import DebianKernel, KernelSpec, Series
from harness.model.image import BootKernel


@pytest.fixture(scope="session", autouse=True)
def _signals_as_in_a_terminal() -> None:
    """Who starts the tests in the background has the signals ignored that many of them send, in all children, too."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _leases_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test looks at the devices that this host really lends, or takes one back."""
    os.environ["KDMATRIX_LEASES"] = str(tmp_path_factory.mktemp("leases") / "none")


@pytest.fixture(scope="session")
def shared_cache() -> Path:
    """Kept between sessions, so that kernels and images are made once: ``$KDMATRIX_TEST_CACHE`` or the user's cache."""
    named = os.environ.get("KDMATRIX_TEST_CACHE") or os.environ.get("XDG_CACHE_HOME", "~/.cache") + "/kdmatrix-tests"
    return Path(named).expanduser().absolute()


@pytest.fixture(scope="session")
def real_images(shared_cache: Path) -> Images:
    """The shipped guests with real kernels; skips where no Debian archive can be reached."""
    try:
        archive = Archive(shared_cache / "apt", find_mirror(), checked_keyring())
        archive.index("trixie")
    except (InfraError, UserError) as error:
        pytest.skip(f"no Debian archive: {error}")
    recipes = Recipes(content_dir("guests"))
    return Images(
        shared_cache,
        recipes,
        archive=lambda: archive,
        kernel_source=lambda spec, headers: source_for(spec, lambda: archive, need_headers=headers),
        tests=lambda: pytest.fail("no test of this kind needs the compute tests"),
    )


@pytest.fixture(scope="session")
def real_boot_kernel(real_images: Images) -> BootKernel:
    """Debian 13's kernel with its initramfs."""
    return real_images.boot_kernel(KernelSpec("lts", Series.LONGTERM, DebianKernel("trixie")))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests want to be seen whether they pass or not: a kill matrix, also when it was made by a worker."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, value in report.user_properties:
                if name == "shown at the end":
                    terminalreporter.section(report.nodeid)
                    terminalreporter.write_line(str(value))
