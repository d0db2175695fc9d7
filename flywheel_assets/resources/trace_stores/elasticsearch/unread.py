"""Unread documents: what an existing index holds that no workload will ever read, counted, with one as an example.

What belongs here: the counts. What does not: which documents are meant by a workload (`existing`), and documents that are
read and then refused: `records` keeps those in its quarantine.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from flywheel_assets.core.records import RejectReason
from flywheel_assets.core.rows import Json
from flywheel_assets.resources.trace_stores.base import RejectCount
from flywheel_assets.resources.trace_stores.elasticsearch.connection import Connection

_EXCERPT_CHARACTERS = 160


def lacking(
    connection: Connection, index: str, field: str, name: str, filters: Sequence[Json], workload: str | None
) -> list[RejectCount]:
    """Documents that all `filters` find and that have no `field`; `name` is what the log schema calls it."""
    query: Json = {"filter": list(filters), "must_not": [{"exists": {"field": field}}]}
    return _counted(connection, index, query, RejectReason.MISSING_FIELD, f"no field {field} ({name})", workload)


def ahead(
    connection: Connection, index: str, field: str, above: int, filters: Sequence[Json], workload: str | None
) -> list[RejectCount]:
    """Documents that all `filters` find and whose date `field` is later than `above` (epoch milliseconds)."""
    query: Json = {"filter": [*filters, {"range": {field: {"gt": above, "format": "epoch_millis"}}}]}
    problem = f"{field} (ingested_at) lies in the future; not read before its time comes"
    return _counted(connection, index, query, RejectReason.BAD_TIMESTAMP, problem, workload)


def _counted(
    connection: Connection, index: str, query: Json, reason: RejectReason, problem: str, workload: str | None
) -> list[RejectCount]:
    body = connection.search(
        f"looking at {index}", index=index, size=1, query={"bool": query}, source=True, track_total_hits=True
    )
    hits = body["hits"]["hits"]
    if not hits:
        return []
    excerpt = orjson.dumps(hits[0].get("_source"))[:_EXCERPT_CHARACTERS].decode("utf-8", "ignore")
    detail = f"{problem}, such as document _id {hits[0]['_id']}"
    count = int(body["hits"]["total"]["value"])
    return [RejectCount(workload, str(reason), count, detail, excerpt, index, 0)]
