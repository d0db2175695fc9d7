"""Imported by the fork server of the run workers, and by nothing else: binds that server to `flywheel run`.

Python's fork server ends when everybody who could ask it for a process is gone, and the workers it has forked count among
those: after a `kill -9` of `flywheel run` they would keep it, and it them, alive. So it asks the kernel to die with the
process that started it. That comes before the long import, during which the process may be killed, too.
"""

import importlib
import os
from contextlib import suppress

from flywheel_assets.resources.processes import FORK_SERVER_PID, IMPORTED_ONCE, RUNNER_PID, die_with_parent

die_with_parent(int(os.environ[RUNNER_PID]))
os.environ[FORK_SERVER_PID] = str(os.getpid())
# Imported once here, so that no worker pays for it.
importlib.import_module("flywheel_assets.run_worker")
for module in os.environ.get(IMPORTED_ONCE, "").split():
    # A package that is not installed is for its user to say.
    with suppress(ImportError):
        importlib.import_module(module)
