"""The local trace store: records and refused lines in one SQLite file.

What belongs here: the tables and what is written to and read from them. What does not: the file and its locks
(`sqlite_file`), and what a record is (`core.records`).

Why a reader never misses a record: sequence numbers are given inside the write transaction, and SQLite lets in one writer
at a time, so numbers become visible in the order they were given and no lower one can appear later. Readers go on
meanwhile. A killed process loses its open transaction and nothing else.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from flywheel_assets.core.records import Record
from flywheel_assets.resources.trace_stores.base import (
    START,
    AddResult,
    RejectCount,
    RejectedLine,
    StoredRecord,
    UnknownWatermark,
    WorkloadSummary,
)
from flywheel_assets.resources.trace_stores.body_codec import packer, train, unpacker
from flywheel_assets.resources.trace_stores.sqlite_file import SqliteFile, scalar

_APPLICATION_ID = 0x466C7972  # "Flyr": tells our file from any other SQLite file
_SCHEMA_VERSION = 1
_TABLES = (
    "CREATE TABLE store (generation TEXT NOT NULL, next_seq INTEGER NOT NULL)",
    # The generation marks this very file: watermarks of a store that was deleted and made anew must not seem valid.
    "INSERT INTO store VALUES (lower(hex(randomblob(4))), 1)",
    "CREATE TABLE workloads (key INTEGER PRIMARY KEY, slug TEXT NOT NULL UNIQUE, workload_id TEXT NOT NULL,"
    " count INTEGER NOT NULL, last_seq INTEGER NOT NULL)",
    "CREATE TABLE records (seq INTEGER PRIMARY KEY, workload INTEGER NOT NULL, id TEXT NOT NULL, content_hash BLOB NOT NULL,"
    " body BLOB NOT NULL)",
    # What bodies are packed with (`body_codec`): at most one a workload, made by its first large batch and never changed.
    "CREATE TABLE dictionaries (workload INTEGER PRIMARY KEY, content BLOB NOT NULL)",
    "CREATE INDEX records_of_workload ON records (workload)",
    # From a 64-bit hash of (workload, id) to the record. Ids arrive in random order, and an index over their text would cost
    # more than all the rest of a write once a store holds a million of them. Equal hashes are told apart by the record's id.
    "CREATE TABLE places (id_hash INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (id_hash, seq)) WITHOUT ROWID",
    "CREATE TABLE rejects (line_hash BLOB PRIMARY KEY, workload TEXT, reason TEXT NOT NULL, detail TEXT NOT NULL,"
    " excerpt TEXT NOT NULL, origin TEXT NOT NULL, line_number INTEGER NOT NULL, rejected_at REAL NOT NULL)",
)
# SQLite's own limit on variables is 32,766; beyond some hundred, longer statements are no faster.
_IDS_PER_LOOKUP = 500
_LAST_SEQ = 2**63 - 1


class LocalTraceStore:
    """A `TraceStore` in the SQLite file `path`, which the first write creates; reading an absent one finds it empty.

    `busy_timeout_s` is how long a write waits for another writer before `TraceStoreBusy`. Threads may share a store, and
    a forked child may go on using it. Not for network file systems: SQLite's locks do not hold there.
    """

    def __init__(self, path: str | Path, *, busy_timeout_s: float = 60.0) -> None:
        self.path = Path(path)
        self._file = SqliteFile(
            self.path, tables=_TABLES, application_id=_APPLICATION_ID, version=_SCHEMA_VERSION, busy_timeout_s=busy_timeout_s
        )

    def close(self) -> None:
        """Give back the file; the next call opens it again."""
        self._file.close()

    def add(self, records: Iterable[Record], *, keep_known: bool = False) -> AddResult:
        """Store records in one transaction; see `TraceStore.add`. The iterable is held in memory: hand over batches."""
        batch: dict[str, list[Record]] = {}
        for record in records:
            batch.setdefault(record.workload, []).append(record)
        if not batch:
            return AddResult()
        new = updated = duplicate = 0
        workloads: dict[str, int] = {}
        with self._file.writing() as db:
            for slug, members in batch.items():
                result = _add_to_workload(db, slug, members, keep_known)
                new, updated, duplicate = new + result.new, updated + result.updated, duplicate + result.duplicate
                if result.new:
                    workloads[slug] = result.new
        return AddResult(new, updated, duplicate, workloads)

    def reject(self, lines: Iterable[RejectedLine]) -> int:
        """Keep refused lines in one transaction; see `TraceStore.reject`."""
        now = time.time()
        rows = [
            (r.line_hash, r.workload, str(r.reason), r.detail, r.excerpt, line.origin, line.line_number, now)
            for line in lines
            for r in (line.reject,)
        ]
        if not rows:
            return 0
        with self._file.writing() as db:
            before = scalar(db, "SELECT count(*) FROM rejects")
            db.executemany("INSERT OR REPLACE INTO rejects VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            return scalar(db, "SELECT count(*) FROM rejects") - before

    def rejects(self, workload: str | None = None) -> list[RejectCount]:
        """Refused lines by workload and reason; see `TraceStore.rejects`."""
        with self._file.reading() as db:
            if db is None:
                return []
            # With max() SQLite takes the bare columns from the row that holds the maximum: the latest example.
            rows = db.execute(
                "SELECT workload, reason, count(*) AS n, detail, excerpt, origin, line_number, max(rejected_at) FROM rejects"
                " WHERE ?1 IS NULL OR workload = ?1 GROUP BY workload, reason ORDER BY n DESC, reason, workload",
                (workload,),
            ).fetchall()
        return [RejectCount(*row[:-1]) for row in rows]

    def workloads(self) -> list[WorkloadSummary]:
        """Every workload; see `TraceStore.workloads`."""
        with self._file.reading() as db:
            return [] if db is None else _summaries(db, None)

    def summary(self, workload: str) -> WorkloadSummary:
        """One workload; see `TraceStore.summary`."""
        with self._file.reading() as db:
            found = [] if db is None else _summaries(db, workload)
        return found[0] if found else WorkloadSummary(workload, workload, 0, START)

    def watermark(self, workload: str) -> str:
        """The workload's watermark; see `TraceStore.watermark`."""
        return self.summary(workload).watermark

    def count_after(self, workload: str, watermark: str | None) -> int:
        """How many records came after a watermark; see `TraceStore.count_after`."""
        with self._file.reading() as db:
            if db is None:
                return 0
            generation = str(scalar(db, "SELECT generation FROM store"))
            try:
                after = 0 if watermark is None else self._seq_of(watermark, generation)
            except UnknownWatermark:
                after = 0
            return scalar(
                db,
                "SELECT count(*) FROM records WHERE workload = (SELECT key FROM workloads WHERE slug = ?) AND seq > ?",
                (workload, after),
            )

    def read_after(
        self, workload: str, watermark: str | None, *, until: str | None = None, batch_size: int = 2000
    ) -> Iterator[list[StoredRecord]]:
        """The records after a watermark, in batches; see `TraceStore.read_after`."""
        with self._file.reading() as db:
            generation = None if db is None else str(scalar(db, "SELECT generation FROM store"))
        after = 0 if watermark is None else self._seq_of(watermark, generation)
        last = _LAST_SEQ if until is None else self._seq_of(until, generation)
        if generation is None:
            return iter(())
        return self._batches(workload, after, last, batch_size)

    def _batches(self, workload: str, after: int, last: int, batch_size: int) -> Iterator[list[StoredRecord]]:
        with self._file.snapshot() as db:
            # One state of the file for both queries: else a dictionary, and bodies packed with it, could come in between.
            db.execute("BEGIN")
            unpack = unpacker(_dictionary(db, "(SELECT key FROM workloads WHERE slug = ?)", workload))
            cursor = db.execute(
                "SELECT seq, id, body FROM records WHERE workload = (SELECT key FROM workloads WHERE slug = ?)"
                " AND seq > ? AND seq <= ? ORDER BY seq",
                (workload, after, last),
            )
            while rows := cursor.fetchmany(batch_size):
                yield [StoredRecord(seq, record_id, unpack(body)) for seq, record_id, body in rows]

    def _seq_of(self, watermark: str, generation: str | None) -> int:
        if watermark == START:
            return 0
        given, _, seq = watermark.partition(".")
        if given != generation or not seq.isdecimal():
            raise UnknownWatermark(
                f"watermark {watermark!r} was not given out by the trace store {self.path}: the store was replaced."
                " Read it from the start (watermark None)."
            )
        return int(seq)


