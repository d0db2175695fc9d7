"""Checks: what must hold of records and datasets, computed from the files and from nothing remembered.

What belongs here: pure functions on folders that say whether, and why not. What does not: what happens then (the asset
checks block or warn).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_assets.core.datasets.assignment import Side, read_split
from flywheel_assets.core.datasets.conversation import canonical, training_prompt, training_tools
from flywheel_assets.core.datasets.eval_file import EVAL_FILE
from flywheel_assets.core.datasets.index import near_keys, read_columns, value_counts
from flywheel_assets.core.datasets.manifest import ROWS_FILE, LeftOut
from flywheel_assets.core.datasets.readers import training_files
from flywheel_assets.core.datasets.rendering import read_eval_line, read_training_line
from flywheel_assets.core.datasets.segments import read_summary
from flywheel_assets.core.records import Record, parse_record
from flywheel_assets.core.rows import Json

# More refusals than this mean that the logging is broken, not that a line was.
MAX_REFUSED_SHARE = 0.10
_SHOWN = 5
_NOT_USABLE = (
    LeftOut.SUPERSEDED,
    LeftOut.DUPLICATE,
    LeftOut.UNSUPPORTED_CONTENT,
    LeftOut.TRUNCATED,
    LeftOut.REFUSAL,
    LeftOut.LOW_FEEDBACK,
)


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """Whether a promise holds, in words for a person, and JSON-ready numbers behind them."""

    passed: bool
    message: str
    details: Json = field(default_factory=dict)


def check_well_formed(records: Path) -> CheckOutcome:
    """Whether a records folder is whole, and not more than `MAX_REFUSED_SHARE` of what came was refused."""
    summary = read_summary(records)
    refused = sum(summary.rejected.values())
    details: Json = {"records": summary.records, "refused": refused, "reasons": summary.rejected}
    torn = [
        segment.bodies for segment in summary.segments if not _is_whole(records, segment.bodies, segment.index, segment.rows)
    ]
    if torn:
        return CheckOutcome(
            False, f"{', '.join(torn[:_SHOWN])}: bodies and index do not agree. Build the records again.", details
        )
    if refused > MAX_REFUSED_SHARE * (refused + summary.rows):
        worst = max(summary.rejected, key=lambda reason: summary.rejected[reason])
        message = (
            f"{refused} of {refused + summary.rows} records were refused, most for '{worst}'. See quarantine.jsonl, "
            "and mend the logging."
        )
        return CheckOutcome(False, message, details)
    return CheckOutcome(True, f"{summary.records} records, {refused} refused", details)


def check_enough_records(base: Path, train: Path, *, min_total_records: int) -> CheckOutcome:
    """Whether there are as many usable records as asked for, something to train on and something to examine on."""
    reasons = value_counts(read_columns(base / ROWS_FILE, ["reason"])["reason"])
    usable = sum(count for reason, count in reasons.items() if reason not in _NOT_USABLE)
    eval_rows = sum(1 for _ in _lines(base / EVAL_FILE))
    train_rows = sum(1 for path in training_files(train, "train") for _ in _lines(path))
    details: Json = {"usable": usable, "needed": min_total_records, "eval_rows": eval_rows, "train_rows": train_rows}
    if usable < min_total_records:
        missing = min_total_records - usable
        message = (
            f"{usable} records, {min_total_records} needed (split.min_total_records). Ingest {missing} more, or lower it."
        )
        return CheckOutcome(False, message, details)
    if not eval_rows or not train_rows:
        empty = "examine" if not eval_rows else "train"
        message = (
            f"{usable} records, but none to {empty} on: a split moves whole sessions, prompts and near-duplicates, and "
            "there are too few of them. Ingest more conversations; `rows.parquet` says why each row is left out."
        )
        return CheckOutcome(False, message, details)
    return CheckOutcome(True, f"{usable} usable records: {eval_rows} eval rows, {train_rows} training rows", details)


def check_no_leakage(base: Path, train: Path, records: Path | None = None) -> CheckOutcome:
    """Whether no conversation, prompt or cluster of the eval rows is trained or validated on.

    With the `records` they were made from, also whether no near-duplicate of an eval row is.

    Prompts are compared as they are trained (messages and tools), so a request that was only logged differently counts.
    Clusters of training rows come from the manifest, which must name the same rows as the files.
    """
    rows = [read_eval_line(line) for line in _lines(base / EVAL_FILE)]
    eval_ids = {row["row_id"].encode() for row in rows}
    eval_questions = {_question_of(row["request"]) for row in rows}
    eval_clusters = {row["cluster"] for row in rows}
    shared_rows = shared_prompts = shared_clusters = 0
    unlisted = []
    for split in ("train", "validation"):
        in_files = hashlib.sha256()
        for line in (line for path in training_files(train, split) for line in _lines(path)):
            row_id, question = _identity(line)
            in_files.update(row_id)
            shared_rows += row_id in eval_ids
            shared_prompts += question in eval_questions
        listed, shared = _listed(base, split, eval_clusters)
        shared_clusters += shared
        if listed != in_files.hexdigest():
            unlisted.append(split)
    near = _near_duplicates_across(base, records) if records is not None else 0
    details: Json = {
        "eval_rows": len(rows),
        "shared_conversations": shared_rows,
        "shared_prompts": shared_prompts,
        "shared_clusters": shared_clusters,
        "near_duplicates": near,
        "splits_not_as_listed": unlisted,
    }
    if shared_rows or shared_prompts or shared_clusters or near:
        message = (
            f"{shared_rows} conversations, {shared_prompts} prompts, {shared_clusters} rows of clusters and {near} "
            "near-duplicates stand on both sides: scores of these eval rows would be worthless. Build the datasets again; "
            "if it stays, report it."
        )
        return CheckOutcome(False, message, details)
    if unlisted:
        return CheckOutcome(
            False, f"the {' and '.join(unlisted)} files do not hold the rows of {ROWS_FILE}. Build again.", details
        )
    return CheckOutcome(True, f"nothing of {len(rows)} eval rows is trained on", details)


def check_schema_valid(base: Path, train: Path, *, previous_train: Path | None = None) -> CheckOutcome:
    """Whether every line has its form. Files that are the very files of `previous_train` passed then and are not read."""
    faults: list[str] = []
    read = 0
    for number, line in enumerate(_lines(base / EVAL_FILE), 1):
        read += 1
        if fault := _eval_fault(line):
            faults.append(f"{EVAL_FILE}:{number}: {fault}")
    for split in ("train", "validation"):
        for path in training_files(train, split):
            if previous_train is not None and _same_file(path, previous_train / split / path.name):
                continue
            for number, line in enumerate(_lines(path), 1):
                read += 1
                if fault := _training_fault(line):
                    faults.append(f"{split}/{path.name}:{number}: {fault}")
    details: Json = {"rows_read": read, "faults": len(faults), "first": faults[:_SHOWN]}
    if faults:
        return CheckOutcome(
            False, f"{len(faults)} of {read} rows are malformed, such as {faults[0]}. Build the datasets again.", details
        )
    return CheckOutcome(True, f"{read} rows have their form", details)


def _is_whole(records: Path, bodies: str, index: str, rows: int) -> bool:
    table = read_columns(records / index, ["block_offset", "block_bytes"])
    end = table["block_offset"][-1].as_py() + table["block_bytes"][-1].as_py()
    return bool(table.num_rows == rows and (records / bodies).stat().st_size == end)


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


# The fixed beginning of a training line: {"row_id":"<32 digits>","prompt":
_ID = slice(11, 43)
_AFTER_ID = slice(43, 54)
_COMPLETION = b',"completion":'
# The first line of a file names absent fields as null, at the very beginning of its first message.
_NAMED_AS_NULL = slice(54, 400)


def _identity(line: bytes) -> tuple[bytes, bytes]:
    """The row id and the question (prompt and tools) of a training line, cut out of it where it has our layout."""
    if line[_AFTER_ID] == b'","prompt":' and line.endswith(b"}]}\n") and b":null" not in line[_NAMED_AS_NULL]:
        return line[_ID], line[54 : line.rindex(_COMPLETION)]
    row = read_training_line(line)
    return row["row_id"].encode(), _question(canonical(row["prompt"]), row["tools"])


def _question_of(request: Json) -> bytes:
    return _question(canonical(training_prompt(request)), training_tools(request).decode())


def _question(prompt: bytes, tools: str) -> bytes:
    return prompt + b',"tools":' + orjson.dumps(tools)


def _listed(base: Path, split: str, eval_clusters: set[str]) -> tuple[str, int]:
    """Digest of the row ids the manifest puts into a split, and how many of them are of the eval rows' clusters."""
    digest = hashlib.sha256()
    shared = 0
    file = pq.ParquetFile(base / ROWS_FILE)
    for group in range(file.num_row_groups):
        table = file.read_row_group(group, columns=["row_id", "cluster", "split"], use_threads=False)
        table = table.filter(pa.array([held == split for held in table["split"].to_pylist()]))
        digest.update("".join(table["row_id"].to_pylist()).encode())
        shared += sum(cluster in eval_clusters for cluster in table["cluster"].to_pylist())
    return digest.hexdigest(), shared


