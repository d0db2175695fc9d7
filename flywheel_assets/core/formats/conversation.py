"""A conversation on its way to a record: messages in order, calls with ids, results with the calls they answer.

What belongs here: OpenAI messages being put together, and the cut between request and answer. What does not: how a format
writes its turns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from flywheel_assets.core.formats.base import FormatError
from flywheel_assets.core.records import RejectReason
from flywheel_assets.core.rows import Json

# `function_call` is the form before tools: refused further on, under its own name.
_INSTEAD_OF_TEXT = ("tool_calls", "function_call", "refusal", "audio")


class Conversation:
    """Messages being collected. Calls are numbered through (`call_1`), so the same row gives the same ids every time."""

    def __init__(self) -> None:
        self.messages: list[Json] = []
        self._calls = 0
        self._unanswered: deque[str] = deque()

    def say(self, role: str, text: str) -> None:
        """Something that is neither a call nor a result."""
        self.messages.append({"role": role, "content": text})

    def answer(self, text: str | None, calls: Sequence[Json]) -> None:
        """A turn of the assistant: text, calls (as `calls_of` gives them), or both. Calls alone join the turn before."""
        if not calls:
            self.say("assistant", text or "")
            return
        if self.messages and self.messages[-1]["role"] == "assistant" and text is None:
            message = self.messages[-1]
        else:
            self._unanswered.clear()
            message = {"role": "assistant", "content": text}
            self.messages.append(message)
        for call in calls:
            self._calls += 1
            call_id = f"call_{self._calls}"
            self._unanswered.append(call_id)
            message.setdefault("tool_calls", []).append({"id": call_id, **call})

    def result(self, text: str, name: str | None = None) -> None:
        """What a tool gave back; results answer the calls before them in their order."""
        message: Json = {"role": "tool", "content": text}
        if self._unanswered:
            message["tool_call_id"] = self._unanswered.popleft()
        if name:
            message["name"] = name
        self.messages.append(message)


def record_of(messages: Sequence[Json], tools: Sequence[Json] = (), *, options: Json | None = None, **fields: Any) -> Json:
    """The record of a conversation: everything before the last turn of the assistant was asked, that turn is the answer.

    What stands after that turn is left away. `options` are further fields of the request, `fields` of the record; None
    counts as absent. Raises FormatError: `no_answer` where no turn is the assistant's or the last one says nothing,
    `empty_messages` where nothing stands before it.
    """
    ends = [position for position, message in enumerate(messages) if message.get("role") == "assistant"]
    if not ends:
        raise FormatError(RejectReason.NO_ANSWER, "no turn of the conversation is the assistant's")
    answer = messages[ends[-1]]
    if _says_nothing(answer):
        raise FormatError(RejectReason.NO_ANSWER, "the assistant's last turn has neither text nor tool calls")
    if ends[-1] == 0:
        raise FormatError(RejectReason.EMPTY_MESSAGES, "nothing stands before the assistant's answer")
    return answered(messages[: ends[-1]], answer, tools, options=options, **fields)


def answered(
    asked: Sequence[Json], answer: Json, tools: Sequence[Json] = (), *, options: Json | None = None, **fields: Any
) -> Json:
    """The record of a request and its answer, whatever they are; for the rest see `record_of`."""
    request: Json = {"messages": list(asked)}
    if tools:
        request["tools"] = list(tools)
    request |= {key: value for key, value in (options or {}).items() if value is not None}
    response = {"object": "chat.completion", "choices": [{"index": 0, "message": answer}]}
    if model := request.get("model"):
        response["model"] = model
    return {"request": request, "response": response, **{key: held for key, held in fields.items() if held is not None}}


def source_id(value: Json) -> str | None:
    """The id a row has in its data set, where it has one."""
    given = value.get("id")
    return str(given) if type(given) in (str, int) and given != "" else None


def _says_nothing(message: Json) -> bool:
    content = message.get("content")
    if type(content) is str and content.strip():
        return False
    return not any(message.get(name) for name in _INSTEAD_OF_TEXT) and type(content) is not list
