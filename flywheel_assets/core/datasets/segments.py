"""Segments: the files that hold record bodies, written once and hard-linked from version to version.

What belongs here: the layout of a records folder, blocks of compressed bodies, reading them back. What does not: what
is known about each record (`index`), and which records are new (`update`).

    segments/NNNNN.zst      blocks of bodies, one body a line; each block is a zstd frame of its own
    index/NNNNN.parquet     one row a body, in the same order
    dead.parquet            rows that no longer count, and why
    quarantine.jsonl        what was refused, and why
    records.json            the segments and the counts
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import orjson
import zstandard

from flywheel_assets.core.rows import Json

FORMAT = 3
SUMMARY_FILE = "records.json"
QUARANTINE_FILE = "quarantine.jsonl"
DEAD_FILE = "dead.parquet"

# A segment is what is hard-linked or not: large enough that a million records are 50 files.
SEGMENT_RECORDS = 20_000
# The last segment is copied and appended to while it is smaller than this: many small updates must not leave many
# small files, and copying 2,000 bodies takes a few milliseconds.
OPEN_SEGMENT_RECORDS = 2_000
# A block is what is decompressed to reach one body: a millisecond's worth.
BLOCK_RECORDS = 256
BLOCK_BYTES = 1 << 20

Ints = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a records folder: its number and how many rows it has."""

    number: int
    rows: int

    @property
    def bodies(self) -> str:
        """Its bodies' file, relative to the folder."""
        return f"segments/{self.number:05d}.zst"

    @property
    def index(self) -> str:
        """Its index, relative to the folder."""
        return f"index/{self.number:05d}.parquet"


@dataclass(frozen=True, slots=True)
class RecordsSummary:
    """What a records folder holds, as its `records.json` says.

    `records` count now; `rows` are ever kept, of which `superseded` were replaced by a later content of the same id and
    `duplicates` repeat an earlier conversation. `new_rows` and `new_rejected` came with the last update. `rejected`
    counts refusals by reason, `scrubbed` the values ever replaced by placeholders, by kind. `quality` counts records that
    count: `cut_off`, `refusal`, `rated` (with a feedback score), and of near-duplicates `near_clusters` (groups of two or
    more), `near_records` in them, and `near_largest`. `data_version` hashes the records that count, never time or bytes.
    """

    records: int
    rows: int
    superseded: int
    duplicates: int
    rejected: dict[str, int]
    scrubbed: dict[str, int]
    quality: dict[str, int]
    new_rows: int
    new_rejected: int
    data_version: str
    segments: tuple[Segment, ...]

    def to_json(self) -> Json:
        """JSON-ready, without the list of segments."""
        return {name: value for name, value in asdict(self).items() if name != "segments"}


def read_summary(folder: Path) -> RecordsSummary:
    """The summary of a records folder; ValueError if another release wrote it in a form this one does not know."""
    content = orjson.loads((folder / SUMMARY_FILE).read_bytes())
    if content.pop("format") != FORMAT:
        raise ValueError(f"{folder}: records of another format than {FORMAT}. Build the records of this workload again.")
    content["segments"] = tuple(Segment(**segment) for segment in content["segments"])
    return RecordsSummary(**content)


def write_summary(folder: Path, summary: RecordsSummary) -> None:
    """Write `records.json`."""
    content = {"format": FORMAT, **asdict(summary)}
    (folder / SUMMARY_FILE).write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))


def link(source: Path, target: Path) -> None:
    """Make `target` the same unchanging file as `source`: a hard link, or a copy where the file system has none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def compress_blocks(bodies: Sequence[bytes]) -> Iterator[tuple[bytes, int]]:
    """Blocks of bodies, each with the number of bodies in it. Bodies are one line of JSON each."""
    compressor = zstandard.ZstdCompressor(level=1)
    block: list[bytes] = []
    size = 0
    for body in bodies:
        block.append(body)
        size += len(body)
        if len(block) == BLOCK_RECORDS or size >= BLOCK_BYTES:
            yield compressor.compress(b"\n".join(block)), len(block)
            block, size = [], 0
    if block:
        yield compressor.compress(b"\n".join(block)), len(block)


def read_bodies(path: Path, offsets: Ints, lengths: Ints, positions: Ints) -> Iterator[bytes]:
    """Bodies of one segment file, each by its block (offset and length in bytes) and its position in the block.

    Only the blocks asked for are read. Give rows of one block next to each other: the last block is kept, no more.
    """
    decompressor = zstandard.ZstdDecompressor()
    held = -1
    lines: list[bytes] = []
    with path.open("rb") as file:
        for offset, length, position in zip(offsets.tolist(), lengths.tolist(), positions.tolist(), strict=True):
            if offset != held:
                file.seek(offset)
                lines = decompressor.decompress(file.read(length)).split(b"\n")
                held = offset
            yield lines[position]
