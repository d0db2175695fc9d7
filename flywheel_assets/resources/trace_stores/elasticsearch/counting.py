"""Counts: of what meets a query, and by workload over an index that may not be there yet."""

from __future__ import annotations

from typing import Any

from flywheel_assets.core.rows import Json
from flywheel_assets.resources.trace_stores.base import TraceStoreError
from flywheel_assets.resources.trace_stores.elasticsearch.connection import Connection, ElasticsearchRefused

# Dagster is at its limit long before (docs/architecture.md); one request answers for this many.
MOST_WORKLOADS = 10_000


def count_by_workload(connection: Connection, index: str, **question: Any) -> Json:
    """An answer whose aggregation `workloads` is whole; empty where the index does not exist."""
    try:
        body = connection.search(f"looking at {index}", index=index, size=0, **question)
    except ElasticsearchRefused as error:
        if error.kind == "index_not_found_exception":
            return {}
        raise
    if body["aggregations"]["workloads"].get("sum_other_doc_count"):
        raise TraceStoreError(
            f"{connection.url}: {index} holds more than {MOST_WORKLOADS:,} workloads; is `workload_id` something that"
            " differs from request to request?"
        )
    return body


def workload_buckets(body: Json) -> list[Json]:
    """The buckets of an answer of `count_by_workload`."""
    return list(body["aggregations"]["workloads"]["buckets"]) if body else []


def count(connection: Connection, index: str, filters: list[Json]) -> int:
    """How many documents meet all of the filters."""
    query = {"bool": {"filter": filters}}
    body = connection.search(f"counting in {index}", index=index, size=0, query=query, track_total_hits=True)
    return int(body["hits"]["total"]["value"])
