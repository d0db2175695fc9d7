"""The Elasticsearch trace store: records and refused lines in indices of our own.

What belongs here: what every trace store promises, asked of Elasticsearch. What does not: how a batch is written
(`writing`), mappings (`index`), pages (`scan`), and reading other people's indices (`existing`).

Order and watermarks are those of commits (`writing`): a watermark is the index and the number of a workload's latest
commit, so it is exact however many write at once, and whatever their clocks say.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from flywheel_assets.core.records import Record
from flywheel_assets.core.rows import Json
from flywheel_assets.resources.trace_stores.base import (
    START,
    AddResult,
    RejectCount,
    RejectedLine,
    StoredRecord,
    UnknownWatermark,
    WorkloadSummary,
)
from flywheel_assets.resources.trace_stores.elasticsearch.commits import ORPHAN_AGE_S, Commits, announced_before
from flywheel_assets.resources.trace_stores.elasticsearch.connection import Connection
from flywheel_assets.resources.trace_stores.elasticsearch.counting import (
    MOST_WORKLOADS,
    count,
    count_by_workload,
    workload_buckets,
)
from flywheel_assets.resources.trace_stores.elasticsearch.index import (
    COMMIT,
    INTENT,
    RECORD,
    RECORDS_MAPPING,
    ensure_index,
    identify,
)
from flywheel_assets.resources.trace_stores.elasticsearch.pulse import Pulse
from flywheel_assets.resources.trace_stores.elasticsearch.rejects import Rejects
from flywheel_assets.resources.trace_stores.elasticsearch.scan import PageSize, scan
from flywheel_assets.resources.trace_stores.elasticsearch.writing import Writer

# A query may name 65,536 terms; some hundred make it no slower than one.
_BATCHES_PER_QUERY = 500
_COMMITS_PER_PAGE = 1000
_WATERMARK = re.compile(r"([0-9a-f]{8})\.([1-9][0-9]*)")


class ElasticsearchTraceStore:
    """A `TraceStore` in the index `index` and its companion `<index>-rejects`, which the first write creates.

    `add` is whole per workload: readers see all of a call or nothing. Called again after an error, it makes good what is
    missing and stores nothing twice.
    """

    def __init__(self, connection: Connection, index: str) -> None:
        self.connection, self.index = connection, index
        self._rejects = Rejects(connection, f"{index}-rejects")
        self._writer = Writer(connection, index)

    def close(self) -> None:
        """Give back the connection; the next call opens it again."""
        self.connection.close()

    def add(self, records: Iterable[Record], *, keep_known: bool = False) -> AddResult:
        """Store records; see `TraceStore.add`. The iterable is held in memory: hand over batches."""
        by_workload: dict[str, list[Record]] = {}
        for record in records:
            by_workload.setdefault(record.workload, []).append(record)
        if not by_workload:
            return AddResult()
        ensure_index(self.connection, self.index, RECORDS_MAPPING)
        new = updated = duplicate = 0
        workloads: dict[str, int] = {}
        for slug, members in by_workload.items():
            result = self._writer.add(slug, members, keep_known=keep_known)
            new, updated, duplicate = new + result.new, updated + result.updated, duplicate + result.duplicate
            workloads.update(result.workloads)
        return AddResult(new, updated, duplicate, workloads)

    def adopt(self, older_than_s: float = ORPHAN_AGE_S) -> int:
        """Let in what writers left behind that died half-way; how many batches that were."""
        return Commits(self.connection, self.index).adopt(older_than_s) if self._generation() is not None else 0

    def reject(self, lines: Iterable[RejectedLine]) -> int:
        """Keep refused lines; see `TraceStore.reject`."""
        return self._rejects.add(lines)

    def rejects(self, workload: str | None = None) -> list[RejectCount]:
        """Refused lines by workload and reason; see `TraceStore.rejects`."""
        return self._rejects.counts(workload)

    def workloads(self) -> list[WorkloadSummary]:
        """Every workload; see `TraceStore.workloads`."""
        return self._summaries([])

    def summary(self, workload: str) -> WorkloadSummary:
        """One workload; see `TraceStore.summary`."""
        found = self._summaries([{"term": {"workload": workload}}])
        return found[0] if found else WorkloadSummary(workload, workload, 0, START)

    def watermark(self, workload: str) -> str:
        """The workload's watermark; see `TraceStore.watermark`."""
        return self.summary(workload).watermark

    def pulse(self) -> Pulse:
        """One request over the commits alone. A batch that a dead writer left changes the token once it is old enough."""
        old: Json = {"bool": {"filter": announced_before(time.time() - ORPHAN_AGE_S)}}
        newest: Json = {"filter": {"term": {"kind": COMMIT}}, "aggs": {"at": {"max": {"field": "ingested_at"}}}}
        body = count_by_workload(
            self.connection,
            self.index,
            query={"bool": {"filter": [{"terms": {"kind": [COMMIT, INTENT]}}]}},
            aggs={
                "workloads": {
                    "terms": {"field": "workload", "size": MOST_WORKLOADS},
                    "aggs": {"head": {"max": {"field": "commit"}}, "newest": newest},
                },
                "orphans": {"filter": old},
            },
        )
        heads = sorted(
            (bucket["key"], int(bucket["head"]["value"]), int(bucket["newest"]["at"]["value"]))
            for bucket in workload_buckets(body)
            if bucket["head"]["value"] is not None
        )
        orphans = body["aggregations"]["orphans"]["doc_count"] if body else 0
        token = hashlib.sha256(orjson.dumps([heads, orphans])).hexdigest()[:16]
        return Pulse(self.index, token)

    def count_after(self, workload: str, watermark: str | None) -> int:
        """How many records came after a watermark; see `TraceStore.count_after`."""
        generation = self._generation()
        if generation is None:
            return 0
        try:
            after = 0 if watermark is None else self._number(watermark, generation)
        except UnknownWatermark:
            after = 0
        names = self._committed(workload, after, None)
        parts = (names[start : start + _BATCHES_PER_QUERY] for start in range(0, len(names), _BATCHES_PER_QUERY))
        return sum(count(self.connection, self.index, _records_of(workload, part)) for part in parts)

    def read_after(
        self, workload: str, watermark: str | None, *, until: str | None = None, batch_size: int = 2000
    ) -> Iterator[list[StoredRecord]]:
        """The records after a watermark, in batches; see `TraceStore.read_after`.

        One state of the index, unless the server is restarted meanwhile: then a record that is changed during the reading
        may be left out here, and comes at its new place.
        """
        generation = self._generation()
        after = 0 if watermark is None else self._number(watermark, generation)
        last = None if until is None else self._number(until, generation)
        if generation is None or last == 0:
            return iter(())
        return self._batches(workload, after, last, batch_size)

    def _batches(self, workload: str, after: int, last: int | None, batch_size: int) -> Iterator[list[StoredRecord]]:
        # The commits first: what they let in is visible to every later search.
        names = self._committed(workload, after, last)
        page, seq = PageSize(batch_size), 0
        for start in range(0, len(names), _BATCHES_PER_QUERY):
            filters = _records_of(workload, names[start : start + _BATCHES_PER_QUERY])
            source = ["id", "body", "position"]
            for hits in scan(
                self.connection,
                self.index,
                filters,
                order="ingested_at",
                then=["position"],
                source=source,
                page=page,
            ):
                stored = []
                for hit in hits:
                    seq = max(seq + 1, hit.order * 1_000_000 + hit.source["position"])
                    stored.append(StoredRecord(seq, hit.source["id"], hit.source["body"].encode()))
                page.saw([len(one.body) for one in stored])
                yield stored

    def _committed(self, workload: str, after: int, last: int | None) -> list[str]:
        """The batches let in by the commits after one up to and with another, in order, each once."""
        numbers: dict[str, Any] = {"gt": after} if last is None else {"gt": after, "lte": last}
        filters: list[Json] = [{"term": {"kind": COMMIT}}, {"term": {"workload": workload}}, {"range": {"commit": numbers}}]
        names: dict[str, None] = {}
        behind: Any = None
        while True:
            found = self.connection.search(
                f"reading the commits of {self.index}",
                index=self.index,
                query={"bool": {"filter": filters}},
                sort=[{"commit": {"order": "asc"}}],
                search_after=behind,
                size=_COMMITS_PER_PAGE,
                source=["batches"],
            )["hits"]["hits"]
            for hit in found:
                names.update(dict.fromkeys(hit["_source"]["batches"]))
            if len(found) < _COMMITS_PER_PAGE:
                return list(names)
            behind = found[-1]["sort"]

    def _summaries(self, filters: list[Json]) -> list[WorkloadSummary]:
        generation = self._generation()
        if generation is None:
            return []
        body = count_by_workload(
            self.connection,
            self.index,
            query={"bool": {"filter": [*filters, {"terms": {"kind": [RECORD, COMMIT]}}]}},
            aggs={
                "workloads": {
                    "terms": {"field": "workload", "size": MOST_WORKLOADS},
                    "aggs": {
                        "records": {"filter": {"term": {"kind": RECORD}}},
                        "head": {"max": {"field": "commit"}},
                        "names": {"terms": {"field": "workload_id", "size": 1}},
                    },
                }
            },
        )
        return sorted(
            (
                WorkloadSummary(
                    slug=bucket["key"],
                    workload_id=bucket["names"]["buckets"][0]["key"],
                    count=bucket["records"]["doc_count"],
                    watermark=f"{generation}.{int(bucket['head']['value'])}",
                )
                for bucket in workload_buckets(body)
                if bucket["head"]["value"] is not None
            ),
            key=lambda summary: summary.slug,
        )

    def _generation(self) -> str | None:
        """Marks this very index: watermarks of one that was deleted and made anew must not seem valid."""
        uuid = identify(self.connection, self.index, RECORDS_MAPPING)
        return None if uuid is None else hashlib.sha256(uuid.encode()).hexdigest()[:8]

    def _number(self, watermark: str, generation: str | None) -> int:
        if watermark == START:
            return 0
        match = _WATERMARK.fullmatch(watermark)
        if match is None or match[1] != generation:
            raise UnknownWatermark(
                f"watermark {watermark[:80]!r} was not given out by the index {self.index} at {self.connection.url}: it was"
                " replaced. Read it from the start (watermark None)."
            )
        return int(match[2])


def _records_of(workload: str, batches: list[str]) -> list[Json]:
    return [{"term": {"kind": RECORD}}, {"term": {"workload": workload}}, {"terms": {"batch": batches}}]
