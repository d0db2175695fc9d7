"""Messages in parts, as OpenTelemetry's `gen_ai` conventions write them, as OpenAI messages.

What belongs here: `{"role", "parts": [{"type": "text" | "tool_call" | "tool_call_response" | ...}]}` and tool definitions.
What does not: where such messages were found. A part of another kind is kept as it is, for the workload profile to judge;
reasoning is left out, since no chat completion carries it.
"""

from __future__ import annotations

from typing import Any

import orjson

from flywheel_assets.core.rows import Json

_REASONING = frozenset({"reasoning", "thinking"})
_FINISH_REASONS = {"tool_call": "tool_calls"}


def in_parts(message: Any) -> bool:
    """Whether a message is written in parts."""
    return isinstance(message, dict) and isinstance(message.get("parts"), list)


def chat_messages(message: Json) -> list[Json]:
    """The OpenAI messages one message in parts holds: every tool's answer becomes a message of its own."""
    parts = [part for part in message["parts"] if isinstance(part, dict)]
    answers = [_tool_message(part) for part in parts if part.get("type") == "tool_call_response"]
    others = [part for part in parts if part.get("type") not in _REASONING | {"tool_call_response"}]
    if not others and answers:
        return answers
    calls = [_tool_call(part, number) for number, part in enumerate(others) if part.get("type") == "tool_call"]
    content = _content([part for part in others if part.get("type") != "tool_call"])
    spoken: Json = {"role": message.get("role"), "content": content}
    if calls:
        spoken["tool_calls"] = calls
    return [*answers, spoken]


def finish_reason(message: Json) -> str | None:
    """Why the model stopped, in OpenAI's words; None where the message does not say."""
    reason = message.get("finish_reason")
    return _FINISH_REASONS.get(reason, reason) if isinstance(reason, str) and reason else None


def system_message(instructions: Any) -> Json | None:
    """The system message of separately recorded instructions: a list of parts, or text."""
    if isinstance(instructions, str) and instructions:
        return {"role": "system", "content": instructions}
    if isinstance(instructions, list) and instructions:
        return {"role": "system", "content": _content([part for part in instructions if isinstance(part, dict)])}
    return None


def tools(definitions: Any) -> list[Json]:
    """Tool definitions as OpenAI tools; flat ones (`name` beside `type`) are put into their `function`."""
    found = []
    for tool in definitions if isinstance(definitions, list) else ():
        if isinstance(tool, dict) and "function" not in tool and "name" in tool:
            inner = {key: value for key, value in tool.items() if key != "type" and value is not None}
            found.append({"type": tool.get("type") or "function", "function": inner})
        else:
            found.append(tool)
    return found


def _tool_call(part: Json, number: int) -> Json:
    arguments = part.get("arguments")
    if not isinstance(arguments, str):
        arguments = orjson.dumps({} if arguments is None else arguments).decode()
    function = {"name": part.get("name"), "arguments": arguments}
    return {"id": part.get("id") or f"call_{number}", "type": "function", "function": function}


def _tool_message(part: Json) -> Json:
    answer = part.get("response", part.get("result"))
    if not isinstance(answer, str):
        answer = orjson.dumps(answer).decode()
    message: Json = {"role": "tool", "content": answer}
    return {**message, "tool_call_id": part["id"]} if part.get("id") else message


def _content(parts: list[Json]) -> str | list[Json] | None:
    """One text as text, several parts as a list of OpenAI parts, none as nothing."""
    if not parts:
        return None
    shown = [_part(part) for part in parts]
    if len(shown) == 1 and shown[0].get("type") == "text":
        text: str | None = shown[0].get("text")
        return text
    return shown


def _part(part: Json) -> Json:
    if part.get("type") == "text":
        return {"type": "text", "text": part.get("content", part.get("text"))}
    if part.get("type") == "uri" and part.get("modality") == "image":
        return {"type": "image_url", "image_url": {"url": part.get("uri")}}
    return part
