"""The same from Langfuse: a program traced with the official SDK, sensors, and decisions with no hand on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.demo import prepare
from flywheel_assets.resources.trace_stores import LocalTraceStore
from tests.e2e.automation import DAEMON_LOOP_S, INTERVAL_S, runs, settled, small, start_sensors, until, workloads_touched
from tests.e2e.clone import Clone
from tests.e2e.dagster_dev import dagster_dev, materializations
from tests.e2e.own_traffic import write_ticket_records
from tests.fakes import OpenAIDouble
from tests.langfuse_server import LangfuseServer

WORKLOADS = ("tickets-eu", "tickets-us")
CANDIDATE = "smollm2-135m"
PROGRAM = Path(__file__).parents[1] / "traced_program.py"

pytestmark = [pytest.mark.long, pytest.mark.model, pytest.mark.timeout(3000)]

Json = dict[str, Any]


def _from_langfuse(content: Json) -> None:
    small(content)
    content["langfuse"] = {"enabled": True, "overlap_minutes": 30, "calls_per_minute": 10_000, "page_size": 100}
    content["cleaning"] = {**content.get("cleaning", {}), "min_feedback": 0.5}


class Desk:
    """A support desk whose calls are traced: it asks the big model what its records ask, and that answers as they say."""

    def __init__(self, langfuse: LangfuseServer, folder: Path) -> None:
        self._folder, self._answers = folder, dict[str, Json]()
        self.model = OpenAIDouble(answer=lambda body: self._answers[json.dumps(body["messages"])])
        self.model.__enter__()
        self._program = subprocess.Popen(
            [sys.executable, str(PROGRAM), self.model.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **langfuse.environment},
        )

    def works(self, workload: str, n: int, *, seed: int) -> list[str]:
        """`n` calls of a workload; the trace ids."""
        lines = write_ticket_records(self._folder / "calls.jsonl", n, workload=workload, seed=seed).read_text().splitlines()
        traces = []
        for record in map(json.loads, lines):
            request = record["request"]
            # The desks differ in what they are asked, or one's answers would be looked up for the other.
            request["messages"][0]["content"] += f" ({workload}, {seed})"
            self._answers[json.dumps(request["messages"])] = record["response"]["choices"][0]["message"]
            traces.append(self._does(request=request, tags=[f"workload:{workload}"]))
        return traces

    def thumbs_down(self, trace_id: str) -> None:
        """A user's feedback, which comes when it comes."""
        self._does(score=0, trace_id=trace_id)

    def _does(self, **command: Any) -> str:
        assert self._program.stdin is not None and self._program.stdout is not None
        self._program.stdin.write(json.dumps(command) + "\n")
        self._program.stdin.flush()
        return str(json.loads(self._program.stdout.readline())["trace_id"])

    def close(self) -> None:
        self._program.communicate(timeout=60)
        self.model.stop()


def test_traced_calls_reach_decisions_and_late_feedback_reaches_its_record(tmp_path: Path) -> None:
    with LangfuseServer() as langfuse:
        clone = Clone.make(tmp_path / "clone", _from_langfuse)
        clone.environment.update(langfuse.environment)
        prepare(clone.home, False, lambda message: None)
        desk = Desk(langfuse, tmp_path)
        try:
            with dagster_dev(clone) as url:
                _loop(clone, url, desk)
        finally:
            desk.close()


def _loop(clone: Clone, url: str, desk: Desk) -> None:
    start_sensors(url, "langfuse_traces", "reconcile", "janitor")
    traces = {slug: desk.works(slug, 100, seed=7) for slug in WORKLOADS}
    until(clone, 1500, lambda: all(materializations(url, ["decision"], slug) for slug in WORKLOADS))
    for slug in WORKLOADS:
        trained = json.loads((clone.artifact("adapter", f"{slug}/{CANDIDATE}") / "training.json").read_text())
        assert trained["steps"] == 4
        status = clone.status()[slug]
        assert status["type"] == "tool_calling" and status["decision"]["verdict"] in ("keep", "promote", "inconclusive")
    until(clone, 300, lambda: _count(clone) == 200 and settled(url, clone))

    # Every tick reads the overlap again: the same generations, which are no news.
    before = {run["runId"] for run in runs(url)}
    time.sleep(3 * (INTERVAL_S + DAEMON_LOOP_S))
    assert {run["runId"] for run in runs(url)} == before
    assert _count(clone) == 200 and not any("feedback" in record for record in _records(clone).values())

    decided = {slug: len(materializations(url, ["decision"], slug)) for slug in WORKLOADS}
    disliked = traces[WORKLOADS[0]][:3]
    for trace_id in disliked:
        desk.thumbs_down(trace_id)
    desk.works(WORKLOADS[0], 60, seed=8)
    until(clone, 600, lambda: len(materializations(url, ["decision"], WORKLOADS[0])) > decided[WORKLOADS[0]])
    until(clone, 600, lambda: _count(clone) == 260 and settled(url, clone))
    assert workloads_touched(url, but=before) == {WORKLOADS[0], "all"}
    assert len(materializations(url, ["decision"], WORKLOADS[1])) == decided[WORKLOADS[1]]
    feedback = {trace: record["feedback"]["score"] for trace, record in _records(clone).items() if "feedback" in record}
    assert feedback == dict.fromkeys(disliked, 0.0)
    manifest = json.loads((clone.artifact("datasets/base", WORKLOADS[0]) / "manifest.json").read_text())
    assert manifest["summary"]["left_out"]["low_feedback"] == 3


def _count(clone: Clone) -> int:
    return sum(workload["records"] for workload in clone.status().values())


def _records(clone: Clone) -> dict[str, Json]:
    """The newest content of every record of the first workload, by trace id."""
    store = LocalTraceStore(clone.home / "traces.sqlite")
    bodies = (json.loads(record.body) for batch in store.read_after(WORKLOADS[0], None) for record in batch)
    return {body["langfuse"]["trace_id"]: body for body in bodies}
