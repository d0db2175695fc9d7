"""Run workers: nothing of them outlives `flywheel run`, at whatever moment that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from dagster import DagsterRunStatus

from flywheel_assets.cli_errors import UserError
from flywheel_assets.run_worker import ForkedWorkers
from tests.e2e.clone import Clone
from tests.e2e.own_traffic import write_ticket_records
from tests.fakes import Fault, Message, OpenAIDouble

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
_LOOKING_RUNNER = """
import sys
from flywheel_assets.run_worker import FORK_SERVER, ForkedWorkers

ForkedWorkers(None, imports=("wave", "no_such_package"))
worker = FORK_SERVER.Process(target=exec, args=("import sys; sys.exit(0 if 'wave' in sys.modules else 3)",))
worker.start()
worker.join(60)
sys.exit(worker.exitcode)
"""


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


def test_a_folder_for_temporary_files_too_long_for_sockets_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = "/" + "x" * 74
    monkeypatch.setattr(tempfile, "tempdir", longest)
    ForkedWorkers(None)
    monkeypatch.setattr(tempfile, "tempdir", longest + "x")
    with pytest.raises(UserError, match="TMPDIR=/tmp"):
        ForkedWorkers(None)


def test_what_runs_need_besides_is_imported_once_for_all_of_them() -> None:
    assert subprocess.run([sys.executable, "-c", _LOOKING_RUNNER], check=False, timeout=120).returncode == 0


def test_ctrl_c_ends_a_turn_and_its_runs_are_cancelled_not_failed(tmp_path: Path) -> None:
    clone = Clone.make(tmp_path / "clone")
    with OpenAIDouble(always=Fault(delay_s=60)) as double:
        remote = {"id": "remote", "model": double.url, "engine": "openai", "trainable": False}
        clone.edit(lambda content: content.update(candidates=[remote]))
        clone.flywheel("ingest", str(write_ticket_records(tmp_path / "my.jsonl", 80, workload="tickets")))
        with (tmp_path / "said").open("w") as said, clone.start("run", stdout=said, stderr=said) as process:
            deadline = time.monotonic() + 300
            while not double.count and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.2)
            assert double.count, (tmp_path / "said").read_text()
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(60) == 130, (tmp_path / "said").read_text()
    clone.assert_no_process_is_left()
    with clone.instance() as instance:
        statuses = {run.status for run in instance.get_runs()}
    assert statuses == {DagsterRunStatus.SUCCESS, DagsterRunStatus.CANCELED}
    assert clone.status()["tickets"]["cells"]["remote"]["base"]["state"] != "failed"


def test_settings_edited_while_a_turn_works_are_for_the_next_turn(tmp_path: Path) -> None:
    clone = Clone.make(tmp_path / "clone")
    before = (clone.root / "flywheel.yaml").read_text()

    def answer(request: Message) -> Message:
        clone.edit(lambda content: content["evaluation"].update(max_tokens=99))
        return {"role": "assistant", "content": "ok"}

    with OpenAIDouble(answer=answer) as double:
        remote = {"id": "remote", "model": double.url, "engine": "openai", "trainable": False}
        clone.edit(lambda content: content.update(candidates=[remote], evaluation={"concurrency": 1}))
        clone.flywheel("ingest", str(write_ticket_records(tmp_path / "my.jsonl", 60, workload="tickets")))
        clone.flywheel("run", timeout=200)
        assert (clone.root / "flywheel.yaml").read_text() != before
        planned = json.loads(clone.flywheel("run", "--dry-run", "--json").stdout)["items"]
    assert {item["asset"] for item in planned} >= {"evals/base", "decision"}


def _marked(mark: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(_MARK) == str(mark) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
