"""How fast records come out of Elasticsearch, and what a sensor tick costs that finds nothing new."""

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
    """Records a second through `read_after`, from the start to the last one."""
    with _filled_store() as store:
        store.workloads()
        before, peak, count = psutil.Process().memory_info().rss, 0, 0
        started = time.perf_counter()
        for batch in store.read_after("bench", None):
            count += len(batch)
            peak = max(peak, psutil.Process().memory_info().rss)
        elapsed = time.perf_counter() - started
    if count != RECORDS:
        raise RuntimeError(f"{count} of {RECORDS} records came out: the figure would mean nothing")
    value = round(count / elapsed)
    exported = figure("es_export_records_per_s", value, "records/s", "higher", EXPORT_TARGET)
    return {**exported, "peak_growth_mb": round((peak - before) / 1e6, 1)}


def bench_idle_tick() -> dict[str, object]:
    """Median seconds of a tick of `elasticsearch_traces` that finds nothing new, on a temporary instance."""
    import dagster as dg

    from flywheel_assets.definitions import build_defs
    from flywheel_assets.resources.flywheel import Flywheel
    from flywheel_assets.settings import parse_settings

    with _filled_store() as store, tempfile.TemporaryDirectory() as home, dg.DagsterInstance.local_temp(home) as instance:
        content = {
            "trace_store": "elasticsearch",
            "elasticsearch": {"index": store.index},
            "candidates": [{"id": "small", "model": "small.gguf"}],
        }
        settings = parse_settings(content, home=Path(home), root=Path(home))
        flywheel, defs = Flywheel.at_home(settings), build_defs(settings)
        sensor = defs.resolve_sensor_def("elasticsearch_traces")
        cursor, seconds = None, []
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
        if "Nothing new" not in str(getattr(said, "skip_message", "")):
            raise RuntimeError(f"the last tick was not idle ({said}): the figure would mean nothing")
    value = round(statistics.median(seconds[1:]), 4)
    return figure("sensor_idle_tick_s", value, "s", "lower", TICK_TARGET_S)
