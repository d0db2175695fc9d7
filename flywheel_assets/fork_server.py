"""Imported by the fork server of the run workers, and by nothing else: binds that server to `flywheel run`.

Python's fork server ends when everybody who could ask it for a process is gone, and the workers it has forked count among
those: after a `kill -9` of `flywheel run` they would keep it, and it them, alive. So it asks the kernel to die with the
process that started it.
"""

import os

import flywheel_assets.run_worker  # noqa: F401  # imported once here, so that no worker pays for it
from flywheel_assets.resources.processes import die_with_parent

die_with_parent(os.getppid())
