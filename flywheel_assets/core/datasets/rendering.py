"""Rows as JSON lines: training rows (prompt, tools, completion) and eval rows (an OpenAI request and its reference).

What belongs here: the form of one line, and back. What does not: which rows are written (`split`) and where (`build`).

`datasets.load_dataset("json")` infers types from the first 10 MB of the first file and fails on what comes later with
other fields, unless it saw objects with different fields, which it then keeps as JSON. So the first line of a file names
every optional field (null where absent); readers here drop those nulls again.
"""

from __future__ import annotations

from typing import Any

import orjson

from flywheel_assets.core.datasets.conversation import (
    accepted_answers,
    training_message,
    training_prompt,
    training_tools,
)
from flywheel_assets.core.datasets.gold import Gold, correction_of, logged_message, right_message
from flywheel_assets.core.rows import Answer, EvalRow, Json

_OPTIONAL_IN_MESSAGES = ("name", "tool_call_id", "tool_calls")
# Never all set at once, so at least one is null in the first line and absent from another.
_OPTIONAL_IN_REQUESTS = (
    "frequency_penalty",
    "logit_bias",
    "n",
    "response_format",
    "seed",
    "stop",
    "temperature",
    "tool_choice",
    "tools",
    "top_p",
    "user",
)
# How an answer was delivered is no part of the question, and an exam is never streamed.
_NOT_EXAMINED = frozenset({"stream", "stream_options"})


def training_line(row_id: str, prompt: bytes, tools: bytes, answer: Json) -> bytes:
    """One training row. `prompt` (messages) and `tools` are JSON in training form, `answer` the assistant message.

    `tools` becomes a JSON string: Arrow would merge the schemas of all tools into one.
    """
    return b'{"row_id":"%b","prompt":%b,"tools":%b,"completion":%b}\n' % (
        row_id.encode(),
        prompt,
        orjson.dumps(tools.decode()),
        orjson.dumps([training_message(answer)], option=orjson.OPT_SORT_KEYS),
    )


def training_line_of(row_id: str, record: Json) -> bytes:
    """The training row of a record."""
    prompt = orjson.dumps(training_prompt(record["request"]), option=orjson.OPT_SORT_KEYS)
    return training_line(row_id, prompt, training_tools(record["request"]), right_message(record))


def first_training_line(line: bytes) -> bytes:
    """A training row as the first of a file: its first messages name every optional field."""
    row = orjson.loads(line)
    for messages in (row["prompt"], row["completion"]):
        messages[0] = {**dict.fromkeys(_OPTIONAL_IN_MESSAGES), **messages[0]}
    return orjson.dumps(row) + b"\n"


def read_training_line(line: bytes) -> Json:
    """A training row as a dictionary, optional fields that are null dropped."""
    row: Json = orjson.loads(line)
    for messages in (row["prompt"], row["completion"]):
        messages[:1] = [_without_nulls(message) for message in messages[:1]]
    return row


def eval_json(record: Json, row_id: str, cluster: str, content_hash: str) -> Json:
    """The eval row of a record, not yet labelled. `content_hash` tells whether a row read back is still the record's.

    `response` is the right answer; `logged_answer` is the teacher's message as JSON text where a person corrected it, and
    empty otherwise.
    """
    request = {name: value for name, value in record["request"].items() if value is not None and name not in _NOT_EXAMINED}
    message = _without_nulls(right_message(record))
    corrected = correction_of(record) is not None
    row: Json = {
        "row_id": row_id,
        "trace_id": record["id"],
        "cluster": cluster,
        "request": request,
        "response": {"choices": [{"message": {"content": None, **message}}]},
        # Text in every row: Arrow could not add a message to a column that began with nulls.
        "logged_answer": orjson.dumps(logged_message(record)).decode() if corrected else "",
        "content_hash": content_hash,
    }
    if (accepted := accepted_answers(record)) is not None:
        row["accepted_answers"] = orjson.dumps(accepted).decode()
    return row


def eval_lines(rows: list[Json]) -> list[bytes]:
    """Eval rows as lines of one file."""
    lines = []
    has_accepted = any("accepted_answers" in row for row in rows)
    for position, row in enumerate(rows):
        shown = {**row, "accepted_answers": row.get("accepted_answers")} if has_accepted else row
        if position == 0:
            message = {"refusal": None, "tool_calls": None, **row["response"]["choices"][0]["message"]}
            request = {**dict.fromkeys(_OPTIONAL_IN_REQUESTS), **row["request"]}
            shown = {**shown, "request": request, "response": {"choices": [{"message": message}]}}
        lines.append(orjson.dumps(shown, option=orjson.OPT_SORT_KEYS) + b"\n")
    return lines


def read_eval_line(line: bytes) -> Json:
    """An eval row as `eval_json` made it."""
    row: Json = orjson.loads(line)
    row["request"] = _without_nulls(row["request"])
    message = row["response"]["choices"][0]["message"]
    row["response"]["choices"][0]["message"] = {"content": None, **_without_nulls(message)}
    if row.get("accepted_answers", "") is None:
        del row["accepted_answers"]
    return row


def eval_row(row: Json) -> EvalRow:
    """An eval row as the rest of the platform knows it."""
    message: Json = row["response"]["choices"][0]["message"]
    accepted = orjson.loads(row["accepted_answers"]) if row.get("accepted_answers") else None
    logged = orjson.loads(row["logged_answer"]) if row.get("logged_answer") else None
    return EvalRow(
        row_id=row["row_id"],
        trace_id=row["trace_id"],
        cluster=row["cluster"],
        request=row["request"],
        reference=_answer(message),
        suite_turns=row["suite_turns"],
        # Absent from eval rows made before it was told.
        suite_turn_kind=row.get("suite_turn_kind") or None,
        suite_complexity=row["suite_complexity"] or None,
        suite_domain=row["suite_domain"] or None,
        accepted=tuple(accepted) if accepted else None,
        gold=row.get("gold", Gold.TEACHER),
        logged=None if logged is None else _answer(logged),
        draw_probability=row.get("draw_probability"),
        suite_draw=row.get("suite_draw"),
    )


def _answer(message: Json) -> Answer:
    return Answer.from_message({**message, "content": training_message(message)["content"] or None})


def _without_nulls(value: dict[str, Any]) -> Json:
    return {name: item for name, item in value.items() if item is not None}
