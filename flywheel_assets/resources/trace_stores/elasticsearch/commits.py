"""Commits: which batches of a workload count, in one order, and what becomes of a batch whose writer died.

What belongs here: intents and commits (`writing` says what they are for). What does not: the records of a batch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from flywheel_assets.core.rows import Json
from flywheel_assets.resources.trace_stores.base import TraceStoreError
from flywheel_assets.resources.trace_stores.elasticsearch.connection import Connection, ElasticsearchRefused
from flywheel_assets.resources.trace_stores.elasticsearch.index import COMMIT, INTENT

# How long a batch that holds records we also bring is waited for, before it is taken for a dead writer's.
PATIENCE_S = 3.0
# A writer that is alive ends a batch long before; later, what it left behind is committed by whoever comes by.
ORPHAN_AGE_S = 120.0


class Commits:
    """The intents and commits of one index."""

    def __init__(self, connection: Connection, index: str) -> None:
        self._connection, self._index = connection, index

    def announce(self, slug: str, workload_id: str, batch: str, at: int) -> None:
        """Say that a batch is being written since `at` (epoch milliseconds)."""
        intent = {"kind": INTENT, "workload": slug, "workload_id": workload_id, "batch": batch, "ingested_at": at}
        self._connection.ask(
            f"announcing a batch in {self._index}",
            lambda client: client.index(index=self._index, id=_intent_id(batch), document=intent),
        )

    def adopt(self, older_than_s: float = ORPHAN_AGE_S) -> int:
        """Let in the batches of writers that died half-way; how many there were."""
        found = self._connection.search(
            f"looking for unfinished batches in {self._index}",
            index=self._index,
            size=1000,
            query={"bool": {"filter": announced_before(time.time() - older_than_s)}},
            source=["workload", "workload_id", "batch"],
        )["hits"]["hits"]
        adopted = 0
        for hit in found:
            intent = hit["_source"]
            if self._is_committed(intent["batch"]):
                self._withdraw(intent["batch"])
            else:
                self.commit(intent["workload"], intent["workload_id"], [intent["batch"]], int(time.time() * 1000))
                adopted += 1
        return adopted

    def unfinished(self, batches: set[str]) -> list[str]:
        """Those of `batches` that nobody commits: they were still announced after some patience."""
        until = time.monotonic() + PATIENCE_S
        while batches:
            docs = documents(self._connection, self._index, [_intent_id(name) for name in sorted(batches)], ["batch"])
            batches = {doc["_source"]["batch"] for doc in docs if doc.get("found")}
            if not batches or time.monotonic() >= until:
                break
            time.sleep(0.05)
        return sorted(batches)

    def commit(self, slug: str, workload_id: str, batches: Sequence[str], at: int) -> None:
        """Let batches in under the workload's next number; they are no longer announced then."""
        # Before the commit: a reader that sees it must see all that it lets in.
        self._refresh()
        what = f"committing to {self._index}"
        commit: Json = {
            "kind": COMMIT,
            "workload": slug,
            "workload_id": workload_id,
            "batches": list(batches),
            "ingested_at": at,
        }
        number = self._head(slug) + 1
        while True:
            try:
                self._create(what, _commit_id(slug, number), {**commit, "commit": number})
                break
            except ElasticsearchRefused as error:
                if error.status != 409:
                    raise
            if self._is_ours(slug, number, batches):
                break
            number += 1
        for name in batches:
            self._withdraw(name)

    def _create(self, what: str, one: str, document: Json) -> None:
        self._connection.ask(what, lambda client: client.create(index=self._index, id=one, document=document, refresh=True))

    def _is_ours(self, slug: str, number: int, batches: Sequence[str]) -> bool:
        """Whether the commit that stands there is ours: it was written, and the answer was lost."""
        (doc,) = documents(self._connection, self._index, [_commit_id(slug, number)], ["batches"])
        if not doc.get("found") or doc["_source"]["batches"] != list(batches):
            return False
        # The lost request may have ended before its refresh.
        self._refresh()
        return True

    def _head(self, slug: str) -> int:
        body = self._connection.search(
            f"looking at the commits of {self._index}",
            index=self._index,
            size=0,
            query={"bool": {"filter": [{"term": {"kind": COMMIT}}, {"term": {"workload": slug}}]}},
            aggs={"head": {"max": {"field": "commit"}}},
        )
        return int(body["aggregations"]["head"]["value"] or 0)

    def _is_committed(self, batch: str) -> bool:
        body = self._connection.search(
            f"looking at the commits of {self._index}",
            index=self._index,
            size=1,
            query={"bool": {"filter": [{"term": {"kind": COMMIT}}, {"term": {"batches": batch}}]}},
            source=False,
        )
        return bool(body["hits"]["hits"])

    def _refresh(self) -> None:
        what = f"refreshing {self._index}"
        self._connection.whole(what, self._connection.ask(what, lambda client: client.indices.refresh(index=self._index)))

    def _withdraw(self, batch: str) -> None:
        try:
            self._connection.ask(
                f"ending a batch in {self._index}", lambda client: client.delete(index=self._index, id=_intent_id(batch))
            )
        except ElasticsearchRefused as error:
            if error.status != 404:
                raise


def documents(connection: Connection, index: str, ids: list[str], fields: list[str]) -> list[Json]:
    """Documents by id, also those that no search sees yet; `found` tells which are there."""
    what = f"looking up documents in {index}"
    docs: list[Json] = connection.ask(what, lambda client: client.mget(index=index, ids=ids, source_includes=fields))["docs"]
    for doc in docs:
        if "error" in doc:
            raise TraceStoreError(f"{connection.url}: {what}: {doc['error'].get('reason')}. Nothing was written.")
    return docs


def announced_before(moment: float) -> list[Json]:
    """Filters for the intents of batches that were begun before a moment (epoch seconds)."""
    until = {"lte": int(moment * 1000), "format": "epoch_millis"}
    return [{"term": {"kind": INTENT}}, {"range": {"ingested_at": until}}]


def _intent_id(batch: str) -> str:
    return f"intent.{batch}"


def _commit_id(slug: str, number: int) -> str:
    return f"commit.{slug}.{number}"
