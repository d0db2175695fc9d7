"""Writing records into our own index: all of a batch counts, or none of it, and no record that counted is ever lost.

What belongs here: one batch of one workload, from intent to commit. What does not: how intents and commits are kept
(`commits`), reading (`own`), mappings (`index`).

Elasticsearch has no transactions, and documents of two writers become visible in any order. So a batch is

1. announced by an *intent*,
2. written: each record under an id that follows from workload and record id, with `create` or on condition that nobody
   changed it since we looked,
3. made visible (refresh), and
4. let in by a *commit*: a document whose id holds the next number of its workload. Only one writer can create it.

Readers go by commits, so they see whole batches in one order and a watermark is a commit's number. Whoever dies between 1
and 4 leaves an intent behind; the next one who meets it commits that batch in its place (`adopt`), because its documents
may have replaced ones that counted.
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
from flywheel_assets.resources.trace_stores.elasticsearch.commits import Commits, documents
from flywheel_assets.resources.trace_stores.elasticsearch.connection import (
    FIRST_PAUSE_S,
    TRY_AGAIN,
    Connection,
    ElasticsearchRefused,
)
from flywheel_assets.resources.trace_stores.elasticsearch.index import RECORD

# A request of some megabytes is what the server's makers advise; 100 MB is where it refuses.
_SLICE_BYTES = 5 << 20
_SLICE_RECORDS = 1000
_LOOKUP_IDS = 1000
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
        self._commits = Commits(connection, index)
        self._last_ms = 0

    def add(self, slug: str, members: Sequence[Record], *, keep_known: bool = False) -> AddResult:
        """Add records of one workload; the last content under an id wins, or with `keep_known` the first."""
        stored = self._find([document_id(slug, record.id) for record in members])
        winners, result, repeated = _winners(slug, members, stored, keep_known)
        known_from = {stored[one].batch for one in repeated}
        batch = _Batch(slug, members[0].workload_id, secrets.token_hex(8), self._now_ms())
        if winners:
            self._commits.announce(slug, batch.workload_id, batch.name, batch.ingested_at)
            result = self._write(batch, winners, stored, result, known_from, keep_known)
            self._commits.commit(slug, batch.workload_id, [batch.name], batch.ingested_at)
        # What we found as we brought it must count too, also where its writer died before its commit. Only after ours: two
        # writers that wait for each other's batches would both take the other for dead.
        if abandoned := self._commits.unfinished(known_from):
            self._commits.commit(slug, batch.workload_id, abandoned, batch.ingested_at)
        return result

    def _write(
        self,
        batch: _Batch,
        winners: dict[str, Record],
        stored: dict[str, Stored],
        result: AddResult,
        known_from: set[str],
        keep_known: bool,
    ) -> AddResult:
        """Write the winners; the result, corrected by what other writers did meanwhile (`known_from`: their batches)."""
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
                elif keep_known or found.content_hash == winners[one].content_hash.hex():
                    new, duplicate = new - 1, duplicate + 1
                    updated -= 0 if was_new else 1
                    known_from.add(found.batch)
                    continue
                else:
                    stored[one] = found
                    updated += 1 if was_new else 0
                todo.append(one)
            if not todo:
                return AddResult(new, updated, duplicate, {batch.slug: new} if new else {})
        raise TraceStoreError(
            f"{self._connection.url}: {len(todo)} records of {batch.slug!r} were changed by other writers"
            f" {_MOST_ROUNDS} times while they were written to {self._index}. Add them again; what was written counts once."
        )

    def _bulk(self, lines: dict[str, list[bytes]]) -> list[str]:
        """Write documents; the ids of those that somebody else changed. What the server was too busy for is sent again."""
        what = f"writing to {self._index}"
        until, pause = time.monotonic() + self._connection.retry_s, FIRST_PAUSE_S
        conflicts: list[str] = []
        while True:
            operations = [line for pair in lines.values() for line in pair]
            body = self._send(what, operations)
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

    def _send(self, what: str, lines: list[Any]) -> Json:
        # JSON already: the client passes bytes on as they are, though its annotations know dictionaries only.
        return self._connection.ask(what, lambda client: client.bulk(index=self._index, operations=lines))

    def _find(self, ids: Iterable[str]) -> dict[str, Stored]:
        """What is stored under document ids, also what no search sees yet."""
        wanted = list(dict.fromkeys(ids))
        found: dict[str, Stored] = {}
        for start in range(0, len(wanted), _LOOKUP_IDS):
            part = wanted[start : start + _LOOKUP_IDS]
            for doc in documents(self._connection, self._index, part, ["content_hash", "batch"]):
                if doc.get("found"):
                    source = doc["_source"]
                    found[doc["_id"]] = Stored(source["content_hash"], source["batch"], doc["_seq_no"], doc["_primary_term"])
        return found

    def _now_ms(self) -> int:
        # Two batches of one writer never share a millisecond: their order is that of the calls.
        self._last_ms = max(int(time.time() * 1000), self._last_ms + 1)
        return self._last_ms


def document_id(slug: str, record_id: str) -> str:
    """The id under which a record lies: the same for the same workload and record id."""
    return hashlib.sha256(f"{slug}\0{record_id}".encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _winners(
    slug: str, members: Sequence[Record], stored: dict[str, Stored], keep_known: bool
) -> tuple[dict[str, Record], AddResult, list[str]]:
    """Which records must be written, in order, by document id; what that changes; and which ids were known and stay."""
    content = {one: found.content_hash for one, found in stored.items()}
    winners: dict[str, Record] = {}
    repeated: list[str] = []
    added = updated = duplicate = 0
    for record in members:
        one = document_id(slug, record.id)
        before, brought = content.get(one), record.content_hash.hex()
        if before == brought or (keep_known and before is not None):
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
