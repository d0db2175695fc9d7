"""The index of a records folder: one row of facts a record, read by column and never as a dictionary a record.

What belongs here: the columns, reading and writing them, and which rows count. What does not: the bodies (`segments`).
Memory is a few dozen bytes a record: a million records are some 50 MB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_assets.core.datasets.segments import DEAD_FILE, Segment

Array = np.ndarray[tuple[int], np.dtype[Any]]

SCHEMA = pa.schema(
    [
        ("trace_id", pa.string()),
        ("trace", pa.uint64()),
        ("row_id", pa.binary(16)),
        ("prompt", pa.uint64()),
        ("session", pa.uint64()),
        ("content", pa.uint64()),
        ("timestamp", pa.float64()),
        ("kind", pa.string()),
        ("structured", pa.bool_()),
        ("source", pa.string()),
        ("unsupported", pa.string()),
        ("teacher", pa.string()),
        ("tools", pa.list_(pa.string())),
        ("definitions", pa.list_(pa.uint64())),
        ("called", pa.list_(pa.string())),
        ("cost_usd", pa.float64()),
        ("latency_ms", pa.float64()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("cached_tokens", pa.int64()),
        ("user_turns", pa.int32()),
        ("request_size", pa.int32()),
        ("answer_size", pa.int32()),
        ("label", pa.uint64()),
        ("accepted", pa.bool_()),
        ("cut_off", pa.bool_()),
        ("refusal", pa.bool_()),
        ("feedback", pa.float64()),
        ("prompt_at", pa.int32()),
        ("prompt_bytes", pa.int32()),
        ("tools_at", pa.int32()),
        ("tools_bytes", pa.int32()),
        ("answer_at", pa.int32()),
        ("answer_bytes", pa.int32()),
        ("near", pa.list_(pa.uint64())),
        ("block_offset", pa.int64()),
        ("block_bytes", pa.int64()),
        ("position", pa.int64()),
    ]
)
# Columns that segments of earlier releases lack, and what stands there instead: "not known".
_LATER = {"label": 0}
# Values that differ in every row gain nothing from a dictionary and cost the time to try one.
_DICTIONARIES = [
    "kind",
    "source",
    "unsupported",
    "teacher",
    "tools.list.element",
    "definitions.list.element",
    "called.list.element",
    "cost_usd",
    "cached_tokens",
    "user_turns",
    "label",
    "block_offset",
    "block_bytes",
]


class Dead(StrEnum):
    """Why a row no longer counts."""

    SUPERSEDED = "superseded"
    DUPLICATE = "duplicate"


def read_columns(path: Path, columns: Sequence[str]) -> pa.Table:
    """Some columns of a parquet file. (`pq.read_table` would import the dataset machinery first: 0.1 s a process.)"""
    with pq.ParquetFile(path) as file:
        return file.read(columns=list(columns), use_threads=False)


def read_index(path: Path, columns: Sequence[str]) -> pa.Table:
    """Some columns of the index of one segment, in this order.

    Columns that did not exist yet when the segment was written are filled: with the value that says so, or with null where
    only a report shows them. Neither is a reason to read all records again.
    """
    table = read_columns(path, columns)
    for name in columns:
        if name not in table.column_names:
            kind = SCHEMA.field(name).type
            table = table.append_column(SCHEMA.field(name), pa.repeat(pa.scalar(_LATER.get(name), kind), table.num_rows))
    return table.select(columns)


def write_index(path: Path, table: pa.Table) -> None:
    """Write the index of one segment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd", compression_level=1, use_dictionary=_DICTIONARIES)


def index_tables(records: Path, segments: Sequence[Segment], columns: Sequence[str]) -> Iterator[pa.Table]:
    """The index, one table a segment, with these columns only."""
    for segment in segments:
        yield read_index(records / segment.index, columns)


def numbers(records: Path, segments: Sequence[Segment], column: str, dtype: Any) -> Array:
    """One numeric column over all segments, in row order."""
    values = np.empty(sum(segment.rows for segment in segments), dtype)
    at = 0
    for table in index_tables(records, segments, [column]):
        values[at : at + table.num_rows] = table[column].to_numpy()
        at += table.num_rows
    return values


