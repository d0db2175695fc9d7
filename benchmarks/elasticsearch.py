"""How fast records come out of Elasticsearch and in how much memory, and what sensor ticks cost that find nothing new."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.figure import figure
from benchmarks.synthetic import record_lines
from flywheel_assets.core.records import Record, parse_record
from flywheel_assets.resources.trace_stores.elasticsearch import ElasticsearchTraceStore
from tests.elasticsearch_server import ElasticsearchServer, fresh_index

RECORDS = 5_000
EXPORT_TARGET = 5_000
# "Memory flat": once half of the records are through, pages have their size and nothing more is held.
MOST_GROWTH_MB = 8.0
TICK_TARGET_S = 0.5
_TICKS = 20


@contextmanager
def _filled_store() -> Iterator[ElasticsearchTraceStore]:
    with tempfile.TemporaryDirectory() as folder:
        server = ElasticsearchServer(Path(folder))
        server.start()
        try:
            store = ElasticsearchTraceStore(server.connection(), fresh_index())
            parsed = (parse_record(line.encode(), max_bytes=10**6, received_at=1.8e9) for line in record_lines(RECORDS))
            store.add(record for record in parsed if isinstance(record, Record))
            os.environ["ELASTICSEARCH_URL"] = server.url
            yield store
        finally:
            server.kill()


def bench_export() -> dict[str, object]:
    """Records a second through `read_after`, from the start to the last one; met where memory stays flat as well."""
    with _filled_store() as store:
        store.workloads()
        peak = at_half = count = 0
        started = time.perf_counter()
        for batch in store.read_after("bench", None):
            count += len(batch)
            peak = max(peak, psutil.Process().memory_info().rss)
            at_half = peak if count <= RECORDS // 2 else at_half or peak
        elapsed = time.perf_counter() - started
    if count != RECORDS:
        raise RuntimeError(f"{count} of {RECORDS} records came out: the figure would mean nothing")
    value, growth = round(count / elapsed), round((peak - at_half) / 1e6, 1)
    ok = value >= EXPORT_TARGET and growth <= MOST_GROWTH_MB
    exported = figure("es_export_records_per_s", value, "records/s", "higher", EXPORT_TARGET, ok=ok)
    return {**exported, "growth_mb": growth, "growth_target_mb": MOST_GROWTH_MB}


def bench_idle_tick() -> dict[str, object]:
    """Median seconds of a tick that finds nothing new, on a temporary instance: of `elasticsearch_traces` or of `reconcile`,
    whichever takes longer."""
    import dagster as dg

    from flywheel_assets.definitions import build_defs
    from flywheel_assets.resources.flywheel import Flywheel
    from flywheel_assets.settings import parse_settings

    with _filled_store() as store, tempfile.TemporaryDirectory() as home, dg.DagsterInstance.local_temp(home) as instance:
        content = {
            "trace_store": "elasticsearch",
            "elasticsearch": {"index": store.index},
            "candidates": [{"id": "small", "model": "small.gguf"}],
            # Records that wait for more of their kind start nothing, and are looked at in every tick.
            "automation": {"min_new_records": RECORDS + 1},
        }
        settings = parse_settings(content, home=Path(home), root=Path(home))
        flywheel, defs = Flywheel.at_home(settings), build_defs(settings)

        def median_tick(name: str, idle: str) -> float:
            sensor, cursor, seconds = defs.resolve_sensor_def(name), None, []
            for _ in range(_TICKS + 1):
                context = dg.build_sensor_context(
                    instance=instance,
                    instance_ref=instance.get_ref(),
                    definitions=defs,
                    cursor=cursor,
                    resources={"flywheel": flywheel},
                )
                started = time.perf_counter()
                said = sensor(context)
                seconds.append(time.perf_counter() - started)
                cursor = context.cursor
            if idle not in str(getattr(said, "skip_message", "")):
                raise RuntimeError(f"the last tick of {name} was not idle ({said}): the figure would mean nothing")
            return round(statistics.median(seconds[1:]), 4)

        ticks = {
            "elasticsearch_traces": median_tick("elasticsearch_traces", "Nothing new"),
            "reconcile": median_tick("reconcile", "Nothing to start"),
        }
    return {**figure("sensor_idle_tick_s", max(ticks.values()), "s", "lower", TICK_TARGET_S), "ticks": ticks}
