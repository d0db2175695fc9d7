"""From the trace store's batches to a version of the records, at the price of what is new.

What belongs here: reading batches, validating them again, appending segments, and saying what counts. What does not:
where batches come from (trace stores), and what is made of the records (`build`).
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import orjson
import pyarrow as pa

from flywheel_assets.core.cleaning import CleaningPolicy, scrub_detail, scrub_record
from flywheel_assets.core.cleaning.near import compared_text, near_keys
from flywheel_assets.core.datasets.appending import Described, SegmentAppender
from flywheel_assets.core.datasets.conversation import Facts, facts, session_hash
from flywheel_assets.core.datasets.index import (
    SCHEMA,
    Array,
    conversations,
    dead_rows,
    index_tables,
    numbers,
    write_dead,
)
from flywheel_assets.core.datasets.quality import quality_counts
from flywheel_assets.core.datasets.segments import (
    RecordsSummary,
    Segment,
    compress_blocks,
    read_summary,
    write_summary,
)
from flywheel_assets.core.datasets.workers import SERIAL_RECORDS, worker_count, worker_processes
from flywheel_assets.core.records import Record, Reject, canonical_body, parse_content

# What one worker is given at a time. The bytes bound memory where records are huge.
CHUNK_RECORDS = 2_000
CHUNK_BYTES = 8 << 20


class StoredBody(Protocol):
    """What an update needs of a stored record: its id, and its JSON."""

    @property
    def id(self) -> str:
        """The record's id."""
        ...

    @property
    def body(self) -> bytes:
        """The record as JSON."""
        ...


def update_records(
    previous: Path | None,
    batches: Iterable[Sequence[StoredBody]],
    out: Path,
    *,
    max_bytes: int,
    workers: int | None = None,
    received_at: float | None = None,
    cleaning: CleaningPolicy | None = None,
) -> RecordsSummary:
    """Write into `out` the records of `previous` and of `batches`, in that order.

    `out` is an empty or absent folder; the previous one is only linked from and never changed. Batches are in ingestion
    order: a later content of a known id replaces the earlier one, and a conversation that is already there is kept as
    a duplicate, which does not count. What `parse_content` refuses goes to `quarantine.jsonl` with id, reason and detail.
    `max_bytes` bounds one record; `received_at` (epoch seconds, now) is the clock future timestamps are refused by.
    `workers` processes share the work, by default one a core; few records are worked on in this process. `cleaning` says
    what is taken out of records before anything of them is kept (None: nothing), and must be that of `previous`.
    """
    clock = time.time() if received_at is None else received_at
    before = read_summary(previous) if previous is not None else None
    chunks = _chunks(batches)
    head = list(_at_least(SERIAL_RECORDS, chunks))
    count = worker_count(workers, sum(len(lengths) for _, lengths, _ in head))
    out.mkdir(parents=True, exist_ok=True)
    with SegmentAppender(previous, before, out) as appender, worker_processes(count) as in_order:
        arguments = ((*chunk, max_bytes, clock, cleaning) for chunk in itertools.chain(head, chunks))
        for described in in_order(describe_chunk, arguments):
            appender.append(described)
    return _summarise(out, before, appender)


