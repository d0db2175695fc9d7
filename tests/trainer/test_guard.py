"""The guard is tested in processes that do nothing but sleep: what they would do besides makes no difference to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

SLEEPER = """
import pathlib, sys, time
from flywheel_assets.trainer import guard
told = pathlib.Path(sys.argv[1])
guard.die_with_parent()
guard.watch(int(sys.argv[2]) if len(sys.argv) > 2 else None, lambda number: told.write_text(str(number)))
print("ready", flush=True)
{work}
"""
SWALLOWS_EVERYTHING = """
while True:
    try:
        time.sleep(60)
    except BaseException:
        pass
"""
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2]], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process_even_where_a_library_swallows_interrupts(number: signal.Signals, tmp_path: Path) -> None:
    told = tmp_path / "told"
    command = [sys.executable, "-c", SLEEPER.format(work=SWALLOWS_EVERYTHING), str(told)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(number)
        assert child.wait(5) == 128 + number
    assert told.read_text() == str(int(number))


def test_killing_the_parent_kills_the_process(tmp_path: Path) -> None:
    sleeper = SLEEPER.format(work="time.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", PARENT, sleeper, str(tmp_path / "told")], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        child.wait(5)


def test_a_process_whose_parent_died_before_it_looked_does_not_start(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SLEEPER.format(work="time.sleep(60)"), str(tmp_path / "told"), str(os.getpid() + 1)]
    start = time.monotonic()
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 128 + signal.SIGKILL
    assert time.monotonic() - start < 30