def _add_to_workload(db: sqlite3.Connection, slug: str, members: list[Record], keep_known: bool) -> AddResult:
    """Add records of one workload inside the open transaction."""
    db.execute("INSERT OR IGNORE INTO workloads VALUES (NULL, ?, ?, 0, 0)", (slug, members[0].workload_id))
    key = scalar(db, "SELECT key FROM workloads WHERE slug = ?", (slug,))
    id_hashes = {record.id: _id_hash(slug, record.id) for record in members}
    stored = _find(db, key, id_hashes)
    content = {record_id: content_hash for record_id, (_, content_hash) in stored.items()}
    winners: dict[str, Record] = {}
    added = updated = duplicate = 0
    for record in members:
        before = content.get(record.id)
        if before == record.content_hash or (keep_known and before is not None):
            duplicate += 1
            continue
        if before is None:
            added += 1
        else:
            updated += 1
        content[record.id] = record.content_hash
        winners.pop(record.id, None)
        winners[record.id] = record
    if winners:
        _leave_old_places(db, [(id_hashes[i], stored[i][0]) for i in winners if i in stored])
        _append(db, key, list(winners.values()), id_hashes, added)
    return AddResult(added + updated, updated, duplicate)


def _find(db: sqlite3.Connection, key: int, id_hashes: dict[str, int]) -> dict[str, tuple[int, bytes]]:
    """Sequence number and content hash of those ids that the workload already has."""
    found: dict[str, tuple[int, bytes]] = {}
    hashes = sorted(id_hashes.values())
    for start in range(0, len(hashes), _IDS_PER_LOOKUP):
        part = hashes[start : start + _IDS_PER_LOOKUP]
        # CROSS JOIN makes SQLite start from the ids; by itself it starts from all records of the workload.
        rows = db.execute(
            "SELECT id, records.seq, content_hash FROM places CROSS JOIN records ON records.seq = places.seq"
            f" WHERE +workload = ? AND id_hash IN ({', '.join('?' * len(part))})",
            (key, *part),
        )
        found.update((record_id, (seq, content_hash)) for record_id, seq, content_hash in rows if record_id in id_hashes)
    return found


