"""Scrubbing: personal data and secrets of one record replaced by placeholders, wherever in the record they stand.

What belongs here: the walk over a record, and what of it is no text of anybody's (names of tools, types, keys). What does
not: what is found (`detect`) and what stands there instead (`placeholders`).

The order of the walk is the order of the numbers: tools, messages, answer, then the rest. A later record of the same
conversation repeats the tools and the messages and goes on with the answer, so its placeholders begin with the same
numbers; nothing else may be visited before the answer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from flywheel_assets.core.cleaning.json_text import is_json_text, rewrite_values
from flywheel_assets.core.cleaning.placeholders import Placeholders
from flywheel_assets.core.cleaning.policy import CleaningPolicy, Entity, allow_pattern
from flywheel_assets.core.rows import Json

Rewrite = Callable[[str, str | None], str]

# The names a record is found by, and numbers of the envelope.
_UNTOUCHED = frozenset({"id", "workload_id", "timestamp", "latency_ms", "cost_usd"})
# Their names tell nothing about their values: a `session_id` is no secret.
_WITHOUT_CONTEXT = frozenset({"client_id", "session_id", "source"})
_VISITED_FIRST = frozenset({"request", "response"})
# In this order, which is part of the numbers' order: that of a set would differ from process to process.
_SCHEMAS = ("tools", "response_format", "tool_choice")
_SCHEMA_TEXT = frozenset({"description", "title", "$comment", "default", "const", "enum", "example", "examples"})
_SHORTEST = 4
_SHORTEST_NUMBER = 1_000_000
# JSON in JSON in JSON: further down, text is scanned as text.
_JSON_DEPTH = 4
# Text that comes again and again (system prompts, descriptions of tools) is looked at once a process and policy: what one
# workload leaves alone, another may have to scrub.
_REMEMBERED_TEXTS = 8192
_REMEMBERED_LENGTHS = range(8, 20_000)

# Of the values that a refusal quotes, plain words stay: what is left of a cut secret has no form to know it by.
_QUOTED = re.compile(r"""'(?![A-Za-z_. ]{0,32}')[^']*'|"(?![A-Za-z_. ]{0,32}")[^"]*\"""")


def scrub_record(record: Json, body: bytes, policy: CleaningPolicy) -> Counter[Entity]:
    """Replace in place what must not be kept of a parsed record; returns how many values of each kind were replaced.

    `body` is the record's JSON. Keys, names of tools, `id` and `workload_id` stay; of schemas only descriptions, defaults
    and examples are text. Scrubbing a scrubbed record changes nothing.
    """
    placeholders = Placeholders(policy.entities, _allow(policy.allow), body)
    _rewrite_record(record, _Texts(placeholders, _clean_texts(policy.entities, policy.allow)).rewrite)
    if placeholders.replaced and (repeated := placeholders.repeated()) is not None:
        _rewrite_record(record, lambda text, _: placeholders.replace_repeated(text, repeated))
    return placeholders.replaced


def scrub_detail(detail: str, policy: CleaningPolicy) -> str:
    """The detail of a refusal, which may quote the line it refuses."""
    placeholders = Placeholders(policy.entities, _allow(policy.allow), b"")
    return placeholders.scrub(_QUOTED.sub("'...'", detail))


_allow = lru_cache(maxsize=64)(allow_pattern)


class _Texts:
    """Rewrites the texts of one record."""

    def __init__(self, placeholders: Placeholders, clean: set[str]) -> None:
        self._placeholders, self._clean = placeholders, clean
        self._depth = 0

    def rewrite(self, text: str, field: str | None) -> str:
        """One text; `field` is the name of the field it is the value of."""
        if len(text) < _SHORTEST:
            return text
        if text in self._clean and field is None:
            return text
        if self._depth < _JSON_DEPTH and is_json_text(text):
            self._depth += 1
            new = rewrite_values(text, self.rewrite)
            self._depth -= 1
            return new
        new = self._placeholders.scrub(text, field)
        if new == text and field is None and len(text) in _REMEMBERED_LENGTHS:
            self._remember_clean(text)
        return new

    def _remember_clean(self, text: str) -> None:
        if len(self._clean) >= _REMEMBERED_TEXTS:
            self._clean.clear()
        self._clean.add(text)


