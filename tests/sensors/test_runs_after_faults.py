"""Whatever happens between a record and its run: every needed run is asked for exactly once.

Records lie in Elasticsearch behind a proxy that fails on demand. Ticks of `reconcile` are made as the daemon makes them: a
tick that raises asks for nothing, and a run key is used once for ever.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import pytest

from flywheel_assets.resources.ingest import ingest
from flywheel_assets.resources.runs import BATCH_KEY_TAG, BATCH_TAG
from tests.assets.conftest import Bench
from tests.e2e.own_traffic import write_ticket_records
from tests.elasticsearch_server import ElasticsearchServer, fresh_index
from tests.faulty_proxy import FaultyProxy, answer_lost, busy
from tests.instances import local_instance
from tests.sensors.daemon import executed

# Datasets are all that is needed to see which runs are asked for.
NOBODY_EXAMINED = [{"id": "small", "model": "small.gguf", "workloads": []}]
_MOST_TICKS = 30
# Of `Place.play`; where nobody is examined nothing is compared.
NEEDED = Counter({"tickets@data": 2, "refunds@data": 1})


@dataclass
class Place:
    """One team's records, its Dagster instance, and the daemon that ticks."""

    bench: Bench
    server: ElasticsearchServer
    proxy: FaultyProxy
    asked: list[tuple[str, str]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    raised: int = 0
    skipped: list[str] = field(default_factory=list)
    # A fault between two ticks, and one on the way of records into the store.
    before_tick: Callable[[Place], None] = lambda place: None
    deliveries: Callable[[list[str]], list[list[str]]] = lambda lines: [lines]

    def deliver(self, workload: str, seed: int) -> None:
        path = write_ticket_records(self.bench.folder / "new.jsonl", 60, workload=workload, seed=seed)
        for number, lines in enumerate(self.deliveries(path.read_text().splitlines(keepends=True))):
            part = self.bench.folder / f"part-{number}.jsonl"
            part.write_text("".join(lines))
            ingest([part], self.bench.flywheel.traces)

    def settle(self) -> None:
        """Tick until nothing is left to start; runs asked for are executed between ticks."""
        for _ in range(_MOST_TICKS):
            self.before_tick(self)
            result = self.tick()
            if isinstance(result, dg.SkipReason) and str(result.skip_message).startswith("Nothing to start"):
                return
            for request in (result.run_requests or ()) if isinstance(result, dg.SensorResult) else ():
                self.execute(request)
        raise AssertionError(f"still something to start after {_MOST_TICKS} ticks: {self.asked} {self.skipped}")

    def tick(self) -> object:
        context = dg.build_sensor_context(
            instance=self.bench.instance,
            instance_ref=self.bench.instance.get_ref(),
            definitions=self.bench.defs,
            resources={"flywheel": self.bench.flywheel},
        )
        try:
            result = self.bench.defs.resolve_sensor_def("reconcile")(context)
        except InterruptedTick:
            self.raised += 1
            return None
        if isinstance(result, dg.SkipReason):
            self.skipped.append(str(result.skip_message))
        return result

    def execute(self, request: dg.RunRequest) -> None:
        assert request.run_key is not None and request.run_key not in self.keys, f"asked for twice: {request.run_key}"
        self.keys.add(request.run_key)
        self.asked.append((request.tags[BATCH_TAG], request.tags[BATCH_KEY_TAG]))
        executed(self.bench, request, may_fail=False)

    def play(self) -> Counter[str]:
        """Two workloads, then more records of one of them; how often each batch was asked for."""
        self.deliver("tickets", 1)
        self.deliver("refunds", 2)
        self.settle()
        self.deliver("tickets", 3)
        self.settle()
        counts = {summary.slug: summary.count for summary in self.bench.flywheel.traces.workloads()}
        assert counts == {"refunds": 60, "tickets": 120}
        assert len(set(self.asked)) == len(self.asked), "one batch with the same inputs, twice"
        return Counter(name for name, _ in self.asked)


class InterruptedTick(RuntimeError):
    """A tick that ended half-way."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    server = ElasticsearchServer(tmp_path / "server")
    server.start()
    proxy = FaultyProxy(server.url)
    monkeypatch.setenv("ELASTICSEARCH_URL", proxy.url)
    with local_instance(tmp_path) as instance:
        bench = Bench(tmp_path, instance)
        bench.content |= {
            "candidates": NOBODY_EXAMINED,
            "trace_store": "elasticsearch",
            "elasticsearch": {"index": fresh_index(), "retry_s": 20},
        }
        yield Place(bench, server, proxy)
    proxy.close()
    server.kill()


def refused_as_too_many(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.proxy.fault = busy(3)


def answers_that_are_lost(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.proxy.fault = answer_lost(5)


def deliveries_in_duplicate(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.deliveries = lambda lines: [lines, lines, lines[10:40]]

    def once_more(place: Place) -> None:
        ingest([place.bench.folder / "part-2.jsonl"], place.bench.flywheel.traces)

    place.before_tick = once_more


def records_out_of_order(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def shuffled(lines: list[str]) -> list[list[str]]:
        mixed = random.Random(5).sample(lines, len(lines))
        return [mixed[30:], mixed[:30]]

    place.deliveries = shuffled


def a_server_that_is_killed_and_comes_back(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.bench.content["elasticsearch"]["retry_s"] = 0.3
    kills = iter((True, False, False, True))

    def killed(place: Place) -> None:
        if not next(kills, False):
            return
        # This server writes to disk a moment after it answers; Elasticsearch does so before.
        time.sleep(2)
        place.server.kill()
        result = place.tick()
        assert isinstance(result, dg.SkipReason) and "Is the server up" in place.skipped[-1]
        place.server.start()

    place.before_tick = killed


def ticks_that_raise_half_way(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    report = place.bench.instance.report_runless_asset_event
    interrupted: set[str | None] = set()

    def interrupting(event: dg.AssetObservation) -> None:
        report(event)
        # Once after each workload was reported, when others are not yet and nothing was asked for.
        if event.partition not in interrupted:
            interrupted.add(event.partition)
            raise InterruptedTick

    monkeypatch.setattr(place.bench.instance, "report_runless_asset_event", interrupting)


FAULTS = (
    refused_as_too_many,
    answers_that_are_lost,
    deliveries_in_duplicate,
    records_out_of_order,
    a_server_that_is_killed_and_comes_back,
    ticks_that_raise_half_way,
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "fault",
    [
        # .ci/run has time for the one that leaves most behind.
        pytest.param(fault, marks=pytest.mark.slow if fault is ticks_that_raise_half_way else pytest.mark.long)
        for fault in FAULTS
    ],
    ids=lambda fault: fault.__name__,
)
def test_every_needed_run_is_asked_for_exactly_once(
    place: Place, fault: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(place, monkeypatch)
    asked = place.play()
    del asked["all@verdict"]
    assert asked == NEEDED
    assert place.raised == (2 if fault is ticks_that_raise_half_way else 0)
    place.settle()
    assert Counter(name for name, _ in place.asked if name in NEEDED) == asked, "unchanged content starts nothing"