def _leave_old_places(db: sqlite3.Connection, places: list[tuple[int, int]]) -> None:
    """Take out records whose content changed; `places` are (id hash, sequence number)."""
    db.executemany("DELETE FROM records WHERE seq = ?", [(seq,) for _, seq in places])
    db.executemany("DELETE FROM places WHERE id_hash = ? AND seq = ?", places)


def _append(db: sqlite3.Connection, key: int, records: list[Record], id_hashes: dict[str, int], added: int) -> None:
    """Write records at the end of the order; `added` of them have an id the workload did not know."""
    first = scalar(db, "SELECT next_seq FROM store")
    pack = _packer(db, key, records)
    numbered = list(enumerate(records, first))
    rows = ((seq, key, r.id, r.content_hash, pack(r.body)) for seq, r in numbered)
    db.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?)", rows)
    db.executemany("INSERT INTO places VALUES (?, ?)", sorted((id_hashes[r.id], seq) for seq, r in numbered))
    last = first + len(numbered) - 1
    db.execute("UPDATE store SET next_seq = ?", (last + 1,))
    db.execute("UPDATE workloads SET count = count + ?, last_seq = ? WHERE key = ?", (added, last, key))


def _packer(db: sqlite3.Connection, key: int, records: list[Record]) -> Callable[[bytes], bytes]:
    """Packs bodies of a workload; its first batch that is large enough gives it a dictionary."""
    dictionary = _dictionary(db, "?", key)
    if dictionary is None:
        dictionary = train([record.body for record in records])
        if dictionary is not None:
            db.execute("INSERT INTO dictionaries VALUES (?, ?)", (key, dictionary))
    return packer(dictionary)


def _dictionary(db: sqlite3.Connection, workload: str, value: object) -> bytes | None:
    row = db.execute(f"SELECT content FROM dictionaries WHERE workload = {workload}", (value,)).fetchone()
    return None if row is None else bytes(row[0])


def _id_hash(slug: str, record_id: str) -> int:
    digest = hashlib.blake2b(f"{slug}\0{record_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _summaries(db: sqlite3.Connection, slug: str | None) -> list[WorkloadSummary]:
    rows = db.execute(
        "SELECT slug, workload_id, count, (SELECT generation FROM store), last_seq FROM workloads"
        " WHERE ?1 IS NULL OR slug = ?1 ORDER BY slug",
        (slug,),
    )
    return [WorkloadSummary(slug, original, count, f"{generation}.{seq}") for slug, original, count, generation, seq in rows]
