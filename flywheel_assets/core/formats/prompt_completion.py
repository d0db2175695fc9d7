"""Prompt and completion: text, JSON objects (business entities, context prefixes), messages, or tool calls.

What belongs here: this format. What does not: preference pairs (`chosen`, `rejected`), which hold no one completion.
"""

from __future__ import annotations

from typing import Any

from flywheel_assets.core.formats.base import FormatError
from flywheel_assets.core.formats.calls import calls_of, tools_of
from flywheel_assets.core.formats.conversation import Conversation, record_of, source_id
from flywheel_assets.core.formats.embedded import NotJson, as_text, read_value
from flywheel_assets.core.formats.tags import split_calls
from flywheel_assets.core.records import RejectReason
from flywheel_assets.core.rows import Json

_KINDS = (str, dict, list)
_CALL_KEYS = {"name", "arguments", "id", "type", "function"}
# What the row may know of the record or the request; it stands there under the same name.
_OF_THE_RECORD = ("workload_id", "client_id", "timestamp", "session_id", "latency_ms", "cost_usd")
_OF_THE_REQUEST = ("model", "response_format", "tool_choice", "parallel_tool_calls")


class PromptCompletionFormat:
    """`prompt` and `completion`, each text, an object or messages; tool calls where the row offers tools."""

    name = "prompt-completion"
    title = "prompt/completion: text, JSON answers, or tool calls where the row has tools"

    def recognises(self, value: Json) -> bool:
        """The two names, with values of their kinds."""
        return all(type(value.get(name)) in _KINDS for name in ("prompt", "completion")) and "messages" not in value

    def records(self, value: Json) -> list[Json]:
        """The prompt asked, the completion answered."""
        for name in ("prompt", "completion"):
            if type(value.get(name)) not in _KINDS:
                raise FormatError(RejectReason.MISSING_FIELD, f"{name} is missing, or neither text nor JSON")
        tools = tools_of(value.get("tools"), "tools")
        system = value.get("system")
        asked = [{"role": "system", "content": as_text(system)}] if system not in (None, "") else []
        asked += _asked(value["prompt"])
        answer = _answer(value["completion"], offered=bool(tools))
        options = {name: value.get(name) for name in _OF_THE_REQUEST}
        fields = {name: value.get(name) for name in _OF_THE_RECORD}
        return [record_of([*asked, answer], tools, options=options, source_id=source_id(value), **fields)]


def _asked(prompt: Any) -> list[Json]:
    if _are_messages(prompt):
        return list(prompt)
    text = as_text(prompt)
    if not text.strip():
        raise FormatError(RejectReason.EMPTY_MESSAGES, "prompt is empty")
    return [{"role": "user", "content": text}]


def _answer(completion: Any, *, offered: bool) -> Json:
    if _are_messages(completion):
        if len(completion) != 1 or completion[0]["role"] != "assistant":
            raise FormatError(RejectReason.UNKNOWN_ROLE, "completion must hold one message, and it must be the assistant's")
        message: Json = completion[0]
        return message
    conversation = Conversation()
    if offered and type(completion) is str and "<tool_call>" in completion:
        conversation.answer(*split_calls(completion))
    elif offered and (calls := _calls(completion)):
        conversation.answer(None, calls)
    else:
        conversation.answer(as_text(completion), ())
    return conversation.messages[0]


def _calls(completion: Any) -> list[Json]:
    """The calls a completion consists of; empty where it is an answer in words or JSON."""
    value = completion
    if type(value) is str:
        try:
            value = read_value(value)
        except NotJson:
            return []
    if type(value) is dict and value.keys() <= {"tool_calls", "role", "content"} and "tool_calls" in value:
        return calls_of(value["tool_calls"], "completion.tool_calls")
    listed = value if type(value) is list else [value]
    if not all(_is_call(entry) for entry in listed):
        return []
    return calls_of(listed, "completion")


def _is_call(entry: Any) -> bool:
    return (
        type(entry) is dict
        and entry.keys() <= _CALL_KEYS
        and (type(entry.get("function")) is dict or ("name" in entry and "arguments" in entry))
    )


def _are_messages(value: Any) -> bool:
    return (
        type(value) is list and bool(value) and all(type(each) is dict and type(each.get("role")) is str for each in value)
    )
