"""Segments that an earlier version wrote: with fewer columns, and with numbers that are refused today."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flywheel_assets.core.datasets import profile_workload
from flywheel_assets.core.datasets.index import SCHEMA, index_tables
from flywheel_assets.core.datasets.segments import read_summary
from tests.core.datasets.workbench import Workbench, log_line

ADDED = ["latency_ms", "cached_tokens"]


def lines(count: int, start: int = 0) -> list[dict[str, Any]]:
    made = [log_line(n, latency_ms=10.0, cost_usd=0.5) for n in range(start, start + count)]
    for line in made:
        line["response"]["usage"] = {"prompt_tokens": 10, "completion_tokens": 2, "cached_tokens": 4}
    return made


def age(records: Path, **changes: list[Any]) -> None:
    """Make the index of a records folder what an earlier version wrote: without the later columns, with odd numbers."""
    for segment in read_summary(records).segments:
        table = pq.read_table(records / segment.index).drop_columns(ADDED)
        for name, values in changes.items():
            at = table.column_names.index(name)
            table = table.set_column(at, SCHEMA.field(name), pa.array(values, SCHEMA.field(name).type))
        pq.write_table(table, records / segment.index)


def test_an_older_index_has_nothing_where_a_column_was_added_later(workbench: Workbench) -> None:
    workbench.records(lines(3))
    age(workbench.path("records"))
    summary = read_summary(workbench.path("records"))
    (table,) = index_tables(workbench.path("records"), summary.segments, ["cached_tokens", "trace_id", "latency_ms"])
    assert table.column_names == ["cached_tokens", "trace_id", "latency_ms"]
    assert (table["latency_ms"].null_count, table["cached_tokens"].null_count) == (3, 3)
    profile = profile_workload(workbench.path("records"))
    assert profile.latency_ms["records"] == 0
    assert profile.usage["big-2026"]["cached_tokens"] == 0


def test_an_older_segment_is_appended_to(workbench: Workbench) -> None:
    workbench.records(lines(3))
    age(workbench.path("records"))
    workbench.records(lines(2, start=3))
    summary = read_summary(workbench.path("records"))
    assert (summary.records, len(summary.segments)) == (5, 1)
    profile = profile_workload(workbench.path("records"))
    assert profile.latency_ms == {"p50": 10.0, "p95": 10.0, "records": 2}
    assert profile.usage["big-2026"]["cached_tokens"] == 8


@pytest.mark.parametrize("odd", [1e308, float("inf"), float("nan"), -1.0, 10_001.0])
def test_a_cost_that_an_earlier_version_accepted_is_left_out_and_counted(workbench: Workbench, odd: float) -> None:
    workbench.records(lines(4))
    age(workbench.path("records"), cost_usd=[0.5, odd, odd, 0.25])
    profile = profile_workload(workbench.path("records"))
    assert (profile.cost_usd, profile.records_with_cost, profile.costs_left_out) == (0.75, 2, 2)
    assert orjson.loads(orjson.dumps(profile.to_json()))["cost_usd"] == 0.75
