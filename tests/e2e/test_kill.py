"""`kill -9` at random moments of a real run, training among them: it resumes, and nothing is left behind."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster._core.instance import InstanceRef

from flywheel_assets.demo import prepare
from flywheel_assets.resources.processes import ProcessIdentity
from tests.e2e.clone import Clone
from tests.e2e.own_traffic import write_ticket_records

KILLS = 10
WORKLOAD = "tickets"

pytestmark = [pytest.mark.slow, pytest.mark.model, pytest.mark.timeout(1800)]


def _small(content: dict[str, Any]) -> None:
    """One candidate, a short training with many checkpoints, few questions: every kill lands in real work."""
    content["candidates"] = content["candidates"][:1]
    content["split"].update(eval_size=40)
    content["training"].update(max_rows=40, batch_size=2, save_steps=2, max_seq_length=512)


def test_ten_kills_lose_nothing_and_leave_nothing(tmp_path: Path) -> None:
    clone = Clone.make(tmp_path / "clone", _small)
    prepare(clone.home, False, lambda message: None)
    clone.flywheel("ingest", str(write_ticket_records(tmp_path / "my.jsonl", 160, workload=WORKLOAD)))
    rng = random.Random(20261122)
    killed_in: list[str] = []
    for number in range(KILLS):
        # The first kills land in start-up and data, the later ones in loading, training and evaluation.
        moment = rng.uniform(2, 12) if number < 3 else rng.uniform(12, 42)
        killed_in.append(_kill_after(clone, moment, tmp_path / f"run-{number}.log"))
        _assert_no_process_is_left(clone)
    print("killed in:", ", ".join(killed_in))

    report = json.loads(clone.flywheel("run", "--json").stdout)
    assert report["ok"], report
    _assert_no_process_is_left(clone)
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


def _kill_after(clone: Clone, seconds: float, log: Path) -> str:
    """Start `flywheel run`, kill -9 that one process, and say what it was doing."""
    with log.open("w") as out, clone.start("run", stdout=out, stderr=subprocess.STDOUT) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
    lines = [line for line in log.read_text().splitlines() if line.strip()]
    return lines[-1][:80] if lines else "start-up"


def _assert_no_process_is_left(clone: Clone) -> None:
    deadline = time.monotonic() + 10
    while (left := clone.processes()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, [process.cmdline() for process in left]


def _assert_no_run_or_slot_is_left(clone: Clone) -> None:
    before = Path.cwd()
    os.chdir(clone.root)
    try:
        with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(clone.root))) as instance:
            unfinished = [DagsterRunStatus.STARTED, DagsterRunStatus.STARTING, DagsterRunStatus.CANCELING]
            assert not instance.get_runs(filters=dg.RunsFilter(statuses=unfinished))
            storage = instance.event_log_storage
            for key in storage.get_concurrency_keys():
                assert storage.get_concurrency_info(key).active_slot_count == 0
            failed = instance.get_runs(filters=dg.RunsFilter(statuses=[DagsterRunStatus.FAILURE]))
            assert all(ProcessIdentity.parse(run.tags["flywheel/owner"]).is_dead() for run in failed)
    finally:
        os.chdir(before)
