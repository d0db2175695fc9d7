"""Training shards: files of training and validation rows, written once and hard-linked while their rows stay the same.

What belongs here: which rows share a file, writing a file from segments, and recognising an unchanged one. What does not:
which rows are used (`split`), and the form of a line (`rendering`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from flywheel_assets.core.datasets.index import Array, index_tables, read_columns, row_ids
from flywheel_assets.core.datasets.manifest import Fates, Split
from flywheel_assets.core.datasets.rendering import first_training_line, training_line, training_line_of
from flywheel_assets.core.datasets.segments import Segment, link, read_bodies
from flywheel_assets.core.datasets.workers import worker_count, worker_processes

SHARDS_FILE = "shards.json"
# Part of every digest: raise it when the form of a line changes, so that old files are not taken over.
FORM = "1"
SPLIT_FOLDERS = {Split.TRAIN: "train", Split.VALIDATION: "validation"}
# A file closes at the end of the segment that brings it here. `load_dataset` learns types from the first file, so it must
# hold more than a row; and a small `limit` must not scatter a handful of rows over a file a segment.
SHARD_ROWS = 64
# Lines gathered before they are written.
_BUFFER_LINES = 1_000
_COLUMNS = [
    "row_id",
    "block_offset",
    "block_bytes",
    "position",
    "prompt_at",
    "prompt_bytes",
    "tools_at",
    "tools_bytes",
    "answer_at",
    "answer_bytes",
]


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of rows: its name relative to the folder, how many rows, and the digest of their ids in order."""

    file: str
    rows: int
    digest: str


@dataclass(frozen=True, slots=True)
class TrainingFiles:
    """What was written: rows a split, shards reused and written, and the data version (the rows' ids, in order)."""

    train_rows: int
    validation_rows: int
    shards_reused: int
    shards_written: int
    data_version: str


@dataclass(slots=True)
class _Plan:
    """A shard before it is written: per segment, the rows (within it) that belong to it."""

    file: str
    parts: list[tuple[Segment, Array]]
    rows: int
    digest: Any


def write_training_files(
    out: Path, previous: Path | None, records: Path, segments: Sequence[Segment], fates: Fates, *, workers: int | None
) -> TrainingFiles:
    """Write `train/NNNNN.jsonl`, `validation/NNNNN.jsonl` and `shards.json` into `out`.

    Rows keep their ingestion order. A shard whose rows are those of the same shard in `previous` is linked from there.
    """
    version = hashlib.sha256(f"train {FORM}".encode())
    plans: list[_Plan] = []
    totals = {}
    for split in SPLIT_FOLDERS:
        of_split = list(_plans(split, records, segments, fates.splits, version))
        totals[split] = sum(plan.rows for plan in of_split)
        plans += of_split
    shards = [Shard(plan.file, plan.rows, plan.digest.hexdigest()) for plan in plans]
    known = _known_shards(previous) if previous is not None else {}
    to_write: list[_Plan] = []
    for plan, shard in zip(plans, shards, strict=True):
        (out / plan.file).parent.mkdir(parents=True, exist_ok=True)
        if previous is not None and known.get(shard.file) == shard.digest:
            link(previous / shard.file, out / shard.file)
        else:
            to_write.append(plan)
    with worker_processes(worker_count(workers, sum(plan.rows for plan in to_write))) as in_order:
        tasks = (
            (out / plan.file, [(records / s.bodies, records / s.index, rows) for s, rows in plan.parts]) for plan in to_write
        )
        for _ in in_order(write_shard, tasks):
            pass
    content = {"form": FORM, "shards": [asdict(shard) for shard in shards]}
    (out / SHARDS_FILE).write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))
    return TrainingFiles(
        train_rows=totals[Split.TRAIN],
        validation_rows=totals[Split.VALIDATION],
        shards_reused=len(plans) - len(to_write),
        shards_written=len(to_write),
        data_version=version.hexdigest()[:16],
    )


def _plans(split: Split, records: Path, segments: Sequence[Segment], splits: Array, version: Any) -> Iterator[_Plan]:
    """The shards of a split; every row id goes into `version` too."""
    version.update(SPLIT_FOLDERS[split].encode())
    at = number = 0
    plan: _Plan | None = None
    for segment, table in zip(segments, index_tables(records, segments, ["row_id"]), strict=True):
        rows = np.flatnonzero(splits[at : at + segment.rows] == split)
        at += segment.rows
        if not len(rows):
            continue
        ids = np.frombuffer(row_ids(table), "V16")[rows].tobytes()
        if plan is None:
            plan = _Plan(f"{SPLIT_FOLDERS[split]}/{number:05d}.jsonl", [], 0, hashlib.sha256(FORM.encode()))
            number += 1
        plan.parts.append((segment, rows))
        plan.rows += len(rows)
        plan.digest.update(ids)
        version.update(ids)
        if plan.rows >= SHARD_ROWS:
            yield plan
            plan = None
    if plan is not None:
        yield plan


def _known_shards(previous: Path) -> dict[str, str]:
    content = orjson.loads((previous / SHARDS_FILE).read_bytes())
    return {shard["file"]: shard["digest"] for shard in content["shards"]}


def write_shard(path: Path, parts: list[tuple[Path, Path, Array]]) -> None:
    """Write one file of training rows from (bodies, index, rows of that segment). Runs in a worker process."""
    with path.open("wb") as file:
        lines: list[bytes] = []
        first = True
        for bodies, index, rows in parts:
            for line in _training_lines(bodies, index, rows):
                lines.append(first_training_line(line) if first else line)
                first = False
                if len(lines) == _BUFFER_LINES:
                    file.write(b"".join(lines))
                    lines = []
        file.write(b"".join(lines))


def _training_lines(bodies: Path, index: Path, rows: Array) -> Iterator[bytes]:
    table = read_columns(index, _COLUMNS)
    ids = np.frombuffer(row_ids(table), "V16")[rows].tobytes().hex()
    places = [table[name].to_numpy()[rows] for name in _COLUMNS[1:4]]
    parts = zip(*(table[name].to_numpy()[rows].tolist() for name in _COLUMNS[4:]), strict=True)
    for at, (body, part) in enumerate(zip(read_bodies(bodies, *places), parts, strict=True)):
        prompt_at, prompt_bytes, tools_at, tools_bytes, answer_at, answer_bytes = part
        row_id = ids[32 * at : 32 * at + 32]
        if prompt_at < 0:
            yield training_line_of(row_id, orjson.loads(body))
            continue
        # The body holds the prompt and the tools in training form: copied, they need not be parsed and written again.
        prompt = body[prompt_at : prompt_at + prompt_bytes]
        tools = body[tools_at : tools_at + tools_bytes] or b"[]"
        yield training_line(row_id, prompt, tools, orjson.loads(body[answer_at : answer_at + answer_bytes]))
