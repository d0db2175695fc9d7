"""Run workers: nothing of them outlives `flywheel run`, at whatever moment that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

# Asks for a worker that would live for a minute, and is killed SECONDS after that.
_KILLED_RUNNER = """
import os, signal, sys, threading, time
from flywheel_assets.run_worker import FORK_SERVER, ForkedWorkers

threading.Timer(float(sys.argv[1]), os.kill, (os.getpid(), signal.SIGKILL)).start()
ForkedWorkers(None)
FORK_SERVER.Process(target=time.sleep, args=(60,)).start()
time.sleep(60)
"""
_MARK = "FLYWHEEL_TEST_MARK"


# 0.02 s: while the interpreter of the fork server starts; 0.6 s: while it imports.
@pytest.mark.parametrize("seconds", [0.02, 0.6, 1.5])
def test_a_runner_killed_while_the_fork_server_starts_leaves_no_process(seconds: float, tmp_path: Path) -> None:
    environment = {**os.environ, _MARK: str(tmp_path)}
    runner = subprocess.run([sys.executable, "-c", _KILLED_RUNNER, str(seconds)], env=environment, check=False)
    assert runner.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while (left := _marked(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, [process.cmdline() for process in left]


def _marked(mark: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(_MARK) == str(mark) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
