"""What the proofs of automation share: sensors switched on as the UI does it, and what came of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from tests.e2e.clone import Clone
from tests.e2e.dagster_dev import REPOSITORY, ask, dev_log

INTERVAL_S = 10
# The daemon looks every 5 s which sensors are due.
DAEMON_LOOP_S = 5

_START = """mutation($selector: SensorSelector!) { startSensor(sensorSelector: $selector) {
  __typename ... on PythonError { message } } }"""
_RUNS = "{ runsOrError { ... on Runs { results { runId status startTime creationTime tags { key value } } } } }"


def small(content: dict[str, Any]) -> None:
    """Settings with one small candidate, trained for four steps, and sensors that look often."""
    content["candidates"] = content["candidates"][:1]
    content["split"].update(eval_size=16)
    content["training"].update(max_rows=16, max_seq_length=512)
    content["automation"] = {"interval_s": INTERVAL_S}


def start_sensors(url: str, *names: str) -> None:
    """Switch sensors on."""
    for name in names:
        started = ask(url, _START, selector={**REPOSITORY, "sensorName": name})["startSensor"]
        assert started["__typename"] == "Sensor", started


def runs(url: str) -> list[dict[str, Any]]:
    """Every run of the instance."""
    return ask(url, _RUNS)["runsOrError"]["results"]  # type: ignore[no-any-return]


def settled(url: str, clone: Clone) -> bool:
    """Whether no run is under way and nothing is left to make."""
    if any(run["status"] not in ("SUCCESS", "FAILURE", "CANCELED") for run in runs(url)):
        return False
    return not json.loads(clone.flywheel("run", "--dry-run", "--json").stdout)["items"]


def workloads_touched(url: str, *, but: set[str]) -> set[str]:
    """The workloads that runs other than those worked for; `all` is the catalog's."""
    batches = {
        tag["value"] for run in runs(url) if run["runId"] not in but for tag in run["tags"] if tag["key"] == "flywheel/batch"
    }
    return {name.partition("@")[0].partition("/")[0] for name in batches}


def until(clone: Clone, seconds: float, done: Callable[[], bool]) -> None:
    """Wait for something that must come by itself; what Dagster logged is the failure's message."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, dev_log(clone)
        time.sleep(2)
