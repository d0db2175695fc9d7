"""Appending: new segments after those a version inherits from the version before.

What belongs here: which files are linked, which are copied and continued, and the quarantine beside them. What does not:
what is in a chunk (`update`), and how bodies and index rows are stored (`segments`, `index`).
"""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import orjson
import pyarrow as pa

from flywheel_assets.core.datasets.index import SCHEMA, read_index, write_index
from flywheel_assets.core.datasets.segments import (
    OPEN_SEGMENT_RECORDS,
    QUARANTINE_FILE,
    SEGMENT_RECORDS,
    RecordsSummary,
    Segment,
    link,
)


@dataclass(frozen=True, slots=True)
class Described:
    """A chunk of bodies after validation: compressed blocks, an index row for each body in them, and the rejects.

    `block_rows` says how many bodies each block holds; `rejects` are (trace id, reason, detail); `scrubbed` counts the
    values that were replaced, by kind.
    """

    blocks: list[bytes]
    block_rows: list[int]
    index: pa.RecordBatch
    rejects: list[tuple[str, str, str]]
    scrubbed: Counter[str]


class SegmentAppender:
    """Writes segments and the quarantine of one version, after those it inherits from the version before."""

    def __init__(self, previous: Path | None, before: RecordsSummary | None, out: Path) -> None:
        self.out = out
        self.new_rows = 0
        self.new_rejects: Counter[str] = Counter()
        self.new_scrubbed: Counter[str] = Counter()
        self.segments: list[Segment] = []
        self._tables: list[pa.Table] = []
        self._bodies: BinaryIO | None = None
        self._open_rows = 0
        self._previous = previous
        self._tail: Segment | None = None
        for segment in before.segments if before is not None else ():
            self._inherit(segment)

    def __enter__(self) -> SegmentAppender:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            if self._bodies is not None:
                self._bodies.close()
            return
        self._close_segment()
        if self._tail is not None:
            self._keep(self._tail)
        self._link_quarantine()

    def append(self, described: Described) -> None:
        """Append a chunk; close the segment when it is full."""
        self.new_scrubbed.update(described.scrubbed)
        if described.rejects:
            self._quarantine(described.rejects)
        if not described.blocks:
            return
        bodies = self._bodies or self._open_segment()
        offsets = []
        for block in described.blocks:
            offsets.append(bodies.tell())
            bodies.write(block)
        self._tables.append(_placed(described, offsets))
        self._open_rows += described.index.num_rows
        self.new_rows += described.index.num_rows
        if self._open_rows >= SEGMENT_RECORDS:
            self._close_segment()

    def _inherit(self, segment: Segment) -> None:
        if self._tail is not None:
            self._keep(self._tail)
        self._tail = segment

    def _keep(self, segment: Segment) -> None:
        assert self._previous is not None
        link(self._previous / segment.bodies, self.out / segment.bodies)
        link(self._previous / segment.index, self.out / segment.index)
        self.segments.append(segment)
        self._tail = None

    def _open_segment(self) -> BinaryIO:
        tail = self._tail
        if tail is not None and tail.rows >= OPEN_SEGMENT_RECORDS:
            self._keep(tail)
            tail = None
        segment = Segment(len(self.segments), 0)
        path = self.out / segment.bodies
        path.parent.mkdir(parents=True, exist_ok=True)
        if tail is not None:
            assert self._previous is not None
            # A copy, never the link: the file of the previous version must not grow.
            shutil.copyfile(self._previous / tail.bodies, path)
            self._tables = [read_index(self._previous / tail.index, SCHEMA.names)]
            self._open_rows = tail.rows
            self._tail = None
        self._bodies = path.open("ab")
        return self._bodies

    def _close_segment(self) -> None:
        if self._bodies is None:
            return
        self._bodies.close()
        segment = Segment(len(self.segments), self._open_rows)
        write_index(self.out / segment.index, pa.concat_tables(self._tables).combine_chunks())
        self.segments.append(segment)
        self._bodies, self._tables, self._open_rows = None, [], 0

    def _quarantine(self, rejects: list[tuple[str, str, str]]) -> None:
        path = self.out / QUARANTINE_FILE
        if not path.exists() and self._previous is not None:
            shutil.copyfile(self._previous / QUARANTINE_FILE, path)
        with path.open("ab") as file:
            for trace_id, reason, detail in rejects:
                self.new_rejects[reason] += 1
                file.write(orjson.dumps({"trace_id": trace_id, "reason": reason, "detail": detail}) + b"\n")

    def _link_quarantine(self) -> None:
        path = self.out / QUARANTINE_FILE
        if path.exists():
            return
        if self._previous is not None:
            link(self._previous / QUARANTINE_FILE, path)
        else:
            path.touch()


def _placed(described: Described, offsets: list[int]) -> pa.Table:
    """The index rows of a chunk with where each body lies."""
    rows = np.array(described.block_rows)
    sizes = [len(block) for block in described.blocks]
    positions = np.arange(rows.sum()) - np.repeat(np.cumsum(rows) - rows, rows)
    placed = pa.Table.from_batches([described.index])
    for name, values in (
        ("block_offset", np.repeat(offsets, rows)),
        ("block_bytes", np.repeat(sizes, rows)),
        ("position", positions),
    ):
        placed = placed.append_column(SCHEMA.field(name), pa.array(values, pa.int64()))
    return placed