def near_keys(records: Path, segments: Sequence[Segment]) -> Array:
    """The keys near-duplicates share, one row a record and 0 where there is none; no columns where no record has any."""
    rows = sum(segment.rows for segment in segments)
    values: Array | None = None
    at = 0
    for table in index_tables(records, segments, ["near"]):
        column = table["near"].combine_chunks()
        counts = np.diff(column.offsets.to_numpy())
        if (width := int(counts.max(initial=0))) > 0:
            values = np.zeros((rows, width), np.uint64) if values is None else values
            # All of a folder's records were read with the same settings: a record has every key or none.
            values[at + np.flatnonzero(counts)] = column.flatten().to_numpy().reshape(-1, width)
        at += table.num_rows
    return np.zeros((rows, 0), np.uint64) if values is None else values


def codes(records: Path, segments: Sequence[Segment], column: str) -> tuple[Array, list[str]]:
    """A text column as int32 codes into the sorted list of its values: the same whatever the order of the rows."""
    seen: dict[str, int] = {}
    values = np.empty(sum(segment.rows for segment in segments), np.int32)
    at = 0
    for table in index_tables(records, segments, [column]):
        encoded = table[column].combine_chunks().dictionary_encode()
        local = np.array([seen.setdefault(name, len(seen)) for name in encoded.dictionary.to_pylist()], np.int32)
        values[at : at + table.num_rows] = local[encoded.indices.to_numpy()] if len(local) else 0
        at += table.num_rows
    names = sorted(seen)
    place = np.empty(len(names), np.int32)
    for position, name in enumerate(names):
        place[seen[name]] = position
    return (place[values] if names else values), names


def value_counts(column: pa.ChunkedArray) -> dict[str, int]:
    """How often each value occurs in a text column, or in the lists of a column of lists; null counts as a value."""
    values = column.combine_chunks()
    counted = (values.flatten() if pa.types.is_list(values.type) else values).value_counts()
    return dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True))


def row_ids(table: pa.Table) -> bytes:
    """The `row_id` column of a table as one run of bytes, 16 a row."""
    column = table["row_id"].combine_chunks()
    start = column.offset * 16
    return bytes(column.buffers()[1][start : start + 16 * len(column)]) if len(column) else b""


def conversations(records: Path, segments: Sequence[Segment]) -> Array:
    """The first 64 bits of every row's conversation hash, in row order."""
    parts = [np.frombuffer(row_ids(table), np.uint64)[::2] for table in index_tables(records, segments, ["row_id"])]
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def dead_rows(trace: Array, content: Array, conversation: Array) -> tuple[Array, Array]:
    """The rows that do not count: of each trace its last content wins, then of each conversation the first row.

    All three are 64-bit hashes, one a row. A content that comes again unchanged keeps its place: a store that had to be
    read once more must not move anything. Returns two sorted arrays of row numbers: superseded, duplicate. A duplicate
    comes back to life when the row it repeated is superseded.
    """
    order = np.argsort(trace, kind="stable")
    traces, contents = trace[order], content[order]
    begins = np.ones(len(order), bool)
    begins[1:] = (traces[1:] != traces[:-1]) | (contents[1:] != contents[:-1])
    last = np.ones(len(order), bool)
    last[:-1] = traces[1:] != traces[:-1]
    # Of the last run of equal contents of each trace, the row with which it begins.
    kept = order[np.flatnonzero(begins)[np.cumsum(begins)[last] - 1]]
    alive = np.zeros(len(trace), bool)
    alive[kept] = True
    superseded = np.flatnonzero(~alive)
    rows = np.flatnonzero(alive)
    first = np.zeros(len(rows), bool)
    first[np.unique(conversation[rows], return_index=True)[1]] = True
    return superseded, rows[~first]


def write_dead(folder: Path, superseded: Array, duplicates: Array) -> None:
    """Write `dead.parquet`."""
    rows = np.concatenate([superseded, duplicates])
    reasons = [str(Dead.SUPERSEDED)] * len(superseded) + [str(Dead.DUPLICATE)] * len(duplicates)
    table = pa.table({"row": pa.array(rows, pa.int64()), "reason": pa.array(reasons, pa.string())})
    pq.write_table(table, folder / DEAD_FILE)


def read_dead(folder: Path) -> tuple[Array, Array]:
    """Superseded and duplicate rows, as `write_dead` was given them."""
    table = read_columns(folder / DEAD_FILE, ["row", "reason"])
    rows = table["row"].to_numpy()
    superseded = table["reason"].to_numpy(zero_copy_only=False) == str(Dead.SUPERSEDED)
    return rows[superseded], rows[~superseded]


def alive_rows(folder: Path, rows: int) -> Array:
    """Which of a folder's rows count, as a mask."""
    alive = np.ones(rows, bool)
    for dead in read_dead(folder):
        alive[dead] = False
    return alive
