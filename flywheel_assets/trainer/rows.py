"""Rows: training examples, from JSONL to token ids with the prompt masked out.

What belongs here: reading shards, rendering a conversation the way the server renders it, and which tokens count in the
loss. What does not: the order rows are trained in (`order`) and padding them into batches (`fit`).

A row is `{"row_id", "prompt": [messages], "completion": [messages], "tools": "<JSON>"}`; `tools` and the arguments of
tool calls are JSON text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .failure import FailureKind, TrainerError

Message = dict[str, Any]
# (messages, tools or None, add_generation_prompt) -> the text the model sees
Render = Callable[[list[Message], list[dict[str, Any]] | None, bool], str]

IGNORED = -100
# Above this, a float no longer holds every whole number, so 1e16 and 10000000000000000 are not the same text for sure.
_EXACT_WHOLE = 2.0**53


@dataclass(frozen=True, slots=True)
class Row:
    """One example; `tools` is None where the request offered none. Arguments of tool calls are parsed."""

    row_id: str
    prompt: list[Message]
    completion: list[Message]
    tools: list[dict[str, Any]] | None


@dataclass(frozen=True, slots=True)
class Example:
    """One example as token ids; `labels` repeats them where the loss counts and is IGNORED elsewhere."""

    row_id: str
    input_ids: list[int]
    labels: list[int]

    @property
    def trained_tokens(self) -> int:
        """How many tokens count in the loss."""
        return sum(label != IGNORED for label in self.labels)


@dataclass(frozen=True, slots=True)
class Selection:
    """The examples used, and how many rows were left out and why."""

    examples: list[Example]
    too_long: int
    not_drawn: int


def read_rows(files: Iterable[str]) -> list[Row]:
    """All rows of the shard files, in order; TrainerError names the file and line of a row that is none."""
    rows: list[Row] = []
    for name in files:
        with Path(name).open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    try:
                        rows.append(_row(json.loads(line)))
                    except (ValueError, KeyError, TypeError, AttributeError) as error:
                        raise TrainerError(
                            FailureKind.BAD_JOB,
                            f"{name}, line {number} is no training row ({type(error).__name__}: {error}).",
                            "Build datasets/train of this workload again.",
                        ) from None
    return rows


def _row(value: dict[str, Any]) -> Row:
    tools = json.loads(value["tools"]) if isinstance(value.get("tools"), str) and value["tools"] else value.get("tools")
    return Row(
        row_id=str(value["row_id"]),
        prompt=[as_rendered(message) for message in value["prompt"]],
        completion=[as_rendered(message) for message in value["completion"]],
        tools=[_plain(tool) for tool in tools] if tools else None,
    )


def as_rendered(message: Message) -> Message:
    """A message as the server hands it to the template: arguments parsed, whole numbers without a point.

    llama.cpp parses the arguments of tool calls before it renders them; rendering the text as it was logged would show the
    model other spacing in training than in use. Arguments that are no JSON stay text.
    """
    calls = message.get("tool_calls")
    if not calls:
        return {key: value for key, value in message.items() if key != "tool_calls"}
    return {**message, "tool_calls": [_parsed_call(call) for call in calls]}


def _parsed_call(call: dict[str, Any]) -> dict[str, Any]:
    function = dict(call["function"])
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments) if arguments.strip() else {}
        except ValueError:
            return {**call, "function": function}
    return {**call, "function": {**function, "arguments": _plain(arguments)}}


def _plain(value: Any) -> Any:
    """The value with 2.0 written as 2, everywhere inside it."""
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT_WHOLE:
        return int(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def encode(row: Row, render: Render, tokenize: Callable[[str], list[int]], *, eos_id: int) -> Example:
    """The token ids of a row, with the loss on the completion only.

    Prompt and completion are tokenized apart: the server tokenizes the prompt alone too, so the model is trained on exactly
    the ids it will be given. What the template writes after the end-of-turn token (ChatML: a newline) is never generated,
    and is cut off; where the template ends a turn without one, it is added, or the model would never learn to stop.
    TrainerError where the template renders the prompt differently once an answer follows.
    """
    prompt = render(row.prompt, row.tools, True)
    whole = render(row.prompt + row.completion, row.tools, False)
    if not whole.startswith(prompt):
        raise TrainerError(
            FailureKind.TEMPLATE,
            f"The chat template renders the prompt of row {row.row_id} differently once the answer follows, so training "
            "would show the model another prompt than serving.",
            "Give the candidate another `chat_template`, for instance the built-in chatml-tools.",
        )
    prompt_ids = tokenize(prompt)
    completion_ids = tokenize(whole[len(prompt) :])
    if eos_id in completion_ids:
        completion_ids = completion_ids[: len(completion_ids) - completion_ids[::-1].index(eos_id)]
    else:
        completion_ids = [*completion_ids, eos_id]
    return Example(row.row_id, prompt_ids + completion_ids, [IGNORED] * len(prompt_ids) + completion_ids)


def select(
    rows: Sequence[Row], encode_row: Callable[[Row], Example], *, max_length: int, max_rows: int | None, seed: int
) -> Selection:
    """The rows to train on: those of at most `max_length` tokens, and `max_rows` of them at most.

    Which ones is a draw by hash of seed and row id, so a larger `max_rows` keeps all rows of a smaller one. The examples
    come back in the order of `rows`.
    """
    drawn = sorted(range(len(rows)), key=lambda i: hashlib.sha256(f"{seed}:{rows[i].row_id}".encode()).digest())
    chosen: dict[int, Example] = {}
    too_long = 0
    for position in drawn:
        if max_rows is not None and len(chosen) >= max_rows:
            break
        example = encode_row(rows[position])
        if len(example.input_ids) > max_length:
            too_long += 1
        else:
            chosen[position] = example
    return Selection(
        examples=[chosen[i] for i in sorted(chosen)], too_long=too_long, not_drawn=len(rows) - len(chosen) - too_long
    )


def fingerprint(examples: Sequence[Example], *parts: object) -> str:
    """A hash of what is trained on and how; a checkpoint of another fingerprint is never continued."""
    digest = hashlib.sha256(repr(parts).encode())
    for example in examples:
        digest.update(repr((example.input_ids, example.labels)).encode())
    return digest.hexdigest()
