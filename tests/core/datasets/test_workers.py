"""Worker processes: failures are told, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flywheel_assets.core.datasets.workers import WorkerFailed, worker_count, worker_processes


def test_results_come_in_the_order_of_the_arguments() -> None:
    with worker_processes(2) as in_order:
        assert list(in_order(divmod, ((n, 7) for n in range(50)))) == [divmod(n, 7) for n in range(50)]


def test_a_failing_task_brings_the_workers_account() -> None:
    with worker_processes(2) as in_order, pytest.raises(WorkerFailed, match="ZeroDivisionError"):
        list(in_order(divmod, [(1, 0)]))


def test_a_killed_worker_is_reported_with_what_to_do() -> None:
    with worker_processes(2) as in_order, pytest.raises(WorkerFailed, match=r"-9.*memory.*run again"):
        list(in_order(signal.raise_signal, [(signal.SIGKILL,)]))


def test_few_records_need_no_workers() -> None:
    assert worker_count(None, 100) == 0
    assert worker_count(4, 100_000) == 4
    assert worker_count(1, 100_000) == 0


def test_killing_the_parent_leaves_no_worker_behind(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = (
        "import os, pathlib, time\n"
        "from flywheel_assets.core.datasets.workers import worker_processes\n"
        "with worker_processes(2) as in_order:\n"
        f"    pathlib.Path({str(pids)!r}).write_text(' '.join(map(str, in_order(os.getpid, [()] * 8))))\n"
        "    list(in_order(time.sleep, [(0.5,)] * 1000))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    parent = subprocess.Popen([sys.executable, "-c", script], env=environment)
    _wait_until(lambda: pids.is_file() and pids.read_text() != "")
    workers = {int(pid) for pid in pids.read_text().split()}
    # A working worker ends with the chunk it works on.
    parent.kill()
    parent.wait()
    assert workers
    _wait_until(lambda: not any(_lives(pid) for pid in workers))


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _wait_until(condition: object, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
