"""New traces lead to new decisions with no hand on it: daemon, webserver, sensors, a small model really trained."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.demo import prepare
from tests.e2e.clone import Clone
from tests.e2e.dagster_dev import REPOSITORY, ask, dagster_dev, dev_log, materializations
from tests.e2e.own_traffic import write_ticket_records
from tests.elasticsearch_server import ElasticsearchServer, fresh_index

WORKLOADS = ("tickets-eu", "tickets-us")
CANDIDATE = "smollm2-135m"
INTERVAL_S = 10
# The daemon looks every 5 s which sensors are due.
DAEMON_LOOP_S = 5

pytestmark = [pytest.mark.long, pytest.mark.model, pytest.mark.timeout(1500)]

_START = """mutation($selector: SensorSelector!) { startSensor(sensorSelector: $selector) {
  __typename ... on PythonError { message } } }"""
_RUNS = "{ runsOrError { ... on Runs { results { runId status startTime creationTime tags { key value } } } } }"


def _small(content: dict[str, Any]) -> None:
    content["candidates"] = content["candidates"][:1]
    content["split"].update(eval_size=16)
    content["training"].update(max_rows=16, max_seq_length=512)
    content["trace_store"] = "elasticsearch"
    content["elasticsearch"] = {"index": fresh_index()}
    content["automation"] = {"interval_s": INTERVAL_S}


@pytest.fixture
def elasticsearch(tmp_path: Path) -> Iterator[ElasticsearchServer]:
    server = ElasticsearchServer(tmp_path / "elasticsearch")
    server.start()
    yield server
    server.kill()


def test_new_traces_reach_decisions_and_old_ones_start_nothing(tmp_path: Path, elasticsearch: ElasticsearchServer) -> None:
    clone = Clone.make(tmp_path / "clone", _small)
    clone.environment["ELASTICSEARCH_URL"] = elasticsearch.url
    prepare(clone.home, False, lambda message: None)
    with dagster_dev(clone) as url:
        for name in ("elasticsearch_traces", "reconcile", "janitor"):
            started = ask(url, _START, selector={**REPOSITORY, "sensorName": name})["startSensor"]
            assert started["__typename"] == "Sensor", started
        files = [write_ticket_records(tmp_path / f"{slug}.jsonl", 100, workload=slug) for slug in WORKLOADS]
        clone.flywheel("ingest", *map(str, files))
        written = time.time()
        _until(clone, 900, lambda: all(materializations(url, ["decision"], slug) for slug in WORKLOADS))
        assert min(run["creationTime"] for run in _runs(url)) - written <= 2 * (INTERVAL_S + DAEMON_LOOP_S)
        for slug in WORKLOADS:
            trained = json.loads((clone.artifact("adapter", f"{slug}/{CANDIDATE}") / "training.json").read_text())
            assert trained["steps"] == 4
            assert clone.status()[slug]["decision"]["verdict"] in ("keep", "promote", "inconclusive")
        _until(clone, 120, lambda: not _unfinished(url) and not _stale(clone))

        before = {run["runId"] for run in _runs(url)}
        clone.flywheel("ingest", *map(str, files))
        time.sleep(3 * (INTERVAL_S + DAEMON_LOOP_S))
        assert {run["runId"] for run in _runs(url)} == before

        more = write_ticket_records(tmp_path / "more.jsonl", 60, workload=WORKLOADS[0], seed=8)
        clone.flywheel("ingest", str(more))
        _until(clone, 600, lambda: len(materializations(url, ["decision"], WORKLOADS[0])) == 2)
        _until(clone, 120, lambda: not _unfinished(url) and not _stale(clone))
        touched = {
            tag["value"]
            for run in _runs(url)
            if run["runId"] not in before
            for tag in run["tags"]
            if tag["key"] == "flywheel/batch"
        }
        assert {name.partition("@")[0].partition("/")[0] for name in touched} == {WORKLOADS[0], "all"}
        assert len(materializations(url, ["decision"], WORKLOADS[1])) == 1


def _runs(url: str) -> list[dict[str, Any]]:
    return ask(url, _RUNS)["runsOrError"]["results"]  # type: ignore[no-any-return]


def _unfinished(url: str) -> list[dict[str, Any]]:
    return [run for run in _runs(url) if run["status"] not in ("SUCCESS", "FAILURE", "CANCELED")]


def _stale(clone: Clone) -> bool:
    return bool(json.loads(clone.flywheel("run", "--dry-run", "--json").stdout)["items"])


def _until(clone: Clone, seconds: float, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, dev_log(clone)
        time.sleep(2)
