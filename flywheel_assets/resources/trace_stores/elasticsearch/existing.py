"""Existing indices: records read from documents that a team already writes. Nothing is ever written there.

What belongs here: reading by the team's field names, and watermarks by windows. What does not: what a window says
(`window`), what becomes of a document (`mapping`), and counts of documents that are never read (`unread`).

Documents are ordered by the date field that `elasticsearch.ingested_at` names. One that becomes visible later than
`elasticsearch.overlap_s` after newer ones is missed, and so is a change that does not move that field: both are for the team
to choose. A document from the future waits until the clock gets there: one with a wrong year would otherwise be the newest
one for years, and everything after it too late.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from flywheel_assets.core.records import Record, RejectReason
from flywheel_assets.core.rows import Json
from flywheel_assets.core.slugs import BadWorkloadId, workload_slug
from flywheel_assets.resources.trace_stores.base import (
    START,
    AddResult,
    RejectCount,
    RejectedLine,
    StoredRecord,
    TraceStoreError,
    UnknownWatermark,
    WorkloadSummary,
)
from flywheel_assets.resources.trace_stores.elasticsearch.connection import Connection, ElasticsearchRefused
from flywheel_assets.resources.trace_stores.elasticsearch.counting import MOST_WORKLOADS, count
from flywheel_assets.resources.trace_stores.elasticsearch.mapping import FieldMap
from flywheel_assets.resources.trace_stores.elasticsearch.pulse import Pulse
from flywheel_assets.resources.trace_stores.elasticsearch.scan import Hit, PageSize, scan
from flywheel_assets.resources.trace_stores.elasticsearch.unread import ahead, lacking
from flywheel_assets.resources.trace_stores.elasticsearch.window import BadWindow, Seen, Window

_IDS_PER_QUERY = 500
# Documents without their bodies: a page of them is small.
_BARE_PAGE = 5000
# Clocks of two machines differ by less. Half of a short overlap: the other half stays for what comes late.
_CLOCK_TOLERANCE_MS = 60_000


class ExistingIndexStore:
    """A `TraceStore` over an index, alias, data stream or pattern that others fill; it refuses to write.

    `ingested_at` is the date field that orders arrival; `overlap_s` how much later than newer ones a document may come.
    """

    def __init__(self, connection: Connection, index: str, fields: FieldMap, *, ingested_at: str, overlap_s: float) -> None:
        self.connection, self.index = connection, index
        self._fields, self._order, self._overlap_ms = fields, ingested_at, int(overlap_s * 1000)
        # What a workload's windows looked like when its numbers were these: the numbers cost one request for all.
        self._known: dict[str, tuple[Json, str]] = {}

    def close(self) -> None:
        """Give back the connection; the next call opens it again."""
        self.connection.close()

    def add(self, records: Iterable[Record], *, keep_known: bool = False) -> AddResult:
        """Refused: the index belongs to somebody else."""
        raise self._read_only()

    def reject(self, lines: Iterable[RejectedLine]) -> int:
        """Refused: the index belongs to somebody else."""
        raise self._read_only()

    def rejects(self, workload: str | None = None) -> list[RejectCount]:
        """Documents that no workload can be read from, those without a time of arrival, and those from the future.

        Documents of a workload that are no records are found when it is read: `records` keeps them in its quarantine.
        """
        if workload is not None:
            of = [self._of(self._names(workload) or [workload])]
            return _by_count(self._timeless(of, workload))
        counts = self._timeless(self._with_workload(), None)
        if self._fields.default_workload is None:
            counts += lacking(self.connection, self.index, self._fields.workload_field, "workload_id", [], None)
        counts += [
            RejectCount(None, str(RejectReason.BAD_WORKLOAD_ID), bucket["doc_count"], problem, "", self.index, 0)
            for bucket, problem in self._nameless()
        ]
        return _by_count(counts)

    def workloads(self) -> list[WorkloadSummary]:
        """Every workload; see `TraceStore.workloads`. TraceStoreError where the index does not exist."""
        return sorted((self._summary(slug, bucket) for slug, bucket in self._buckets().items()), key=lambda one: one.slug)

    def summary(self, workload: str) -> WorkloadSummary:
        """One workload; see `TraceStore.summary`."""
        bucket = self._buckets().get(workload)
        return self._summary(workload, bucket) if bucket is not None else WorkloadSummary(workload, workload, 0, START)

    def watermark(self, workload: str) -> str:
        """The workload's watermark; see `TraceStore.watermark` and `window`."""
        return self.summary(workload).watermark

    def pulse(self) -> Pulse:
        """One request: counts and newest arrivals of every workload."""
        numbers = sorted((slug, _numbers(bucket)) for slug, bucket in self._buckets().items())
        return Pulse(self.index, hashlib.sha256(orjson.dumps(numbers)).hexdigest()[:16])

    def count_after(self, workload: str, watermark: str | None) -> int:
        """How many documents came after a watermark; see `TraceStore.count_after`."""
        try:
            after = None if watermark is None else self._window(watermark)
        except UnknownWatermark:
            after = None
        names = self._names(workload)
        if not names:
            return 0
        late = [] if after is None else self._late(names, after, None)
        newer = self._between(None if after is None else after.high, None)
        return len(late) + count(self.connection, self.index, [self._of(names), newer])

    def read_after(
        self, workload: str, watermark: str | None, *, until: str | None = None, batch_size: int = 2000
    ) -> Iterator[list[StoredRecord]]:
        """The records after a watermark, in batches; see `TraceStore.read_after`. What came late comes first."""
        after = None if watermark is None else self._window(watermark)
        last = None if until is None else self._window(until)
        names = self._names(workload)
        if not names or until == START:
            return iter(())
        return self._batches(names, after, last, batch_size)

    def _batches(
        self, names: list[str], after: Window | None, last: Window | None, batch_size: int
    ) -> Iterator[list[StoredRecord]]:
        page, seq = PageSize(batch_size), 0
        for hits in self._hits(names, after, last, page):
            stored: list[StoredRecord] = []
            for hit in hits:
                seq = max(seq + 1, hit.order * 1_000_000)
                record_id, body = self._fields.line(hit.id, hit.source, hit.order)
                stored.append(StoredRecord(seq, record_id, body))
            page.saw([len(one.body) for one in stored])
            if stored:
                yield stored

    def _hits(self, names: list[str], after: Window | None, last: Window | None, page: PageSize) -> Iterator[list[Hit]]:
        filters, source = [self._of(names)], self._fields.source()
        if after is not None:
            late = self._late(names, after, last)
            for start in range(0, len(late), _IDS_PER_QUERY):
                ids: Json = {"ids": {"values": late[start : start + _IDS_PER_QUERY]}}
                yield from scan(self.connection, self.index, [*filters, ids], order=self._order, source=source, page=page)
        newer = self._between(None if after is None else after.high, None if last is None else last.high)
        for hits in scan(self.connection, self.index, [*filters, newer], order=self._order, source=source, page=page):
            yield [hit for hit in hits if last is None or self._reaches(last, Seen(hit.order, hit.id))]

    def _late(self, names: list[str], after: Window, last: Window | None) -> list[str]:
        """The ids of documents inside the window of `after` that it does not know, as far as `last` knows them."""
        inside = self._inside(names, after.high)
        return [one.id for one in after.unseen(inside) if last is None or self._reaches(last, one)]

    def _reaches(self, window: Window, one: Seen) -> bool:
        """Whether a document belongs to what a watermark stands for."""
        if one.order > window.high:
            return False
        return one.order <= window.high - self._overlap_ms or window.holds(one)

    def _inside(self, names: list[str], high: int) -> list[Seen]:
        """The documents in the window that ends at `high`."""
        span = self._between(high - self._overlap_ms, high)
        pages = scan(
            self.connection,
            self.index,
            [self._of(names), span],
            order=self._order,
            source=False,
            page=PageSize(_BARE_PAGE, first=_BARE_PAGE),
        )
        return [Seen(hit.order, hit.id) for hits in pages for hit in hits]

    def _summary(self, slug: str, bucket: Json) -> WorkloadSummary:
        numbers = _numbers(bucket)
        known = self._known.get(slug)
        if known is None or known[0] != numbers:
            high = numbers["newest"]
            text = START
            if high is not None:
                seen = self._inside([bucket["key"]], high)
                text = Window.of(self._generation, high, seen).text()
            known = self._known[slug] = (numbers, text)
        return WorkloadSummary(slug, str(bucket["key"]), numbers["count"], known[1])

    def _buckets(self) -> dict[str, Json]:
        """The workloads by slug, each with the bucket of the id that owns the slug.

        An id that gets its slug by a hash owns it before one that is this very text; of others the first by name does.
        """
        found: dict[str, Json] = {}
        for bucket in sorted(self._ask_workloads(), key=lambda one: (_slug(one["key"]) == one["key"], str(one["key"]))):
            slug = _slug(bucket["key"])
            if slug is not None:
                found.setdefault(slug, bucket)
        return found

    def _nameless(self) -> Iterator[tuple[Json, str]]:
        for bucket in self._ask_workloads():
            try:
                workload_slug(bucket["key"])
            except BadWorkloadId as error:
                yield bucket, f"{self._fields.workload_field}: {error}"

    def _ask_workloads(self) -> list[Json]:
        numbers: Json = {"arrivals": {"stats": {"field": self._order}}}
        field = self._fields.workload_field
        absent: Json = {"filter": {"bool": {"must_not": [{"exists": {"field": field}}]}}, "aggs": numbers}
        try:
            body = self.connection.search(
                f"looking at {self.index}",
                index=self.index,
                size=0,
                query={"bool": {"filter": [self._between(None, None)]}},
                aggs={"workloads": {"terms": {"field": field, "size": MOST_WORKLOADS}, "aggs": numbers}, "absent": absent},
            )
        except ElasticsearchRefused as error:
            if error.kind == "index_not_found_exception":
                raise TraceStoreError(
                    f"{self.connection.url}: there is no index, alias or data stream {self.index!r}. Mend"
                    " `elasticsearch.index`; with `read_only: true` none is created."
                ) from error
            raise
        # Without any shard (a pattern that matches nothing) there is no aggregation either.
        found = body.get("aggregations") or {"workloads": {"buckets": []}, "absent": {"doc_count": 0}}
        workloads, nameless = found["workloads"], found["absent"]
        if workloads.get("sum_other_doc_count"):
            raise TraceStoreError(
                f"{self.connection.url}: {self.index} holds more than {MOST_WORKLOADS:,} values of"
                f" {self._fields.workload_field}; `elasticsearch.fields.workload_id` must name a field with one value a kind"
                " of call."
            )
        buckets = list(workloads["buckets"])
        if self._fields.default_workload is not None and nameless["doc_count"]:
            buckets.append({**nameless, "key": self._fields.default_workload})
        return buckets

    def _timeless(self, filters: list[Json], workload: str | None) -> list[RejectCount]:
        """Documents without a time of arrival, or with one in the future."""
        return [
            *lacking(self.connection, self.index, self._order, "ingested_at", filters, workload),
            *ahead(self.connection, self.index, self._order, self._now(), filters, workload),
        ]

    def _names(self, workload: str) -> list[str]:
        bucket = self._buckets().get(workload)
        return [] if bucket is None else [bucket["key"]]

    def _with_workload(self) -> list[Json]:
        return [] if self._fields.default_workload else [{"exists": {"field": self._fields.workload_field}}]

    def _of(self, names: list[str]) -> Json:
        field = self._fields.workload_field
        named: Json = {"terms": {field: names}}
        if self._fields.default_workload not in names:
            return named
        absent: Json = {"bool": {"must_not": [{"exists": {"field": field}}]}}
        return {"bool": {"should": [named, absent], "minimum_should_match": 1}}

    def _between(self, above: int | None, up_to: int | None) -> Json:
        """Arrived after `above` (None: ever) up to and with `up_to` (None: now)."""
        bounds: dict[str, Any] = {"format": "epoch_millis", "lte": self._now() if up_to is None else up_to}
        if above is not None:
            bounds["gt"] = above
        return {"range": {self._order: bounds}}

    def _now(self) -> int:
        """The latest time, in epoch milliseconds, at which a document can have arrived."""
        return int(time.time() * 1000) + min(_CLOCK_TOLERANCE_MS, self._overlap_ms // 2)

    def _window(self, watermark: str) -> Window | None:
        if watermark == START:
            return None
        try:
            window = Window.parse(watermark)
        except BadWindow:
            window = None
        # One from the future was given out by a clock that was wrong: nothing would ever come after it.
        if window is None or window.generation != self._generation or window.high > self._now() + self._overlap_ms:
            raise UnknownWatermark(
                f"watermark {watermark[:40]!r} was not given out for {self.index} at {self.connection.url} with these"
                " fields. Read it from the start (watermark None)."
            )
        return window

    @property
    def _generation(self) -> str:
        """Marks where documents come from and how they are read: another server or other fields are another store."""
        fields = self._fields
        described = [self.connection.url, self.index, self._order, sorted(fields.paths.items()), fields.default_workload]
        return hashlib.sha256(orjson.dumps(described)).hexdigest()[:8]

    def _read_only(self) -> TraceStoreError:
        return TraceStoreError(
            f"{self.index} at {self.connection.url} is only read (`elasticsearch.read_only: true`): documents come into it"
            " the way they always did. To store records of your own, use an index of ours: `read_only: false`."
        )


def _slug(workload_id: object) -> str | None:
    try:
        return workload_slug(workload_id)
    except BadWorkloadId:
        return None


def _by_count(counts: list[RejectCount]) -> list[RejectCount]:
    return sorted(counts, key=lambda count: (-count.count, count.reason))


def _numbers(bucket: Json) -> Json:
    """What moves when documents come or go: with the sum, also one that came late while another was deleted."""
    arrivals = bucket["arrivals"]
    if arrivals["max"] is None:
        return {"count": bucket["doc_count"], "newest": None, "sum": 0}
    return {"count": bucket["doc_count"], "newest": int(arrivals["max"]), "sum": float(arrivals["sum"])}
