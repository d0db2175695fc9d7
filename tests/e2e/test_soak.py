"""Weeks in minutes: `dagster dev`, all sensors on, and traffic that never stops.

`SOAK_MINUTES` (30) says for how long; `-s` prints what was measured.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.ingest import ingest
from flywheel_assets.settings import load_settings
from tests.e2e.automation import INTERVAL_S, runs, start_sensors
from tests.e2e.clone import Clone
from tests.e2e.dagster_dev import dagster_dev, dev_log
from tests.e2e.own_traffic import write_ticket_records
from tests.fakes import Message, OpenAIDouble

MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))
WORKLOADS = tuple(f"desk-{number}" for number in range(5))
EVERY_S, RECORDS_EACH = 10.0, 4
MAX_LAG_MINUTES = 10.0
FIRST_DECISIONS_S = 180.0
# What ten minutes of this traffic made before turns were paced: 81 runs, 20 MB of Dagster's storage, 17 MB of artifacts.
GROWTH_BEFORE = {"runs": 81, "dagster_mb": 20.0, "artifacts_mb": 17.0}
SHARE_OF_IT = 0.1

pytestmark = [pytest.mark.long, pytest.mark.timeout(60 * MINUTES + 600)]


def _first_tool(request: Message) -> Message:
    """A model that always calls the first tool it is offered."""
    name = request["tools"][0]["function"]["name"]
    call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": "{}"}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


@dataclass
class Feeder:
    """Brings records into the clone's trace store until it is told to stop."""

    clone: Clone
    folder: Path
    seed: int = 1000
    stopped: threading.Event = field(default_factory=threading.Event)

    def bring(self, records: int) -> None:
        store = flywheel_of(self.clone).traces
        for workload in WORKLOADS:
            self.seed += 1
            ingest([write_ticket_records(self.folder / "new.jsonl", records, workload=workload, seed=self.seed)], store)

    def run(self) -> None:
        while not self.stopped.wait(EVERY_S):
            self.bring(RECORDS_EACH)


@contextmanager
def traffic(clone: Clone, folder: Path) -> Iterator[Feeder]:
    feeder = Feeder(clone, folder)
    thread = threading.Thread(target=feeder.run)
    thread.start()
    try:
        yield feeder
    finally:
        feeder.stopped.set()
        thread.join()


def flywheel_of(clone: Clone) -> Flywheel:
    return Flywheel.at_home(load_settings(clone.root / "flywheel.yaml"))


def megabytes(folder: Path) -> float:
    """What a folder takes on disk; a file with several names counts once."""
    found = {(s.st_dev, s.st_ino): s.st_blocks * 512 for s in (p.stat() for p in folder.rglob("*") if p.is_file())}
    return sum(found.values()) / 1e6


def memory(clone: Clone) -> dict[int, float]:
    """Resident MB of every process of the clone, by pid."""
    found = {}
    for process in clone.processes():
        try:
            found[process.pid] = process.memory_info().rss / 1e6
        except psutil.NoSuchProcess:
            continue
    return found


def test_steady_traffic_is_decided_on_in_time_and_grows_slowly(tmp_path: Path) -> None:
    clone = Clone.make(tmp_path / "clone")
    with OpenAIDouble(answer=_first_tool) as double:
        remote = {"id": "remote", "model": double.url, "engine": "openai", "trainable": False}

        def edit(content: dict[str, Any]) -> None:
            content.update(
                candidates=[remote],
                split={"eval_size": 40},
                automation={"interval_s": INTERVAL_S, "max_lag_minutes": MAX_LAG_MINUTES},
                workloads={},
            )

        clone.edit(edit)
        with dagster_dev(clone) as url:
            start_sensors(url, "reconcile", "janitor")
            before = {"dagster": megabytes(clone.root / ".dagster")}
            began, first, worst, late_memory = time.monotonic(), None, 0.0, []
            feeder = Feeder(clone, tmp_path)
            feeder.bring(60)
            with traffic(clone, tmp_path):
                while (elapsed := time.monotonic() - began) < 60 * MINUTES:
                    time.sleep(EVERY_S)
                    status = clone.status()
                    decisions = [status[slug]["decision"] for slug in WORKLOADS if slug in status]
                    if len(decisions) == len(WORKLOADS) and all(decisions):
                        first = first or time.monotonic() - began
                        worst = max(worst, *((one["lag"] or {"seconds": 0})["seconds"] for one in decisions))
                    assert first or elapsed < 2 * FIRST_DECISIONS_S, dev_log(clone)
                    if elapsed > 60 * MINUTES / 3:
                        late_memory.append(memory(clone))
            ended = runs(url)
            took = (time.monotonic() - began) / 600
            measured = {
                "first_decisions_s": round(first or -1),
                "worst_lag_s": round(worst),
                "runs": len(ended),
                "failed_runs": sum(run["status"] == "FAILURE" for run in ended),
                "dagster_mb": round(megabytes(clone.root / ".dagster") - before["dagster"], 1),
                "artifacts_mb": round(megabytes(clone.home / "artifacts"), 1),
                "memory_mb": {
                    pid: [round(one.get(pid, 0)) for one in (late_memory[0], late_memory[-1])] for pid in late_memory[0]
                },
            }
    print(json.dumps(measured), yaml.safe_dump(clone.status()[WORKLOADS[0]]["decision"]))
    assert measured["first_decisions_s"] <= FIRST_DECISIONS_S
    assert worst <= 60 * MAX_LAG_MINUTES + 3 * INTERVAL_S
    assert measured["failed_runs"] == 0
    for name, limit in GROWTH_BEFORE.items():
        assert measured[name] <= SHARE_OF_IT * limit * took, (name, measured)
    for pid, (early, late) in measured["memory_mb"].items():
        assert late <= 1.1 * early + 10, (pid, measured)
