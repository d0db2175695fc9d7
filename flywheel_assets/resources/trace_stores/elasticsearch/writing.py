"""Writing records into our own index: all of a batch counts, or none of it, and no record that counted is ever lost.

What belongs here: one batch of one workload, from intent to commit. What does not: reading (`own`), mappings (`index`).

Elasticsearch has no transactions, and documents of two writers become visible in any order. So a batch is

1. announced by an *intent*,
2. written: each record under an id that follows from workload and record id, with `create` or on condition that nobody
   changed it since we looked,
3. made visible (refresh), and
4. let in by a *commit*: a document whose id holds the next number of its workload. Only one writer can create it.

Readers go by commits, so they see whole batches in one order and a watermark is a commit's number. Whoever dies between 1 and
4 leaves an intent behind; the next one who meets it commits that batch in its place (`adopt`), because its documents may have
replaced ones that counted.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from flywheel_assets.core.records import Record
from flywheel_assets.core.rows import Json
from flywheel_assets.resources.trace_stores.base import AddResult, TraceStoreError
from flywheel_assets.resources.trace_stores.elasticsearch.connection import (
    FIRST_PAUSE_S,
    TRY_AGAIN,
    Connection,
    ElasticsearchRefused,
)
from flywheel_assets.resources.trace_stores.elasticsearch.index import COMMIT, INTENT, RECORD

# A request of some megabytes is what the server's makers advise; 100 MB is where it refuses.
_SLICE_BYTES = 5 << 20
_SLICE_RECORDS = 1000
_LOOKUP_IDS = 1000
# How long a batch that holds records we also bring is waited for, before it is taken for a dead writer's.
PATIENCE_S = 3.0
# A writer that is alive ends a batch long before; later, what it left behind is committed by whoever comes by.
ORPHAN_AGE_S = 120.0
_MOST_ROUNDS = 20


class Stored(NamedTuple):
    """What the index holds under a document id."""

    content_hash: str
    batch: str
    seq_no: int
    primary_term: int


@dataclass(slots=True)
class _Batch:
    """One batch under way."""

    slug: str
    workload_id: str
    name: str
    ingested_at: int


class Writer:
    """Writes batches into one index. Threads and processes may do so at once."""

    def __init__(self, connection: Connection, index: str) -> None:
        self._connection, self._index = connection, index
        self._last_ms = 0

    def add(self, slug: str, members: Sequence[Record]) -> AddResult:
        """Add records of one workload; the last content under an id wins."""
        stored = self._find([document_id(slug, record.id) for record in members])
        winners, result, repeated = _winners(slug, members, stored)
        unfinished = self._unfinished({stored[one].batch for one in repeated})
        if not winners and not unfinished:
            return result
        batch = _Batch(slug, members[0].workload_id, secrets.token_hex(8), self._now_ms())
        if not winners:
            self._commit(slug, batch.workload_id, unfinished, batch.ingested_at)
            return result
        self._announce(batch)
        result = self._write(batch, winners, stored, result)
        self._finish(batch, unfinished)
        return result

    def adopt(self, older_than_s: float = ORPHAN_AGE_S) -> int:
        """Commit the batches of writers that died half-way; how many there were."""
        before = int((time.time() - older_than_s) * 1000)
        found = self._connection.search(
            f"looking for unfinished batches in {self._index}",
            index=self._index,
            size=1000,
            query={"bool": {"filter": [{"term": {"kind": INTENT}}, {"range": {"ingested_at": {"lte": before, "format": "epoch_millis"}}}]}},
            source=["workload", "workload_id", "batch"],
        )["hits"]["hits"]
        for hit in found:
            intent = hit["_source"]
            self._refresh()
            if not self._committed(intent["batch"]):
                self._commit(intent["workload"], intent["workload_id"], [intent["batch"]], self._now_ms())
            else:
                self._withdraw(intent["batch"])
        return len(found)

    def _announce(self, batch: _Batch) -> None:
        intent = {
            "kind": INTENT,
            "workload": batch.slug,
            "workload_id": batch.workload_id,
            "batch": batch.name,
            "ingested_at": batch.ingested_at,
        }
        self._connection.ask(
            f"announcing a batch in {self._index}",
            lambda client: client.index(index=self._index, id=_intent_id(batch.name), document=intent),
        )

    def _finish(self, batch: _Batch, others: Sequence[str]) -> None:
        self._refresh()
        self._commit(batch.slug, batch.workload_id, [batch.name, *others], batch.ingested_at)

    def _write(self, batch: _Batch, winners: dict[str, Record], stored: dict[str, Stored], result: AddResult) -> AddResult:
        """Write the winners; the result, corrected by what other writers did meanwhile."""
        positions = {document: place for place, document in enumerate(winners)}
        new, updated, duplicate = result.new, result.updated, result.duplicate
        todo = list(winners)
        for _ in range(_MOST_ROUNDS):
            conflicts: list[str] = []
            lines = ((one, _lines(batch, one, winners[one], positions[one], stored.get(one))) for one in todo)
            for part in _slices(lines):
                conflicts += self._bulk(part)
            if not conflicts:
                return AddResult(new, updated, duplicate, {batch.slug: new} if new else {})
            now = self._find(conflicts)
            todo = []
            for one in conflicts:
                found, was_new = now.get(one), one not in stored
                if found is None:
                    stored.pop(one, None)
                elif found.batch == batch.name:
                    # Ours: it was written, and the answer was lost.
                    continue
                elif found.content_hash == winners[one].content_hash.hex():
                    new, duplicate = new - 1, duplicate + 1
                    updated -= 0 if was_new else 1
                    continue
                else:
                    stored[one] = found
                    updated += 1 if was_new else 0
                todo.append(one)
            if not todo:
                return AddResult(new, updated, duplicate, {batch.slug: new} if new else {})
        raise TraceStoreError(
            f"{self._connection.url}: {len(todo)} records of {batch.slug!r} were changed by other writers {_MOST_ROUNDS} times"
            f" while they were written to {self._index}. Add them again; what was written counts once."
        )

    def _bulk(self, lines: dict[str, list[bytes]]) -> list[str]:
        """Write documents; the ids of those that somebody else changed. What the server was too busy for is sent again."""
        what = f"writing to {self._index}"
        until, pause = time.monotonic() + self._connection.retry_s, FIRST_PAUSE_S
        conflicts: list[str] = []
        while True:
            operations = [line for pair in lines.values() for line in pair]
            body = self._connection.ask(what, lambda client, sent=operations: client.bulk(index=self._index, operations=sent))
            if not body["errors"]:
                return conflicts
            later: dict[str, list[bytes]] = {}
            for item in body["items"]:
                ((_, outcome),) = item.items()
                status, one = outcome["status"], outcome["_id"]
                if status == 409:
                    conflicts.append(one)
                elif status in TRY_AGAIN:
                    later[one] = lines[one]
                elif status >= 300:
                    raise _refused_item(self._connection, what, outcome)
            if not later:
                return conflicts
            pause = self._connection.pause(what, f"{len(later)} documents were refused as too many", pause, until)
            lines = later

    def _find(self, documents: Iterable[str]) -> dict[str, Stored]:
        """What is stored under document ids, also what no search sees yet."""
        wanted = list(dict.fromkeys(documents))
        found: dict[str, Stored] = {}
        for start in range(0, len(wanted), _LOOKUP_IDS):
            part = wanted[start : start + _LOOKUP_IDS]
            for doc in self._get(part, ["content_hash", "batch"]):
                if doc.get("found"):
                    source = doc["_source"]
                    found[doc["_id"]] = Stored(source["content_hash"], source["batch"], doc["_seq_no"], doc["_primary_term"])
        return found

    def _get(self, ids: list[str], fields: list[str]) -> list[Json]:
        what = f"looking up records in {self._index}"
        docs: list[Json] = self._connection.ask(
            what, lambda client: client.mget(index=self._index, ids=ids, source_includes=fields)
        )["docs"]
        for doc in docs:
            if "error" in doc:
                raise TraceStoreError(f"{self._connection.url}: {what}: {doc['error'].get('reason')}. Nothing was written.")
        return docs

    def _unfinished(self, batches: set[str]) -> list[str]:
        """Those of `batches` that nobody commits: they were still announced after some patience."""
        until = time.monotonic() + PATIENCE_S
        while batches:
            docs = self._get([_intent_id(name) for name in sorted(batches)], ["batch"])
            batches = {doc["_source"]["batch"] for doc in docs if doc.get("found")}
            if not batches or time.monotonic() >= until:
                break
            time.sleep(0.05)
        return sorted(batches)

    def _commit(self, slug: str, workload_id: str, batches: Sequence[str], at: int) -> None:
        """Let batches in under the workload's next number; they are no longer announced then."""
        what = f"committing to {self._index}"
        commit: dict[str, Any] = {
            "kind": COMMIT,
            "workload": slug,
            "workload_id": workload_id,
            "batches": list(batches),
            "ingested_at": at,
        }
        number = self._head(slug) + 1
        while True:
            numbered = {**commit, "commit": number}
            try:
                self._connection.ask(
                    what,
                    lambda client, n=number, doc=numbered: client.create(
                        index=self._index, id=_commit_id(slug, n), document=doc, refresh=True
                    ),
                )
                break
            except ElasticsearchRefused as error:
                if error.status != 409:
                    raise
            if self._is_ours(slug, number, batches):
                break
            number += 1
        for name in batches:
            self._withdraw(name)

    def _is_ours(self, slug: str, number: int, batches: Sequence[str]) -> bool:
        """Whether the commit that stands there is ours: it was written, and the answer was lost."""
        (doc,) = self._get([_commit_id(slug, number)], ["batches"])
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

    def _committed(self, batch: str) -> bool:
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

    def _now_ms(self) -> int:
        # Two batches of one writer never share a millisecond: their order is that of the calls.
        self._last_ms = max(int(time.time() * 1000), self._last_ms + 1)
        return self._last_ms


