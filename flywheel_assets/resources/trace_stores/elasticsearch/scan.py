"""Scans: every document that a query finds, in order, from one state of an index, in pages of bounded size.

What belongs here: point in time, `search_after`, page sizes, and going on after the server lost the point in time. What does
not: which documents are asked for, and what is made of them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from flywheel_assets.core.rows import Json
from flywheel_assets.resources.trace_stores.base import TraceStoreError
from flywheel_assets.resources.trace_stores.elasticsearch.connection import Connection, ElasticsearchRefused

_LOG = logging.getLogger(__name__)

# Renewed by every page: long enough to work on a page, short enough that a killed reader's snapshot is soon given up.
KEEP_ALIVE = "5m"
FIRST_PAGE = 250
# A page of this many bytes is on its way in a moment, and four of them fit anywhere.
PAGE_BYTES = 16 << 20
# A server that loses the snapshot on every page does not get better by asking again.
_MOST_LOSSES_IN_A_ROW = 5


class Hit(NamedTuple):
    """One document: its id, its order (epoch milliseconds, the first sort value) and the source fields asked for."""

    id: str
    order: int
    source: Json


class PageSize:
    """How many documents the next page asks for: as many as make `PAGE_BYTES`, going by the largest seen."""

    def __init__(self, most: int, *, first: int = FIRST_PAGE) -> None:
        self._most = max(1, most)
        self.records = min(first, self._most)
        self._largest = 1

    def saw(self, sizes: Sequence[int]) -> None:
        """Learn from a page; `sizes` are bytes, one a document."""
        # The average counts four times: one large record among small ones must not make every page tiny.
        self._largest = max(1, min(max(sizes, default=1), 4 * sum(sizes) // max(1, len(sizes))))
        self.records = max(1, min(self._most, PAGE_BYTES // self._largest, self.records * 8))


def scan(
    connection: Connection,
    index: str,
    filters: Sequence[Json],
    *,
    order: str,
    then: Sequence[str] = (),
    source: Sequence[str] | bool,
    page: PageSize,
) -> Iterator[list[Hit]]:
    """Pages of what all `filters` find, by the date field `order`, then by the fields `then`.

    One state of the index, unless the server loses it on the way (a restart): then the scan goes on behind the last document
    that it gave out, and gives none twice.
    """
    what = f"reading {index}"
    sort: list[Mapping[str, Any] | str] = [
        {order: {"order": "asc", "numeric_type": "date", "unmapped_type": "date"}},
        *({name: {"order": "asc"}} for name in then),
        "_shard_doc",
    ]
    resumed: Json | None = None
    resumed_at, given = 0, frozenset[str]()
    last: int | None = None
    at_last: set[str] = set()
    losses = 0
    while True:
        pit = _open(connection, index, what)
        after: Any = None
        query = {"bool": {"filter": [*filters, *([resumed] if resumed else [])]}}
        try:
            while True:
                asked = page.records
                body = connection.search(
                    what,
                    pit={"id": pit, "keep_alive": KEEP_ALIVE},
                    query=query,
                    sort=sort,
                    size=asked,
                    search_after=after,
                    source=source,
                    track_total_hits=False,
                )
                pit = body.get("pit_id", pit)
                found = body["hits"]["hits"]
                if not found:
                    return
                after = found[-1]["sort"]
                hits = [Hit(h["_id"], int(h["sort"][0]), h.get("_source") or {}) for h in found]
                if resumed is not None:
                    hits = [hit for hit in hits if hit.order != resumed_at or hit.id not in given]
                if hits:
                    newest = hits[-1].order
                    at_last = {hit.id for hit in hits if hit.order == newest} | (at_last if newest == last else set())
                    last, losses = newest, 0
                    yield hits
                if len(found) < asked:
                    return
        except ElasticsearchRefused as error:
            losses += 1
            if error.status != 404 or losses > _MOST_LOSSES_IN_A_ROW:
                raise
            _LOG.info("%s: the snapshot was lost, going on behind the last record read", what)
            if last is not None:
                resumed_at, given = last, frozenset(at_last)
                resumed = {"range": {order: {"gte": last, "format": "epoch_millis"}}}
        finally:
            _close(connection, pit)


def _open(connection: Connection, index: str, what: str) -> str:
    body = connection.ask(what, lambda client: client.open_point_in_time(index=index, keep_alive=KEEP_ALIVE))
    return str(connection.whole(what, body)["id"])


def _close(connection: Connection, pit: str) -> None:
    try:
        connection.ask("closing a snapshot", lambda client: client.close_point_in_time(id=pit), patiently=False)
    except TraceStoreError as error:
        # It ends by itself after its keep-alive; what was read is whole.
        _LOG.debug("a snapshot could not be closed: %s", error)
