"""`kill -9` at random moments of a real run, training among them: it resumes, and nothing is left behind."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterRunStatus

from flywheel_assets.demo import prepare
from flywheel_assets.resources.processes import ProcessIdentity
from tests.e2e.clone import Clone
from tests.e2e.own_traffic import write_ticket_records

# .ci/run has time for as many as reach the training.
KILLS = [pytest.param(4, marks=pytest.mark.slow), pytest.param(10, marks=pytest.mark.long)]
# After three kills in start-up and data. The training resumes, so these take little of it, and the others find some left.
KILLED_IN_TRAINING = (3, 4, 5)
_LONGEST_WAIT_S = 300
WORKLOAD = "tickets"

pytestmark = [pytest.mark.model, pytest.mark.timeout(1800)]


def _small(content: dict[str, Any]) -> None:
    """One candidate, a short training with many checkpoints, few questions: every kill lands in real work."""
    content["candidates"] = content["candidates"][:1]
    content["split"].update(eval_size=40)
    content["training"].update(max_rows=40, batch_size=2, save_steps=2, max_seq_length=512)


@pytest.mark.parametrize("kills", KILLS)
def test_kills_lose_nothing_and_leave_nothing(tmp_path: Path, kills: int) -> None:
    clone = Clone.make(tmp_path / "clone", _small)
    prepare(clone.home, False, lambda message: None)
    clone.flywheel("ingest", str(write_ticket_records(tmp_path / "my.jsonl", 160, workload=WORKLOAD)))
    rng = random.Random(20261122)
    killed_in: list[str] = []
    in_training = 0
    for number in range(kills):
        training = number in KILLED_IN_TRAINING
        # Short enough that no run can end before its turn, wherever the runs before it were killed.
        moment = rng.uniform(0, 2) if training else rng.uniform(2, 16)
        what, was_training = _kill(clone, tmp_path / f"run-{number}.log", moment, in_training=training)
        killed_in.append(what)
        in_training += was_training
        clone.assert_no_process_is_left()
    print(f"killed in training: {in_training}; killed in:", ", ".join(killed_in))
    assert in_training >= 1

    report = json.loads(clone.flywheel("run", "--json").stdout)
    assert report["ok"], report
    clone.assert_no_process_is_left()
    _assert_no_run_or_slot_is_left(clone)
    assert not list((clone.home / "artifacts" / "drafts").iterdir())
    assert not list((clone.home / "training").iterdir())
    cell = clone.status()[WORKLOAD]["cells"]["smollm2-135m"]
    assert {variant["state"] for variant in cell.values()} == {"ok"}
    records = json.loads((clone.artifact("records", WORKLOAD) / "records.json").read_text())
    assert (records["records"], records["superseded"]) == (160, 0)
    trained = json.loads((clone.artifact("adapter", f"{WORKLOAD}/smollm2-135m") / "training.json").read_text())
    assert trained["steps"] == 20
    assert json.loads(clone.flywheel("run", "--json").stdout)["materialized"] == []


def _kill(clone: Clone, log: Path, seconds: float, *, in_training: bool) -> tuple[str, bool]:
    """Start `flywheel run`, kill -9 that one process after some seconds (of training, if asked for).

    Says what it was doing, and whether optimizer steps were being made.
    """
    began = time.time()
    with log.open("w") as out, clone.start("run", stdout=out, stderr=subprocess.STDOUT) as process:
        while in_training and not _is_training(clone, began):
            assert process.poll() is None and time.time() < began + _LONGEST_WAIT_S, log.read_text()
            time.sleep(0.1)
        time.sleep(seconds)
        was_training = _is_training(clone, began)
        assert process.poll() is None, f"it had ended before it was killed:\n{log.read_text()}"
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
    lines = [line for line in log.read_text().splitlines() if line.strip()]
    return lines[-1][:80] if lines else "start-up", was_training


def _is_training(clone: Clone, since: float) -> bool:
    """Whether a training child has made an optimizer step since a time and is not done; its folder goes when it is."""
    for path in (clone.home / "training").glob("*/progress.json"):
        with suppress(FileNotFoundError):
            progress = json.loads(path.read_text())
            if progress["phase"] == "train" and progress["at"] > since:
                return True
    return False


def _assert_no_run_or_slot_is_left(clone: Clone) -> None:
    ended = {DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE}
    with clone.instance() as instance:
        runs = instance.get_runs()
        assert {run.status for run in runs} <= ended
        storage = instance.event_log_storage
        for key in storage.get_concurrency_keys():
            assert storage.get_concurrency_info(key).active_slot_count == 0
        failed = [run for run in runs if run.status is DagsterRunStatus.FAILURE]
        assert failed, "no run was killed in the middle"
        assert all(ProcessIdentity.parse(run.tags["flywheel/owner"]).is_dead() for run in failed)