def _near_duplicates_across(base: Path, records: Path) -> int:
    """Rows trained or validated on that share a near-duplicate key with an eval row; keys of templates say nothing."""
    near = near_keys(records, read_summary(records).segments)
    split = read_columns(base / ROWS_FILE, ["split"])["split"].to_numpy(zero_copy_only=False)
    _, known = read_split(base)
    told = np.concatenate([known.keys[known.sides == Side.TEMPLATE], np.zeros(1, np.uint64)])
    examined = np.setdiff1d(near[split == "eval"], told)
    trained = near[(split == "train") | (split == "validation")]
    return int(np.isin(trained, examined).any(axis=1).sum()) if trained.size else 0


def _same_file(one: Path, other: Path) -> bool:
    return other.exists() and one.samefile(other)


def _eval_fault(line: bytes) -> str | None:
    try:
        row = read_eval_line(line)
        envelope = {
            "timestamp": 0,
            "workload_id": "w",
            "client_id": "c",
            "request": row["request"],
            "response": row["response"],
        }
        names = [
            name for name in ("row_id", "trace_id", "cluster", "suite_turns") if type(row[name]) is not str or not row[name]
        ]
    except (orjson.JSONDecodeError, KeyError, TypeError, IndexError) as error:
        return f"{type(error).__name__} {error}"
    if names:
        return f"{names[0]} must be text"
    parsed = parse_record(orjson.dumps(envelope), max_bytes=len(line) + 1000, received_at=0.0)
    return None if isinstance(parsed, Record) else parsed.detail


def _training_fault(line: bytes) -> str | None:
    try:
        row = read_training_line(line)
        messages = [*row["prompt"], *row["completion"]]
        if type(row["tools"]) is not str or type(orjson.loads(row["tools"])) is not list:
            return "tools must be a list, as JSON text"
        if len(row["completion"]) != 1 or row["completion"][0]["role"] != "assistant":
            return "completion must be one assistant message"
        if not row["prompt"] or len(row["row_id"]) != 32:
            return "prompt and row_id must not be empty"
        return next((fault for message in messages if (fault := _message_fault(message))), None)
    except (orjson.JSONDecodeError, KeyError, TypeError, IndexError, AttributeError) as error:
        return f"{type(error).__name__} {error}"


def _message_fault(message: dict[str, Any]) -> str | None:
    if type(message["role"]) is not str or type(message["content"]) is not str:
        return "role and content must be text"
    for call in message.get("tool_calls") or ():
        if type(call["function"]["name"]) is not str or type(call["function"]["arguments"]) is not str:
            return "name and arguments of a tool call must be text"
    return None