@lru_cache(maxsize=16)
def _clean_texts(entities: frozenset[Entity], allow: tuple[str, ...]) -> set[str]:
    """The texts in which a policy was seen to replace nothing: empty at first, and filled by its records."""
    return set()


def _rewrite_record(record: Json, rewrite: Rewrite) -> None:
    request, response = record["request"], record["response"]
    for name in _SCHEMAS:
        _rewrite_schema(request.get(name), rewrite)
    for message in request["messages"]:
        _rewrite_message(message, rewrite)
    for choice in response["choices"]:
        if type(choice) is dict and type(choice.get("message")) is dict:
            _rewrite_message(choice["message"], rewrite)
    for name, value in request.items():
        if name != "messages" and name not in _SCHEMAS:
            request[name] = _rewritten(value, name, rewrite, numbers=False)
    _rewrite_around_answers(response, rewrite)
    for name, value in record.items():
        if name in _UNTOUCHED or name in _VISITED_FIRST:
            continue
        if name == "feedback" and type(value) is dict and type(value.get("correction")) is dict:
            _rewrite_message(value["correction"], rewrite)
        field = None if name in _WITHOUT_CONTEXT else name
        record[name] = _rewritten(value, field, rewrite, numbers=name != "feedback")


def _rewrite_around_answers(response: Json, rewrite: Rewrite) -> None:
    for name, value in response.items():
        if name != "choices":
            response[name] = _rewritten(value, None, rewrite, numbers=False)
            continue
        for choice in value:
            if type(choice) is dict:
                for inner, content in choice.items():
                    if inner != "message":
                        choice[inner] = _rewritten(content, None, rewrite, numbers=False)


def _rewrite_message(message: Json, rewrite: Rewrite) -> None:
    for name, value in message.items():
        if name == "role":
            continue
        if name == "tool_calls" and type(value) is list:
            for call in value:
                _rewrite_call(call, rewrite)
        elif type(value) is str:
            message[name] = rewrite(value, None)
        else:
            message[name] = _rewritten(value, None, rewrite, numbers=True)


def _rewrite_call(call: Any, rewrite: Rewrite) -> None:
    """A tool call: its arguments, and everything but the name of its tool."""
    if type(call) is not dict:
        return
    function = call.get("function")
    for name, value in call.items():
        if name not in ("function", "type"):
            call[name] = _rewritten(value, None, rewrite, numbers=False)
    if type(function) is dict:
        for name, value in function.items():
            if name != "name":
                function[name] = _rewritten(value, None, rewrite, numbers=True)


def _rewrite_schema(schema: Any, rewrite: Rewrite) -> None:
    if type(schema) is list:
        for item in schema:
            _rewrite_schema(item, rewrite)
    elif type(schema) is dict:
        for name, value in schema.items():
            if name in _SCHEMA_TEXT and type(value) is not dict:
                schema[name] = _rewritten(value, None, rewrite, numbers=False)
            else:
                _rewrite_schema(value, rewrite)


def _rewritten(value: Any, field: str | None, rewrite: Rewrite, *, numbers: bool) -> Any:
    """A value with its texts rewritten; lists and objects are rewritten in place. `numbers`: long ones are scanned."""
    kind = type(value)
    if kind is str:
        return rewrite(value, field)
    if kind is dict:
        for name, inner in value.items():
            value[name] = _rewritten(inner, name, rewrite, numbers=numbers)
    elif kind is list:
        for position, inner in enumerate(value):
            value[position] = _rewritten(inner, field, rewrite, numbers=numbers)
    elif kind is int and numbers and value >= _SHORTEST_NUMBER:
        written = str(value)
        new = rewrite(written, field)
        return value if new == written else new
    return value
