"""New traces lead to new decisions with no hand on it: daemon, webserver, sensors, a small model really trained."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.demo import prepare
from tests.e2e.automation import DAEMON_LOOP_S, INTERVAL_S, runs, settled, small, start_sensors, until, workloads_touched
from tests.e2e.clone import Clone
from tests.e2e.dagster_dev import dagster_dev, materializations
from tests.e2e.own_traffic import write_ticket_records
from tests.elasticsearch_server import ElasticsearchServer, fresh_index

WORKLOADS = ("tickets-eu", "tickets-us")
CANDIDATE = "smollm2-135m"

pytestmark = [pytest.mark.long, pytest.mark.model, pytest.mark.timeout(1500)]


def _on_elasticsearch(content: dict[str, Any]) -> None:
    small(content)
    content["trace_store"] = "elasticsearch"
    content["elasticsearch"] = {"index": fresh_index()}


@pytest.fixture
def elasticsearch(tmp_path: Path) -> Iterator[ElasticsearchServer]:
    server = ElasticsearchServer(tmp_path / "elasticsearch")
    server.start()
    yield server
    server.kill()


def test_new_traces_reach_decisions_and_old_ones_start_nothing(tmp_path: Path, elasticsearch: ElasticsearchServer) -> None:
    clone = Clone.make(tmp_path / "clone", _on_elasticsearch)
    clone.environment["ELASTICSEARCH_URL"] = elasticsearch.url
    prepare(clone.home, False, lambda message: None)
    with dagster_dev(clone) as url:
        start_sensors(url, "elasticsearch_traces", "reconcile", "janitor")
        files = [write_ticket_records(tmp_path / f"{slug}.jsonl", 100, workload=slug) for slug in WORKLOADS]
        clone.flywheel("ingest", *map(str, files))
        written = time.time()
        until(clone, 900, lambda: all(materializations(url, ["decision"], slug) for slug in WORKLOADS))
        assert min(run["creationTime"] for run in runs(url)) - written <= 2 * (INTERVAL_S + DAEMON_LOOP_S)
        for slug in WORKLOADS:
            trained = json.loads((clone.artifact("adapter", f"{slug}/{CANDIDATE}") / "training.json").read_text())
            assert trained["steps"] == 4
            assert clone.status()[slug]["decision"]["verdict"] in ("keep", "promote", "inconclusive")
        until(clone, 120, lambda: settled(url, clone))

        before = {run["runId"] for run in runs(url)}
        clone.flywheel("ingest", *map(str, files))
        time.sleep(3 * (INTERVAL_S + DAEMON_LOOP_S))
        assert {run["runId"] for run in runs(url)} == before

        more = write_ticket_records(tmp_path / "more.jsonl", 60, workload=WORKLOADS[0], seed=8)
        clone.flywheel("ingest", str(more))
        until(clone, 600, lambda: len(materializations(url, ["decision"], WORKLOADS[0])) == 2)
        until(clone, 120, lambda: settled(url, clone))
        assert workloads_touched(url, but=before) == {WORKLOADS[0], "all"}
        assert len(materializations(url, ["decision"], WORKLOADS[1])) == 1
