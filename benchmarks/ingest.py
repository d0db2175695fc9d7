"""How fast logs come in: read, parse, validate, hash, store, on a file of 100,000 records of 3 kB."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from benchmarks.figure import figure
from benchmarks.synthetic import write_records
from flywheel_assets.resources.ingest import ingest
from flywheel_assets.resources.trace_stores import LocalTraceStore

RECORDS = 100_000
TARGET = 20_000


def bench_ingest(records: int = RECORDS) -> dict[str, object]:
    """Records a second into an empty store, wall time, from the call to the last commit."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "bench.jsonl"
        write_records(log, records)
        store = LocalTraceStore(Path(folder) / "traces.sqlite")
        started = time.perf_counter()
        report = ingest([log], store)
        elapsed = time.perf_counter() - started
        store.close()
    if report.new != records:
        raise RuntimeError(f"{records} records written, {report.to_json()} ingested: the figure would mean nothing")
    value = round(records / elapsed)
    return figure("ingest_records_per_s", value, "records/s", "higher", TARGET)


if __name__ == "__main__":
    print(json.dumps(bench_ingest()))
