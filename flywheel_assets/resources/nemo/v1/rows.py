"""Rows on their way to NeMo and back: training rows as conversations, eval rows as request and reference, answers per row.

The archive of an evaluation is not described by the SDK. What is relied on is the pair every template of the Evaluator
speaks of: an object with `item` (the dataset's row) and `sample` (the model's answer), in whatever JSON file it lies.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from flywheel_assets.core.replay import UnusableAnswerError, greedy_request, read_completion
from flywheel_assets.core.rows import Answer, EvalRow, Json, Prediction
from flywheel_assets.resources.nemo.errors import NemoError
from flywheel_assets.resources.nemo.work import Files, TrainingRows

TRAINING_FILE = "training/training.jsonl"
VALIDATION_FILE = "validation/validation.jsonl"
EVAL_FILE = "eval_data.jsonl"
_AUTO = "auto"
_REASON_CHARS = 300


def training_rows(files: Files, *, max_rows: int | None, seed: int) -> TrainingRows:
    """The rows a training reads. Which ones, where not all, is a draw by hash of seed and row id, as on this machine."""
    rows = [orjson.loads(line) for path in files.train for line in path.read_bytes().splitlines() if line]
    drawn = sorted(range(len(rows)), key=lambda at: hashlib.sha256(f"{seed}:{rows[at]['row_id']}".encode()).digest())
    kept = [rows[at] for at in sorted(drawn[:max_rows])]
    checked = [orjson.loads(line) for path in files.validation for line in path.read_bytes().splitlines() if line]
    written = {TRAINING_FILE: _lines(map(conversation, kept))}
    if checked:
        written[VALIDATION_FILE] = _lines(map(conversation, checked))
    return TrainingRows(written, [row["row_id"] for row in kept], len(checked), len(rows) - len(kept))


def conversation(row: Json) -> Json:
    """A training row as the Customizer reads one: `messages`, and `tools` where there are any."""
    messages = [_message(message) for message in (*row["prompt"], *row["completion"])]
    tools = orjson.loads(row["tools"]) if row.get("tools") else []
    return {"messages": messages, **({"tools": tools} if tools else {})}


def eval_groups(rows: Sequence[EvalRow], prefix: Sequence[Json]) -> list[tuple[bool, Any, list[Json]]]:
    """Eval rows as items of datasets, grouped by what a template cannot say per row: whether there are tools, and the
    `tool_choice` that was logged. The largest group comes first."""
    groups: dict[tuple[bool, str], list[Json]] = {}
    for row in rows:
        has_tools = bool(row.request.get("tools"))
        choice = row.request.get("tool_choice") or _AUTO if has_tools else _AUTO
        groups.setdefault((has_tools, json.dumps(choice, sort_keys=True)), []).append(_item(row, prefix))
    ordered = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    return [(has_tools, json.loads(choice), items) for (has_tools, choice), items in ordered]


def eval_file(items: Sequence[Json]) -> bytes:
    """Items as one JSONL file."""
    return _lines(items)


def read_predictions(archive: bytes, rows: Sequence[EvalRow], job: str) -> list[Prediction]:
    """One prediction a row, in the order of the rows; a row the archive lacks is an error of that row.

    Raises NemoError when the archive holds no row at all.
    """
    samples = {entry["item"]["row_id"]: entry["sample"] for entry in _entries(archive) if "row_id" in entry["item"]}
    if rows and not samples:
        raise NemoError(
            f"evaluation job {job}: its archive holds no `item` with `sample`, so there are no answers to score. Set "
            "`nemo.evaluation: direct`, which asks the NIM from here."
        )
    return [_prediction(row.row_id, samples.get(row.row_id)) for row in rows]


def _item(row: EvalRow, prefix: Sequence[Json]) -> Json:
    # What `direct` would send: the same rule says where a prefix goes.
    asked = greedy_request(row.request, model="", prefix_messages=prefix, max_tokens=1)
    reference = row.reference
    calls = [_call(call.name, call.arguments) for call in reference.tool_calls]
    message = {"role": "assistant", "content": reference.content or "", "tool_calls": calls}
    request = {"messages": asked["messages"], "tools": asked.get("tools") or []}
    return {"row_id": row.row_id, "request": request, "response": {"choices": [{"message": message}]}}


def _call(name: str, arguments: str) -> Json:
    # As an object: the Evaluator compares parsed arguments, and text never equals them.
    return {"type": "function", "function": {"name": name, "arguments": _parsed(arguments)}}


def _message(message: Json) -> Json:
    kept = {name: value for name, value in message.items() if value is not None}
    if "tool_calls" in kept:
        kept["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": _parsed(call["function"]["arguments"])}}
            for call in kept["tool_calls"]
        ]
    return kept


def _parsed(arguments: Any) -> Any:
    """Arguments as the object they are; text that is no JSON object stays text."""
    if not isinstance(arguments, str):
        return arguments
    try:
        value = json.loads(arguments)
    except ValueError:
        return arguments
    return value if isinstance(value, dict) else arguments


def _lines(items: Any) -> bytes:
    # Not orjson: a logged text can hold half a surrogate pair, which is no UTF-8.
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


def _entries(archive: bytes) -> Iterator[Json]:
    """Every object with `item` and `sample` in the JSON files of an archive."""
    try:
        packed = zipfile.ZipFile(io.BytesIO(archive))
    except zipfile.BadZipFile:
        return
    with packed:
        for name in packed.namelist():
            if name.endswith((".json", ".jsonl")):
                yield from _rows_in(packed.read(name))


def _rows_in(content: bytes) -> Iterator[Json]:
    try:
        values = [json.loads(content)]
    except ValueError:
        values = [value for line in content.splitlines() if (value := _json_or_none(line)) is not None]
    while values:
        value = values.pop()
        if isinstance(value, Mapping):
            if isinstance(value.get("item"), Mapping) and isinstance(value.get("sample"), Mapping):
                yield dict(value)
            else:
                values.extend(value.values())
        elif isinstance(value, list):
            values.extend(value)


def _json_or_none(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _prediction(row_id: str, sample: Mapping[str, Any] | None) -> Prediction:
    if sample is None:
        return Prediction(row_id, None, error="the Evaluator returned no answer for this row")
    if isinstance(sample.get("response"), Mapping):
        try:
            answer, used = read_completion(json.dumps(sample["response"]).encode())
        except UnusableAnswerError as error:
            return Prediction(row_id, None, error=f"unusable answer: {error}")
        return Prediction(
            row_id, answer, prompt_tokens=used.prompt, completion_tokens=used.completion, cached_tokens=used.cached
        )
    if isinstance(sample.get("output_text"), str):
        return Prediction(row_id, Answer(sample["output_text"]))
    said = " ".join(str(sample.get("error") or "no `response` and no `output_text`").split())
    return Prediction(row_id, None, error=f"the Evaluator got no answer: {said[:_REASON_CHARS]}")
