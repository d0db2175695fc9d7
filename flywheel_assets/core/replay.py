"""Replay: a logged request as it is put to a small model, and the answer in what comes back.

What belongs here: which fields of the log are repeated, where a prefix goes, what an OpenAI chat completion must hold.
What does not: sending it (`resources.evaluation`).

Answers are taken as the server gives them. A `<tool_call>` that the server left in the text stays text: parsing it here
would lift one engine's score and not another's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from flywheel_assets.core.rows import Answer, Json
from flywheel_assets.core.usage import Usage, usage_of

# What of a logged request says *what* was asked. The rest says how the teacher sampled, who asked, or how the answer
# travelled (temperature, top_p, n, seed, penalties, logprobs, stream, user, metadata, store, ...): not ours to repeat.
REPLAYED_FIELDS = (
    "messages",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
    "response_format",
    "stop",
    "max_tokens",
    "max_completion_tokens",
)
# How the teacher sampled: repeated only where it is asked again as it was.
SAMPLING_FIELDS = ("temperature", "top_p", "frequency_penalty", "presence_penalty", "logit_bias", "reasoning_effort")
SEED = 0
_NEEDS_TOOLS = ("tools", "tool_choice", "parallel_tool_calls")
_INSTRUCTING = ("system", "developer")
# What servers say of an answer that is not finished, in OpenAI's two words for it.
_CUT_OFF = {
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "content_filter": "content_filter",
    "safety": "content_filter",
}
_SHOWN_BYTES = 80


class UnusableAnswerError(ValueError):
    """A response holds no answer; the message says what it holds instead."""


def greedy_request(
    request: Mapping[str, Any],
    *,
    model: str,
    prefix_messages: Sequence[Json] = (),
    max_tokens: int,
    extra: Mapping[str, Any] | None = None,
) -> Json:
    """The greedy replay of a logged request, as it is sent.

    Messages, tools and `tool_choice` are those of the log; nothing is forced that was not. The prefix goes behind the
    leading system messages and before everything else: the instructions stay first, the real question stays last.
    `max_tokens` bounds the answer where the log sets no bound; `extra` is what the endpoint needs beside.
    """
    body = _replayed(request, model=model, prefix_messages=prefix_messages, max_tokens=max_tokens)
    return {**body, "temperature": 0, "seed": SEED, **(extra or {})}


def sampled_request(
    request: Mapping[str, Any], *, model: str, max_tokens: int, extra: Mapping[str, Any] | None = None
) -> Json:
    """The replay of a logged request as it was sampled then: another draw from the model that answered it."""
    sampling = {name: request[name] for name in SAMPLING_FIELDS if request.get(name) is not None}
    return {**_replayed(request, model=model, prefix_messages=(), max_tokens=max_tokens), **sampling, **(extra or {})}


def _replayed(request: Mapping[str, Any], *, model: str, prefix_messages: Sequence[Json], max_tokens: int) -> Json:
    body = {name: request[name] for name in REPLAYED_FIELDS if request.get(name) is not None}
    if not body.get("tools"):
        # Servers refuse an empty list of tools, and a choice among none.
        body = {name: value for name, value in body.items() if name not in _NEEDS_TOOLS}
    body["messages"] = with_prefix(request["messages"], prefix_messages)
    if "max_tokens" not in body and "max_completion_tokens" not in body:
        body["max_tokens"] = max_tokens
    return {**body, "model": model}


def with_prefix(messages: Sequence[Json], prefix: Sequence[Json]) -> list[Json]:
    """The messages of a request with a prefix in its place, behind the leading instructions."""
    start = next((at for at, message in enumerate(messages) if message["role"] not in _INSTRUCTING), len(messages))
    return [*messages[:start], *prefix, *messages[start:]]


def read_completion(content: bytes) -> tuple[Answer, Usage]:
    """The answer in a chat completion (its first choice counts), and its tokens.

    Raises UnusableAnswerError when it is no chat completion.
    """
    try:
        completion = json.loads(content)
    except (ValueError, RecursionError):
        raise UnusableAnswerError(f"not JSON: {content[:_SHOWN_BYTES]!r}") from None
    try:
        return _answer(completion["choices"][0]), usage_of(completion)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        fault = f"{type(error).__name__}: {error}"
        raise UnusableAnswerError(f"no chat completion ({fault}): {content[:_SHOWN_BYTES]!r}") from None


def answer_limit(body: Mapping[str, Any]) -> int | None:
    """The most completion tokens a request allows; None where it sets no bound."""
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    return limit if type(limit) is int else None


def _answer(choice: Mapping[str, Any]) -> Answer:
    message = choice["message"]
    calls = [dict(call["function"]) for call in message.get("tool_calls") or ()]
    if legacy := message.get("function_call"):
        calls.append(dict(legacy))
    for call in calls:
        call["arguments"] = _arguments(call.get("arguments"))
        if not isinstance(call["name"], str):
            raise TypeError("a tool call without a name")
    answer = Answer.from_message({"content": _text(message), "tool_calls": [{"function": call} for call in calls]})
    reason = choice.get("finish_reason")
    return replace(answer, cut_off=_CUT_OFF.get(reason.lower())) if isinstance(reason, str) else answer


def _arguments(found: Any) -> str:
    """The arguments of a call as JSON text; a call of a tool without parameters may come without any."""
    if found is None or found == "":
        return "{}"
    # Some servers answer with the arguments parsed: the same JSON, as text again.
    return found if isinstance(found, str) else json.dumps(found)


def _text(message: Mapping[str, Any]) -> str | None:
    """The text of an answer, read as that of a logged one: the text of its parts, or its refusal where it has no other."""
    content = message.get("content")
    if content is None:
        content = message.get("refusal")
    if isinstance(content, list):
        return "\n".join(_part(part) for part in content)
    if content is not None and not isinstance(content, str):
        raise TypeError("content that is not text")
    return content


def _part(part: Any) -> str:
    text = part.get("text", part.get("refusal"))
    if not isinstance(text, str):
        raise TypeError("a part of the content that is not text")
    return text
