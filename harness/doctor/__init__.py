"""What this host can do, and how to mend what it cannot: every line names its fix.

Nothing here raises and nothing changes the host. (Whether KVM works is proved by booting a kernel, and the answer is
kept in our own cache, which a run would do as well.) Paths are below a root that tests replace.
"""

from harness.doctor.examination import Check, examine, exit_code
from harness.doctor.host import State
from harness.doctor.programs import is_static
from harness.doctor.resources import SPACE

__all__ = ["SPACE", "Check", "State", "examine", "exit_code", "is_static"]