def describe_chunk(
    ids: list[str],
    lengths: list[int],
    bodies: bytes,
    max_bytes: int,
    received_at: float,
    cleaning: CleaningPolicy | None = None,
) -> Described:
    """Validate, clean and describe a chunk of bodies, given end to end with their lengths. Runs in a worker process."""
    scrubs = cleaning if cleaning is not None and cleaning.scrub else None
    scrubbed: Counter[str] = Counter()
    compared: list[str] = []
    kept: list[bytes] = []
    rows: list[Facts] = []
    rejects: list[tuple[str, str, str]] = []
    at = 0
    for trace_id, length in zip(ids, lengths, strict=True):
        parsed = parse_content(bodies[at : at + length], max_bytes=max_bytes, received_at=received_at)
        at += length
        if isinstance(parsed, Reject):
            detail = parsed.detail if scrubs is None else scrub_detail(parsed.detail, scrubs)
            rejects.append((trace_id, str(parsed.reason), detail))
            continue
        record, content = parsed
        body = record.body if record.id == trace_id else _under_id(record, trace_id)
        content_hash = record.content_hash
        content["id"] = trace_id
        # Two sessions named after people stay two, also when both are called <EMAIL_1>.
        session = session_hash(content)
        if scrubs is not None and (replaced := scrub_record(content, body, scrubs)):
            scrubbed.update({str(entity): count for entity, count in replaced.items()})
            body, content_hash = canonical_body(content)
        rows.append(facts(content, body, content_hash, session))
        if cleaning is not None and cleaning.near_duplicates:
            compared.append(compared_text(content["request"]["messages"]))
        kept.append(body)
    blocks = list(compress_blocks(kept))
    columns = list(zip(*rows, strict=True)) or [()] * len(Facts._fields)
    near = near_keys(compared, cleaning.similarity) if cleaning is not None and compared else [[] for _ in rows]
    columns.append(tuple(near))
    names = [*Facts._fields, "near"]
    arrays = [pa.array(column, SCHEMA.field(name).type) for name, column in zip(names, columns, strict=True)]
    index = pa.RecordBatch.from_arrays(arrays, names=names)
    return Described([block for block, _ in blocks], [n for _, n in blocks], index, rejects, scrubbed)


def _under_id(record: Record, trace_id: str) -> bytes:
    """The body with the id its store knows it by: that of a foreign store need not stand in the record."""
    return b'{"id":' + orjson.dumps(trace_id) + record.body[len(b'{"id":' + orjson.dumps(record.id)) :]


def _chunks(batches: Iterable[Sequence[StoredBody]]) -> Iterator[tuple[list[str], list[int], bytes]]:
    """Chunks whose borders depend on the records alone, not on the store's batches: same records, same bytes."""
    ids: list[str] = []
    bodies: list[bytes] = []
    size = 0
    for record in itertools.chain.from_iterable(batches):
        ids.append(record.id)
        bodies.append(record.body)
        size += len(record.body)
        if len(ids) == CHUNK_RECORDS or size >= CHUNK_BYTES:
            yield ids, [len(body) for body in bodies], b"".join(bodies)
            ids, bodies, size = [], [], 0
    if ids:
        yield ids, [len(body) for body in bodies], b"".join(bodies)


def _at_least(
    records: int, chunks: Iterator[tuple[list[str], list[int], bytes]]
) -> Iterator[tuple[list[str], list[int], bytes]]:
    seen = 0
    for chunk in chunks:
        yield chunk
        seen += len(chunk[0])
        if seen >= records:
            return


def _summarise(out: Path, before: RecordsSummary | None, appender: SegmentAppender) -> RecordsSummary:
    """Say which rows count, write `dead.parquet` and `records.json`."""
    segments = tuple(appender.segments)
    traces, contents = (numbers(out, segments, column, np.uint64) for column in ("trace", "content"))
    superseded, duplicates = dead_rows(traces, contents, conversations(out, segments))
    write_dead(out, superseded, duplicates)
    rows = sum(segment.rows for segment in segments)
    alive = np.ones(rows, bool)
    alive[superseded] = False
    alive[duplicates] = False
    summary = RecordsSummary(
        records=int(alive.sum()),
        rows=rows,
        superseded=len(superseded),
        duplicates=len(duplicates),
        rejected=dict(sorted((Counter(before.rejected if before is not None else {}) + appender.new_rejects).items())),
        scrubbed=dict(sorted((Counter(before.scrubbed if before is not None else {}) + appender.new_scrubbed).items())),
        quality=quality_counts(out, segments, alive),
        new_rows=appender.new_rows,
        new_rejected=appender.new_rejects.total(),
        data_version=_data_version(out, segments, alive),
        segments=segments,
    )
    write_summary(out, summary)
    return summary


def _data_version(out: Path, segments: Sequence[Segment], alive: Array) -> str:
    digest = hashlib.sha256(b"records 1")
    at = 0
    for table in index_tables(out, segments, ["trace", "content"]):
        counts = alive[at : at + table.num_rows]
        # Side by side, so that the borders of segments leave no trace in the hash.
        digest.update(np.column_stack([table["trace"].to_numpy()[counts], table["content"].to_numpy()[counts]]).tobytes())
        at += table.num_rows
    return digest.hexdigest()[:16]
