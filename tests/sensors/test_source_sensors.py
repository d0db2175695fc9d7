"""The `<name>_traces` sensors: bounded ticks, cursors, partitions and observations, and reasons a person understands."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterInstance

from flywheel_assets.assets.keys import asset_key
from flywheel_assets.core import graph
from flywheel_assets.partitions import WORKLOAD
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.sources import SourceError
from flywheel_assets.resources.trace_stores import LocalTraceStore
from flywheel_assets.resources.trace_stores.elasticsearch import Access, Connection, ElasticsearchTraceStore
from flywheel_assets.sensors import sources
from tests.assets.conftest import Bench, bench, instance
from tests.elasticsearch_server import free_port, fresh_index
from tests.langfuse_rows import row
from tests.langfuse_server import Fault, LangfuseServer

__all__ = ["bench", "instance"]

NAME = "langfuse_traces"


@pytest.fixture
def server(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[LangfuseServer]:
    with LangfuseServer() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        # Ten records of `router` are enough for a first dataset, one of `judge` is not.
        bench.content["split"] = {"min_total_records": 10}
        bench.content["langfuse"] = {"enabled": True, "lookback_days": 1, "page_size": 4, "calls_per_minute": 10_000}
        yield server


class Ticks:
    """The sensor as the daemon runs it: its cursor is kept when a tick did not raise."""

    def __init__(self, bench: Bench) -> None:
        self.instance, self.flywheel, self.cursor = bench.instance, bench.flywheel, None
        self.defs = bench.defs
        self.sensor = self.defs.resolve_sensor_def(NAME)

    def tick(self, flywheel: Flywheel | None = None) -> str:
        context = dg.build_sensor_context(
            instance=self.instance,
            instance_ref=self.instance.get_ref(),
            definitions=self.defs,
            cursor=self.cursor,
            resources={"flywheel": flywheel or self.flywheel},
        )
        result = self.sensor(context)
        assert isinstance(result, dg.SkipReason)
        self.cursor = context.cursor
        return str(result.skip_message)


@pytest.fixture
def ticks(bench: Bench, server: LangfuseServer) -> Ticks:
    now = time.time()
    server.add(*(row(str(n), now - 60 - n) for n in range(10)))
    server.add(row("other", now - 90, tags=["workload:judge"]))
    return Ticks(bench)


def test_a_tick_brings_records_partitions_and_observations(ticks: Ticks) -> None:
    assert ticks.tick().startswith("Langfuse: 11 new records, read up to ")
    assert set(ticks.instance.get_dynamic_partitions(str(WORKLOAD.name))) == {"router", "judge"}
    for workload in ("router", "judge"):
        records = ticks.instance.fetch_observations(
            dg.AssetRecordsFilter(asset_key(graph.TRACES), asset_partitions=[workload]), limit=5
        ).records
        assert len(records) == 1
        assert records[0].asset_observation is not None
    assert ticks.flywheel.traces.summary("router").count == 10


def test_what_a_source_brings_is_asked_for_in_the_next_tick_of_reconcile(ticks: Ticks) -> None:
    # One interval at most until the source is looked at, one more until `reconcile` looks: two to a started run.
    ticks.tick()
    context = dg.build_sensor_context(
        instance=ticks.instance,
        instance_ref=ticks.instance.get_ref(),
        definitions=ticks.defs,
        resources={"flywheel": ticks.flywheel},
    )
    result = ticks.defs.resolve_sensor_def("reconcile")(context)
    assert isinstance(result, dg.SensorResult)
    assert {request.partition_key for request in result.run_requests or ()} == {"router"}


def test_a_tick_with_nothing_new_says_so(ticks: Ticks) -> None:
    ticks.tick()
    ticks.tick()
    assert ticks.tick().startswith("Langfuse: nothing new, read up to ")


def test_a_rate_limit_is_a_skip_reason_with_the_wait(ticks: Ticks, server: LangfuseServer) -> None:
    server.faults.append(Fault(429, retry_after="42", path="/v2/observations"))
    assert ticks.tick() == "Langfuse: nothing new, asked to wait 42 s (rate limit), going on then."
    assert "asked to wait 4" in ticks.tick()


def test_a_tick_is_bounded_and_the_next_one_goes_on(ticks: Ticks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "TICK_RECORDS", 4)
    assert ticks.tick().startswith("Langfuse: 4 new records, more to come")
    assert ticks.tick().startswith("Langfuse: 4 new records, more to come")
    assert ticks.tick().startswith("Langfuse: 3 new records, read up to")


def test_a_tick_without_time_still_makes_one_step(ticks: Ticks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "FETCH_BUDGET_S", 0.2)
    reasons = [ticks.tick() for _ in range(6)]
    assert any("read up to" in reason for reason in reasons)
    assert ticks.flywheel.traces.summary("router").count == 10


def test_a_tick_that_raises_half_way_loses_nothing_and_doubles_nothing(ticks: Ticks, tmp_path: Path) -> None:
    class Dies(LocalTraceStore):
        adds = 0

        def add(self, records: Any) -> Any:
            self.adds += 1
            if self.adds == 3:
                raise OSError("disk full")
            return super().add(records)

    store = ticks.flywheel.traces
    assert isinstance(store, LocalTraceStore)
    dying = Flywheel(ticks.flywheel.settings, Dies(tmp_path / "home" / "traces.sqlite"), ticks.flywheel.artifacts)
    with pytest.raises(OSError, match="disk full"):
        ticks.tick(dying)
    assert ticks.cursor is None
    stored = sum(summary.count for summary in store.workloads())
    assert stored == 8
    assert ticks.tick().startswith("Langfuse: 3 new records")
    assert {summary.slug: summary.count for summary in store.workloads()} == {"router": 10, "judge": 1}
    ids = [record.id for batch in store.read_after("router", None) for record in batch]
    assert len(ids) == len(set(ids)) == 10
    assert set(ticks.instance.get_dynamic_partitions(str(WORKLOAD.name))) == {"router", "judge"}


def test_a_server_that_is_down_fails_the_tick_with_its_url(ticks: Ticks, server: LangfuseServer) -> None:
    server.stop()
    with pytest.raises(SourceError, match=rf"{server.url} cannot be reached"):
        ticks.tick()
    server.start()
    assert ticks.tick().startswith("Langfuse: 11 new records")


def test_a_store_that_is_down_is_a_reason_within_the_ticks_time_whatever_its_own_patience(
    ticks: Ticks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "TICK_BUDGET_S", 1.0)
    away = Connection(Access(f"http://127.0.0.1:{free_port()}"), timeout_s=30, retry_s=600)
    settings = ticks.flywheel.settings
    store = ElasticsearchTraceStore(away, fresh_index())
    began = time.monotonic()
    reason = ticks.tick(Flywheel(settings, store, ticks.flywheel.artifacts))
    assert time.monotonic() - began < 10 and ticks.cursor is None
    assert "Is the server up, and ELASTICSEARCH_URL right?" in reason and "next tick" in reason
    assert ticks.tick().startswith("Langfuse: 11 new records")


def test_more_observations_than_a_tick_has_room_for_go_on_in_the_next(ticks: Ticks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_OBSERVATIONS", 1)
    assert "2 workloads" not in ticks.tick()
    key = asset_key(graph.TRACES)
    assert len(ticks.instance.fetch_observations(dg.AssetRecordsFilter(key), limit=9).records) == 1
    ticks.tick()
    assert len(ticks.instance.fetch_observations(dg.AssetRecordsFilter(key), limit=9).records) == 2


def test_the_sensor_is_there_only_where_the_source_is_switched_on_and_ships_stopped(
    bench: Bench, server: LangfuseServer
) -> None:
    assert bench.defs.resolve_sensor_def(NAME).default_status is dg.DefaultSensorStatus.STOPPED
    del bench.content["langfuse"]
    assert NAME not in {sensor.name for sensor in bench.defs.sensors or ()}


def test_a_missing_key_does_not_keep_the_code_location_from_loading(
    bench: Bench, server: LangfuseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LANGFUSE_SECRET_KEY")
    ticks = Ticks(bench)
    with pytest.raises(SourceError, match="LANGFUSE_SECRET_KEY not set"):
        ticks.tick()


def test_an_instance_keeps_nothing_secret(ticks: Ticks, instance: DagsterInstance) -> None:
    ticks.tick()
    assert "sk-lf" not in str(ticks.cursor)
