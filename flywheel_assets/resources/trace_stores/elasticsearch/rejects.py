"""Refused lines in an index of their own, beside that of the records."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import orjson

from flywheel_assets.core.rows import Json
from flywheel_assets.resources.trace_stores.base import RejectCount, RejectedLine, TraceStoreError
from flywheel_assets.resources.trace_stores.elasticsearch.connection import Connection
from flywheel_assets.resources.trace_stores.elasticsearch.counting import (
    MOST_WORKLOADS,
    count_by_workload,
    workload_buckets,
)
from flywheel_assets.resources.trace_stores.elasticsearch.index import REJECTS_MAPPING, ensure_index

_MOST_REASONS = 100
_PER_REQUEST = 1000
_EXAMPLE = ("detail", "excerpt", "origin", "line_number")


class Rejects:
    """Refused lines by the hash of the line: the same line twice is one."""

    def __init__(self, connection: Connection, index: str) -> None:
        self._connection, self._index = connection, index

    def add(self, lines: Iterable[RejectedLine]) -> int:
        """Keep lines; how many were not known."""
        documents = {line.reject.line_hash.hex(): _document(line) for line in lines}
        if not documents:
            return 0
        ensure_index(self._connection, self._index, REJECTS_MAPPING)
        hashes = list(documents)
        known = 0
        for start in range(0, len(hashes), _PER_REQUEST):
            part = hashes[start : start + _PER_REQUEST]
            known += self._known(part)
            self._write([line for one in part for line in (orjson.dumps({"index": {"_id": one}}), documents[one])])
        return len(documents) - known

    def counts(self, workload: str | None) -> list[RejectCount]:
        """Lines by workload and reason, most frequent first, each with the latest as an example."""
        latest: Json = {"top_hits": {"size": 1, "sort": [{"rejected_at": {"order": "desc"}}]}}
        reasons: Json = {"terms": {"field": "reason", "size": _MOST_REASONS}, "aggs": {"latest": latest}}
        workloads: Json = {"terms": {"field": "workload", "size": MOST_WORKLOADS}, "aggs": {"reasons": reasons}}
        filters: list[Json] = [] if workload is None else [{"term": {"workload": workload}}]
        body = count_by_workload(
            self._connection, self._index, query={"bool": {"filter": filters}}, aggs={"workloads": workloads}
        )
        counts: list[RejectCount] = []
        for of_workload in workload_buckets(body):
            for of_reason in of_workload["reasons"]["buckets"]:
                example = of_reason["latest"]["hits"]["hits"][0]["_source"]
                shown = [example[name] for name in _EXAMPLE]
                counts.append(RejectCount(of_workload["key"] or None, of_reason["key"], of_reason["doc_count"], *shown))
        return sorted(counts, key=lambda count: (-count.count, count.reason, count.workload or ""))

    def _known(self, hashes: list[str]) -> int:
        what = f"looking up refused lines in {self._index}"
        body = self._connection.ask(what, lambda client: client.mget(index=self._index, ids=hashes, source=False))
        return sum(bool(doc.get("found")) for doc in body["docs"])

    def _write(self, lines: list[Any]) -> None:
        what = f"writing to {self._index}"
        body = self._connection.ask(what, lambda client: client.bulk(index=self._index, operations=lines, refresh=True))
        refused = [item["index"]["error"] for item in body["items"] if item["index"]["status"] >= 300]
        if refused:
            raise TraceStoreError(
                f"{self._connection.url}: {what}: {len(refused)} lines were refused ({str(refused[0].get('reason'))[:300]})."
                " Hand them over again: none is kept twice."
            )


def _document(line: RejectedLine) -> bytes:
    reject = line.reject
    return orjson.dumps(
        {
            "workload": reject.workload or "",
            "reason": str(reject.reason),
            "rejected_at": int(time.time() * 1000),
            "detail": reject.detail,
            "excerpt": reject.excerpt,
            "origin": line.origin,
            "line_number": line.line_number,
        }
    )