def document_id(slug: str, record_id: str) -> str:
    """The id under which a record lies: the same for the same workload and record id."""
    return hashlib.sha256(f"{slug}\0{record_id}".encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _intent_id(batch: str) -> str:
    return f"intent.{batch}"


def _commit_id(slug: str, number: int) -> str:
    return f"commit.{slug}.{number}"


def _winners(
    slug: str, members: Sequence[Record], stored: dict[str, Stored]
) -> tuple[dict[str, Record], AddResult, list[str]]:
    """Which records must be written, in order, by document id; what that changes; and which ids were known as they are."""
    content = {one: found.content_hash for one, found in stored.items()}
    winners: dict[str, Record] = {}
    repeated: list[str] = []
    added = updated = duplicate = 0
    for record in members:
        one = document_id(slug, record.id)
        before, brought = content.get(one), record.content_hash.hex()
        if before == brought:
            duplicate += 1
            if one in stored and one not in winners:
                repeated.append(one)
            continue
        if before is None:
            added += 1
        else:
            updated += 1
        content[one] = brought
        winners.pop(one, None)
        winners[one] = record
    new = added + updated
    return winners, AddResult(new, updated, duplicate, {slug: new} if new else {}), repeated


def _lines(batch: _Batch, one: str, record: Record, position: int, stored: Stored | None) -> list[bytes]:
    """The two lines of a bulk request that write a record, on condition that what we know of it still holds."""
    if stored is None:
        action: Json = {"create": {"_id": one}}
    else:
        action = {"index": {"_id": one, "if_seq_no": stored.seq_no, "if_primary_term": stored.primary_term}}
    document = {
        "kind": RECORD,
        "workload": batch.slug,
        "workload_id": record.workload_id,
        "ingested_at": batch.ingested_at,
        "batch": batch.name,
        "position": position,
        "id": record.id,
        "timestamp": int(record.timestamp * 1000),
        "session_id": record.session_id,
        "source": record.source,
        "content_hash": record.content_hash.hex(),
        "body": record.body.decode(),
    }
    return [orjson.dumps(action), orjson.dumps(document)]


def _slices(lines: Iterable[tuple[str, list[bytes]]]) -> Iterable[dict[str, list[bytes]]]:
    part: dict[str, list[bytes]] = {}
    size = 0
    for one, pair in lines:
        if part and (len(part) == _SLICE_RECORDS or size + len(pair[1]) > _SLICE_BYTES):
            yield part
            part, size = {}, 0
        part[one] = pair
        size += len(pair[1])
    if part:
        yield part


def _refused_item(connection: Connection, what: str, outcome: Json) -> TraceStoreError:
    error = outcome.get("error") or {}
    return ElasticsearchRefused(
        f"{connection.url}: {what}: document {outcome['_id']} was refused with status {outcome['status']}"
        f" ({error.get('type')}: {str(error.get('reason'))[:300]}). Records written before it count once the batch is added"
        " again.",
        status=int(outcome["status"]),
        kind=str(error.get("type")),
    )
