"""The row manifest: what became of every record, one row each, in `rows.parquet` beside the eval rows.

What belongs here: fates (side, split, reason), and writing and counting them. What does not: deciding them (`split`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_assets.core.datasets.index import Array, index_tables, row_ids
from flywheel_assets.core.datasets.segments import Segment

ROWS_FILE = "rows.parquet"


class Split(IntEnum):
    """Where a used row went."""

    NONE = 0
    TRAIN = 1
    VALIDATION = 2
    EVAL = 3


class LeftOut(StrEnum):
    """Why a record is in no file of its datasets."""

    SUPERSEDED = "superseded"
    DUPLICATE = "duplicate"
    UNSUPPORTED_CONTENT = "unsupported_content"
    TRUNCATED = "truncated"
    REFUSAL = "refusal"
    LOW_FEEDBACK = "low_feedback"
    LINKS_BOTH_SIDES = "links_both_sides"
    LINKS_TRAIN_AND_VALIDATION = "links_train_and_validation"
    TRAIN_ONLY_SOURCE = "train_only_source_on_eval_side"
    NOT_DRAWN = "eval_side_not_drawn"
    OVER_CONVERSATION_LIMIT = "eval_side_over_conversation_limit"
    BEFORE_EXAM_WINDOW = "eval_side_before_exam_window"
    AFTER_TRAINING_WINDOW = "after_training_window"
    OVER_LIMIT = "over_limit"


_REASONS: tuple[LeftOut | None, ...] = (None, *LeftOut)
_CODES = {reason: code for code, reason in enumerate(_REASONS)}


@dataclass(frozen=True, slots=True)
class Fates:
    """What became of each row: arrays over all rows of a records folder, written by the steps of `split`.

    `sides` and `splits` hold `Side` and `Split` values; `clusters` is 0 where a row was never assigned; `reasons` are
    set with `leave_out` only.
    """

    sides: Array
    splits: Array
    clusters: Array
    reasons: Array

    @classmethod
    def undecided(cls, rows: int) -> Fates:
        """No row decided on yet."""
        return cls(np.zeros(rows, np.uint8), np.zeros(rows, np.uint8), np.zeros(rows, np.uint64), np.zeros(rows, np.uint8))

    def leave_out(self, rows: Array, reason: LeftOut) -> None:
        """Say why these rows are in no file."""
        self.reasons[rows] = _CODES[reason]

    def undecided_rows(self) -> Array:
        """Rows that are neither left out nor in a split."""
        return np.flatnonzero((self.reasons == 0) & (self.splits == Split.NONE))

    def left_out(self) -> dict[str, int]:
        """How many rows were left out, by reason."""
        counts = np.bincount(self.reasons, minlength=len(_REASONS))
        return {
            str(reason): int(counts[code]) for code, reason in enumerate(_REASONS) if reason is not None and counts[code]
        }


def hex_strings(content: bytes, width: int) -> pa.Array:
    """An Arrow string array of the hexadecimal form of `content`, `width` bytes a value, without a Python loop."""
    values = len(content) // width
    offsets = np.arange(values + 1, dtype=np.int32) * (2 * width)
    return pa.StringArray.from_buffers(values, pa.py_buffer(offsets), pa.py_buffer(content.hex().encode()))


def cluster_name(cluster: int) -> str:
    """A cluster as it is written: 16 hexadecimal digits."""
    return f"{cluster:016x}"


def write_rows(folder: Path, records: Path, segments: Sequence[Segment], fates: Fates) -> None:
    """Write `rows.parquet`: row_id, trace_id, cluster, side, split, class, timestamp, reason; in ingestion order.

    `row_id` is the hash of the conversation, so duplicates share it. `cluster` and `side` are null where a row was
    never assigned, `split` and `reason` exclude each other.
    """
    sides = _names(["train", "eval"])
    splits = _names(["train", "validation", "eval"])
    reasons = _names([str(reason) for reason in LeftOut])
    at = 0
    writer: pq.ParquetWriter | None = None
    for table in index_tables(records, segments, ["row_id", "trace_id", "kind", "timestamp"]):
        part = slice(at, at + table.num_rows)
        at += table.num_rows
        rows = pa.table(
            {
                "row_id": hex_strings(row_ids(table), 16),
                "trace_id": table["trace_id"],
                "cluster": _cluster_names(fates.clusters[part]),
                "side": sides.take(_nullable(fates.sides[part])),
                "split": splits.take(_nullable(fates.splits[part])),
                "class": table["kind"],
                "timestamp": table["timestamp"],
                "reason": reasons.take(_nullable(fates.reasons[part])),
            }
        )
        if writer is None:
            writer = pq.ParquetWriter(
                folder / ROWS_FILE,
                rows.schema,
                compression="zstd",
                compression_level=1,
                use_dictionary=["side", "split", "class", "reason"],
            )
        writer.write_table(rows)
    if writer is not None:
        writer.close()


def _cluster_names(clusters: Array) -> pa.Array:
    names = hex_strings(clusters.astype(">u8").tobytes(), 8)
    return names.take(pa.array(np.arange(len(clusters)), mask=clusters == 0))


def _names(names: list[str]) -> pa.Array:
    return pa.array(names, pa.string())


def _nullable(numbers: Array) -> pa.Array:
    """Positions for `take`: 0 becomes null, n becomes n - 1."""
    return pa.array(numbers.astype(np.int16) - 1, mask=numbers == 0)
