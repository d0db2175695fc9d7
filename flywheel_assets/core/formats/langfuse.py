"""Langfuse generations as records: what the API answers, and what an export of observations holds.

What belongs here: one GENERATION observation in, one record of the log schema out, in the three forms inputs have: a message
list, `{"messages", "tools"}` as the `langfuse.openai` wrapper writes it, and OpenTelemetry's messages in parts (`gen_ai`).
What does not: fetching observations and joining scores (`resources.sources.langfuse`).

The wrapper loses the response's id, `tool_choice`, mostly `finish_reason`, and every choice but the first; what is lost
stays absent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson

from flywheel_assets.core.formats import gen_ai
from flywheel_assets.core.formats.base import FormatError
from flywheel_assets.core.formats.langfuse_fields import (
    camel_case,
    cost_usd,
    latency_ms,
    named_feedback,
    parameters,
    parsed,
    usage,
)
from flywheel_assets.core.formats.langfuse_names import (
    METADATA_KEYS,
    WORKLOAD_FROM,
    client_of,
    gen_ai_attribute,
    metadata_of,
    workload_of,
)
from flywheel_assets.core.records import RejectReason
from flywheel_assets.core.rows import Json

__all__ = ["METADATA_KEYS", "WORKLOAD_FROM", "LangfuseExport", "record_of", "workload_of"]

_SHOWN_STATUS = 120
_OPENS_JSON = re.compile(r"\s*[\[{]")


def record_of(
    observation: Json,
    *,
    workload_from: Sequence[str] = WORKLOAD_FROM,
    source: str | None = None,
    feedback: Json | None = None,
    url: str | None = None,
) -> Json:
    """The record of one observation as the API returns it (camel case; input and output JSON text, or parsed in exports).

    `feedback` and `url` are taken over where given. Raises FormatError for what is no finished, unbroken chat generation.
    """
    _refuse_unusable(observation)
    try:
        request, response = _request(observation), _response(observation)
    except orjson.JSONEncodeError as error:
        raise FormatError(RejectReason.TOO_DEEP, f"input or output cannot be written as JSON again ({error})") from None
    record: Json = {
        "id": observation.get("id"),
        "timestamp": observation.get("startTime"),
        "workload_id": workload_of(observation, workload_from),
        "client_id": client_of(observation),
        # Generations of one trace continue each other; where no session is recorded, the trace is the conversation.
        "session_id": observation.get("sessionId") or observation.get("traceId"),
        "source": source,
        "request": request,
        "response": response,
        "feedback": feedback,
        "latency_ms": latency_ms(observation),
        "cost_usd": cost_usd(observation),
        "langfuse": _origin(observation, url),
    }
    return {key: value for key, value in record.items() if value is not None}


@dataclass(frozen=True)
class LangfuseExport:
    """Observations exported from Langfuse, one a line, with the scores that stand beside them, if any.

    The fields are what `record_of` and the feedback go by. A generation has the id that `pull` gives it too: what was pulled
    knows its feedback and is traffic, so an export never takes its place.
    """

    workload_from: tuple[str, ...] = WORKLOAD_FROM
    feedback_score: str | None = "user-feedback"
    correction_score: str | None = "output"
    name: ClassVar[str] = "langfuse"
    title: ClassVar[str] = "Langfuse export (observations)"
    keeps_known: ClassVar[bool] = True

    def recognises(self, value: Any) -> bool:
        """Whether a value is an observation: it has a trace, a start, a type in capitals and an input or output."""
        if not isinstance(value, dict):
            return False
        row = camel_case(value)
        kind = row.get("type")
        return bool(
            row.get("traceId")
            and row.get("startTime")
            and isinstance(kind, str)
            and kind.isupper()
            and ("input" in row or "output" in row)
        )

    def records(self, value: Any) -> list[Json]:
        """The one record of an observation. Raises FormatError."""
        if not isinstance(value, dict):
            raise FormatError(RejectReason.NOT_AN_OBJECT, "a Langfuse observation must be a JSON object")
        row = camel_case(value)
        if row.get("type") != "GENERATION":
            # Not `not_chat`: an export holds the spans around the calls, too, and they are no traffic of the workload.
            raise FormatError(RejectReason.NO_ANSWER, f"a Langfuse {row.get('type')}: no model was asked")
        feedback = named_feedback(row.get("scores"), self.feedback_score, self.correction_score)
        return [record_of(row, workload_from=self.workload_from, feedback=feedback)]


def _refuse_unusable(observation: Json) -> None:
    kind = observation.get("type")
    if kind != "GENERATION":
        raise FormatError(RejectReason.NOT_CHAT, f"a Langfuse observation of type {kind}, not a GENERATION")
    if observation.get("level") == "ERROR":
        status = str(observation.get("statusMessage") or "no status message")[:_SHOWN_STATUS]
        raise FormatError(RejectReason.ERROR_RESPONSE, f"the generation ended in an error: {status}")
    if not observation.get("endTime"):
        raise FormatError(RejectReason.UNFINISHED, "the generation has no end time")


def _request(observation: Json) -> Json:
    given = _json_of(observation.get("input"), "input")
    request = _chat_input(given)
    metadata = metadata_of(observation)
    if gen_ai_tools := gen_ai.tools(parsed(gen_ai_attribute(metadata, "tool.definitions"))):
        request.setdefault("tools", gen_ai_tools)
    instructions = gen_ai.system_message(parsed(gen_ai_attribute(metadata, "system_instructions")))
    if instructions and not any(_role(message) == "system" for message in request["messages"]):
        request["messages"] = [instructions, *request["messages"]]
    if (response_format := _response_format(metadata)) is not None:
        request.setdefault("response_format", response_format)
    if model := observation.get("model"):
        request.setdefault("model", model)
    for name, value in parameters(observation.get("modelParameters")).items():
        request.setdefault(name, value)
    return request


def _chat_input(given: Any) -> Json:
    if isinstance(given, list):
        return {"messages": _messages(given)}
    if isinstance(given, dict) and isinstance(given.get("messages"), list):
        kept = {key: value for key, value in given.items() if value is not None and key != "messages"}
        return {"messages": _messages(given["messages"]), **kept}
    if given is None or given == "":
        raise FormatError(RejectReason.MISSING_FIELD, "the generation has no input")
    shape = f"an object with {', '.join(sorted(given)[:6])}" if isinstance(given, dict) else "text"
    raise FormatError(RejectReason.NOT_CHAT, f"the input is {shape}, not chat messages")


def _messages(given: list[Any]) -> list[Any]:
    messages: list[Any] = []
    for message in given:
        messages += gen_ai.chat_messages(message) if gen_ai.in_parts(message) else [_without_nulls(message)]
    return messages


def _response(observation: Json) -> Json:
    given = observation.get("output")
    if given is None or given == "":
        raise FormatError(RejectReason.MISSING_FIELD, "the generation has no output")
    known = metadata_of(observation).get("finish_reason")
    choices = _choices(given, known if isinstance(known, str) and known else None)
    response: Json = {"object": "chat.completion", "choices": choices}
    if model := observation.get("model"):
        response["model"] = model
    if counted := usage(observation.get("usageDetails")):
        response["usage"] = counted
    return response


def _choices(given: Any, known_reason: str | None) -> list[Json]:
    """The choices an output holds: a completion, messages, one message, or plain text."""
    value = _output_value(given)
    if isinstance(value, dict) and isinstance(value.get("choices"), list):
        choices: list[Json] = value["choices"]
        return choices
    if isinstance(value, list) and value and all(_is_message(item) for item in value):
        return [_choice(number, message, known_reason) for number, message in enumerate(value)]
    if _is_message(value):
        return [_choice(0, value, known_reason)]
    # Anything else is what the model said, letter for letter: a streamed structured answer is JSON text without a message.
    text = value if isinstance(value, str) else given if isinstance(given, str) else orjson.dumps(given).decode()
    return [_choice(0, {"role": "assistant", "content": text}, known_reason)]


def _output_value(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    try:
        return orjson.loads(given)
    except orjson.JSONDecodeError:
        if given.lstrip().startswith(('{"role"', '{"tool_calls"', '[{"role"')):
            raise FormatError(RejectReason.TRUNCATED, "the output begins as a message and is cut off") from None
        return given


def _choice(number: int, message: Json, known_reason: str | None) -> Json:
    reason = known_reason
    if gen_ai.in_parts(message):
        reason = gen_ai.finish_reason(message) or known_reason
        message = gen_ai.chat_messages(message)[-1]
    said = _without_nulls(message)
    said["role"] = said.get("role") or "assistant"
    calls = said.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        if isinstance(call, dict):
            # Pieces of streamed calls come without a type, and with a position that belongs to the stream.
            call.setdefault("type", "function")
            call.pop("index", None)
    return {"index": number, "message": said, "finish_reason": reason}


def _is_message(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    if gen_ai.in_parts(value):
        return True
    spoken = "content" in value or "tool_calls" in value or "function_call" in value
    return spoken and (value.get("role") is None or isinstance(value["role"], str))


def _json_of(value: Any, what: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        if _OPENS_JSON.match(value):
            detail = f"the {what} begins as JSON and breaks off ({error.msg} at character {error.pos} of {len(value)})"
            raise FormatError(RejectReason.TRUNCATED, detail) from None
        return value


def _response_format(metadata: Mapping[str, Any]) -> Json | None:
    given = metadata.get("response_format")
    value = parsed(given)
    if isinstance(value, dict):
        # The wrapper writes down a pydantic model as its bare schema; the API takes that as `json_schema`.
        if "type" in value and value["type"] in ("text", "json_object", "json_schema"):
            return value
        return {"type": "json_schema", "json_schema": {"name": str(value.get("title") or "answer"), "schema": value}}
    if isinstance(given, str) and _OPENS_JSON.match(given):
        raise FormatError(RejectReason.TRUNCATED, "metadata.response_format is cut off")
    return None


def _origin(observation: Json, url: str | None) -> Json:
    origin = {
        "trace_id": observation.get("traceId"),
        "url": url,
        "trace_name": observation.get("traceName"),
        "name": observation.get("name"),
        "environment": observation.get("environment"),
        "prompt": observation.get("promptName"),
        "prompt_version": observation.get("promptVersion"),
    }
    return {key: value for key, value in origin.items() if value not in (None, "")}


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, dict) else None


def _without_nulls(message: Any) -> Any:
    """A message without the fields an SDK wrote down as null; `content` stays, null says something there."""
    if not isinstance(message, dict):
        return message
    return {key: value for key, value in message.items() if value is not None or key == "content"}
