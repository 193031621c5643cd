"""A shell script that boots one cell's VM again and runs its commands, without this tool.

Whoever has to fix what a cell found gets a file that needs ``sh``, QEMU, OpenSSH and ``cpio``, and that shows every
command. The VM is the one of :mod:`harness.machines.domain`.
"""

from harness.repro.boot import Boot, boot_of
from harness.repro.qemu import qemu_argv
from harness.repro.recorded import recorded_domain, script_for
from harness.repro.writing import script

__all__ = ["Boot", "boot_of", "qemu_argv", "recorded_domain", "script", "script_for"]
