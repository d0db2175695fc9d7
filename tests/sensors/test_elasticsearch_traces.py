from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterInstance

from flywheel_assets.partitions import WORKLOAD
from flywheel_assets.sensors import elasticsearch_traces
from tests.assets.conftest import Bench, instance
from tests.elasticsearch_server import ElasticsearchServer, free_port, fresh_index
from tests.faulty_proxy import FaultyProxy

__all__ = ["instance"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ElasticsearchServer]:
    server = ElasticsearchServer(tmp_path_factory.mktemp("elasticsearch"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def proxy(server: ElasticsearchServer) -> Iterator[FaultyProxy]:
    proxy = FaultyProxy(server.url)
    yield proxy
    proxy.close()


@pytest.fixture
def bench(tmp_path: Path, instance: DagsterInstance, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench(tmp_path, instance)
    bench.content |= {"trace_store": "elasticsearch", "elasticsearch": {"index": fresh_index(), "retry_s": 1}}
    monkeypatch.setenv("ELASTICSEARCH_URL", proxy.url)
    return bench


class Ticks:
    """Ticks of the sensor, each with the cursor that the one before left."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.cursor = bench, None
        self.flywheel = bench.flywheel
        self.defs = bench.defs

    def tick(self) -> str:
        context = dg.build_sensor_context(
            instance=self.bench.instance,
            instance_ref=self.bench.instance.get_ref(),
            definitions=self.defs,
            cursor=self.cursor,
            resources={"flywheel": self.flywheel},
        )
        result = self.defs.resolve_sensor_def("elasticsearch_traces")(context)
        assert isinstance(result, dg.SkipReason)
        self.cursor = context.cursor
        return str(result.skip_message)


def observations(instance: DagsterInstance) -> list[str | None]:
    records = instance.fetch_observations(dg.AssetKey("traces"), limit=100).records
    return sorted(record.partition_key for record in records)


def test_new_records_are_observed_once_and_a_tick_without_any_asks_once(bench: Bench, proxy: FaultyProxy) -> None:
    bench.ingest(60)
    bench.ingest(30, workload="refunds")
    ticks = Ticks(bench)
    assert "2 workloads, 90 records. New records in 2 workloads: refunds, tickets." in ticks.tick()
    assert sorted(bench.instance.get_dynamic_partitions(str(WORKLOAD.name))) == ["refunds", "tickets"]
    asked = len(proxy.requests)
    message = ticks.tick()
    assert message.startswith(f"Nothing new in {bench.content['elasticsearch']['index']} since 20")
    assert message.endswith("(2 workloads, 90 records).")
    # The client asks once more what kind of server it is, on its first connection only.
    assert len(proxy.requests) - asked == 1
    bench.ingest(60)
    assert "Nothing new" in ticks.tick(), "the same records again are no news"
    bench.ingest(10, seed=8)
    assert "New records in 1 workloads: tickets." in ticks.tick()
    assert observations(bench.instance) == ["refunds", "tickets", "tickets"]


def test_a_tick_that_raises_half_way_is_repeated_and_reports_nothing_twice(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.ingest(20)
    bench.ingest(20, workload="refunds")
    ticks = Ticks(bench)
    report, calls = bench.instance.report_runless_asset_event, []

    def failing(event: dg.AssetObservation) -> None:
        calls.append(event)
        if len(calls) == 2:
            raise RuntimeError("the event log is full")
        report(event)

    monkeypatch.setattr(bench.instance, "report_runless_asset_event", failing)
    with pytest.raises(RuntimeError):
        ticks.tick()
    assert ticks.cursor is None
    ticks.tick()
    assert observations(bench.instance) == ["refunds", "tickets"]


def test_more_than_a_tick_can_report_goes_on_in_the_next(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elasticsearch_traces, "MAX_OBSERVATIONS", 2)
    for number in range(3):
        bench.ingest(5, workload=f"w{number}")
    ticks = Ticks(bench)
    assert "more wait for the next tick" in ticks.tick() and ticks.cursor is None
    assert "New records in 1 workloads" in ticks.tick()
    assert observations(bench.instance) == ["w0", "w1", "w2"]


def test_an_unreachable_server_is_a_reason_and_the_next_tick_goes_on(
    bench: Bench, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.ingest(5)
    ticks = Ticks(bench)
    monkeypatch.setenv("ELASTICSEARCH_URL", f"http://127.0.0.1:{free_port()}")
    message = ticks.tick()
    assert "Is the server up, and ELASTICSEARCH_URL right?" in message and "next tick goes on" in message
    monkeypatch.setenv("ELASTICSEARCH_URL", proxy.url)
    ticks.flywheel = bench.flywheel
    assert "1 workloads, 5 records" in ticks.tick()


def test_the_sensor_ships_stopped_and_only_with_elasticsearch(bench: Bench) -> None:
    assert bench.defs.resolve_sensor_def("elasticsearch_traces").default_status is dg.DefaultSensorStatus.STOPPED
    bench.content["trace_store"] = "local"
    assert not bench.defs.has_sensor_def("elasticsearch_traces") if hasattr(bench.defs, "has_sensor_def") else True
    assert [s.name for s in bench.defs.sensors or ()] == ["reconcile", "janitor"]
