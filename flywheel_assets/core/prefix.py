"""The context-engineering prefix, in its first form: a few training rows shown before each request.

It exists to keep the fine-tune honest: where a handful of examples reaches the same score, that is said beside it.
What belongs here: which rows are shown, and as which messages. What does not: where they go in a request
(`resources.evaluation`).

How examples are chosen. Calls are what small models fail to make, so calls get the rounding: of two shots over rows that
mostly call, both call. (Measured with SmolLM2-135M: two calls 14 of 14 right, one call and one refusal 1 to 8 of 14, by
order. A weak prefix would flatter the fine-tune.) Different tools come before the same tool twice, short conversations
before long ones, then hash order, so that the choice depends on the rows and the seed alone. Rows without a call come
first: what stands last is imitated most.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flywheel_assets.core.rows import Json

PREFIX_FILE = "prefix.json"
_NO_CALL: tuple[str, ...] = ()
_INSTRUCTING = ("system", "developer")


@dataclass(frozen=True, slots=True)
class Prefix:
    """The messages shown before a request, and the training rows they are. Both are empty where no row fits."""

    messages: tuple[Json, ...]
    row_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Example:
    row_id: str
    tools: tuple[str, ...]
    messages: tuple[Json, ...]
    chars: int
    order: tuple[int, str]


def read_prefix(folder: Path) -> list[Json]:
    """The messages of the prefix in an artifact's folder."""
    content: Json = json.loads((folder / PREFIX_FILE).read_text(encoding="utf-8"))
    messages: list[Json] = content["messages"]
    return messages


def few_shot_prefix(training_rows: Iterable[Mapping[str, Any]], shots: int, max_chars: int, seed: int) -> Prefix:
    """A fixed few-shot prefix of at most `shots` rows and `max_chars` characters of JSON.

    A row is `{"row_id", "prompt": [messages], "completion": [assistant message]}`. System messages of examples are left
    out, because the request brings its own; calls stay in the `tool_calls` form, so that the chat template writes them as
    it will read the model's. Rows are read once and not kept: memory grows with the number of different tools.
    """
    kept: dict[tuple[str, ...], list[_Example]] = {}
    calls = refusals = 0
    for row in training_rows:
        tools = _called_tools(row)
        calls, refusals = calls + bool(tools), refusals + (not tools)
        example = _example(row, tools, seed)
        if example.chars <= max_chars:
            kept[tools] = sorted([*kept.get(tools, ()), example], key=lambda e: e.order)[:shots]
    without_call = shots * refusals // (calls + refusals) if calls + refusals else 0
    refusing = kept.pop(_NO_CALL, [])
    calling = _in_turns(kept.values())
    chosen = _fitting(calling, shots - without_call, max_chars)
    shown = _fitting(refusing, without_call, max_chars - _chars(chosen))
    examples = [*shown, *chosen]
    return Prefix(
        messages=tuple(message for example in examples for message in example.messages),
        row_ids=tuple(example.row_id for example in examples),
    )


def _example(row: Mapping[str, Any], tools: tuple[str, ...], seed: int) -> _Example:
    conversation = [m for m in row["prompt"] if m["role"] not in _INSTRUCTING]
    messages = (*(_plain(m) for m in conversation), *(_plain(m) for m in row["completion"]))
    rank = hashlib.sha256(f"{seed}:{row['row_id']}".encode()).hexdigest()
    chars = sum(len(json.dumps(message, ensure_ascii=False)) for message in messages)
    return _Example(row["row_id"], tools, messages, chars, (len(messages), rank))


def _plain(message: Mapping[str, Any]) -> Json:
    """A message as a request may hold it: row formats fill absent fields with null and drop ids, and servers refuse both."""
    plain = {key: value for key, value in message.items() if value is not None or key == "content"}
    if message.get("tool_calls"):
        plain["tool_calls"] = [
            {"id": call.get("id") or f"call_{number}", "type": "function", "function": dict(call["function"])}
            for number, call in enumerate(message["tool_calls"])
        ]
    return plain


def _called_tools(row: Mapping[str, Any]) -> tuple[str, ...]:
    calls = [call for message in row["completion"] for call in message.get("tool_calls") or ()]
    return tuple(sorted({call["function"]["name"] for call in calls}))


def _in_turns(groups: Iterable[Sequence[_Example]]) -> list[_Example]:
    """The best example of every group in order, then the second best of every group, and so on."""
    numbered = [(turn, example) for group in groups for turn, example in enumerate(group)]
    return [example for _, example in sorted(numbered, key=lambda entry: (entry[0], entry[1].order))]


def _fitting(examples: Iterable[_Example], count: int, max_chars: int) -> list[_Example]:
    """The first `count` examples that fit into `max_chars` together."""
    chosen: list[_Example] = []
    for example in examples:
        if len(chosen) < count and _chars(chosen) + example.chars <= max_chars:
            chosen.append(example)
    return chosen


def _chars(examples: Iterable[_Example]) -> int:
    return sum(example.chars for example in examples)
